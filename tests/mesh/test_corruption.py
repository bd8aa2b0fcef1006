"""A damaged file is refused, never read as if it were whole; what is whole of it can be saved."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh import Event
from mesh.client import FileClient
from mesh.errors import MeshBusy, MeshCorrupt, MeshError
from mesh.repair import check, repair
from mesh.store import Store
from mesh.transport import Dead, Delivery, Output, Retry, Settled, Settlement, Subscription
from tests.serving import Serving

SUB = Subscription(function="f", trigger="t", topic="in", dlq="letters")


def event(n: object) -> Event:
    return Event(str(n), "/s", "t", data=b"%-900d" % int(str(n)))


async def opened(path: Path) -> Any:
    return await mesh.connect(f"embedded://{path}", host=True)


def settled(delivery: Delivery, outcome: Any) -> Settlement:
    return Settlement("f/t", (Settled(delivery, outcome),))


async def made(path: Path) -> None:
    """Offsets 0 to 9 of `in`, one a chunk: 0 is dead, 1 is to be retried, the others wait."""
    t = await opened(path)
    feed = await t.subscribe(SUB)
    for n in range(10):
        await t.publish("in", [event(n)])
    dead, retried, *_ = await feed.pull(10, 0)
    letter = Output("letters", Event("l", "/f", "dead"))
    await t.commit([settled(dead, Dead("no", letter)), settled(retried, Retry(0.0, "again"))])
    await t.put_blob("abc", b"a blob")
    await t.close()


async def pulled(path: Path) -> list[str]:
    t = await opened(path)
    try:
        feed = await t.subscribe(SUB)
        return sorted(d.event.id for d in await feed.pull(100, 0))
    finally:
        await t.close()


def flip(path: Path, table: str, column: str, where: str = "1") -> None:
    db = sqlite3.connect(path)
    ((row, body),) = db.execute(
        f"SELECT rowid, {column} FROM {table} WHERE {where} ORDER BY rowid LIMIT 1"
    ).fetchall()
    damaged = bytearray(body)
    damaged[-1] ^= 1
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes(damaged), row))
    db.commit()
    db.close()


CHUNK = "key = (SELECT topic << 40 FROM sub) + 5"
WAITS = "key = (SELECT id << 40 FROM sub) + 5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asyncio.run(made(tmp_path / "mesh.db"))
    return tmp_path / "mesh.db"


def test_a_whole_file_is_whole_and_its_copy_serves(path: Path) -> None:
    before = path.read_bytes()
    report = repair(str(path))
    assert report.whole, report
    assert path.read_bytes() == before
    with pytest.raises(MeshError, match="move it away first"):
        repair(str(path))
    want = [str(n) for n in range(1, 10)]
    assert asyncio.run(pulled(Path(report.copy))) == want == asyncio.run(pulled(path))


@pytest.mark.parametrize(
    ("table", "column", "where", "left"),
    [
        ("log", "body", CHUNK, "1 2 3 4 6 7 8 9"),
        ("backlog", "mask", WAITS, "1 2 3 4 6 7 8 9"),
        ("parked", "record", "1", "2 3 4 5 6 7 8 9"),
        ("ids", "digests", "1", "1 2 3 4 5 6 7 8 9"),
    ],
)
def test_a_flipped_bit_is_refused_and_all_the_rest_saved(
    path: Path, table: str, column: str, where: str, left: str
) -> None:
    flip(path, table, column, where)
    found = f"{path}: table {table}, .*doctor --repair"
    for _ in range(2):
        with pytest.raises(MeshCorrupt, match=found):
            asyncio.run(pulled(path))
    assert {loss.table for loss in check(str(path)).lost} >= {table}
    report = repair(str(path))
    assert not report.whole
    assert asyncio.run(pulled(Path(report.copy))) == left.split()
    if table in ("log", "backlog"):
        assert any("offset 5" in loss.where or "offsets 5 to 5" in loss.where
                   for loss in report.lost)  # fmt: skip
    assert repair_again(report.copy)


def repair_again(copy: str) -> bool:
    """What is left is consistent, but for the gaps that were told."""
    return {loss.table for loss in check(copy).lost} <= {"log"}


def test_a_damaged_dead_letter_is_refused_and_can_be_discarded(path: Path) -> None:
    async def main() -> None:
        flip(path, "dead", "record")
        t = await opened(path)
        with pytest.raises(MeshCorrupt, match="table dead, subscription default/f/t, offset 0"):
            await t.dead_letters("f/t")
        assert await t.discard("f/t", [1]) == 1
        assert await t.dead_letters("f/t") == []
        await t.close()

    asyncio.run(main())


def test_a_redrive_of_a_damaged_letter_changes_nothing_and_ends_the_host(path: Path) -> None:
    async def main() -> None:
        flip(path, "dead", "record")
        t = await opened(path)
        told: list[BaseException] = []
        t.on_fatal = told.append
        with pytest.raises(MeshCorrupt):
            await t.redrive("f/t", [1], "r")
        assert isinstance(told[0], MeshCorrupt)
        await t.close()

    asyncio.run(main())
    assert repair(str(path)).lost[0].table == "dead"


def test_a_damaged_blob_is_refused(path: Path) -> None:
    async def main() -> None:
        t = await opened(path)
        assert await t.get_blob("abc") == b"a blob"
        await t.close()
        flip(path, "blob", "body")
        t = await opened(path)
        with pytest.raises(MeshCorrupt, match="table blob, default/abc"):
            await t.get_blob("abc")
        await t.close()

    asyncio.run(main())
    assert [loss.table for loss in repair(str(path)).lost] == ["blob"]


def test_a_row_in_another_s_place_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(
        "INSERT OR REPLACE INTO log (key, at, count, body, crc)"
        f" SELECT key + 1, at, count, body, crc FROM log WHERE {CHUNK.replace('+ 5', '+ 4')}"
    )
    db.commit()
    db.close()
    with pytest.raises(MeshCorrupt, match="table log, topic default/in, offset 5"):
        asyncio.run(pulled(path))


def test_a_log_without_its_end_is_refused_at_once_and_goes_on_after_a_repair(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"DELETE FROM log WHERE {CHUNK.replace('+ 5', '+ 9')}")
    db.commit()
    db.close()
    with pytest.raises(MeshCorrupt, match=r"up to offset 10, the log ends at 9"):
        asyncio.run(opened(path))
    copy = Path(repair(str(path)).copy)
    assert asyncio.run(pulled(copy)) == [str(n) for n in range(1, 9)]

    async def main() -> None:
        t = await opened(copy)
        assert (await t.publish("in", [event(10)]))[0].position == "10"
        await t.close()
        t = await opened(copy)
        await t.close()

    asyncio.run(main())


def test_a_file_cut_short_is_refused_and_what_is_left_saved(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size - 2 * 4096)
    with pytest.raises(MeshCorrupt):
        asyncio.run(pulled(path))
    report = repair(str(path))
    assert not report.whole
    left = asyncio.run(pulled(Path(report.copy)))
    assert set(left) < {str(n) for n in range(1, 10)}


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.write_bytes(b"x" * 9000)
    with pytest.raises(MeshCorrupt, match="not a mesh file"):
        asyncio.run(opened(path))
    with pytest.raises(MeshCorrupt, match="nothing can be read"):
        repair(str(path))
    assert [each.name for each in tmp_path.iterdir() if "repair" in each.name] == []


def test_every_damaged_page_is_found_and_its_neighbours_are_saved(path: Path) -> None:
    """Zeroed or scrambled: nothing is read as something else."""
    whole = path.read_bytes()
    want = {str(n) for n in range(1, 10)}
    refused = 0
    for page in range(1, len(whole) // 4096):
        broken = path.with_name(f"page{page}.db")
        at = page * 4096
        broken.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
        report = repair(str(broken))
        try:
            served = set(asyncio.run(pulled(broken)))
        except MeshCorrupt:
            refused += 1
            assert not report.whole, page
        else:
            assert served == want, page
        assert set(asyncio.run(pulled(Path(report.copy)))) <= want, page
    assert refused > 5


HOST = """
import asyncio, sys, mesh
from mesh import Event
from mesh.client import FileClient
async def main():
    t = await mesh.connect(sys.argv[1], host=True)
    for n in range(40):
        await t.publish("in", [Event(str(n), "/s", "t", data=b"x" * 900)])
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The file of a host that was killed: all of it in the log, and the index beside."""
    words = [sys.executable, "-c", HOST, f"embedded://{tmp_path}/mesh.db"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        host.send_signal(signal.SIGKILL)
    return tmp_path / "mesh.db"


@pytest.mark.parametrize("how", ["whole", "cut", "gone", "flipped"])
def test_a_write_ahead_log_that_has_lost_commits_is_refused(killed: Path, how: str) -> None:
    log = killed.with_name("mesh.db-wal")
    size = log.stat().st_size
    if how == "cut":
        os.truncate(log, size - 5000)
    elif how == "gone":
        log.unlink()
    elif how == "flipped":
        with log.open("r+b") as file:
            file.seek(size * 3 // 4)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))

    async def count() -> int:
        t = await opened(killed)
        try:
            return int((await t.topics())["in"])
        finally:
            await t.close()

    if how == "whole":
        assert asyncio.run(count()) == 40
        return
    for _ in range(2):
        with pytest.raises(MeshCorrupt, match="write-ahead log lost"):
            asyncio.run(count())
    report = repair(str(killed))
    assert "-wal" in [loss.table for loss in report.lost]
    killed = Path(report.copy)
    if how != "gone":
        assert 0 < asyncio.run(count()) < 40


def test_a_file_of_the_format_before_is_taken_and_guarded_from_then_on(path: Path) -> None:
    db = sqlite3.connect(path)
    for table in ("log", "ids", "backlog", "parked", "dead", "blob"):
        db.execute(f"ALTER TABLE {table} DROP COLUMN crc")
    db.execute("DROP TABLE done_key")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    assert check(str(path)).whole
    copy = shutil.copy(path, path.with_name("old.db"))
    assert asyncio.run(pulled(path)) == [str(n) for n in range(1, 10)]

    async def more() -> None:
        t = await opened(copy)
        await t.publish("in", [event(10)])
        await t.close()

    asyncio.run(more())
    flip(copy, "log", "body", CHUNK.replace("+ 5", "+ 10"))
    with pytest.raises(MeshCorrupt, match="offset 10"):
        asyncio.run(pulled(copy))


def test_a_repair_waits_for_no_host(path: Path) -> None:
    async def main() -> None:
        t = await opened(path)
        with pytest.raises(MeshBusy):
            repair(str(path))
        await t.close()

    asyncio.run(main())


def test_a_host_ends_with_the_error_and_doctor_repairs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = data / "mesh.db"
    asyncio.run(made(path))
    flip(path, "log", "body", CHUNK)
    code = 'def handler(event, ctx):\n    return None\n---[[trigger]]\nname = "t"\n'
    host = Serving(data, f=f'{code}topic = "in"\n')
    assert host.process.wait(30) == 1
    assert host.process.stdout is not None
    host.process.stdout.close()
    said = (tmp_path / "serve.err").read_text()
    assert "table log, topic default/in, offset 5" in said
    assert "try: funcrt doctor --repair" in said
    checked = host.run("doctor", "--check")
    assert checked.returncode == 1
    assert "table log" not in checked.stdout
    assert "lost: log, topic default/in, offset 5 on" in checked.stdout
    done = host.run("doctor", "--repair", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["copy"] == f"{path}.repaired"
    assert report["saved"]["log"] == 10
    again = host.run("doctor", "--repair")
    assert "move it away first" in again.stderr


def test_what_a_client_writes_while_a_host_looks_at_the_file_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.db"
    asyncio.run(made(path))
    read = Store.topics
    wrote: list[Any] = []

    def topics(store: Store) -> Any:
        """The counters, and then a client's events, before anybody looks at the log."""
        found = read(store)
        if not wrote:
            wrote.append(FileClient(str(path), "default", (60.0, 100)))
            wrote[0].publish("in", [event(99)], 0, 1.0)
        return found

    monkeypatch.setattr(Store, "topics", topics)
    assert "99" in asyncio.run(pulled(path))
    wrote[0].close()
