"""SIGSTOP of a host beyond its leases, and of instances beyond their calls' timeout: what comes
late counts for nothing, and each event ends once.

The host is the real one with its two lease times shortened, as one of a minute is too long to wait
for here.
"""

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict
from pathlib import Path
from unittest import mock

import pytest

import tests.serving
from mesh.ledger import file
from mesh.ledger.entries import Called
from mesh.ledger.expectations import Expectations, Expected
from tests.faults.run import Run, instances, watched
from tests.serving import Serving

LEASE_S = 0.6
SLOW_S = 0.05
SHORT = f"""
import sys
from collections import defaultdict
from funcrt import function, host, pool
function.LEASE_S = host.LEASE_S = {LEASE_S}
function.EXTEND_S = {LEASE_S / 3}
pool.GRACE_S = 0.2
from funcrt.cli import main
sys.exit(main())
"""
FUNCTION = """
import time
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    n = event.json()["n"]
    with ledger.call("add/in", event, attempt=ctx.attempt):
        if n % 8 == 5 and ctx.attempt == 1:
            raise ValueError(n)
        if n % 8 == 3:
            time.sleep({slow_s})
        return {{"n": n}}
---
timeout = "500ms"
[[trigger]]
topic = "in"
[output]
topic = "out"
[retry]
attempts = 8
base = "10ms"
max = "50ms"
[scale]
min = 2
max = 2
"""


class Stops:
    """A run in which the host is stopped beyond its leases `times` times, and as many instances
    beyond their calls' timeout."""

    def __init__(self, directory: Path, times: int) -> None:
        self.directory = directory
        self.times = times
        self.total = 500 * times
        self.drain_s = 10 + self.total / 8 * SLOW_S / 2  # two instances, one slow call in eight
        source = FUNCTION.format(address=directory / "ledger.sock", slow_s=SLOW_S)
        with mock.patch.object(tests.serving, "FUNCRT", [sys.executable, "-c", SHORT]):
            self.host = Serving(directory / "data", add=source)

    async def stop(self, run: Run) -> None:
        chance, host = random.Random(7), self.host.process.pid
        for _ in range(self.times):
            await asyncio.sleep(chance.uniform(0.1, 0.3))
            for pid in chance.sample(instances(host), 1):
                await run.fault("instance-kill", str(pid))  # which the host will do
                os.kill(pid, signal.SIGSTOP)
                async with asyncio.timeout(30):
                    while pid in instances(host):
                        await asyncio.sleep(0.02)
            await asyncio.sleep(chance.uniform(0.1, 0.3))
            await run.fault("pause", "host")
            os.kill(host, signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE_S)
            await run.fault("resume", "host")
            os.kill(host, signal.SIGCONT)

    async def run(self) -> str:
        async with watched(self.directory) as run:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.stop(run))
                group.create_task(run.publish(self.total, 0.05))
            await run.drained(self.host.process.pid, "add/in", within_s=60 + 2 * self.drain_s)
            expected = Expected(
                subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=8
            )
            seen = await run.judge(
                Expectations(subscriptions=(expected,), drain_s=self.drain_s), ["add.dlq"]
            )
        assert seen["output"] == self.total
        stale, late = self.again()
        assert stale >= self.times
        assert late >= self.times
        return (
            f"{self.times} stops of the host beyond its leases, after which {stale} calls were made"
            f" again uncharged; as many of instances, after which {late} were tried again"
        )

    def again(self) -> tuple[int, int]:
        """Calls made again as the same attempt, as their lease was lost; and events that a timeout
        was charged to."""
        attempts: dict[str, list[int]] = defaultdict(list)
        for entry in file.records(self.directory / "run.ledger"):
            if isinstance(entry, Called):
                attempts[entry.id].append(entry.attempt)
        stale = sum(len(each) - len(set(each)) for each in attempts.values())
        fails = {f"e{n}" for n in range(5, self.total, 8)}
        late = sum(max(each) > 1 + (name in fails) for name, each in attempts.items())
        return stale, late


def soak(directory: Path, times: int = 100) -> str:
    """The same, longer."""
    stops = Stops(directory, times)
    try:
        return asyncio.run(stops.run())
    finally:
        assert stops.host.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(120)
def test_stops_beyond_the_lease_lose_and_double_nothing(tmp_path: Path) -> None:
    print(soak(tmp_path, 2))
