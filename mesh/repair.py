"""Looking through a damaged mesh file, and saving what is whole of it into a new one.

It works on a copy of the file and its log: opening the original would already change it.
"""

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mesh import integrity
from mesh.embedded import take_lock
from mesh.errors import MeshCorrupt, MeshError
from mesh.ids import digest
from mesh.records import decode_records
from mesh.schema import GUARDED
from mesh.store import SHIFT, Store

__all__ = ["Loss", "Report", "check", "repair"]

SUFFIX = ".repaired"
LOW = (1 << SHIFT) - 1
PROBES = 4000
"""Looks for rows between two damaged pages, at the most."""
ROWID = (
    "topic", "sub", "log", "ids", "backlog", "parked", "dead", "timer", "record", "blob", "meta",
)  # fmt: skip
OTHERS = ("state", "journal", "replayed", "done_key")


class Loss(msgspec.Struct, frozen=True):
    """Something that is not as it was written."""

    table: str
    where: str
    """E.g. `topic default/in, offsets 5 to 8`."""
    why: str


class Report(msgspec.Struct):
    """What was found in `path`, and what of it is in `copy` ("" where nothing was written)."""

    path: str
    copy: str = ""
    saved: dict[str, int] = {}
    """Table -> rows."""
    lost: list[Loss] = []
    structure: list[str] = []
    """What SQLite says of pages and indexes."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.lost and not self.structure


def check(path: str) -> Report:
    """Read every page and row of a mesh file. Raises MeshBusy beside a host, MeshCorrupt where
    SQLite can make nothing of the file, MeshError where there is none."""
    return _run(path, keep=False)


def repair(path: str) -> Report:
    """Save what is whole into a new file, `path` + `.repaired`, synced and moved into place at
    once; the original stays as it is. Raises as `check`, and MeshError where that is there."""
    if Path(path + SUFFIX).exists():
        raise MeshError(f"{path}{SUFFIX} is there already; move it away first")
    return _run(path, keep=True)


def _run(path: str, *, keep: bool) -> Report:
    if not Path(path).exists():
        raise MeshError(f"{path}: no such file")
    lock = take_lock(path)
    made = path + SUFFIX + ".new"
    try:
        with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".repair-") as scratch:
            source = str(Path(scratch, "mesh.db"))
            target = made if keep else str(Path(scratch, "new.db"))
            for end in ("", "-wal"):
                if Path(path + end).exists():
                    shutil.copyfile(path + end, source + end)
            _remove(target)
            report = Report(path)
            _Work(source, target, report, integrity.wal_mark(path)).run()
        if keep:
            _settle(made, path + SUFFIX)
            report.copy = path + SUFFIX
        return report
    finally:
        _remove(made)
        os.close(lock)


def _remove(path: str) -> None:
    for end in ("", "-wal", "-shm"):
        Path(path + end).unlink(missing_ok=True)


def _settle(made: str, name: str) -> None:
    """Durable under its name, or not there."""
    for path, then in ((made, None), (str(Path(name).parent), name)):
        if then is not None:
            Path(made).rename(then)
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


class _Work:
    def __init__(
        self, source: str, target: str, report: Report, mark: integrity.WalMark | None
    ) -> None:
        self.report = report
        self.mark = mark
        self.source = source
        self.db = sqlite3.connect(source, isolation_level=None)
        self.new = Store(target, synchronous="OFF")
        self.names: dict[str, dict[int, str]] = {"topic": {}, "sub": {}}

    def run(self) -> None:
        try:
            self._look()
            self.new.db.execute("BEGIN")
            for table in (*ROWID, *OTHERS):
                self._table(table)
            self._queues()
            self._topics()
            self.new.db.execute("COMMIT")
        finally:
            self.db.close()
            self.new.close()

    def lose(self, table: str, where: str, why: str) -> None:
        self.report.lost.append(Loss(table, where, why))

    def _look(self) -> None:
        # So that SQLite takes a file that is shorter than it says (lockBtree in its btree.c).
        self.db.execute("PRAGMA writable_schema=ON")
        try:
            self.tables = {row[0] for row in self.db.execute("SELECT name FROM sqlite_master")}
        except sqlite3.DatabaseError as error:
            raise MeshCorrupt(self.report.path, f"nothing can be read of it ({error})") from None
        if "log" not in self.tables:
            raise MeshCorrupt(self.report.path, "it has no tables of a mesh")
        if self.mark is not None and (lost := integrity.frames_lost(self.mark, self.source)):
            frames = f"{lost} of {self.mark.frames} pages that were synced"
            self.lose("-wal", "the newest commits", f"the write-ahead log lacks {frames}")
        try:
            said = [str(row[0]) for row in self.db.execute("PRAGMA integrity_check(20)")]
        except sqlite3.DatabaseError as error:
            said = [str(error)]
        self.report.structure = [each for each in said if each != "ok"]

    # Rows

    def _table(self, table: str) -> None:
        if table not in self.tables:
            return
        columns = [row[1] for row in self.new.all(f"PRAGMA table_info({table})")]
        there = {row[1] for row in self.db.execute(f"PRAGMA table_info({table})")}
        columns = [name for name in columns if name in there]
        insert = (
            f"INSERT OR REPLACE INTO {table} ({', '.join(map(str, columns))})"
            f" VALUES ({', '.join('?' * len(columns))})"
        )
        saved = 0
        rows = self._rows(table, columns) if table in ROWID else self._ends(table, columns)
        for row in rows:
            fields = dict(zip(map(str, columns), row, strict=True))
            if table == "meta" and (fields["key"] == "damaged"):
                self.lose("-wal", "the newest commits", str(fields["value"]))
            elif self._whole(table, fields):
                if table in self.names:
                    self.names[table][int(fields["id"])] = str(fields["name"])
                self.new.db.execute(insert, row)
                saved += 1
        self.report.saved[table] = saved

    def _rows(self, table: str, columns: list[Any]) -> Iterator[tuple[Any, ...]]:
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE rowid = ?"
        for key in self._keys(table):
            try:
                row = self.db.execute(query, (key,)).fetchone()
            except sqlite3.DatabaseError as error:
                self.lose(table, self._place(table, key), f"its page is damaged ({error})")
            else:
                if row is not None:
                    yield row

    def _keys(self, table: str) -> list[int]:
        """Of every row that can be reached: from both ends, then by looking between."""
        up, broken = self._walk(table, "> ?", "", -(1 << 63))
        if not broken:
            return up
        down, _ = self._walk(table, "< ?", "DESC", (1 << 63) - 1)
        keys = set(up) | set(down)
        low, high = max(up, default=0), min(down, default=(1 << 63) - 1)
        gaps, probes = [(low, high)], 0
        while gaps and probes < PROBES:
            low, high = gaps.pop(0)
            middle, probes = (low + high) // 2, probes + 1
            if high - low < 2:
                continue
            found, _ = self._walk(table, ">= ?", "", middle, high)
            keys.update(found)
            gaps += [(low, middle), (max(found, default=middle), high)]
        self.lose(table, f"rows of a damaged page beside key {max(up, default=0)}", "unreadable")
        return sorted(keys)

    def _walk(
        self, table: str, which: str, order: str, start: int, stop: int = (1 << 63) - 1
    ) -> tuple[list[int], bool]:
        """Keys from `start` on, and whether a damaged page was met."""
        found: list[int] = []
        query = f"SELECT rowid FROM {table} WHERE rowid {which} ORDER BY rowid {order}"
        try:
            for (key,) in self.db.execute(query, (start,)):
                if key > stop:
                    break
                found.append(key)
        except sqlite3.DatabaseError:
            return found, True
        return found, False

    def _ends(self, table: str, columns: list[Any]) -> Iterator[tuple[Any, ...]]:
        """Rows of a table without row ids: what can be read from its two ends."""
        key = {
            "state": "scope, key",
            "journal": "flow, seq",
            "replayed": "sub, replay, first",
            "done_key": "sub, key",
        }
        for order in ("", " DESC"):
            by = ", ".join(each + order for each in key[table].split(", "))
            try:
                query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {by}"
                yield from self.db.execute(query)
            except sqlite3.DatabaseError as error:
                if not order:
                    self.lose(table, "rows between the two ends that can be read", str(error))
            else:
                return

    def _whole(self, table: str, row: dict[str, Any]) -> bool:
        """Whether a row is as it was written, and belongs to something."""
        if table == "sub" and row["topic"] not in self.names["topic"]:
            self.lose(table, f"subscription {row['name']}", "the topic it belongs to is gone")
            return False
        if table not in GUARDED:
            return True
        try:
            made = _crc_of(table, row)
        except (TypeError, AttributeError, struct.error) as error:
            self.lose(table, "a row", f"its columns are damaged ({error})")
            return False
        crc = row.get("crc")
        key = row["key"] if "key" in row and table != "parked" else None
        if key is None and table != "blob":
            key = row["sub"] << SHIFT | row["offset"]
        where = str(row["digest"]) if table == "blob" else self._place(table, key or 0)
        body = row.get("body") or row.get("record") or b""
        if (crc != made) if crc is not None else not integrity.decodes(table, body):
            self.lose(table, where, "its checksum is not that of what it holds")
            return False
        owner = "topic" if table in ("log", "ids") else "sub"
        if table != "blob" and (key or 0) >> SHIFT not in self.names[owner]:
            self.lose(table, where, f"the {owner} it belongs to is gone")
            return False
        return True

    def _place(self, table: str, key: int) -> str:
        if table in ("log", "ids"):
            return f"topic {self.names['topic'].get(key >> SHIFT, key >> SHIFT)}, {_from(key)}"
        if table in ("backlog", "parked", "dead") and key >> SHIFT:
            name = self.names["sub"].get(key >> SHIFT, key >> SHIFT)
            return f"subscription {name}, {_from(key)}"
        return f"row {key}"

    # What belongs together

    def _queues(self) -> None:
        """A queue keeps what the log still has; its counters are counted again."""
        new = self.new
        for sub in new.subs():
            low, high = sub.id << SHIFT, (sub.id + 1) << SHIFT
            waiting = 0
            rows = new.all("SELECT key, mask FROM backlog WHERE key >= ? AND key < ?", low, high)
            for key, mask in rows:
                assert isinstance(key, int)
                assert isinstance(mask, bytes)
                first, count = key - low, int.from_bytes(mask, "little").bit_count()
                if new.one("SELECT 1 FROM log WHERE key = ?", sub.topic << SHIFT | first):
                    waiting += count
                    continue
                self.lose(
                    "backlog", f"subscription {sub.name}, offset {first} on",
                    f"{count} events that waited: the log has lost them",
                )  # fmt: skip
                new.run("DELETE FROM backlog WHERE key = ?", key)
                self.report.saved["backlog"] -= 1
            (parked,) = new.one("SELECT count(*) FROM parked WHERE sub = ?", sub.id) or (0,)
            new.run("UPDATE sub SET waiting = ?, parked = ? WHERE id = ?", waiting, parked, sub.id)

    def _topics(self) -> None:
        """Counters, the ids of what the log has, and where the log has gaps now."""
        new = self.new
        for topic in new.topics():
            low, high = topic.id << SHIFT, (topic.id + 1) << SHIFT
            events = size = 0
            end: int | None = None
            query = (
                "SELECT key, count, length(body), (SELECT 1 FROM ids WHERE ids.key = log.key)"
                " FROM log WHERE key >= ? AND key < ? ORDER BY key"
            )
            for key, count, length, known in new.db.execute(query, (low, high)).fetchall():
                self._gap(topic.name, end, key - low)
                end, events, size = key - low + count, events + count, size + length
                if not known:
                    self._remember(key)
            topic.next = max(topic.next, end or 0)
            if end is not None or topic.count:
                self._gap(topic.name, end, topic.next)
            topic.routed = min(topic.routed, topic.next)
            topic.count, topic.bytes = events, size
            new.save_topic(topic)
            if end != topic.next:
                query = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
                new.run(query, f"ends/{topic.id}", str(topic.next))

    def _remember(self, key: int) -> None:
        """Make the ids of a chunk from what it holds, so that its events are not taken twice."""
        ((at, body),) = self.new.db.execute("SELECT at, body FROM log WHERE key = ?", (key,))
        ids = b"".join(digest(r.event.source, r.event.id) for r in decode_records(body))
        query = "INSERT INTO ids (key, at, digests, crc) VALUES (?, ?, ?, ?)"
        self.new.run(query, key, at, ids, integrity.row_crc(ids, key, at))

    def _gap(self, topic: str, end: int | None, first: int) -> None:
        if end is not None and end < first:
            self.lose("log", f"topic {topic}, offsets {end} to {first - 1}", "events are missing")


def _from(key: int) -> str:
    return f"offset {key & LOW} on"


def _crc_of(table: str, row: dict[str, Any]) -> int:
    if table == "parked":
        return integrity.parked_crc(
            row["record"], row["sub"], row["offset"], row["at"], row["replay"]
        )
    if table == "dead":
        names = "sub at attempts reason offset published_at record letter_topic letter_offset"
        return integrity.dead_crc([row[name] for name in names.split()])
    if table == "blob":
        return integrity.blob_crc(row["body"], row["digest"])
    body = row[{"log": "body", "ids": "digests", "backlog": "mask"}[table]]
    return integrity.row_crc(body, row["key"], row["at"], row.get("count", 0))
