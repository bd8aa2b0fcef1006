"""A simulated disk below SQLite: it keeps what was not synced apart, and forgets or tears it when
the power goes. A VFS (sqlite.org/vfs.html) over real files, so that all else is SQLite's own.

Model: a write is durable once its file was synced; until then any subset of the writes since the
last sync may survive, each whole or torn at a sector. What a file's directory says is durable at
once: the mesh makes its files before it confirms anything.
"""

import contextlib
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import apsw

__all__ = ["Disk", "PowerCut"]

SECTOR = 512


class PowerCut(BaseException):
    """The power went in the middle of a write. No error: nobody is there to handle one."""


class Disk:
    """All files opened through it. `full` and `bad_sync` make it refuse; once it is `off` nothing
    reaches it any more, as after a SIGKILL: closing what was open leaves it as it is."""

    def __init__(self, name: str = "simulated") -> None:
        self.name = name
        self.unsynced: dict[str, list[tuple[int, bytes, bytes]]] = {}
        """File -> (offset, what was there, what was written), in the order of writing."""
        self.writes = self.syncs = 0
        self.full = False
        self.bad_sync = False
        self.off = False
        self.cut_in: int | None = None
        """Writes and syncs until the power goes."""
        self._vfs = _Vfs(self)

    def connect(self, path: str) -> "Connection":
        """For `mesh.store.open_database`."""
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        return Connection(apsw.Connection(path, flags=flags, vfs=self.name))

    def tick(self) -> None:
        """A write or a sync is about to happen. Once the power is gone none does: to call it done
        would let SQLite's shared index, which is a real file, count what the disk never got."""
        if self.off:
            raise PowerCut
        if self.cut_in is not None:
            self.cut_in -= 1
            if self.cut_in < 0:
                self.cut_in, self.off = None, True
                raise PowerCut

    def wrote(self, path: str, offset: int, before: bytes, data: bytes) -> None:
        self.writes += 1
        self.unsynced.setdefault(path, []).append((offset, before, data))

    def synced(self, path: str) -> None:
        self.syncs += 1
        self.unsynced.pop(path, None)

    def power_loss(self, chance: random.Random) -> int:
        """Bring the files to a state that a power cut may leave; how many writes were lost or
        torn. To be called while it is off, once everything is closed."""
        lost = 0
        for path, writes in self.unsynced.items():
            with open(path, "r+b") as file:
                for offset, before, _ in reversed(writes):
                    file.seek(offset)
                    file.write(before)
                keep = chance.choice((0.0, 0.5, 0.9))
                for offset, _, data in writes:
                    if chance.random() < keep:
                        file.seek(offset)
                        file.write(data)
                        continue
                    lost += 1
                    for at in range(0, len(data), SECTOR):
                        if chance.random() < keep:
                            file.seek(offset + at)
                            file.write(data[at : at + SECTOR])
        self.unsynced.clear()
        return lost

    def close(self) -> None:
        """Let SQLite forget it."""
        self._vfs.unregister()


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__(disk.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(self.disk, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        if self.disk.off:
            return
        self.disk.unsynced.pop(name, None)
        super().xDelete(name, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.disk.full and not self.disk.off:
            raise apsw.FullError("no room on the simulated disk")
        self.disk.tick()
        size = self.xFileSize()
        there = max(min(len(data), size - offset), 0)
        before = self.xRead(there, offset) if there else b""
        self.disk.wrote(self.path, offset, before + bytes(len(data) - there), bytes(data))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self.disk.bad_sync and not self.disk.off:
            raise apsw.IOError("the simulated disk cannot sync")
        self.disk.tick()
        self.disk.synced(self.path)  # the machine's own disk need not: only this one's power fails

    def xTruncate(self, newsize: int) -> None:
        if not self.disk.off:
            super().xTruncate(newsize)


class _Cursor:
    """What the store uses of `sqlite3.Cursor`."""

    def __init__(self, cursor: Any, connection: Any) -> None:
        self._cursor = cursor
        self._connection = connection
        self.lastrowid = connection.last_insert_rowid()

    def fetchone(self) -> Any:
        return _translated(self._cursor.fetchone)

    def fetchall(self) -> Any:
        return _translated(self._cursor.fetchall)

    def __iter__(self) -> Any:
        return iter(self._cursor)

    def close(self) -> None:
        self._cursor.close()


class Connection:
    """What the store uses of `sqlite3.Connection`, over apsw, errors included."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._saved: dict[str, Any] = {}

    def execute(self, query: str, arguments: Any = ()) -> _Cursor:
        return _Cursor(_translated(lambda: self._db.execute(query, arguments)), self._db)

    def executemany(self, query: str, arguments: Any) -> _Cursor:
        return _Cursor(_translated(lambda: self._db.executemany(query, arguments)), self._db)

    @property
    def in_transaction(self) -> bool:
        return bool(self._db.in_transaction)

    def close(self) -> None:
        with contextlib.suppress(PowerCut):  # a checkpoint that cannot be made any more
            self._db.close(True)


def _translated(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except apsw.Error as error:
        # What the disk above raises comes through as it is; the rest has SQLite's code.
        code = getattr(error, "extendedresult", None)
        if code is None:
            name = "SQLITE_FULL" if isinstance(error, apsw.FullError) else "SQLITE_IOERR_FSYNC"
        else:
            name = str(
                apsw.mapping_extended_result_codes.get(code)
                or apsw.mapping_result_codes.get(code & 255)
            )
        corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
        kind = sqlite3.DatabaseError if corrupt else sqlite3.OperationalError
        translated = kind(str(error))
        translated.sqlite_errorname = name
        raise translated from error
