"""Many topics: the most there may be, those that nobody needs, and what they cost."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh import Event
from mesh.repair import check
from mesh.transport import Done, Output, Settled, Settlement, Subscription
from tests.faults.many import measure
from tests.mesh.conforming import FakeClock


def event(n: object) -> Event:
    return Event(str(n), "/many", "t", data=b"{}")


async def put(t: Any, topic: str, n: object = 1) -> Any:
    (receipt,) = await t.publish(topic, [event(n)])
    return receipt


@pytest.mark.parametrize("through", ["host", "socket", "file"])
def test_a_topic_too_many_is_refused_and_the_others_go_on(tmp_path: Path, through: str) -> None:
    async def work() -> None:
        url = f"embedded://{tmp_path}/mesh.db?topics=3"
        host = None if through == "file" else await mesh.connect(url, host=True)
        t = host if through == "host" else await mesh.connect(url)
        assert t is not None
        for n in range(3):
            assert (await put(t, f"t{n}")).status == "stored"
        over = await put(t, "t3")
        assert (over.status, over.error) == ("refused", "full")
        assert "there are 3 topics, the most it may have" in over.reason
        assert (await put(t, "t0", 2)).status == "stored"
        assert set(await t.topics()) == {"t0", "t1", "t2"}
        if host is not None:  # what functions need is theirs all the same
            feed = await host.subscribe(Subscription(function="f", trigger="t", topic="t0"))
            await put(t, "t0", 3)
            (one,) = await feed.pull(1, 1)
            settled = Settlement("f/t", (Settled(one, Done()),), (Output("out", event(4)),))
            assert await host.commit([settled]) == ["settled"]
            assert set(await t.topics()) == {"t0", "t1", "t2", "out"}
            await host.close()
        await t.close()
        more = await mesh.connect(f"embedded://{tmp_path}/mesh.db?topics=9", host=True)
        assert (await put(more, "t3")).status == "stored"
        await more.close()

    asyncio.run(work())


@pytest.mark.parametrize("restart", [False, True])
def test_a_topic_that_holds_nothing_and_is_needed_by_nobody_goes(
    tmp_path: Path, restart: bool
) -> None:
    async def work() -> None:
        clock = FakeClock()
        url = f"embedded://{tmp_path}/mesh.db?retention_s=60&dedupe_s=60"

        async def opened() -> Any:
            return await mesh.connect(url, clock=clock, host=True)

        t = await opened()
        subscription = Subscription(function="f", trigger="t", topic="kept")
        await t.subscribe(subscription)
        for n in range(5):
            assert (await put(t, "gone", n)).position == str(n)
        await put(t, "kept")
        tail = t.tail("tailed")
        await put(t, "tailed")
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0.01)

        async def pass_time(seconds: int) -> None:
            for second in range(0, seconds, 6):
                clock.advance(6)
                await put(t, "busy", f"{clock.time()}-{second}")

        await pass_time(48)
        assert (await t.topics())["gone"] == 5, "within its retention"
        assert (await put(t, "gone", 0)).duplicate
        await pass_time(48)
        assert (await t.topics())["gone"] == 0, "its ids are known still"
        assert (await put(t, "gone", 0)).duplicate
        if restart:
            waiting.cancel()
            await t.close()
            t = await opened()
            await t.subscribe(subscription)
        await pass_time(200)
        left = {"kept", "busy"} if restart else {"kept", "tailed", "busy"}
        assert set(await t.topics()) == left
        again = await put(t, "gone", 0)
        assert (again.duplicate, again.position) == (False, "5"), "a position stands for one event"
        assert [each.position for each in await t.read("gone", "earliest", 9)] == ["5"]
        assert [each.position for each in await t.read("gone", "@5", 9)] == ["5"]
        if not restart:
            await put(t, "tailed", 2)
            assert (await waiting).event.id == "2"
        await t.close()
        t = await opened()
        assert (await t.topics())["gone"] == 1
        assert (await put(t, "gone", 0)).duplicate
        await t.close()

    asyncio.run(work())
    report = check(str(tmp_path / "mesh.db"))
    assert (report.lost, report.structure) == ([], [])


@pytest.mark.parametrize("restart", [False, True])
def test_the_edges_of_the_deduplication_window(tmp_path: Path, restart: bool) -> None:
    """The last `dedupe_ids` are known, twice as many at most; so is the time of `dedupe_s`."""

    async def work() -> None:
        clock = FakeClock()
        url = f"embedded://{tmp_path}/mesh.db?dedupe_ids=4&dedupe_s=60"
        t: Any = await mesh.connect(url, clock=clock, host=True)

        async def known(topic: str, n: object) -> bool:
            nonlocal t
            if restart:
                await t.close()
                t = await mesh.connect(url, clock=clock, host=True)
            return bool((await put(t, topic, n)).duplicate)

        many = 16 if restart else 100
        for n in range(many):
            assert not (await put(t, "count", n)).duplicate
            assert await known("count", max(0, n - 3)), "among the last four"
        for n in range(many - 8):
            assert not (await put(t, "count", n)).duplicate, "not among the last eight"
        for moment in (0, 59, 60):
            await put(t, "time", moment)
            assert await known("time", 0), "not older than a minute"
            clock.advance(59 if moment == 0 else 1)
        for moment in range(4):
            clock.advance(61)
            assert not (await put(t, "time", f"later-{moment}")).duplicate
        assert not (await put(t, "time", 0)).duplicate
        await t.close()

    asyncio.run(work())


def test_a_commit_that_fails_removes_no_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        clock = FakeClock()
        url = f"embedded://{tmp_path}/mesh.db?retention_s=60&dedupe_s=60"
        t: Any = await mesh.connect(url, clock=clock, host=True)
        await put(t, "gone")
        await put(t, "busy")
        clock.advance(61)
        await put(t, "busy", 2)  # drops the event
        clock.advance(121)
        failed = []
        commit = t.engine.committer.commit

        async def fail() -> None:
            failed.append(set(t.engine.topics))
            error = sqlite3.OperationalError("full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error

        t.engine.committer.commit = fail
        assert (await put(t, "new")).error == "full"
        t.engine.committer.commit = commit
        assert failed == [{"gone", "busy", "new"}]
        assert set(t.engine.topics) == {"gone", "busy"}
        assert (await put(t, "gone", 2)).position == "1"
        await t.close()

    asyncio.run(work())


def test_many_topics_and_subscriptions_cost_a_commit_little(tmp_path: Path) -> None:
    few = asyncio.run(measure(tmp_path / "few", 20, 5))
    many = asyncio.run(measure(tmp_path / "many", 20_000, 5_000))
    assert many.publish_ms[0] < 5 * few.publish_ms[0] + 5
    assert many.start_s < 10
    assert many.beside_s < 1
    assert many.bytes_a_topic < 8_000


def test_a_topic_that_once_had_many_takes_room_for_the_ids_of_late_alone(tmp_path: Path) -> None:
    """A topic begins where a removed one of its name may have ended: after a restart each of a
    thousand with one id took 2 MB."""

    async def work() -> None:
        url = f"embedded://{tmp_path}/mesh.db"
        begin = "INSERT INTO meta (key, value) VALUES ('topics/next', '1000000')"
        t: Any = await mesh.connect(url, host=True)
        await t.engine.write(lambda batch: batch.store.run(begin))
        for ids in (1, 100):
            for n in range(ids):
                await put(t, "in", n)
            await t.close()
            t = await mesh.connect(url, host=True)
            assert len(t.engine.topics["in"].window._new.ids.buckets) <= ids
            for n in range(ids):
                assert (await put(t, "in", n)).duplicate
        assert not (await put(t, "in", "new")).duplicate
        await t.close()

    asyncio.run(work())
