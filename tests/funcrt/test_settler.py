"""Settlements find their way into a mesh that is full for a while, within bounds."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import mesh
from funcrt import settler
from funcrt.settler import Settler
from funcrt.tasks import Tasks
from mesh import Event, Settlement, Subscription
from mesh.transport import Done, Output, Settled


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "WAIT_S", 0.01)
    monkeypatch.setattr(settler, "MOST_BYTES", 1_000_000)


async def leased(t: Any, count: int) -> list[Settlement]:
    """Settlements of `count` events, each with an output of 100 kB."""
    feed = await t.subscribe(Subscription(function="f", trigger="t", topic="in"))
    await t.publish("in", [Event(str(n), "/s", "t", data=b"1") for n in range(count)])
    found = []
    for delivery in await feed.pull(count, 0):
        event = Event(delivery.event.id, "/f", "t", data=b"x" * 100_000)
        output = Output("out", event)
        found.append(Settlement(delivery.subscription, (Settled(delivery, Done()),), (output,)))
    return found


def room_for(t: Any, pages: int) -> None:
    (now,) = t.engine.store.one("PRAGMA page_count")
    t.engine.store.one(f"PRAGMA max_page_count = {now + pages}")


def test_a_full_mesh_is_tried_again_and_holds_up_pulling(tmp_path: Path) -> None:
    async def main() -> None:
        t: Any = await mesh.connect(f"embedded://{tmp_path}/mesh.db", host=True)
        settlements = await leased(t, 20)
        failures: list[BaseException] = []
        tasks, settling = Tasks(failures.append), Settler(t)
        tasks.start(settling.run(), "settler")
        room_for(t, 10)
        settling.soon(settlements[0])
        await asyncio.sleep(0.05)
        assert settling.room.is_set()
        for settlement in settlements[1:]:
            settling.soon(settlement)
        assert not settling.room.is_set(), "two megabytes wait, one may"
        await settling.flush(0.05)
        assert (await t.depth("f/t")).leased == 20
        room_for(t, 1 << 20)
        await settling.flush(5)
        assert settling.room.is_set()
        assert (await t.topics())["out"] == 20
        assert (await t.depth("f/t")).leased == 0
        await tasks.cancel()
        await t.close()
        assert not failures

    asyncio.run(main())


def test_a_flush_ends_though_more_comes_and_not_before_what_came(tmp_path: Path) -> None:
    """A version that is retired lets go of its leases after it, while others' results come."""

    class Slow:
        """A mesh that commits slowly; while it does, another settlement comes."""

        def __init__(self) -> None:
            self.kept: list[Settlement] = []

        async def commit(self, settlements: Any) -> None:
            await asyncio.sleep(0.01)
            settling.soon(more)
            self.kept += settlements

    async def main() -> None:
        nonlocal settling
        slow: Any = Slow()
        settling = Settler(slow)
        tasks = Tasks(failures.append)
        tasks.start(settling.run(), "settler")
        settling.soon(first)
        await settling.flush(5)
        assert first in slow.kept
        await asyncio.sleep(0.005)  # in the middle of a commit: what comes now waits for the next
        settling.soon(last)
        began = asyncio.get_running_loop().time()
        await settling.flush(5)
        assert last in slow.kept
        assert asyncio.get_running_loop().time() - began < 2, "it waited for a moment without work"
        await tasks.cancel()

    first, last, more = (Settlement(name, (), ()) for name in ("first", "last", "more"))
    failures: list[BaseException] = []
    settling: Any = None
    asyncio.run(main())
    assert not failures


def test_what_is_left_at_the_end_is_settled_then(tmp_path: Path) -> None:
    async def main() -> None:
        t: Any = await mesh.connect("embedded::memory:")
        settling = Settler(t)
        for settlement in await leased(t, 3):
            settling.soon(settlement)
        await settling.last()
        assert (await t.topics())["out"] == 3
        await t.close()

    asyncio.run(main())


def test_a_task_that_fails_is_told_and_one_that_is_cancelled_is_not() -> None:
    async def main() -> None:
        told: list[BaseException] = []
        tasks = Tasks(told.append)

        async def fail() -> None:
            raise ZeroDivisionError

        async def wait() -> None:
            await asyncio.Event().wait()

        tasks.start(fail(), "fails")
        tasks.start(wait(), "waits")
        await asyncio.sleep(0.01)
        assert [type(error) for error in told] == [ZeroDivisionError]
        assert tasks
        await tasks.cancel()
        assert not tasks
        assert len(told) == 1

    asyncio.run(main())
