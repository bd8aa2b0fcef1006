"""Publishers that send each event again and again, from several processes at once, through the
socket and the gateway, while the host is killed: each ends once, and each repeat is told."""

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

import mesh
from mesh.event import Event
from mesh.ledger.expectations import Expectations, Expected
from mesh.ledger.publisher import AsyncReporter, Publisher
from mesh.transport import Receipt
from tests.faults.run import under, watched
from tests.serving import Serving

FUNCTION = """
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    with ledger.call("add/in", event, attempt=ctx.attempt):
        return {{"n": event.id}}
---
[[trigger]]
topic = "in"
[output]
topic = "out"
[scale]
min = 2
max = 2
"""
REPEATS = (1, 1, 3, 10, 30, 100, 300, 1000)
"""How often events are published: the first once, the second once, and so on, over and over."""
BATCH = 20
PAUSE_S = 0.15
"""Between a publisher's batches, so that they flow while the kills last."""


class Gateway:
    """HTTP at the address that a file names, which changes with each host."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.client = httpx.AsyncClient(timeout=20)

    async def publish(self, topic: str, events: list[Event]) -> list[Receipt]:
        content = b"[%s]" % b",".join(event.to_json() for event in events)
        headers = {"content-type": "application/cloudevents-batch+json"}
        url = f"{self.where.read_text()}/topics/{topic}/events"
        try:
            answer = await self.client.post(url, content=content, headers=headers)
        except httpx.TransportError:
            return [Receipt("ambiguous")] * len(events)
        if answer.status_code == 503:
            return [Receipt("ambiguous")] * len(events)
        assert answer.status_code == 202, answer.text
        return [
            Receipt(row["status"], duplicate=row["duplicate"]) for row in answer.json()["receipts"]
        ]


async def publish_all(directory: str, how: str, seed: int, total: int, of: int) -> None:
    """One publisher process: its share of all repeats, each until it is stored; prints by event
    how often it was told that it is new, that it is not, and nothing."""
    chance, root = random.Random(seed), Path(directory)
    left = [n for n in range(total) for _ in range(share(n, seed, of))]
    chance.shuffle(left)
    told: dict[str, list[int]] = {}
    reporter = AsyncReporter(root / "ledger.sock")
    client = await mesh.connect(f"embedded://{root}/data/mesh.db")
    transport = Gateway(root / "gateway") if how == "http" else client
    publisher = Publisher(transport, reporter)

    async def some() -> None:
        while left:
            chosen = [left.pop() for _ in range(min(BATCH, len(left)))]
            events = [Event(f"e{n}", "/ledger", "t", data=b"{}") for n in chosen]
            receipts = await publisher.publish("in", events)
            for n, receipt in zip(chosen, receipts, strict=True):
                counts = told.setdefault(f"e{n}", [0, 0, 0])
                if receipt.status == "stored":
                    counts[receipt.duplicate] += 1
                else:
                    counts[2] += 1
                    left.append(n)
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(some())
    await client.close()
    await reporter.close()
    print(json.dumps(told))


def share(n: int, seed: int, of: int) -> int:
    """How often publisher `seed` of `of` publishes event `n`."""
    whole, rest = divmod(REPEATS[n % len(REPEATS)], of)
    return whole + ((n + seed) % of < rest)


class Repeats:
    """A run of `total` events in which the host is killed `kills` times."""

    def __init__(self, directory: Path, total: int, kills: int) -> None:
        self.directory = directory
        self.total = total
        self.kills = kills
        self.host: Serving | None = None

    def serve(self) -> None:
        source = FUNCTION.format(address=self.directory / "ledger.sock")
        self.host = Serving(self.directory / "data", add=source)
        (self.directory / "gateway.new").write_text(self.host.url)
        (self.directory / "gateway.new").rename(self.directory / "gateway")

    async def publishers(self) -> list[dict[str, list[int]]]:
        hows = ["socket", "http", "socket", "http"]
        running = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.test_repeats", str(self.directory), how,
                str(seed), str(self.total), str(len(hows)), stdout=asyncio.subprocess.PIPE,
            )
            for seed, how in enumerate(hows)
        ]  # fmt: skip
        said = await asyncio.gather(*(each.communicate() for each in running))
        assert [each.returncode for each in running] == [0] * len(hows)
        return [json.loads(out) for out, _ in said]

    async def run(self) -> str:
        async with watched(self.directory) as run:
            await asyncio.to_thread(self.serve)
            chance = random.Random(7)
            told: list[dict[str, list[int]]] = []

            async def publish() -> None:
                told.extend(await self.publishers())

            async def kill() -> bool:
                await asyncio.sleep(chance.uniform(0.3, 0.8))
                assert self.host is not None
                await run.fault("host-kill")
                self.host.stop(signal.SIGKILL)
                await asyncio.to_thread(self.serve)
                return True

            await under(publish(), kill, self.kills)
            assert self.host is not None
            await run.drained(self.host.process.pid, "add/in", within_s=60)
            expected = Expected(
                subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=5
            )
            seen = await run.judge(
                Expectations(subscriptions=(expected,), drain_s=10.0), ["add.dlq"]
            )
        assert seen["output"] == self.total
        return self.told(told, seen["fault", "host-kill"])

    def told(self, each: list[dict[str, list[int]]], kills: int) -> str:
        new: Counter[str] = Counter()
        again: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for told in each:
            for name, (first, repeats, unsure) in told.items():
                new[name] += first
                again[name] += repeats
                unknown[name] += unsure
        for n in range(self.total):
            name = f"e{n}"
            assert new[name] + again[name] == REPEATS[n % len(REPEATS)], name
            # Whoever stored it may have lost its receipt with the host.
            assert new[name] == 1 or (new[name] == 0 and unknown[name]), (name, new[name])
        assert unknown, "the kills came among the publishes"
        return (
            f"{self.total} events published {again.total() + new.total()} times by {len(each)}"
            f" processes, {kills} kills of the host, {unknown.total()} publishes without an"
            f" answer; {again.total()} receipts said that it was a repeat"
        )


def soak(directory: Path, total: int = 2000, kills: int = 60) -> str:
    """More of the same."""
    repeats = Repeats(directory, total, kills)
    try:
        return asyncio.run(repeats.run())
    finally:
        assert repeats.host is not None
        assert repeats.host.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(120)
def test_what_is_published_up_to_a_thousand_times_ends_once(tmp_path: Path) -> None:
    print(soak(tmp_path, 16, 3))


if __name__ == "__main__":
    where, by, *numbers = sys.argv[1:]
    asyncio.run(publish_all(where, by, *map(int, numbers)))
