"""What is of the embedded mesh alone: one file, one host, other processes beside it.

What it shares with every transport is in the conformance suite (test_conformance.py).
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh import Event
from mesh.client import FileClient
from mesh.errors import MeshBusy, MeshClosed
from mesh.store import Store
from mesh.transport import (
    Delivery,
    Done,
    Output,
    Settled,
    Settlement,
    Subscription,
)
from tests.mesh.conforming import FakeClock


def event(n: object, data: bytes = b"{}", source: str = "/s") -> Event:
    return Event(str(n), source, "t", data=data)


def settle(delivery: Delivery, outcome: Any, *outputs: Output, **more: Any) -> Settlement:
    return Settlement(delivery.subscription, (Settled(delivery, outcome),), outputs, **more)


def sub(**more: Any) -> Subscription:
    return Subscription(**{"function": "f", "trigger": "t", "topic": "in", **more})


def on_mesh(where: str, tmp_path: Any, body: Callable[..., Awaitable[None]]) -> None:
    """Run `body(open, clock)`: `open()` opens the same mesh, again after a close or crash."""

    async def main() -> None:
        clock = FakeClock()
        opened = []

        async def open_(**options: Any) -> Any:
            url = "embedded::memory:" if where == "memory" else f"embedded://{tmp_path}/mesh.db"
            transport = await mesh.connect(url, clock=clock, host=True, **options)
            opened.append(transport)
            return transport

        try:
            await body(open_, clock)
        finally:
            for transport in opened:
                await transport.close()

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.fixture(params=["memory", "file"])
def run(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[Any], None]:
    return lambda body: on_mesh(request.param, tmp_path, body)


@pytest.fixture
def run_file(tmp_path: Any) -> Callable[[Any], None]:
    return lambda body: on_mesh("file", tmp_path, body)


def test_other_processes_write_the_file_while_no_host_lives(run_file: Any, tmp_path: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.subscribe(sub())
        await t.close()
        client = await mesh.connect(f"embedded://{tmp_path}/mesh.db", clock=clock)
        receipts = await client.publish("in", [event(1), event(2), event(1)])
        assert [r.duplicate for r in receipts] == [False, False, True]
        t = await open_()
        feed = await t.subscribe(sub())
        assert [d.event.id for d in await feed.pull(5, 1)] == ["1", "2"]
        (receipt,) = await client.publish("in", [event(2)])
        assert receipt.duplicate, "the host knows what the file's writer stored"
        seen = []
        async for item in client.tail("in", "earliest"):
            seen.append(item.event.id)
            if len(seen) == 2:
                await client.publish("in", [event(3)])
            if len(seen) == 3:
                break
        assert seen == ["1", "2", "3"]
        await client.close()

    run_file(body)


def test_a_second_host_is_refused_by_the_pid_of_the_first(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        await open_()
        with pytest.raises(MeshBusy, match=f"process {os.getpid()} already serves"):
            await open_()

    run_file(body)


LEAVE = """
import sys
from mesh.client import FileClient
client = FileClient(sys.argv[1], "default", (3600.0, 1000))
client.store.topics()
client.close()
"""


def test_who_comes_and_goes_beside_a_host_leaves_its_log(run_file: Any, tmp_path: Any) -> None:
    """SQLite deletes the log with the last connection, which it knows by the locks of others."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.publish("in", [event(1)])
        inode = os.stat(tmp_path / "mesh.db-wal").st_ino
        words = [sys.executable, "-c", LEAVE, str(tmp_path / "mesh.db")]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=20)
        assert os.stat(tmp_path / "mesh.db-wal").st_ino == inode

    run_file(body)


HOST = """
import asyncio, sys, mesh
from mesh import Event
from mesh.transport import *
async def main():
    t = await mesh.connect(sys.argv[1], host=True)
    feed = await t.subscribe(Subscription(function="f", trigger="t", topic="in"))
    print("ready", flush=True)
    while True:
        got = await feed.pull(100, 10)
        await t.commit([Settlement("f/t", (Settled(d, Done()),),
            (Output("out", Event("o" + d.event.id, "/f", "r")),)) for d in got])
asyncio.run(main())
"""


def test_sigkill_of_the_host_loses_nothing_and_doubles_nothing(tmp_path: Any) -> None:
    url = f"embedded://{tmp_path}/mesh.db"

    def start() -> "subprocess.Popen[bytes]":
        host = subprocess.Popen([sys.executable, "-c", HOST, url], stdout=subprocess.PIPE)
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        return host

    async def main() -> None:
        client = await mesh.connect(url)
        total, host = 3000, start()
        stored = 0
        for kill in range(10):
            batch = [event(n) for n in range(stored, stored + total // 10)]
            publishing = asyncio.ensure_future(publish(client, batch))
            await asyncio.sleep(0.002 * kill)
            host.send_signal(signal.SIGKILL)
            host.wait()
            assert host.stdout is not None
            host.stdout.close()
            host = await asyncio.to_thread(start)
            await publishing
            stored += len(batch)
        seen = []
        async for item in client.tail("out", "earliest"):
            seen.append(item.event.id)
            if len(seen) == total:
                break
        assert sorted(seen) == sorted(f"o{n}" for n in range(total))
        await asyncio.sleep(0.1)
        assert (await client.topics())["out"] == total
        await client.close()
        host.kill()
        host.wait()
        assert host.stdout is not None
        host.stdout.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def publish(client: Any, events: list[Event]) -> None:
    """Publish one at a time, again with the same id wherever the outcome is unknown."""
    for one in events:
        while True:
            (receipt,) = await client.publish("in", [one])
            if receipt.status == "stored":
                break
            await asyncio.sleep(0.005)


def test_the_file_takes_many_publishes_at_once_without_a_host(tmp_path: Any) -> None:
    async def main() -> None:
        client = await mesh.connect(f"embedded://{tmp_path}/mesh.db")
        got = await asyncio.gather(*(client.publish("in", [event(n)]) for n in range(50)))
        assert {receipt.status for (receipt,) in got} == {"stored"}
        assert (await client.topics()) == {"in": 50}
        await client.close()

    asyncio.run(main())


def test_the_file_stays_bounded_by_its_retention(run_file: Any, tmp_path: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_(retention_bytes=1_000_000, retention_s=600, dedupe_s=60)
        feed = await t.subscribe(sub())
        sizes = []
        for minute in range(60):
            events = [event(f"{minute}-{n}", b"x" * 1000) for n in range(500)]
            await t.publish("in", events)
            while got := await feed.pull(500, 0):
                await t.commit([settle(d, Done()) for d in got])
            clock.advance(60)
            sizes.append(os.stat(tmp_path / "mesh.db").st_size)
        assert (await t.topics())["in"] < 2_000
        assert sizes[-1] < 8_000_000, "thirty megabytes went through"
        assert sizes[-1] == sizes[-20]

    run_file(body)


def test_retention_keeps_up_with_many_small_commits(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_(retention_bytes=100_000, dedupe_ids=500)
        for second in range(11):
            for n in range(400):
                await t.publish("in", [event(f"{second}-{n}", b"x" * 1000)])
            clock.advance(1)
        for n in range(20):
            await t.publish("in", [event(n, b"x" * 1000)])
        assert (await t.topics())["in"] < 600, "100 kB, and what came since the last sweep"
        (ids,) = t.engine.store.one("SELECT count(*) FROM ids")
        assert ids < 1500, "two generations of 500, and what came since"

    run(body)


def full(t: Any, *, yes: bool) -> None:
    """Let the file grow no further, or again."""
    (pages,) = t.engine.store.one("PRAGMA page_count")
    t.engine.store.one(f"PRAGMA max_page_count = {pages if yes else 1 << 30}")


def test_what_others_wrote_is_routed_after_a_full_disk_too(run_file: Any, tmp_path: Any) -> None:
    """The transaction that first saw it was rolled back."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        other = FileClient(t.path, "default", (3600.0, 1_000_000))
        other.publish("in", [event(2), event(3)], 0, clock.time())
        full(t, yes=True)
        (receipt,) = await t.publish("in", [event(4, b"x" * 500_000)])
        assert (receipt.status, receipt.error) == ("refused", "full")
        full(t, yes=False)
        await t.publish("in", [event(5)])
        other.close()
        assert [d.event.id for d in await feed.pull(9, 0)] == ["1", "2", "3", "5"]
        assert (await t.depth("f/t")).leased == 4

    run_file(body)


def test_what_others_wrote_is_not_passed_over_by_what_comes_in_with_it(run_file: Any) -> None:
    """A pull while the commit is being synced finds nothing yet, and must look again."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        other = FileClient(t.path, "default", (3600.0, 1_000_000))
        other.publish("in", [event(1)], 0, clock.time())
        t.engine.committer.took_s = 1.0  # commit in the thread
        held, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        run_in_executor = loop.run_in_executor

        async def slow(*arguments: Any) -> None:
            held.set()
            await go.wait()
            await run_in_executor(*arguments)

        loop.run_in_executor = slow  # type: ignore[assignment,method-assign]
        publishing = asyncio.ensure_future(t.publish("in", [event(2)]))
        await held.wait()
        assert await feed.pull(9, 0) == []
        go.set()
        await publishing
        other.close()
        assert [d.event.id for d in await feed.pull(9, 0)] == ["1", "2"]

    run_file(body)


def test_a_failure_of_the_writer_itself_is_told_and_nothing_waits_for_ever(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        (delivery,) = await feed.pull(1, 0)
        told: list[BaseException] = []
        t.on_fatal = told.append

        def bug(topic: str, e: Event) -> list[str]:
            raise ZeroDivisionError

        t.set_router(bug)
        settling = asyncio.ensure_future(t.commit([settle(delivery, Done())]))
        (receipt,) = await t.publish("in", [event(2)])
        assert receipt.status == "ambiguous"
        with pytest.raises(MeshClosed):
            await settling
        assert isinstance(told[0], ZeroDivisionError)
        assert (await t.publish("in", [event(3)]))[0].status == "refused"

    run(body)


def test_what_waits_for_a_commit_is_bounded_in_bytes(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        body = b"x" * 1_000_000
        got = await asyncio.gather(*(t.publish("in", [event(n, body)]) for n in range(100)))
        kinds = {(receipt.status, receipt.error) for (receipt,) in got}
        assert kinds == {("stored", ""), ("refused", "busy")}
        assert 60 <= sum(receipt.status == "stored" for (receipt,) in got) <= 67

    run(body)


def test_what_does_not_pass_the_check_is_refused(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        t.set_check(lambda topic, e: "too small" if topic == "in" and e.id == "1" else "")
        receipts = await t.publish("in", [event(1), event(2)])
        assert [(r.status, r.error) for r in receipts] == [("refused", "invalid"), ("stored", "")]
        assert "too small" in receipts[0].reason
        assert (await t.publish("other", [event(1)]))[0].status == "stored"

    run(body)


def test_what_is_about_to_come_is_told_before_it_is_there(run_file: Any) -> None:
    """Of each subscription that gets events, and of none that does not."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feeds = [
            await t.subscribe(sub(function=name, topic=topic))
            for name, topic in (("f", "in"), ("g", "in"), ("h", "other"))
        ]
        file = Store(t.path)  # as another process sees it
        told: list[tuple[str, int]] = []

        def coming(subscription: str) -> bool:
            row = file.topic("default/in")
            told.append((subscription, row.next if row is not None else 0))
            return True

        t.set_coming(coming)
        await t.publish("in", [event(1), event(2)])
        await t.publish("in", [event(1)])  # again: nothing comes of it
        assert sorted(told) == [("f/t", 0), ("g/t", 0)]
        (first, second) = await feeds[0].pull(9, 1.0)
        told.clear()
        await t.commit([settle(first, Done(), Output("other", event(3))), settle(second, Done())])
        assert told == [("h/t", 2)]
        file.close()

    run_file(body)


def test_a_tail_misses_nothing_that_others_wrote_to_the_file(run_file: Any) -> None:
    """What the host has at hand of a topic has a gap there."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.publish("in", [event(1)])
        other = FileClient(t.path, "default", (3600.0, 1_000_000))
        other.publish("in", [event(2)], 0, clock.time())
        other.close()
        await t.publish("in", [event(3)])
        assert [item.event.id for item in await t.read("in", "@1", 9)] == ["2", "3"]
        assert [item.event.id for item in await t.read("in", "earliest", 9)] == ["1", "2", "3"]

    run_file(body)


def test_a_file_has_one_host_by_whatever_link_it_is_opened(tmp_path: Path) -> None:
    """Its lock, its log and its socket are beside the file itself, where SQLite looks as well."""

    async def body() -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link.db").symlink_to(tmp_path / "real" / "mesh.db")
        host: Any = await mesh.connect(f"embedded://{tmp_path}/link.db", host=True)
        with pytest.raises(MeshBusy):
            await mesh.connect(f"embedded://{tmp_path}/real/mesh.db", host=True)
        client: Any = await mesh.connect(f"embedded://{tmp_path}/real/mesh.db")
        assert (await client.publish("in", [event(1)]))[0].status == "stored"
        assert client._file is None
        assert host.engine._checkpoints._size() > 0
        await client.close()
        await host.close()
        assert {path.name for path in tmp_path.iterdir()} == {"real", "link.db"}

    asyncio.run(body())
