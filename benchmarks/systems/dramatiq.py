"""Dramatiq on Redis: two worker processes; its messages are always acknowledged at the end."""

from benchmarks.processes import Run
from benchmarks.systems.redis import StreamClient, missing, start_server

NAME = "Dramatiq, Redis"
NOTE = "8 threads each"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import json, os
import dramatiq, redis
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS"]))
out = redis.Redis.from_url(os.environ["REDIS"])


@dramatiq.actor
def add(data):
    data["added"] = 1
    out.xadd("bench.out", {"d": json.dumps(data)})
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    run.spawn(
        [
            *(run.options.peers_python, "-m", "dramatiq", "worker", "--path", run.dir),
            *("--processes", "2", "--threads", "8"),
        ],
        REDIS=url,
    )
    return url


class DramatiqClient(StreamClient):
    """Sends messages as Dramatiq's users do."""

    threads = 4

    def __init__(self, address: str) -> None:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker

        super().__init__(address)
        broker = RedisBroker(url=address)

        @dramatiq.actor(broker=broker)
        def add(data: object) -> None:
            """Only its name counts here."""

        self.actor = add

    def send(self, number: int, body: bytes) -> None:
        """One message."""
        import json

        self.actor.send(json.loads(body))


async def open_client(address: str) -> DramatiqClient:
    """Connect. What is sent before the workers are there waits for them."""
    return DramatiqClient(address)
