"""FastStream on Redis streams: a consumer group, two worker processes, uvloop."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from benchmarks.processes import Run
from benchmarks.systems.redis import missing, start_server

NAME = "FastStream, Redis"
NOTE = "streams"
PEER = True

__all__ = ["NAME", "NOTE", "PEER", "missing", "open_client", "start"]

CODE = """
import os
from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

broker = RedisBroker(os.environ["REDIS"])
app = FastStream(broker)


@broker.subscriber(stream=StreamSub("bench.in", group="w", consumer=os.environ["WORKER"]))
@broker.publisher(stream="bench.out")
async def add(data: dict) -> dict:
    data["added"] = 1
    return data
"""


def start(run: Run) -> str:
    """The server's URL."""
    url = start_server(run)
    (run.dir / "worker.py").write_text(CODE)
    for number in range(2):
        run.spawn(
            [
                run.options.peers_python,
                "-m",
                "faststream",
                "run",
                "worker:app",
                "--app-dir",
                run.dir,
                "--loop",
                "uvloop:new_event_loop",
                "--log-level",
                "error",
            ],
            REDIS=url,
            WORKER=str(number),
        )
    return url


class RedisClient:
    """Publishes with FastStream's own broker, as its users do; reads the results' stream."""

    threads = 0

    def __init__(self, broker: Any, raw: Any) -> None:
        self.broker = broker
        self.raw = raw

    async def publish(self, number: int, body: bytes) -> None:
        """One entry, confirmed by its id."""
        import json

        await self.broker.publish(json.loads(body), stream="bench.in")

    async def results(self) -> AsyncIterator[Iterable[bytes]]:
        """The outputs' bodies."""
        from faststream.redis.parser import BinaryMessageFormatV1

        last = b"0"
        while True:
            for _, entries in await self.raw.xread({"bench.out": last}, count=500, block=1000):
                last = entries[-1][0]
                yield [BinaryMessageFormatV1.parse(e[b"__data__"])[0] for _, e in entries]

    async def close(self) -> None:
        """Let go."""
        await self.broker.stop()
        await self.raw.aclose()


async def open_client(address: str) -> RedisClient:
    """Connect; wait for the group, for what comes before it is not seen by it."""
    import asyncio

    import redis.asyncio
    from faststream.redis import RedisBroker

    broker = RedisBroker(address)
    await broker.connect()
    raw = redis.asyncio.from_url(address)
    for _ in range(200):
        try:
            if await raw.xinfo_groups("bench.in"):
                break
        except redis.asyncio.ResponseError:
            pass
        await asyncio.sleep(0.05)
    return RedisClient(broker, raw)
