"""A wall clock that never goes back, and what the machine's does to a file over a restart."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.client import FileClient
from mesh.clock import SteadyClock
from mesh.transport import Delivery, Done, Outcome, Retry, Settled, Settlement, Subscription
from tests.mesh.conforming import FakeClock


class Machine:
    wall, mono = 1000.0, 5.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def test_it_goes_on_while_the_machines_is_behind_and_follows_it_forward() -> None:
    machine = Machine()
    steady = SteadyClock(machine)
    machine.passes(10)
    assert steady.time() == 1010
    machine.wall -= 3600
    machine.passes(5)
    assert steady.time() == 1015
    machine.passes(5)
    assert steady.time() == 1020
    machine.wall += 7200
    assert steady.time() == 1020 + 3600
    assert steady.monotonic() == 25


def test_it_starts_no_earlier_than_what_is_stored() -> None:
    machine = Machine()
    steady = SteadyClock(machine, floor=5000.0)
    machine.passes(1)
    assert steady.time() == 5001


Body = Callable[..., Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Body], None]:
    """Runs `body(open, clock)`; `open()` opens the file again, as after a kill."""

    def run_(body: Body) -> None:
        async def main() -> None:
            clock = FakeClock()
            opened: list[Any] = []

            async def open_() -> Any:
                if opened:
                    await opened.pop().crash()
                url = f"embedded://{tmp_path}/mesh.db"
                opened.append(await mesh.connect(url, clock=clock, host=True))
                return opened[0]

            try:
                await body(open_, clock)
            finally:
                await opened.pop().close()

        asyncio.run(asyncio.wait_for(main(), 30))

    return run_


def event(n: int) -> mesh.Event:
    return mesh.Event(str(n), "/s", "t", data=b"{}")


def settled(delivery: Delivery, outcome: Outcome) -> Settlement:
    return Settlement(delivery.subscription, (Settled(delivery, outcome),))


IN = Subscription(function="f", trigger="t", topic="in")


def test_an_hour_back_over_a_restart_delays_no_retry(run: Callable[[Body], None]) -> None:
    """Long after the last publish, which is all that a file without a note would know of."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(IN)
        await t.publish("in", [event(1)])
        for attempt in (1, 2):
            clock.advance(3600)
            (delivery,) = await feed.pull(1, 0)
            assert delivery.attempt == attempt
            await t.commit([settled(delivery, Retry(60))])
        clock.step_wall(-3600)
        t = await open_()
        feed = await t.subscribe(IN)
        assert await feed.pull(1, 0) == []
        clock.advance(61)
        assert [d.attempt for d in await feed.pull(1, 0)] == [3]

    run(body)


def test_an_hour_forward_over_a_restart_ends_no_window(run: Callable[[Body], None]) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(IN)
        await t.publish("in", [event(1), event(2)])
        await t.commit([settled(d, Done()) for d in await feed.pull(2, 0)])
        assert await t.replay("f/t", "earliest", "@1", "again") == 1
        clock.advance(1)
        clock.step_wall(3600)
        for _ in range(2):
            t = await open_()
            receipts = await t.publish("in", [event(2), event(1)])
            assert [receipt.duplicate for receipt in receipts] == [True, True]
            clock.advance(10)
            await t.publish("in", [event(clock.mono)])  # sweeps what is over
        assert await t.replay("f/t", "earliest", "@1", "again") == 0

    run(body)


def test_who_writes_the_file_alone_goes_on_from_what_it_holds(run: Callable[[Body], None]) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.publish("in", [event(1)])
        clock.step_wall(-3600)
        alone = FileClient(t.path, "default", (3600.0, 1000))
        receipts = alone.publish("in", [event(1), event(2)], 0, clock.time())
        alone.close()
        await t.engine.doorbell()
        assert [receipt.duplicate for receipt in receipts] == [True, False]
        times = [logged.published_at for logged in await t.read("in", "earliest", 10)]
        assert len(times) == 2
        assert times == sorted(times)

    run(body)
