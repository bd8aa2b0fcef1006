"""What tells that a mesh file is not as it was written.

SQLite checks its structure, and each page of its write-ahead log, but not what rows hold once they
are in the file. So a row carries a checksum (CRC-32, zlib's) over its place and its content: a row
in another's place is found as well. It finds damage, not forgery.
"""

import ctypes
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mesh.errors import MeshCorrupt

if TYPE_CHECKING:
    from mesh.store import Store

__all__ = [
    "COPIED_AT",
    "WalMark",
    "bad_row",
    "blob_crc",
    "check_ends",
    "check_log",
    "damaged",
    "dead_crc",
    "decodes",
    "frames_lost",
    "parked_crc",
    "row_crc",
    "told",
    "wal_mark",
]

_crc = zlib.crc32
_place = struct.Struct("<qdq").pack
_decode = msgspec.msgpack.Decoder().decode


def row_crc(body: bytes, key: int, at: float, count: int = 0) -> int:
    """Of a row of `log`, `ids` or `backlog`."""
    return _crc(body, _crc(_place(key, at, count)))


def parked_crc(record: bytes, sub: int, offset: int, at: float, replay: str) -> int:
    """Of a row of `parked`: what stays as it is while the event is tried again."""
    return _crc(record, _crc(replay.encode(), _crc(_place(sub, at, offset))))


def dead_crc(row: Sequence[Any]) -> int:
    """Of a row of `dead`: (sub, at, attempts, reason, offset, published_at, record, letter_topic,
    letter_offset)."""
    sub, at, attempts, reason, offset, published, record, topic, letter = row
    crc = _crc(_place(offset, published, letter), _crc(_place(sub, at, attempts)))
    return _crc(record, _crc(f"{reason}\0{topic}".encode(), crc))


def blob_crc(body: bytes, digest: str) -> int:
    """Of a row of `blob`."""
    return _crc(body, _crc(digest.encode()))


def decodes(table: str, body: bytes | None) -> bool:
    """Whether a payload without a checksum is at least an encoding."""
    if table not in ("log", "parked", "dead") or body is None:
        return True
    try:
        _decode(body)
    except msgspec.DecodeError:
        return False
    return True


def damaged(path: str, found: str) -> MeshCorrupt:
    """The error for what a repair can work round."""
    return MeshCorrupt(path, found, mendable=True)


def told(path: str, error: Exception) -> Exception:
    """MeshCorrupt for what SQLite says of a damaged file; another error as it is."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_NOTADB":
        return MeshCorrupt(path, f"not a mesh file ({error})")
    if name.startswith("SQLITE_CORRUPT"):
        return damaged(path, f"SQLite cannot read it ({error})")
    return error


def check_ends(store: "Store") -> None:
    """Whether each topic's log ends where its counters say: one look-up a topic, however long.
    Raises MeshCorrupt. Clients may write the file meanwhile: all is read of one moment."""
    store.db.execute("BEGIN")
    try:
        _check_ends(store)
    finally:
        if store.db.in_transaction:
            store.db.execute("ROLLBACK")  # nothing was written


def _check_ends(store: "Store") -> None:
    noted = store.all("SELECT key, value FROM meta WHERE key LIKE 'ends/%'")
    known = {str(key): str(value) for key, value in noted}
    rows: list[Any] = store.all(
        "SELECT topic.id, name, next, topic.count, log.key, log.count FROM topic LEFT JOIN log"
        " ON log.key = (SELECT max(key) FROM log"
        " WHERE key >= topic.id << 40 AND key < (topic.id + 1) << 40)"
    )
    for topic, name, following, count, last, held in rows:
        end = following if last is None else last - (topic << 40) + held
        # A repair that had to leave out the end of a log says so.
        missing = end < following and known.get(f"ends/{topic}") != str(following)
        if end > following or missing or (last is None and count):
            raise damaged(
                store.path,
                f"table log, topic {name}: its counters say {count} events up to"
                f" offset {following}, the log ends at {'nothing' if last is None else end}",
            )


COPIED_AT = 96
"""In the index of a write-ahead log (`-shm`): how many of its frames the file has, nBackfill
(sqlite.org/walformat.html, section 2.1)."""


class WalMark(msgspec.Struct, frozen=True):
    """How far a write-ahead log goes, by the index that SQLite keeps beside it (`-shm`).

    sqlite.org/walformat.html, section 2.1: two copies of a header of 48 bytes, of which mxFrame is
    at 16 and the salts are at 32; then nBackfill. With `synchronous=FULL` a commit's frames are
    synced before mxFrame counts them, so what it counts and the log lacks is lost.
    """

    frames: int
    copied: int
    """Frames that the file itself has, synced."""
    salt: bytes


def wal_mark(path: str) -> WalMark | None:
    """What the index of a file says that this process has not open; None where it has, where there
    is none, or where it was being written. (To open and close it would give up SQLite's locks.)"""
    if _mapped(path) is not None:
        return None
    try:
        with Path(path + "-shm").open("rb") as file:
            return _mark(file.read(100))
    except OSError:
        return None


def _mark(header: bytes) -> WalMark | None:
    if len(header) < 100 or header[:48] != header[48:96] or not header[12]:
        return None
    (frames,), (copied,) = (struct.unpack_from("=I", header, at) for at in (16, COPIED_AT))
    return WalMark(frames, copied, header[32:40])


def _mapped(path: str) -> bytes | None:
    """The start of the index, where this process has it open: SQLite keeps it mapped."""
    wanted = os.path.realpath(path + "-shm")
    for line in Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines():
        place, _, offset, _, _, *name = line.split(maxsplit=5)
        if name == [wanted] and int(offset, 16) == 0:
            found: bytes = ctypes.string_at(int(place.split("-")[0], 16), 100)
            return found
    return None


def frames_lost(before: WalMark | None, path: str) -> int:
    """How many committed frames the log has lost since `before`, now that SQLite has opened it."""
    if before is None or before.frames <= before.copied:
        return 0
    if (header := _mapped(path)) is None:
        return 0
    after = _mark(header)
    if after is None or (after.salt not in (before.salt, bytes(8)) and _whole_header(path)):
        return 0  # begun anew
    return max(0, before.frames - after.frames)


def _whole_header(path: str) -> bool:
    """Whether the log's own header is as it was written (walformat.html, sections 1.1, 1.2)."""
    try:
        with Path(path + "-wal").open("rb") as file:
            header = file.read(32)
    except OSError:
        return False
    if len(header) < 32:
        return False
    words = struct.unpack((">" if header[3] & 1 else "<") + "6I", header[:24])
    first = second = 0
    for low, high in zip(words[::2], words[1::2], strict=True):
        first = (first + low + second) & 0xFFFFFFFF
        second = (second + high + first) & 0xFFFFFFFF
    return struct.unpack(">2I", header[24:]) == (first, second)


def check_log(store: "Store", before: WalMark | None, lost: int) -> None:
    """Refuse a file whose log has lost commits since a process last had it open: SQLite takes what
    is left for all there was. Noted in the file, for the trace of it goes as it is opened."""
    if before is not None and lost:
        store.run(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('damaged', ?)",
            f"its write-ahead log lost {lost} of {before.frames} pages that were synced: the newest"
            " commits are gone",
        )
    found = store.one("SELECT value FROM meta WHERE key = 'damaged'")
    if found is not None:
        raise damaged(store.path, str(found[0]))


def bad_row(store: "Store", table: str, key: int, why: str) -> MeshCorrupt:
    """The error for a row of a topic or a subscription, `owner << 40 | offset`."""
    owner, noun = ("topic", "topic") if table in ("log", "ids") else ("sub", "subscription")
    row = store.one(f"SELECT name FROM {owner} WHERE id = ?", key >> 40)
    name = row[0] if row else key >> 40
    where = f"table {table}, {noun} {name}, offset {key & ((1 << 40) - 1)}"
    return damaged(store.path, f"{where}: {why}")
