"""The floor on Redis: a redis-py loop in each of two processes, no framework, no retries."""

import asyncio
from typing import Any

from benchmarks.processes import Run
from benchmarks.systems.redis import StreamClient, missing, start_server

NAME = "bare redis-py"
NOTE = "no framework"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import json, os
import redis

server = redis.Redis.from_url(os.environ["REDIS"])
try:
    server.xgroup_create("bench.in", "w", id="0", mkstream=True)
except redis.ResponseError:
    pass  # the other worker has made it
while True:
    found = server.xreadgroup("w", os.environ["WORKER"], {"bench.in": ">"}, count=100, block=1000)
    for _, entries in found or ():
        pipe = server.pipeline(transaction=False)
        for _, fields in entries:
            data = json.loads(fields[b"d"])
            data["added"] = 1
            pipe.xadd("bench.out", {"d": json.dumps(data)})
        pipe.xack("bench.in", "w", *(entry for entry, _ in entries))
        pipe.execute()
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    for number in range(2):
        run.spawn([run.options.peers_python, run.dir / "worker.py"], REDIS=url, WORKER=str(number))
    return url


class BareClient(StreamClient):
    """One entry a call; the calls of one turn of the loop go out together, as nats-py's do."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self.sending: set[asyncio.Task[None]] = set()

    async def publish(self, number: int, body: bytes) -> None:
        """One entry, confirmed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((body, done))
        if len(self.waiting) == 1:
            task = asyncio.ensure_future(self._send())
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)
        await done

    async def _send(self) -> None:
        sent, self.waiting = self.waiting, []
        pipe: Any = self.raw.pipeline(transaction=False)
        for body, _ in sent:
            pipe.xadd("bench.in", {"d": body})
        await pipe.execute()
        for _, done in sent:
            done.set_result(None)


async def open_client(address: str) -> BareClient:
    """Connect. The group begins at the first entry, so nothing comes before it."""
    return BareClient(address)
