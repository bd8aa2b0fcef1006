"""Celery on Redis: two workers, acknowledged after the task (`acks_late`)."""

import asyncio

from benchmarks.processes import Run
from benchmarks.systems.redis import StreamClient, missing, start_server

NAME = "Celery, Redis"
NOTE = "solo pool, acks late"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import json, os
import redis
from celery import Celery

app = Celery(broker=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
out = redis.Redis.from_url(os.environ["REDIS"])


@app.task(name="add")
def add(data):
    data["added"] = 1
    out.xadd("bench.out", {"d": json.dumps(data)})
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    for number in range(2):
        run.spawn(
            [
                *(run.options.peers_python, "-m", "celery", "--app", "worker"),
                *("--workdir", run.dir, "worker", "--pool", "solo", "--hostname", f"w{number}@%h"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                *("--loglevel", "error"),
            ],
            REDIS=url,
        )
    return url


class CeleryClient(StreamClient):
    """Sends tasks as Celery's users do."""

    threads = 4

    def __init__(self, address: str) -> None:
        from celery import Celery

        super().__init__(address)
        self.app = Celery(broker=address)

    def send(self, number: int, body: bytes) -> None:
        """One task."""
        import json

        self.app.send_task("add", (json.loads(body),), ignore_result=True)


async def open_client(address: str) -> CeleryClient:
    """Connect; wait for both workers, by what they say themselves."""
    client = CeleryClient(address)
    for _ in range(100):
        if len(await asyncio.to_thread(client.app.control.ping, timeout=0.3) or ()) == 2:
            return client
    raise SystemExit("celery: the workers do not answer")
