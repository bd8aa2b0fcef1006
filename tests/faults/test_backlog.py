"""A function much slower than its publishers: what waits is on the disk, not in the host's memory,
and publishers over HTTP are told to wait; what was taken is run, what was refused is not."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from mesh.event import Event
from mesh.ledger import file
from mesh.ledger.entries import Sampled
from mesh.ledger.expectations import Expectations, Expected
from mesh.ledger.publisher import Publisher
from mesh.transport import Receipt
from tests.faults.run import Run, watched
from tests.serving import Serving

FUNCTION = """
import os, time
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    with ledger.call("slow/in", event, attempt=ctx.attempt):
        if os.path.exists("{slow}"):
            time.sleep(0.5)
        return {{"n": event.id}}
---
[[trigger]]
topic = "in"
cap = {cap}
[output]
topic = "out"
[scale]
min = 2
max = 2
"""
MOST_RSS = 300 << 20
SMALL, LARGE = 100_000, 1_000_000
BURST = 200
"""Large events published at once: more than bodies may be coming, or wait to be stored."""
PUBLISHERS = 8


class Http:
    """The gateway as a transport to publish through; counts its answers."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(base_url=url, timeout=60, limits=limits)
        self.answers: Counter[str] = Counter()
        self.taken = 0
        """Bytes."""

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        (event,) = events
        headers = {
            "ce-specversion": "1.0", "ce-id": event.id, "ce-source": event.source,
            "ce-type": event.type, "content-type": "application/octet-stream",
        }  # fmt: skip
        url = f"/topics/{topic}/events"
        answer = await self.client.post(url, headers=headers, content=event.data)
        if answer.status_code == 202:
            self.answers["202"] += 1
            self.taken += len(event.data or b"")
            return [Receipt("stored")]
        assert answer.status_code == 429, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        self.answers[answer.json()["type"].rpartition(":")[2]] += 1
        return [Receipt("refused")]


class Backlog:
    """A run in which `cap` events come to wait: those of the burst that were taken, then small
    ones."""

    def __init__(self, directory: Path, cap: int) -> None:
        self.directory = directory
        self.cap = cap
        self.slow = directory / "slow"
        self.slow.touch()
        source = FUNCTION.format(address=directory / "ledger.sock", slow=self.slow, cap=cap)
        self.host = Serving(directory / "data", slow=source)
        self.http = Http(self.host.url)

    async def burst(self, publisher: Publisher) -> None:
        """Much more at once than can be stored at once."""
        data = os.urandom(LARGE)
        events = [Event(f"large-{n}", "/ledger", "t", data=data) for n in range(BURST)]
        await asyncio.gather(*(publisher.publish("in", [each]) for each in events))

    async def fill(self, publisher: Publisher, n: int) -> None:
        """One publisher, which goes on for a while after it was told that the queue is full."""
        data, count, told = os.urandom(SMALL), 0, 0
        while told < 5:
            event = Event(f"{n}-{count}", "/ledger", "t", data=data)
            (receipt,) = await publisher.publish("in", [event])
            told += receipt.status == "refused"
            count += 1

    async def watch(self, run: Run) -> None:
        while True:
            await run.sample(self.host.process.pid)
            await asyncio.sleep(0.02)

    async def run(self) -> str:
        """A line about it. Fails where a promise was not kept."""
        async with watched(self.directory) as run:
            publisher = Publisher(self.http, run.reporter)
            watching = asyncio.create_task(self.watch(run))
            await self.burst(publisher)
            assert self.http.answers["admission"] + self.http.answers["busy"] >= 10
            await asyncio.gather(*(self.fill(publisher, n) for n in range(PUBLISHERS)))
            depth = await run.client.depth("slow/in")
            waiting = depth.ready + depth.leased
            assert waiting >= self.cap - 50
            assert self.http.answers["queue-full"] >= 5 * PUBLISHERS
            self.slow.unlink()
            await run.drained(self.host.process.pid, "slow/in", within_s=60 + self.cap / 50)
            watching.cancel()
            await self.http.client.aclose()
            expected = Expected(
                subscription="slow/in", topic="in", outputs={"out": 1}, max_attempts=5
            )
            seen = await run.judge(
                Expectations(subscriptions=(expected,), max_rss=MOST_RSS), ["slow.dlq"]
            )
        assert seen["output"] == seen["published", "ok"] == self.http.answers["202"]
        most = max(each.rss for each in file.records(run.path) if isinstance(each, Sampled))
        size = self.http.taken >> 20
        told = seen["published", "refused"]
        return (
            f"{waiting} events waited, of {size} MB published; {told} publishes were told 429;"
            f" the host held {most >> 20} MB at the most"
        )


def soak(directory: Path, cap: int = 10_500) -> str:
    """Until 1 GB waits."""
    backlog = Backlog(directory, cap)
    try:
        return asyncio.run(backlog.run())
    finally:
        assert backlog.host.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(120)
def test_what_waits_for_a_slow_function_is_not_in_memory(tmp_path: Path) -> None:
    print(soak(tmp_path, 600))
