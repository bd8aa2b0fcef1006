"""A run that a ledger watches: a recorder beside it, publishers that tell it, and the judgement."""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import mesh
from mesh.ledger import file
from mesh.ledger.entries import Fault, FaultKind, Published, Record
from mesh.ledger.expectations import Expectations
from mesh.ledger.judge import judge
from mesh.ledger.publisher import AsyncReporter, Publisher
from mesh.ledger.readback import record_back
from mesh.ledger.recorder import recording
from mesh.ledger.report import record
from mesh.ledger.violation import Violation
from mesh.transport import Transport


class Run:
    """`watched` makes one."""

    def __init__(self, path: Path, client: Transport, reporter: AsyncReporter) -> None:
        self.path = path
        self.client = client
        self.reporter = reporter
        self.publisher = Publisher(client, reporter)

    @staticmethod
    def event(n: int, key: str) -> mesh.Event:
        """What `publish` publishes as number `n`."""
        data = b'{"n": %d}' % n
        return mesh.Event(f"e{n}", "/ledger", "t", extensions={"partitionkey": key}, data=data)

    async def publish(self, total: int, every_s: float) -> None:
        """Events `e0` to `total`, each again with the same id until it is known to be stored; 16
        at a time, each with a key of its own, slowed so that they flow while the faults last."""

        async def some(first: int) -> None:
            key = f"k{first}"
            for n in range(first, total, 16):
                event = self.event(n, key)
                while (await self.publisher.publish("in", [event], key=key))[0].status != "stored":
                    await asyncio.sleep(0.01)
                await asyncio.sleep(every_s)

        async with asyncio.TaskGroup() as group:
            for first in range(16):
                group.create_task(some(first))

    async def publish_paced(
        self,
        next_of: Callable[[int], Awaitable[range]],
        key: str,
        chance: random.Random,
        pause_s: float,
    ) -> None:
        """As `publish`, one publisher of several: the numbers that `next_of` gives, one to twenty
        events in a publish, until it gives none. Up to `pause_s` between two."""
        while numbers := await next_of(chance.choice((1, 1, 5, 20))):
            events = [
                mesh.Event(
                    f"e{n}", "/ledger", "t", extensions={"partitionkey": key}, data=b'{"n": %d}' % n
                )
                for n in numbers
            ]
            while events:
                receipts = await self.publisher.publish("in", events, key=key)
                events = [
                    event
                    for event, receipt in zip(events, receipts, strict=True)
                    if receipt.status != "stored"
                ]
                if events:
                    await asyncio.sleep(0.01)
            if pause_s:
                await asyncio.sleep(chance.uniform(0.0, pause_s))

    async def fault(self, kind: FaultKind, subject: str = "") -> None:
        """Say that this is about to be broken."""
        await self.reporter.report(record("fault", kind=kind, subject=subject))

    async def sample(self, pid: int, *, depth: int = -1) -> None:
        """What the host holds, and where the caller looked how much waits."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            fds = len(os.listdir(f"/proc/{pid}/fd"))
            held = {"rss": pages * os.sysconf("SC_PAGE_SIZE"), "fds": fds}
            await self.reporter.report(record("sampled", **held, depth=depth))

    async def drained(self, pid: int, *subscriptions: str, within_s: float) -> None:
        """Wait until nothing waits, and then for what could come twice."""
        async with asyncio.timeout(within_s):
            while True:
                depths = [await self.client.depth(name) for name in subscriptions]
                left = sum(each.ready + each.leased + each.delayed for each in depths)
                await self.sample(pid, depth=left)
                if left == 0:
                    break
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)

    async def verdict(
        self, expected: Expectations, letters: list[str]
    ) -> tuple[list[Violation], Counter[Any]]:
        """Read the mesh back and judge. What was broken, and what was seen, by kind of entry."""
        await record_back(self.client, expected, self.reporter, letters)
        found = await asyncio.to_thread(lambda: judge(file.entries(self.path), expected))
        return found, Counter(kind(each) for each in file.records(self.path))

    async def judge(self, expected: Expectations, letters: list[str]) -> Counter[Any]:
        """Read the mesh back and fail on any violation. What was seen, by kind of entry."""
        found, seen = await self.verdict(expected, letters)
        assert not found, "\n".join(map(str, found[:20]))
        return seen


def kind(entry: Record) -> Any:
    """An entry's tag, with the outcome of a publish and the kind of a fault."""
    tag = entry.__struct_config__.tag
    if isinstance(entry, Published):
        return tag, entry.outcome
    return (tag, entry.kind) if isinstance(entry, Fault) else tag


@contextlib.asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Run]:
    """A recorder in `directory` (the socket is `ledger.sock`), and a client of the mesh there."""
    path, address = directory / "run.ledger", directory / "ledger.sock"
    # Only processes are killed, never the machine: a sync now and then is enough.
    with recording(path, address, sync_s=1.0):
        client = await mesh.connect(f"embedded://{directory}/data/mesh.db")
        reporter = AsyncReporter(address)
        try:
            yield Run(path, client, reporter)
        finally:
            await reporter.close()
            await client.close()


async def under(work: Awaitable[None], fault: Callable[[], Awaitable[bool]], times: int) -> None:
    """Do the work while the fault strikes (it says whether it did), at least `times`."""
    working = asyncio.ensure_future(work)
    count = 0
    while count < times or not working.done():
        count += await fault()
    await working


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
