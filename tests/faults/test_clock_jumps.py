"""The wall clock of a real host jumps by an hour each way, while it runs and while it is down: no
retry comes early or an hour late, no lease is lost, nothing is lost or doubled."""

import asyncio
import itertools
import mmap
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import pytest

import mesh
from mesh.ledger import file
from mesh.ledger.entries import Called
from mesh.ledger.expectations import Expectations, Expected
from tests.faults.run import Run, watched
from tests.serving import Serving

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler for the clock's shim"
)

FUNCTION = """
import time
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    n = event.json()["n"]
    with ledger.call("add/in", event, attempt=ctx.attempt):
        if n % 8 == 5 and ctx.attempt == 1 or n % 8 == 7:
            raise ValueError(n)
        if n % 8 == 3:
            time.sleep(0.2)
        return {{"n": n}}
---
[[trigger]]
topic = "in"
start = "earliest"
[output]
topic = "out"
[retry]
attempts = 3
backoff = "constant"
base = "1s"
[scale]
min = 4
max = 4
"""
HOUR = 3600
WHILE_IT_RUNS = [HOUR, 0, -HOUR, 0]
WHILE_IT_IS_DOWN = [HOUR, 0, -HOUR, HOUR, 0]
"""Seconds off, one after the other."""
GRACE_S = 1.0
AGAIN = 32
"""Events that are published again after each jump."""


class Wall:
    """How far a host's wall clock is off the machine's."""

    def __init__(self, directory: Path) -> None:
        shim = directory / "wallclock.so"
        source = Path(__file__).with_name("wallclock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source], check=True)
        path = directory / "offset"
        path.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(shim), "WALL_CLOCK_OFFSET": str(path)}
        with path.open("r+b") as opened:
            self.map = mmap.mmap(opened.fileno(), 8)

    def jump(self, seconds: int) -> None:
        self.map[:] = seconds.to_bytes(8, "little", signed=True)


class Jumps:
    """A run in which they happen, `rounds` times."""

    def __init__(self, directory: Path, rounds: int = 1) -> None:
        self.directory = directory
        self.rounds = rounds
        self.total = rounds * 320
        self.wall = Wall(directory)
        self.kills: list[float] = []
        self.forward: list[float] = []
        self.host: Serving | None = None

    def serve(self) -> None:
        source = FUNCTION.format(address=self.directory / "ledger.sock")
        self.host = Serving(self.directory / "data", env=self.wall.env, add=source)

    async def jumps(self, run: Run) -> None:
        """Each after the other; what was published before each is published again after it."""
        for _ in range(self.rounds):
            for seconds in WHILE_IT_RUNS:
                await asyncio.sleep(0.4)
                await self.jump(run, seconds)
                await self.publish_again(run)
            for seconds in WHILE_IT_IS_DOWN:
                await asyncio.sleep(0.4)
                assert self.host is not None
                await run.fault("host-kill")
                self.kills.append(time.monotonic())
                self.host.stop(signal.SIGKILL)
                await self.jump(run, seconds)
                await asyncio.sleep(0.1)  # publishers go on, by the machine's own clock
                await asyncio.to_thread(self.serve)
                await self.publish_again(run)

    async def jump(self, run: Run, seconds: int) -> None:
        await run.fault("other", f"clock {seconds:+}")
        self.forward.append(time.monotonic())
        self.wall.jump(seconds)

    async def publish_again(self, run: Run) -> None:
        receipts = await run.publisher.publish("in", [event(n) for n in range(AGAIN)])
        assert all(receipt.duplicate for receipt in receipts)

    async def run(self) -> None:
        async with watched(self.directory) as run:
            await asyncio.to_thread(self.serve)
            await run.publisher.publish("in", [event(n) for n in range(AGAIN)])
            async with asyncio.TaskGroup() as group:
                group.create_task(self.jumps(run))
                group.create_task(run.publish(self.total, 0.25))
            assert self.host is not None
            await run.drained(self.host.process.pid, "add/in", within_s=30)
            dies = frozenset(("/ledger", f"e{n}") for n in range(7, self.total, 8))
            expected = Expected(
                subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=3, dies=dies
            )
            seen = await run.judge(
                Expectations(subscriptions=(expected,), drain_s=10.0), ["add.dlq"]
            )
        assert seen["output"] + seen["dead"] == self.total

    def end(self) -> None:
        if self.host is not None:
            assert self.host.stop(signal.SIGTERM) == 0

    def untimely(self) -> tuple[list[str], list[str]]:
        """What was tried again too early, and what was called again though no lease had ended."""
        calls: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for entry in file.records(self.directory / "run.ledger"):
            if isinstance(entry, Called):
                calls[entry.id].append((entry.at, entry.attempt))
        early, again = [], []
        for name, found in calls.items():
            for (at, attempt), (later, next_attempt) in itertools.pairwise(sorted(found)):
                if next_attempt == attempt:
                    # (An instance may go on for a moment once its host is gone.)
                    killed = any(at - GRACE_S <= kill <= later for kill in self.kills)
                    again += [name] * (not killed)
                elif later - at < 0.9:
                    early += [name] * (not any(at <= jump <= later for jump in self.forward))
        return early, again


def event(n: int) -> mesh.Event:
    return mesh.Event(f"e{n}", "/ledger", "t", data=b'{"n": %d}' % n)


def soak(directory: Path, rounds: int = 20) -> str:
    """The same, again and again; a line about it."""
    jumps = Jumps(directory, rounds)
    try:
        asyncio.run(jumps.run())
    finally:
        jumps.end()
    assert jumps.untimely() == ([], [])
    return f"{len(jumps.forward)} jumps of the clock, {len(jumps.kills)} of them while it was down"


@pytest.mark.timeout(120)
def test_an_hour_each_way_loses_and_doubles_nothing(tmp_path: Path) -> None:
    soak(tmp_path, 1)
