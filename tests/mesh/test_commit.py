"""Where commits run, and the room that the log has ahead of them."""

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh.checkpoint
import mesh.commit
import mesh.sync
from mesh import Event
from mesh.batch import Batch
from mesh.checkpoint import COMMITS, PAGES, ROOM_BYTES
from mesh.commit import PROBE, Committer
from mesh.embedded import open_transport
from mesh.transport import Receipt


class Disk:
    """A connection whose commits take as long as is said, on a clock of its own."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.now = 0.0
        self.on_loop: list[bool] = []

    def execute(self, statement: str) -> None:
        assert statement == "COMMIT"
        self.now += self.takes_s
        self.on_loop.append(threading.current_thread() is threading.main_thread())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(mesh.commit, "perf_counter", lambda: found.now)
    return found


def test_a_disk_that_becomes_slow_gets_the_thread_and_a_quick_one_the_loop(disk: Disk) -> None:
    async def body() -> None:
        committer = Committer(disk, inline=False)  # type: ignore[arg-type]

        async def last(commits: int) -> list[bool]:
            for _ in range(commits):
                await committer.commit()
            return disk.on_loop[-commits:]

        disk.takes_s = 0.0003
        assert all(await last(100))
        disk.takes_s = 0.5
        assert await last(1) == [True]
        disk.takes_s = 0.0003
        assert all(await last(100)), "one slow commit changes nothing"
        disk.takes_s = 0.003
        await last(20)
        assert sum(await last(10 * PROBE)) <= 10, "one in so many is tried on the loop"
        disk.takes_s = 0.02
        await last(PROBE)
        assert not any(await last(4 * PROBE)), "a slow disk never holds up the loop"
        disk.takes_s = 0.0003
        await last(40 * PROBE)
        assert all(await last(100)), "it is quick again"
        committer.close()

    asyncio.run(body())


COUNT = 4 * COMMITS


async def publish(transport: Any, first: int) -> list[int]:
    """Publish events of 60 kB, a commit each; the log's size after each."""
    sizes = []
    for number in range(first, first + COUNT):
        event = Event(str(number), "/t", "t", data=os.urandom(60_000))
        await transport.publish("in", [event])
        await asyncio.sleep(0)
        sizes.append(Path(transport.path + "-wal").stat().st_size)
    return sizes


def test_the_log_grows_ahead_of_the_commits_and_loses_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        transport = await open_transport(f"embedded://{tmp_path}/mesh.db", "default", host=True)
        sizes = await publish(transport, 0)
        steps = [after - before for before, after in itertools.pairwise(sizes)]
        assert max(steps) == ROOM_BYTES
        assert steps.count(0) > COMMITS, "most commits find room"
        assert max(sizes) <= PAGES * 4096
        crashed = tmp_path / "crashed"  # zeros behind the last commit, no index
        crashed.mkdir()
        for name in ("mesh.db", "mesh.db-wal"):
            shutil.copy(tmp_path / name, crashed / name)
        await transport.close()

        transport = await open_transport(f"embedded://{crashed}/mesh.db", "default", host=True)
        await publish(transport, COUNT)
        found = await transport.read("in", "earliest", 1000)
        assert [item.event.id for item in found] == [str(number) for number in range(2 * COUNT)]
        await transport.close()
        db = sqlite3.connect(crashed / "mesh.db")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()

    asyncio.run(body())


def test_the_log_takes_little_of_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly = os.statvfs_result((4096, 4096, 10**6, 10**4, 10**4, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: nearly)

    async def body() -> None:
        transport = await open_transport(f"embedded://{tmp_path}/mesh.db", "default", host=True)
        sizes = await publish(transport, 0)
        assert all(before < after for before, after in itertools.pairwise(sizes))
        await transport.close()

    asyncio.run(body())


def test_who_was_told_of_a_commit_has_his_next_work_in_the_one_after_it(tmp_path: Path) -> None:
    """A settler has more by the time its commit is done; on its own it costs a sync of its own."""

    async def body() -> None:
        mesh = await open_transport(f"embedded://{tmp_path}/mesh.db", "default", host=True)
        engine, gathered = mesh.engine_or_raise(), list[tuple[int, int]]()
        gather = engine._gather

        def counted() -> Any:
            publishes, work = gather()
            gathered.append((len(publishes), len(work)))
            return publishes, work

        engine._gather = counted  # type: ignore[method-assign]
        stored = asyncio.get_running_loop().create_future()

        def publish(batch: Any) -> None:
            event = [Event("1", "/s", "t")]
            batch.after.append(lambda: engine.publish("in", event, 0, stored.set_result))

        await engine.write(publish)
        await engine.write(lambda batch: None)
        await stored
        assert gathered == [(0, 1), (1, 1)]
        await mesh.close()

    asyncio.run(body())


def test_the_file_is_synced_beside_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the whole of it is synced between two commits, on the loop: 40 ms for 64 MB."""
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        mine = os.path.samestat(os.fstat(fd), (tmp_path / "mesh.db").stat())
        synced.append((mine, threading.current_thread() is threading.main_thread()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(mesh.checkpoint, "PAGES", 1000)

    async def body() -> None:
        transport = await open_transport(f"embedded://{tmp_path}/mesh.db", "default", host=True)
        await publish(transport, 0)
        await transport.engine_or_raise()._checkpoints.wait()
        assert synced
        assert set(synced) == {(True, False)}
        await transport.close()

    asyncio.run(body())


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_fails_ends_the_host_and_loses_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the error: the kernel drops what it could not write and the next sync succeeds,
    while SQLite takes what it has copied for stored. The log has it all."""
    path = tmp_path / "mesh.db"
    before, failed, fsync = b"", 0, os.fsync

    def drop(fd: int) -> None:
        nonlocal failed
        failed += 1
        if failed > 1:
            return fsync(fd)
        size = os.fstat(fd).st_size
        os.pwrite(fd, before.ljust(size, b"\0"), 0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", drop)
    monkeypatch.setattr(mesh.checkpoint, "PAGES", 1000)

    async def body() -> None:
        nonlocal before
        first = await open_transport(f"embedded://{path}", "default", host=True)
        descriptor = mesh.sync._descriptor(str(path))
        assert descriptor is not None
        before = os.pread(descriptor, 1 << 30, 0)
        engine, stored = first.engine_or_raise(), []
        while engine.fatal is None and len(stored) < 500:
            event = Event(str(len(stored)), "/t", "t", data=bytes(60_000))
            (receipt,) = await first.publish("in", [event])
            if receipt.status == "stored":
                stored.append(event.id)
        assert engine.fatal is not None
        await first.close()
        assert failed == 1
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        second = await open_transport(f"embedded://{path}", "default", host=True)
        found = await second.read("in", "earliest", len(stored) + 1)
        assert [item.event.id for item in found] == stored
        await second.close()

    asyncio.run(body())


def test_receipts_are_sent_before_memory_follows_and_hold_whatever_becomes_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who publishes has more by the time that the host looks again. What is durable is stored."""
    applied, order = Batch.applied, list[str]()

    def follow(batch: Batch) -> None:
        order.append("applied")
        if broken:
            raise RuntimeError("a bug")
        applied(batch)

    monkeypatch.setattr(Batch, "applied", follow)
    broken = False

    async def body() -> None:
        nonlocal broken
        path = f"embedded://{tmp_path}/mesh.db"
        host = await open_transport(path, "default", host=True)
        client = await open_transport(path, "default")
        engine = host.engine_or_raise()
        send = engine.on_confirmed
        engine.on_confirmed = lambda: (order.append("sent"), send())[1]
        for broken in (False, True):
            order.clear()
            receipt, *more = await client.publish("in", [Event(f"{broken}", "/t", "t")])
            assert (receipt.status, more) == ("stored", [])
            assert order[:2] == ["sent", "applied"]
            assert [item.event.id for item in await client.read("in", "earliest", 9)] == ["False"]
        assert isinstance(engine.fatal, RuntimeError)
        await client.close()
        await host.close()
        broken = False
        found = await open_transport(path, "default", host=True)
        assert [item.event.id for item in await found.read("in", "earliest", 9)] == [
            "False",
            "True",
        ]
        await found.close()

    asyncio.run(body())


def test_who_cannot_be_told_ends_the_host_and_the_others_are_told_once(tmp_path: Path) -> None:
    """Else nobody writes any more and nobody knows; and what is stored was told to be in doubt."""
    told: list[tuple[str, list[str]]] = []
    failed: list[BaseException] = []

    def tell(who: str, receipts: list[Receipt]) -> None:
        told.append((who, [receipt.status for receipt in receipts]))
        if who == "bad":
            raise ZeroDivisionError

    async def body() -> None:
        host = await open_transport(f"embedded://{tmp_path}/mesh.db", "default", host=True)
        host.on_fatal = failed.append
        for who in ("first", "bad", "last"):
            host.publish_soon("in", [Event(who, "/t", "t")], 0, partial(tell, who))
        async with asyncio.timeout(5):
            await host.publish("in", [Event("own", "/t", "t")])
            await host.close()
        assert told == [("first", ["stored"]), ("bad", ["stored"]), ("last", ["stored"])]
        assert [type(error) for error in failed] == [ZeroDivisionError]

    asyncio.run(body())
