"""SIGKILL of hosts and instances while events flow. The ledger is this process: it publishes,
and reads outputs and dead letters at the end."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import mesh
from tests.serving import Serving

FUNCTION = """
def handler(event):
    return {**event.json(), "added": True}
---
[[trigger]]
topic = "in"
[output]
topic = "out"
[retry]
attempts = 5
base = "10ms"
max = "50ms"
[scale]
min = 2
max = 2
"""


class Ledger:
    """Publishes `total` events, each again with the same id until it is known to be stored."""

    def __init__(self, client: Any, total: int) -> None:
        self.client = client
        self.total = total
        self.stored = 0

    async def publish(self, every_s: float) -> None:
        """16 at a time, slowed so that they flow for as long as the faults last."""

        async def some(first: int) -> None:
            for n in range(first, self.total, 16):
                event = mesh.Event(f"e{n}", "/ledger", "t", data=b'{"n": %d}' % n)
                while (await self.client.publish("in", [event]))[0].status != "stored":
                    await asyncio.sleep(0.01)
                self.stored += 1
                await asyncio.sleep(every_s)

        async with asyncio.TaskGroup() as group:
            for first in range(16):
                group.create_task(some(first))

    async def ends(self) -> list[str]:
        """The ids of the events behind every output and dead letter, once there are enough, and
        after a while in which more could come."""
        seen: list[str] = []

        async def outputs() -> None:
            async for item in self.client.tail("out", "earliest"):
                seen.append(item.event.extensions["causationid"])

        async def letters() -> None:
            async for item in self.client.tail("add.dlq", "earliest"):
                seen.append(item.event.json()["event"]["id"])

        tasks = [asyncio.ensure_future(outputs()), asyncio.ensure_future(letters())]
        async with asyncio.timeout(60):
            while len(seen) < self.total:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return seen


@contextlib.asynccontextmanager
async def ledger(data: Path, total: int) -> AsyncIterator[Ledger]:
    client = await mesh.connect(f"embedded://{data}/mesh.db")
    try:
        yield Ledger(client, total)
    finally:
        await client.close()


def judge(seen: list[str], total: int) -> None:
    missing = {f"e{n}" for n in range(total)} - set(seen)
    assert not missing, f"{len(missing)} lost, e.g. {sorted(missing)[:5]}"
    assert len(seen) == total, f"{len(seen) - total} doubled"


async def under(work: Awaitable[None], fault: Callable[[], Awaitable[bool]], times: int) -> None:
    """Do the work while the fault strikes (it says whether it did), at least `times`."""
    working = asyncio.ensure_future(work)
    count = 0
    while count < times or not working.done():
        count += await fault()
    await working


@pytest.mark.timeout(300)
def test_fifty_kills_of_the_host_lose_and_double_nothing(tmp_path: Path) -> None:
    total, chance = 20_000, random.Random(7)
    hosts = [Serving(tmp_path / "data", add=FUNCTION)]

    async def main() -> None:
        async def kill() -> bool:
            await asyncio.sleep(chance.uniform(0.02, 0.4))
            hosts[-1].stop(signal.SIGKILL)
            hosts.append(await asyncio.to_thread(Serving, tmp_path / "data", add=FUNCTION))
            return True

        async with ledger(tmp_path / "data", total) as book:
            await under(book.publish(0.02), kill, 50)
            judge(await book.ends(), total)

    try:
        asyncio.run(main())
    finally:
        assert hosts[-1].stop(signal.SIGTERM) == 0


@pytest.mark.timeout(300)
def test_five_hundred_kills_of_instances_lose_and_double_nothing(tmp_path: Path) -> None:
    total, chance = 20_000, random.Random(7)
    host = Serving(tmp_path / "data", add=FUNCTION)

    async def main() -> None:
        async def kill() -> bool:
            await asyncio.sleep(chance.uniform(0.005, 0.04))
            running = instances(host.process.pid)
            with contextlib.suppress(ProcessLookupError):
                if running:
                    os.kill(chance.choice(running), signal.SIGKILL)
                    return True
            return False

        async with ledger(tmp_path / "data", total) as book:
            publishing = book.publish(0.012)
            await under(publishing, kill, 500)
            judge(await book.ends(), total)

    try:
        asyncio.run(main())
    finally:
        assert host.stop(signal.SIGTERM) == 0


def instances(host: int) -> list[int]:
    """The processes three below a host: runtime zygote, function zygote, instance."""
    level = [host]
    for _ in range(3):
        below: list[int] = []
        for pid in level:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                below += [int(child) for child in text.split()]
        level = below
    return level
