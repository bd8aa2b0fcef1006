"""What an instance's death costs: the calls it had started, and nothing else."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from funcrt.manifest import ScaleSpec
from funcrt.member import Pending
from funcrt.pool import GRACE_S, Pool
from funcrt.sandbox import Code
from funcrt.sandbox.protocol import (
    WINDOW,
    Aside,
    Call,
    Cancel,
    Chunk,
    Failure,
    Made,
    Out,
    Result,
    Start,
    Started,
    Taken,
    weight,
)
from funcrt.streams import Stream, StreamFailed
from funcrt.zygotes import Zygotes
from mesh import Event
from tests.sim.loop import VirtualClock, run
from tests.sim.sandbox import Manner, SimSandbox, SimZygote


def pool_of(
    clock: VirtualClock,
    scale: ScaleSpec,
    manner: Manner | None = None,
    concurrency: int = 1,
    failed: Callable[[BaseException], None] = lambda _: None,
) -> Pool:
    """The instances of a function in a simulated sandbox."""
    manners = {"f": manner or Manner()}
    sandbox = SimSandbox(random.Random(1), manners, set(), lambda *told: None)
    code = Code(name="f", version="1", path=Path("/"), concurrency=concurrency)
    info = SimZygote(sandbox, code).info
    return Pool(code, info, Zygotes(sandbox), scale, clock, failed=failed)


def test_only_calls_that_had_started_are_charged_when_an_instance_dies() -> None:
    clock = VirtualClock()

    async def main() -> None:
        failures: list[BaseException] = []
        pool = pool_of(clock, ScaleSpec(max=1), Manner(hang=1.0), 2, failures.append)
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
        pool.scaler.finished(0.0, 0.004)
        pool.submit(calls)
        member = await until_held(pool, 5)
        member.instance._end(None, "ended by SIGKILL", 9)
        assert charged == ["0 crash", "1 crash"]
        assert released == [2, 3, 4]
        assert pool.bytes == 0
        await pool.drain(0.0)
        assert not failures

    run(clock, main())


@pytest.mark.parametrize("known", [0.0, 0.001])
def test_none_waits_behind_a_long_call_while_there_could_be_an_instance(known: float) -> None:
    clock = VirtualClock()

    async def main() -> None:
        pool = pool_of(clock, ScaleSpec(max=4), Manner(hang=1.0))
        if known:  # what ended before was quick, and this is not
            pool.scaler.finished(0.0, known)
        for number in range(4):
            event = Event(str(number), "/s", "t", data=b"x")
            call = Call(number, "t", [event], 1, 3, 30.0)
            pool.submit([Pending(call, (), lambda *_: None, lambda _: None)])
            await asyncio.sleep(2)
            held = [list(member.calls) for member in pool.members.values()]
            assert held == [[before] for before in range(number + 1)]
        await pool.drain(0.0)

    run(clock, main())


def test_an_instance_that_was_begun_for_events_that_never_came_ends() -> None:
    clock = VirtualClock()

    async def main() -> None:
        pool = pool_of(clock, ScaleSpec(max=4))
        assert [pool.wake(), pool.wake()] == [True, False]
        await asyncio.sleep(0.5)
        assert [len(pool.members), pool.wake()] == [1, False]
        await asyncio.sleep(30)
        assert not pool.members
        assert pool.wake()
        call = Call(1, "t", [Event("1", "/s", "t", data=b"x")], 1, 3, 30.0)
        done = asyncio.get_running_loop().create_future()
        pool.submit([Pending(call, (), lambda _, result: done.set_result(result), lambda _: None)])
        assert (await done).status == "ok"
        assert len(pool.members) == 1  # the one that was begun is the one that is wanted
        await pool.drain(0.0)
        assert not pool.wake()

    run(clock, main())


def test_an_instance_that_was_there_before_its_event_is_idle_after_that() -> None:
    """Not before, although the last event was long ago; and it ends in time."""
    clock = VirtualClock()

    async def main() -> None:
        pool = pool_of(clock, ScaleSpec(max=4, idle_s=0.5))
        for number in range(5):
            assert pool.wake()
            await asyncio.sleep(0.4)  # while the disk is slow
            (member,) = pool.members.values()
            done = asyncio.get_running_loop().create_future()
            call = Call(number, "t", [Event(str(number), "/s", "t")], 1, 3, 30.0)
            pool.submit([Pending(call, (), lambda _, result, d=done: d.set_result(result),
                                 lambda _: None)])  # fmt: skip
            assert member.calls, "it is the one that was begun"
            assert (await done).status == "ok"
            await asyncio.sleep(0.4)
            assert pool.members
            await asyncio.sleep(0.4)
            assert not pool.members
            await asyncio.sleep(number * 0.37)
        await pool.drain(0.0)

    run(clock, main())


async def until_held(pool: Pool, count: int) -> Any:
    """The one instance, once it holds so many calls."""
    for _ in range(1000):
        await asyncio.sleep(0.01)
        for member in pool.members.values():
            if len(member.calls) == count:
                return member
    raise AssertionError("they were never handed out")


LIES = [
    Made(1, Out(Event("", "", "", data=b"x"))),
    Start(1, 200, []),
    Chunk(1, b"x", True),
    Chunk(99, b"x", True),
    Started(),
]


@pytest.mark.parametrize("lie", LIES)
def test_what_a_call_may_not_send_ends_its_instance_and_charges_it(lie: Any) -> None:
    clock = VirtualClock()

    async def main() -> None:
        pool = pool_of(clock, ScaleSpec(max=1), Manner(hang=1.0))
        ends: list[str] = []
        call = Call(1, "t", [Event("1", "/s", "t")], 1, 3, 0.0)
        pool.submit(
            [Pending(call, (), lambda p, r: ends.append(r.status), lambda p: ends.append("back"))]
        )
        member = await until_held(pool, 1)
        member.instance._on_messages(member.instance, [lie])
        await asyncio.sleep(0.1)
        assert ends == ["crash"]
        await pool.drain(0.0)

    run(clock, main())


class Heard:
    """An instance that notes what it is told."""

    pid = 1

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.killed = ""

    def send(self, messages: Any) -> None:
        self.told += messages

    def finish(self) -> None:
        pass

    def kill(self, reason: str) -> None:
        self.killed = self.killed or reason


def made(size: int) -> Aside:
    return Made(1, Out(Event("", "", "", data=b"x" * size)))


def test_a_call_that_goes_over_its_time_ends_while_the_pool_drains_too() -> None:
    clock = VirtualClock()

    async def main() -> None:
        failures: list[BaseException] = []
        pool = pool_of(clock, ScaleSpec(max=1), Manner(hang=1.0), failed=failures.append)
        charged: list[str] = []
        pool.submit(
            [
                Pending(
                    Call(1, "t", [Event("1", "/s", "t", data=b"x")], 1, 3, 1.0),
                    (),
                    lambda pending, result: charged.append(result.status),
                    lambda pending: charged.append("released"),
                )
            ]
        )
        await until_held(pool, 1)
        before = clock.monotonic()
        assert await pool.drain(30.0) == 0
        assert charged == ["timeout"]
        assert clock.monotonic() - before < 5
        assert failures == []

    run(clock, main())


def test_a_call_that_goes_over_its_time_ends_while_others_come_and_wait_all_the_time() -> None:
    clock = VirtualClock()

    async def main() -> None:
        sandbox = SimSandbox(random.Random(1), {"f": Manner(hang=1.0)}, set(), lambda *told: None)
        code = Code(name="f", version="1", path=Path("/"))
        info = SimZygote(sandbox, code).info
        pool = Pool(code, info, Zygotes(sandbox), ScaleSpec(max=2), clock, failed=lambda _: None)
        ends: list[tuple[int, float]] = []

        def submit(number: int, timeout_s: float) -> None:
            call = Call(number, "t", [Event(str(number), "/s", "t")], 1, 3, timeout_s)
            pool.submit(
                [Pending(call, (), lambda p, _: ends.append((p.call.id, clock.monotonic())), print)]
            )

        submit(0, 1.0)
        await until_held(pool, 1)
        sandbox.manners["f"] = Manner(service_s=0.05)
        began = clock.monotonic()
        for number in range(1, 400):
            submit(number, 0.0)
            await asyncio.sleep(0.02)
        ended = dict(ends)
        assert ended[0] - began < 1.0 + GRACE_S + 1.1
        assert len(ended) > 100
        await pool.drain(0.0)

    run(clock, main())


def test_a_stream_gives_back_what_it_has_seen_through_and_no_more() -> None:
    async def main() -> None:
        stream, instance = Stream(), Heard()
        seen: list[Aside] = []
        gate = asyncio.Event()

        async def handle(messages: Any) -> None:
            await gate.wait()
            seen.extend(messages)

        following = asyncio.ensure_future(stream.run(handle))
        large = made(WINDOW * 2)  # alone it may be as large as it likes
        stream.said(instance, large)
        await asyncio.sleep(0)
        assert (instance.told, instance.killed) == ([], "")
        gate.set()
        await asyncio.sleep(0.01)
        assert instance.told == [Taken(1, weight(large))]
        stream.said(instance, made(10))
        stream.ended(Result(1, "ok"))
        result = await following
        assert result is not None
        assert result.status == "ok"
        assert len(seen) == 2  # what came before the result is seen through

    asyncio.run(main())


def test_one_that_sends_more_than_there_is_room_for_is_ended() -> None:
    async def main() -> None:
        stream, instance = Stream(), Heard()
        stream.said(instance, made(WINDOW // 2))
        assert not instance.killed
        stream.said(instance, made(WINDOW // 2))
        assert instance.killed == "sent more of a stream than there was room for"

    asyncio.run(main())


def test_what_cannot_go_its_way_cancels_the_call_and_is_its_result() -> None:
    async def main() -> None:
        stream, instance = Stream(), Heard()

        async def handle(messages: Any) -> None:
            raise StreamFailed(Failure("MeshFull", "no room"))

        following = asyncio.ensure_future(stream.run(handle))
        stream.said(instance, made(1))
        await asyncio.sleep(0.01)
        assert Cancel(1) in instance.told
        stream.said(instance, made(1))
        stream.ended(Result(1, "error", [], Failure("CancelledError", "")))
        result = await following
        assert result is not None
        assert (result.status, result.failure) == ("error", Failure("MeshFull", "no room"))

    asyncio.run(main())
