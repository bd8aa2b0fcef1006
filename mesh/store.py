"""The embedded mesh's file: tables, and the few statements that touch them.

Synchronous and without policy: the engine decides, this reads and writes. A commit stores a
topic's new events as one row (a *chunk*), and what each subscription has not settled of a chunk
as one row with a bit an event, so that the cost of an event is a fraction of a statement. What
has a history (a retry, a replay, an event parked behind its key) has a row of its own.

"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mesh import integrity
from mesh.catalogue import SHIFT, Catalogue, TopicRow
from mesh.done_keys import DoneKeys
from mesh.errors import MeshCorrupt
from mesh.failpoint import point
from mesh.records import Chunk, Record, encode_records
from mesh.schema import FORMAT, migrate
from mesh.sync import sync_file

__all__ = [
    "SHIFT",
    "Store",
    "SubRow",
    "TopicRow",
    "bits",
    "checkpoint",
]


class SubRow(msgspec.Struct, gc=False):
    """A subscription's counters. `filled`: the backfill's cursor, None once it is done."""

    id: int
    name: str
    topic: int
    spec: bytes
    filled: int | None
    waiting: int
    parked: int
    dropped: int


def bits(mask: int) -> Iterator[int]:
    """The indices of the set bits, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def mask_bytes(mask: int) -> bytes:
    """A bit mask as it is stored, little-endian."""
    return mask.to_bytes((mask.bit_length() + 7) // 8 or 1, "little")


def open_database(path: str) -> sqlite3.Connection:
    """A connection to a mesh file. The one place that opens it, so that a simulation can put a
    simulated disk below."""
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def checkpoint(path: str) -> None:
    """Copy what the write-ahead log holds into the file, beside its writer, and sync it. SQLite
    itself syncs the file only where the writer has added nothing meanwhile, and would leave the
    whole of it to the checkpoint that finds all copied. Raises sqlite3.Error."""
    db = open_database(path)
    try:
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        sync_file(path)
    except OSError as error:
        raise sqlite3.OperationalError(f"its sync failed: {error.strerror}") from error
    finally:
        db.close()


class Store(Catalogue, DoneKeys):
    """One connection to the file.

    `synchronous=FULL`: a commit returns when the write-ahead log is synced. Checkpoints are the
    engine's to run, never a commit's.
    """

    def __init__(self, path: str, *, synchronous: str = "FULL") -> None:
        self.path = path
        self.memory = path == ":memory:"
        if not self.memory:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if not os.path.exists(path):  # noqa: PTH110
                # It is its owner's alone. One that is there is not opened: closing it would give up
                # this process's locks on it, and another would delete the log that we write.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        before = None if self.memory or synchronous != "FULL" else integrity.wal_mark(path)
        self.db = open_database(path)
        try:
            self._prepare(synchronous, before)
        except MeshCorrupt:
            self.db.close()
            raise
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise integrity.told(path, error) from None

    def _prepare(self, synchronous: str, before: integrity.WalMark | None) -> None:
        run = self.db.execute
        run("PRAGMA busy_timeout=5000")
        run("PRAGMA journal_mode=WAL")
        run(f"PRAGMA synchronous={synchronous}")
        run("PRAGMA wal_autocheckpoint=0")
        run("PRAGMA journal_size_limit=67108864")
        run("PRAGMA cache_size=-16384")
        (version,) = run("PRAGMA user_version").fetchone()
        lost = integrity.frames_lost(before, self.path)
        if version != FORMAT:
            migrate(self.db, self.path)
        integrity.check_log(self, before, lost)

    def _verify(
        self, table: str, key: int, crc: int | None, found: int, body: bytes | None = None
    ) -> None:
        """Raises MeshCorrupt. A row of an older version has no checksum; it may not decode."""
        if crc == found or (crc is None and integrity.decodes(table, body)):
            return
        raise integrity.bad_row(self, table, key, "its checksum is not that of what it holds")

    def close(self) -> None:
        """Close the connection. Twice is harmless."""
        self.db.close()

    def version(self) -> int:
        """Changes when another connection has written the file."""
        (version,) = self.db.execute("PRAGMA data_version").fetchone()
        return int(version)

    # Topics and their logs

    def add_topic(self, name: str) -> TopicRow:
        """Make a topic. Its offsets begin beyond those of all that were removed, of which one may
        have had its name: a position never stands for two events."""
        rows = self.db.execute("SELECT value FROM meta WHERE key = 'topics/next'").fetchall()
        first = int(rows[0][0]) if rows else 0
        cursor = self.db.execute(
            "INSERT INTO topic (name, next, routed) VALUES (?, ?, ?)", (name, first, first)
        )
        return TopicRow(cursor.lastrowid or 0, name, first, first, 0, 0)

    def remove_topic(self, topic: TopicRow) -> bool:
        """Remove a topic that holds nothing, unless it is the one made last: ids of topics are
        never used again. Whether it is gone."""
        rows = self.db.execute("SELECT max(id) FROM topic").fetchall()
        if rows[0][0] == topic.id:
            return False
        run = self.db.execute
        run("DELETE FROM topic WHERE id = ?", (topic.id,))
        run("DELETE FROM meta WHERE key = ?", (f"ends/{topic.id}",))
        run(
            "INSERT INTO meta (key, value) VALUES ('topics/next', ?) ON CONFLICT (key)"
            " DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
            (str(topic.next),),
        )
        return True

    def save_topic(self, topic: TopicRow) -> None:
        """Write a topic's counters."""
        self.db.execute(
            "UPDATE topic SET next = ?, routed = ?, count = ?, bytes = ? WHERE id = ?",
            (topic.next, topic.routed, topic.count, topic.bytes, topic.id),
        )

    def append(self, topic: int, chunk: Chunk, digests: bytes) -> None:
        """Add a chunk to a topic's log, and its ids to the deduplication window."""
        key, at, count, body = topic << SHIFT | chunk.first, chunk.at, chunk.count, chunk.body
        self.db.execute(
            "INSERT INTO log (key, at, count, body, crc) VALUES (?, ?, ?, ?, ?)",
            (key, at, count, body, integrity.row_crc(body, key, at, count)),
        )
        self.db.execute(
            "INSERT INTO ids (key, at, digests, crc) VALUES (?, ?, ?, ?)",
            (key, at, digests, integrity.row_crc(digests, key, at)),
        )

    def ids_since(self, topic: int, offset: int, at: float) -> Iterator[tuple[float, bytes]]:
        """The deduplication window's rows from an offset and a time on."""
        rows = self.db.execute(
            "SELECT key, at, digests, crc FROM ids"
            " WHERE key >= ? AND key < ? AND at >= ? ORDER BY key",
            (topic << SHIFT | offset, (topic + 1) << SHIFT, at),
        )
        for key, stored, digests, crc in rows:
            self._verify("ids", key, crc, integrity.row_crc(digests, key, stored))
            yield stored, digests

    def all_ids_since(self, at: float) -> Iterator[tuple[int, float, bytes]]:
        """The same of all topics, from a time on: (key, time, digests), topic by topic."""
        rows = self.db.execute(
            "SELECT key, at, digests, crc FROM ids WHERE at >= ? ORDER BY key", (at,)
        )
        for key, stored, digests, crc in rows:
            self._verify("ids", key, crc, integrity.row_crc(digests, key, stored))
            yield key, stored, digests

    def chunks(self, topic: int, offset: int, limit: int) -> list[Chunk]:
        """Up to `limit` chunks from the one that holds `offset` on."""
        base = topic << SHIFT
        (start,) = self.db.execute(
            "SELECT max(key) FROM log WHERE key >= ? AND key <= ?", (base, base | offset)
        ).fetchone()
        rows = self.db.execute(
            "SELECT key, count, at, body, crc FROM log"
            " WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (start if start is not None else base, (topic + 1) << SHIFT, limit),
        ).fetchall()
        for key, count, at, body, crc in rows:
            self._verify("log", key, crc, integrity.row_crc(body, key, at, count), body)
        return [Chunk(key - base, count, at, body) for key, count, at, body, _ in rows]

    def chunk(self, topic: int, first: int) -> Chunk | None:
        """The chunk that begins at `first`."""
        key = topic << SHIFT | first
        row = self.db.execute(
            "SELECT count, at, body, crc FROM log WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        count, at, body, crc = row
        self._verify("log", key, crc, integrity.row_crc(body, key, at, count), body)
        return Chunk(first, count, at, body)

    def offset_at(self, topic: int, at: float) -> int | None:
        """The first offset stored at or after a wall-clock time; None where there is none yet."""
        base = topic << SHIFT
        row = self.db.execute(
            "SELECT key FROM log WHERE key >= ? AND key < ? AND at >= ? ORDER BY key LIMIT 1",
            (base, (topic + 1) << SHIFT, at),
        ).fetchone()
        return row[0] - base if row else None

    # Subscriptions and their queues

    def subs(self) -> list[SubRow]:
        """All subscriptions of every namespace."""
        rows = self.db.execute(
            "SELECT id, name, topic, spec, filled, waiting, parked, dropped FROM sub"
        )
        return [SubRow(*row) for row in rows]

    def add_sub(self, name: str, topic: int, spec: bytes, filled: int | None) -> SubRow:
        """Make a subscription."""
        cursor = self.db.execute(
            "INSERT INTO sub (name, topic, spec, filled) VALUES (?, ?, ?, ?)",
            (name, topic, spec, filled),
        )
        return SubRow(cursor.lastrowid or 0, name, topic, spec, filled, 0, 0, 0)

    def save_sub(self, sub: SubRow) -> None:
        """Write a subscription's spec and counters."""
        self.db.execute(
            "UPDATE sub SET spec = ?, filled = ?, waiting = ?, parked = ?, dropped = ?"
            " WHERE id = ?",
            (sub.spec, sub.filled, sub.waiting, sub.parked, sub.dropped, sub.id),
        )

    def remove_sub(self, sub: int) -> None:
        """Remove a subscription with its queue and its dead letters' list."""
        low, high = sub << SHIFT, (sub + 1) << SHIFT
        self.db.execute("DELETE FROM backlog WHERE key >= ? AND key < ?", (low, high))
        self.db.execute("DELETE FROM parked WHERE sub = ?", (sub,))
        self.db.execute("DELETE FROM dead WHERE sub = ?", (sub,))
        self.db.execute("DELETE FROM replayed WHERE sub = ?", (sub,))
        self.db.execute("DELETE FROM done_key WHERE sub = ?", (sub,))
        self.db.execute("DELETE FROM sub WHERE id = ?", (sub,))

    def queue(self, sub: int, first: int, at: float, mask: int) -> None:
        """Note what a subscription has to settle of a chunk; nothing left removes the row."""
        key = sub << SHIFT | first
        if packed := mask_bytes(mask) if mask else b"":
            self.db.execute(
                "INSERT INTO backlog (key, at, mask, crc) VALUES (?, ?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET at = excluded.at, mask = excluded.mask, crc = excluded.crc",
                (key, at, packed, integrity.row_crc(packed, key, at)),
            )
        else:
            self.db.execute("DELETE FROM backlog WHERE key = ?", (key,))

    def backlog(self, sub: int, first: int, limit: int) -> list[tuple[int, float, int]]:
        """Up to `limit` (first, at, mask) of a queue from chunk `first` on."""
        base = sub << SHIFT
        rows = self.db.execute(
            "SELECT key, at, mask, crc FROM backlog"
            " WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (base | first, (sub + 1) << SHIFT, limit),
        ).fetchall()
        for key, at, mask, crc in rows:
            self._verify("backlog", key, crc, integrity.row_crc(mask, key, at))
        return [(key - base, at, int.from_bytes(mask, "little")) for key, at, mask, _ in rows]

    def oldest(self, sub: int) -> float | None:
        """The wall-clock time at which the oldest unsettled event was published."""
        (at,) = self.db.execute(
            "SELECT min(at) FROM (SELECT min(at) AS at FROM parked WHERE sub = ?"
            " UNION ALL SELECT at FROM (SELECT at FROM backlog WHERE key >= ? AND key < ?"
            " ORDER BY key LIMIT 1))",
            (sub, sub << SHIFT, (sub + 1) << SHIFT),
        ).fetchone()
        return None if at is None else float(at)

    # What has a history

    def park(  # noqa: PLR0917
        self,
        sub: int,
        due: float | None,
        key: str | None,
        holder: bool,
        offset: int,
        attempt: int,
        at: float,
        replay: str,
        error: str,
        record: Record,
    ) -> int:
        """Give an event a row of its own; the row's id."""
        body = encode_records(record)
        crc = integrity.parked_crc(body, sub, offset, at, replay)
        cursor = self.db.execute(
            "INSERT INTO parked"
            " (sub, due, key, holder, offset, attempt, at, replay, error, record, crc)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (sub, due, key, holder, offset, attempt, at, replay, error, body, crc),
        )
        return cursor.lastrowid or 0

    def repark(self, row: int, due: float, attempt: int, holder: bool, error: str) -> None:
        """A parked event that failed once more."""
        self.db.execute(
            "UPDATE parked SET due = ?, attempt = ?, holder = ?, error = ? WHERE id = ?",
            (due, attempt, holder, error, row),
        )

    def park_behind(self, row: int, key: str | None) -> None:
        """A parked event that is due, but waits behind its key."""
        self.db.execute("UPDATE parked SET due = NULL, key = ? WHERE id = ?", (key, row))

    def forget_keys(self, sub: int, now: float) -> None:
        """What is parked behind a key, or holds one, is ordered no longer."""
        self.db.execute(
            "UPDATE parked SET due = coalesce(due, ?), key = NULL, holder = 0 WHERE sub = ?",
            (now, sub),
        )

    def unpark(self, rows: Sequence[int]) -> None:
        """Remove settled rows."""
        self.db.executemany("DELETE FROM parked WHERE id = ?", [(row,) for row in rows])

    def due(self, sub: int, now: float, limit: int) -> list[tuple[int, float]]:
        """Ids and due times of parked events that are due, oldest first."""
        return self.db.execute(
            "SELECT id, due FROM parked WHERE sub = ? AND due <= ? ORDER BY due, id LIMIT ?",
            (sub, now, limit),
        ).fetchall()

    def next_due(self, sub: int, now: float) -> float | None:
        """When the next parked event after `now` is due."""
        (due,) = self.db.execute(
            "SELECT min(due) FROM parked WHERE sub = ? AND due > ?", (sub, now)
        ).fetchone()
        return None if due is None else float(due)

    def delayed(self, sub: int, now: float) -> int:
        """How many parked events are not due yet."""
        (count,) = self.db.execute(
            "SELECT count(*) FROM parked WHERE sub = ? AND due > ?", (sub, now)
        ).fetchone()
        return int(count)

    def parked(
        self, ids: Sequence[int]
    ) -> list[tuple[int, str | None, bool, int, int, float, str, bytes]]:
        """(id, key, holder, offset, attempt, at, replay, record) of rows, in the given order."""
        rows = []
        for row in ids:
            found = self.db.execute(
                "SELECT id, key, holder, offset, attempt, at, replay, record, sub, crc FROM parked"
                " WHERE id = ?",
                (row,),
            ).fetchone()
            if found:
                _, _, _, offset, _, at, replay, body, sub, crc = found
                made = integrity.parked_crc(body, sub, offset, at, replay)
                self._verify("parked", sub << SHIFT | offset, crc, made, body)
                rows.append(found[:8])
        return rows

    def parked_of_key(self, sub: int, key: str, limit: int) -> list[int]:
        """Ids of what waits behind a key without a due time, in order."""
        rows = self.db.execute(
            "SELECT id FROM parked WHERE sub = ? AND key = ? AND due IS NULL"
            " ORDER BY offset LIMIT ?",
            (sub, key, limit),
        )
        return [row for (row,) in rows]

    def blocked_keys(self, sub: int) -> list[tuple[str, bool, int | None]]:
        """Keys with parked events; True where one of them holds the key (it is to be retried);
        the first offset of those that wait behind it, if any do."""
        rows = self.db.execute(
            "SELECT key, max(holder), min(CASE WHEN due IS NULL THEN offset END)"
            " FROM parked WHERE sub = ? AND key IS NOT NULL GROUP BY key",
            (sub,),
        )
        return [(key, bool(held), first) for key, held, first in rows]

    def replayed(self, sub: int, replay: str, first: int) -> int:
        """Which events of a chunk a replay has queued already."""
        row = self.db.execute(
            "SELECT mask FROM replayed WHERE sub = ? AND replay = ? AND first = ?",
            (sub, replay, first),
        ).fetchone()
        return int.from_bytes(row[0], "little") if row else 0

    def note_replayed(self, sub: int, replay: str, first: int, at: float, mask: int) -> None:
        """Note which it has queued now."""
        self.db.execute(
            "INSERT OR REPLACE INTO replayed (sub, replay, first, at, mask) VALUES (?, ?, ?, ?, ?)",
            (sub, replay, first, at, mask_bytes(mask)),
        )

    def forget_replays(self, at: float) -> None:
        """Drop what was noted before a wall-clock time."""
        self.db.execute("DELETE FROM replayed WHERE at < ?", (at,))

    # Dead letters

    def add_dead(self, *row: object) -> None:
        """Note a dead letter: (sub, at, attempts, reason, offset, published_at, record,
        letter_topic, letter_offset)."""
        self.db.execute(
            "INSERT INTO dead (sub, at, attempts, reason, offset, published_at, record,"
            " letter_topic, letter_offset, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, integrity.dead_crc(row)),
        )

    def dead(
        self, sub: int, after: int, limit: int, most: int
    ) -> list[tuple[int, float, int, str, int, float, bytes, str, int]]:
        """(id, at, attempts, reason, offset, published_at, record, letter_topic, letter_offset)
        of a subscription's dead letters: up to `limit`, or until they are of `most` bytes."""
        found: list[Any] = []
        size = 0
        try:
            rows = self.db.execute(
                "SELECT id, at, attempts, reason, offset, published_at, record, letter_topic,"
                " letter_offset, crc FROM dead WHERE sub = ? AND id > ? ORDER BY id LIMIT ?",
                (sub, after, limit),
            )
            for row in rows:
                made = integrity.dead_crc((sub, *row[1:9]))
                self._verify("dead", sub << SHIFT | row[4], row[9], made, row[6])
                found.append(row[:9])
                size += len(row[6]) + len(row[3])
                if size >= most:
                    rows.close()
                    break
        except sqlite3.DatabaseError as error:
            raise integrity.told(self.path, error) from None
        return found

    def take_dead(self, sub: int, row: int) -> tuple[int, float, bytes] | None:
        """Remove one dead letter from the list: (offset, published_at, record)."""
        found = [each for each in self.dead(sub, row - 1, 1, 1) if each[0] == row]
        return found[0][4:7] if found and self.drop_dead(sub, row) else None

    def drop_dead(self, sub: int, row: int) -> bool:
        """Remove one dead letter, whatever it holds; whether it was there."""
        query = "DELETE FROM dead WHERE sub = ? AND id = ? RETURNING id"
        return self.db.execute(query, (sub, row)).fetchone() is not None

    # Retention

    def pinned(self, subs: Sequence[int]) -> int | None:
        """The first chunk that any of these subscriptions still needs."""
        firsts = []
        for sub in subs:
            row = self.db.execute(
                "SELECT key FROM backlog WHERE key >= ? AND key < ? ORDER BY key LIMIT 1",
                (sub << SHIFT, (sub + 1) << SHIFT),
            ).fetchone()
            if row:
                firsts.append(row[0] - (sub << SHIFT))
        return min(firsts, default=None)

    def trim(
        self, topic: int, before: int | None, at: float, excess: int, *, limit: int, most: int
    ) -> tuple[int, int, int, bool]:
        """Drop a topic's oldest chunks: those stored before `at`, and more until `excess` bytes
        are gone; never one from offset `before` on, up to `limit` of them or about `most` bytes
        at once. (events, bytes, first offset of the last, whether there is more to drop)."""
        base = topic << SHIFT
        rows = self.db.execute(
            "SELECT key, count, length(body), at FROM log WHERE key >= ? AND key < ?"
            " ORDER BY key LIMIT ?",
            (base, (topic + 1) << SHIFT if before is None else base | before, limit),
        )
        chunks = events = size = last = 0
        for key, count, length, stored in rows:
            if (stored >= at and size >= excess) or size >= most:
                break
            chunks, events, size, last = chunks + 1, events + count, size + length, key
        rows.close()
        if last:
            self.db.execute("DELETE FROM log WHERE key >= ? AND key <= ?", (base, last))
        return events, size, last - base, chunks == limit or size >= most

    def forget_ids(self, topic: int, at: float, limit: int) -> int:
        """Drop up to `limit` rows of ids that the deduplication window has forgotten, those
        stored before `at`; how many."""
        base = topic << SHIFT
        rows = self.db.execute(
            "SELECT key, at FROM ids WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (base, (topic + 1) << SHIFT, limit),
        )
        count = last = 0
        for key, stored in rows:
            if stored >= at:
                break
            count, last = count + 1, key
        rows.close()
        if last:
            self.db.execute("DELETE FROM ids WHERE key >= ? AND key <= ?", (base, last))
        return count

    # Everything else

    def next_epoch(self) -> int:
        """A number that no earlier opening of this file got, durable when this returns."""
        run = self.db.execute
        point("epoch.before")
        run("BEGIN IMMEDIATE")
        try:
            found = run("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            epoch = int(found[0]) + 1 if found else 1
            run("INSERT OR REPLACE INTO meta (key, value) VALUES ('epoch', ?)", (str(epoch),))
            run("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                run("ROLLBACK")
            raise
        point("epoch.after")
        return epoch

    def one(self, query: str, *arguments: object) -> tuple[object, ...] | None:
        """The first row of a rare query. Raises MeshCorrupt."""
        rows = self.all(query, *arguments)
        return rows[0] if rows else None

    def all(self, query: str, *arguments: object) -> list[tuple[object, ...]]:
        """The rows of a rare query. Raises MeshCorrupt."""
        try:
            return self.db.execute(query, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise integrity.told(self.path, error) from None

    def run(self, query: str, *arguments: object) -> int:
        """A rare statement; the last row's id."""
        return self.db.execute(query, arguments).lastrowid or 0
