"""What an instance's death costs: the calls it had started, and nothing else."""

import asyncio
import random
from pathlib import Path
from typing import Any

from funcrt.manifest import ScaleSpec
from funcrt.pool import Pending, Pool
from funcrt.sandbox import Code
from funcrt.sandbox.protocol import Call, Result
from funcrt.zygotes import Zygotes
from mesh import Event
from tests.sim.loop import VirtualClock, run
from tests.sim.sandbox import Manner, SimSandbox, SimZygote


def test_only_calls_that_had_started_are_charged_when_an_instance_dies() -> None:
    clock = VirtualClock()

    async def main() -> None:
        manners = {"f": Manner(hang=1.0)}
        sandbox = SimSandbox(random.Random(1), manners, set(), lambda *told: None)
        code = Code(name="f", version="1", path=Path("/"), concurrency=2)
        failures: list[BaseException] = []
        pool = Pool(
            code, SimZygote(sandbox, code).info, Zygotes(sandbox), ScaleSpec(max=1), clock,
            failed=failures.append,
        )  # fmt: skip
        charged: list[str] = []
        released: list[int] = []

        def ended(pending: Pending, result: Result) -> None:
            charged.append(f"{pending.call.id} {result.status}")

        def back(pending: Pending) -> None:
            released.append(pending.call.id)

        calls = [
            Pending(
                Call(n, "t", [Event(str(n), "/s", "t", data=b"x")], 1, 3, 30.0), (), ended, back
            )
            for n in range(5)
        ]
        pool.submit(calls)
        member = await until_held(pool, 5)
        member.instance._end(None, "ended by SIGKILL", 9)
        assert charged == ["0 crash", "1 crash"]
        assert released == [2, 3, 4]
        assert pool.bytes == 0
        await pool.drain(0.0)
        assert not failures

    run(clock, main())


async def until_held(pool: Pool, count: int) -> Any:
    """The one instance, once it holds so many calls."""
    for _ in range(1000):
        await asyncio.sleep(0.01)
        for member in pool.members.values():
            if len(member.calls) == count:
                return member
    raise AssertionError("they were never handed out")
