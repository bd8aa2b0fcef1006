"""SIGKILL of hosts and instances while events flow; a ledger in a process of its own judges it."""

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from mesh.ledger.expectations import Expectations, Expected
from tests.faults.kills import Kind, Round, run_round
from tests.faults.run import instances, under, watched
from tests.serving import Serving

TOTAL = 20_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "kills"), [("host-kill", 50), ("instance-kill", 500)])
def test_kills_lose_and_double_nothing(kind: Kind, kills: int, tmp_path: Path) -> None:
    found, seen = asyncio.run(run_round(Round(kind, kills, TOTAL, seed=7), tmp_path))
    assert not found, "\n".join(map(str, found[:20]))
    assert seen["published", "ok"] == TOTAL
    assert seen["output"] + seen["dead"] == TOTAL
    assert seen["called"] > TOTAL, "the kills struck nothing"
    assert seen["fault", kind] >= kills


ORDERED = """
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    n, key = event.json()["n"], event.extensions["partitionkey"]
    with ledger.call("add/in", event, attempt=ctx.attempt, key=key):
        if n % 40 == 5 and ctx.attempt == 1 or n % 400 == 7:
            raise ValueError(n)
        return {{"n": n}}
---
[[trigger]]
topic = "in"
order = "key"
[output]
topic = "out"
[retry]
attempts = 3
base = "10ms"
max = "50ms"
[scale]
min = 2
max = 2
"""


@pytest.mark.timeout(200)
def test_kills_of_hosts_and_instances_keep_the_order_of_each_key(tmp_path: Path) -> None:
    """With failures to retry in place, and poison; else only what kills use up may die."""
    chance, total = random.Random(7), 2000
    expected = Expectations(
        subscriptions=(
            Expected(
                subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=3, order="key",
                dies=frozenset(("/ledger", f"e{n}") for n in range(7, total, 400)),
            ),
        ),
        drain_s=10.0,
        grace_s=0.2,  # the handler takes no time: who lost its host sees it before the next call
    )  # fmt: skip
    hosts: list[Serving] = []

    def start() -> None:
        address = tmp_path / "ledger.sock"
        hosts.append(Serving(tmp_path / "data", add=ORDERED.format(address=address)))

    async def main() -> None:
        async with watched(tmp_path) as run:
            await asyncio.to_thread(start)

            async def kill() -> bool:
                await asyncio.sleep(chance.uniform(0.05, 0.1))
                running = instances(hosts[-1].process.pid)
                if running and chance.random() < 0.8:
                    chosen = chance.choice(running)
                    await run.fault("instance-kill", str(chosen))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chosen, signal.SIGKILL)
                else:
                    await run.fault("host-kill")
                    hosts[-1].stop(signal.SIGKILL)
                    await asyncio.to_thread(start)
                return True

            await under(run.publish(total, 0.04), kill, 40)
            await run.drained(hosts[-1].process.pid, "add/in", within_s=60)
            seen = await run.judge(expected, ["add.dlq"])
        assert seen["published", "ok"] == total
        assert seen["output"] + seen["dead"] == total
        assert seen["dead"] >= total // 400
        assert seen["returned"] >= total
        assert min(seen["fault", "host-kill"], seen["fault", "instance-kill"]) >= 4

    try:
        asyncio.run(main())
    finally:
        assert [host.stop(signal.SIGTERM) for host in hosts[-1:]] == [0]
