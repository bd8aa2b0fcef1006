"""SIGKILL of hosts or instances while events flow, a round at a time; a ledger in a process of its
own judges each. `make test` runs a small round of each kind, `tests.faults.soak` the long ones.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mesh.ledger.expectations import Expectations, Expected
from mesh.ledger.violation import Violation
from tests.faults.run import Run, instances, watched
from tests.serving import Serving

__all__ = ["Kind", "Round", "run_round"]

Kind = Literal["host-kill", "instance-kill"]

FUNCTION = """
import time

from mesh.ledger.report import Reporter, record

ledger = Reporter("{address}")

def handler(event, ctx):
    call = {{"source": event.source, "id": event.id, "attempt": ctx.attempt}}
    ledger.report(record("called", subscription="add/in", **call))
    if {slow}:
        time.sleep(event.json()["n"] % 5 / 1000)
    return {{**event.json(), "added": True}}
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
EXPECTED = Expectations(
    subscriptions=(
        Expected(subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=5),
    ),
    max_rss=300 << 20,
    max_fds=200,
    drain_s=10.0,
)
PUBLISHERS = 16
PAUSE_S = {"host-kill": 0.4, "instance-kill": 0.0}
"""At most, of a publisher between two publishes: while hosts are killed events have to flow all
the time, and calls to last a little, or a kill finds a host that has done all it had."""
AHEAD = 2
"""Events may be published for so many kills that are still to come."""
BACKLOG = 4000
"""Publishers wait above it, so that a round of any length is bounded in memory."""


@dataclass(frozen=True)
class Round:
    """So many kills, spread evenly over so many events. A seed decides when and whom; what the
    machine does meanwhile is not in its hands, so that it does not repeat a history."""

    kind: Kind
    kills: int
    events: int
    seed: int


class _Pace:
    """Kills and events wait for each other, so that neither is over first."""

    def __init__(self, asked: Round) -> None:
        self.asked = asked
        self.each = -(-asked.events // asked.kills)
        self.sent = self.kills = 0
        self.backlog = 0
        self.changed = asyncio.Condition()

    async def may_send(self, most: int) -> range:
        """The numbers of the events to publish next; none at the end."""
        async with self.changed:
            await self.changed.wait_for(self._room)
            first, self.sent = self.sent, min(self.sent + most, self.asked.events)
            self.changed.notify_all()
            return range(first, self.sent)

    def _room(self) -> bool:
        return self.sent < (self.kills + AHEAD) * self.each and self.backlog < BACKLOG

    async def may_kill(self) -> None:
        """Return when the events of the kills before have been published."""
        async with self.changed:
            await self.changed.wait_for(
                lambda: self.sent >= min(self.kills * self.each, self.asked.events)
            )

    async def saw(self, *, kills: int = 0, backlog: int | None = None) -> None:
        """A kill was done, or somebody looked at the backlog."""
        async with self.changed:
            self.kills += kills
            self.backlog = self.backlog if backlog is None else backlog
            self.changed.notify_all()


class _Killing:
    """One round on its way."""

    def __init__(self, asked: Round, directory: Path, run: Run) -> None:
        self.asked = asked
        self.directory = directory
        self.run = run
        self.chance = random.Random(asked.seed)
        self.pace = _Pace(asked)
        self.host: Serving | None = None
        self.killed: set[tuple[int, str]] = set()

    async def start(self) -> None:
        """A host, in service."""
        address = self.directory / "ledger.sock"
        self.host = await asyncio.to_thread(
            Serving,
            self.directory / "data",
            add=FUNCTION.format(address=address, slow=self.asked.kind == "host-kill"),
        )

    @property
    def pid(self) -> int:
        assert self.host is not None
        return self.host.process.pid

    async def kill(self) -> None:
        """All the kills."""
        kill = self._kill_host if self.asked.kind == "host-kill" else self._kill_instance
        while self.pace.kills < self.asked.kills:
            await self.pace.may_kill()
            if await kill():
                await self.pace.saw(kills=1)

    async def _kill_host(self) -> bool:
        assert self.host is not None
        await asyncio.sleep(self.chance.uniform(0.02, 0.4))
        await self.run.sample(self.pid)
        await self.run.fault("host-kill")
        self.host.stop(signal.SIGKILL)
        await self.start()
        return True

    async def _kill_instance(self) -> bool:
        await asyncio.sleep(self.chance.uniform(0.002, 0.03))
        running = [(pid, begun) for pid in instances(self.pid) if (begun := _begun(pid))]
        running = [each for each in running if each not in self.killed]
        if not running:
            return False
        chosen = self.chance.choice(running)
        await self.run.fault("instance-kill", str(chosen[0]))
        try:
            os.kill(chosen[0], signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.killed.add(chosen)
        return True

    async def look(self) -> None:
        """Watch what the host holds; one that was killed has no say."""
        while True:
            depth = await self.run.client.depth("add/in")
            waiting = depth.ready + depth.leased + depth.delayed
            await self.run.sample(self.pid, depth=waiting)
            await self.pace.saw(backlog=waiting)
            await asyncio.sleep(0.2)

    async def go(self) -> None:
        """Publish and kill, to the end of both; then wait until nothing waits."""
        looking = asyncio.create_task(self.look()) if self.asked.kind == "instance-kill" else None
        async with asyncio.TaskGroup() as group:
            group.create_task(self.kill())
            for key in range(PUBLISHERS):
                group.create_task(
                    self.run.publish_paced(
                        self.pace.may_send, f"k{key}", self.chance, PAUSE_S[self.asked.kind]
                    )
                )
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
            if not looking.cancelled():
                looking.result()
        await self.run.drained(self.pid, "add/in", within_s=120)


async def run_round(asked: Round, directory: Path) -> tuple[list[Violation], "Counter[Any]"]:
    """One round in a directory of its own, which keeps the ledger: what it broke, and what was
    seen, by kind of entry. Raises where the host does not end as it should."""
    async with watched(directory) as run:
        killing = _Killing(asked, directory, run)
        await killing.start()
        try:
            await killing.go()
            found, seen = await run.verdict(EXPECTED, ["add.dlq"])
        finally:
            assert killing.host is not None
            code = killing.host.stop(signal.SIGTERM)
    if code != 0:
        raise RuntimeError(f"the host ended with {code}: {directory / 'serve.err'}")
    return found, seen


def _begun(pid: int) -> str:
    """When a process began, which tells it from others that had its pid; "" for one that ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
