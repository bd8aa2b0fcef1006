"""A publisher that only publishes: one event of 1 KB a call, at most 64 outstanding.

    python -m benchmarks.feed URL TOPIC EVENTS RATE

RATE is events a second; 0 is as fast as it goes. Prints how far it is once a second, and at the
end the publishes' own latency, as JSON lines.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from benchmarks.driver import OUTSTANDING, body_of, say
from benchmarks.table import percentile

SAMPLE = 50
"""Every so manieth publish is timed."""


class Feed:
    """Publishes numbered events and counts what was confirmed."""

    def __init__(self, mesh: Any, topic: str, rate: float) -> None:
        self.mesh = mesh
        self.topic = topic
        self.rate = rate
        self.began = time.perf_counter()
        self.stored = 0
        self.refused = 0
        self.waits: list[float] = []

    async def publish(self, numbers: Iterator[int]) -> None:
        """One event a call until there are no more; at a rate, each not before its time."""
        from mesh import Event

        for number in numbers:
            if self.rate:
                early = self.began + number / self.rate - time.perf_counter()
                if early > 0:
                    await asyncio.sleep(early)
            sent = time.perf_counter()
            event = Event(
                str(number), "/bench", "bench", None, None, "application/json", None, {},
                body_of(number),
            )  # fmt: skip
            (receipt,) = await self.mesh.publish(self.topic, [event])
            if receipt.status == "stored":
                self.stored += 1
            else:
                self.refused += 1
            if number % SAMPLE == 0:
                self.waits.append((time.perf_counter() - sent) * 1000)

    async def report(self) -> None:
        """Say once a second how far it is."""
        while True:
            await asyncio.sleep(1)
            say(stored=self.stored, refused=self.refused)


async def main(url: str, topic: str, events: int, rate: float) -> None:
    """Publish all, then say how it went."""
    import mesh

    feed = Feed(await mesh.connect(url), topic, rate)
    numbers = iter(range(events))
    reporting = asyncio.ensure_future(feed.report())
    async with asyncio.TaskGroup() as group:
        for _ in range(OUTSTANDING):
            group.create_task(feed.publish(numbers))
    seconds = time.perf_counter() - feed.began
    reporting.cancel()
    say(
        seconds=seconds,
        stored=feed.stored,
        refused=feed.refused,
        p50=percentile(feed.waits, 50),
        p99=percentile(feed.waits, 99),
        cpu_s=time.process_time(),
    )
    await feed.mesh.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
