"""SQLite's write-ahead log, kept so that commits are cheap: it is copied into the file beside the
writer, and has room ahead of what is written."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from mesh.batch import Batch
from mesh.errors import MeshError
from mesh.failpoint import point
from mesh.store import checkpoint
from mesh.sync import copy_anew

__all__ = ["FULL", "Checkpoints"]

FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
"""What SQLite says of a disk without room."""
LATER = (*FULL, "SQLITE_BUSY", "SQLITE_CANTOPEN")
"""What only delays a checkpoint."""
PAGES = 16_384
"""64 MB: a checkpoint's sync delays the commits beside it, so they are made seldom."""
ROUNDS = 2
"""Of copying beside the writer: what comes during the first takes a while to sync, too, and the
last copy, between two commits, is to find little."""
COMMITS = 32
"""The log's size is looked at once in so many commits."""
ROOM_BYTES = 4 << 20
"""The log is lengthened by this much at a time, once it is as long: a commit that makes a file
longer waits for the file system's journal as well, and takes twice as long."""
PIECE_BYTES = 64 << 10
"""Written at once. Linux keeps that in one piece of its cache if it can, and a small write into it,
of which a commit makes dozens, takes the longer the larger the piece is."""
ROOM_OF_DISK = 16
"""No more of the disk's free space than one part in so many is taken for that."""


class Checkpoints:
    """Of one file, whose one writer runs what is handed to `write` in a transaction."""

    def __init__(
        self,
        path: str,
        db: sqlite3.Connection,
        write: Callable[[Callable[[Batch], None]], Awaitable[None]],
        stop: Callable[[sqlite3.Error], None],
        *,
        inline: bool = False,
    ) -> None:
        self.path = path
        self.log = Path(path + "-wal")
        self.db = db
        self.write = write
        self.stop = stop
        self.inline = inline
        """All of it between two commits, for simulation."""
        self.running: asyncio.Task[None] | None = None
        self.done = 0
        """The log's size when its content was last in the file: SQLite overwrites it from there."""
        self.commits = 0

    def committed(self) -> None:
        """Start one in the background where it is time."""
        self.commits += 1
        if self.running is not None or self.commits < COMMITS:
            return
        self.commits = 0
        size = self._size()
        if size > PAGES * 4096:
            if size != self.done:
                self.running = asyncio.get_running_loop().create_task(self._run())
        elif size >= ROOM_BYTES and not self.inline:
            self.running = asyncio.get_running_loop().create_task(self._lengthen())

    async def wait(self) -> None:
        """For the one that runs."""
        if self.running is not None:
            await asyncio.wait([self.running])

    def _size(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    async def _lengthen(self) -> None:
        """Add zeros, which SQLite takes for the end of its log. In a transaction, for nothing else
        may write the log meanwhile; the next commit's sync stores them."""
        try:
            await self.write(lambda batch: self._add_room())
        except MeshError:
            pass  # the mesh is closed or full
        finally:
            self.running = None

    def _add_room(self) -> None:
        try:
            disk = os.statvfs(self.path)
            size = self._size()
            more = min(ROOM_BYTES, PAGES * 4096 - size)
            if more > 0 and more * ROOM_OF_DISK < disk.f_bavail * disk.f_frsize:
                with self.log.open("r+b", buffering=0) as log:
                    log.seek(size)
                    for start in range(0, more, PIECE_BYTES):
                        log.write(bytes(min(PIECE_BYTES, more - start)))
        except OSError:
            pass  # commits make the log longer themselves, and say what is wrong

    async def _run(self) -> None:
        """Most of it beside the writer, then the little that is left between two commits: after
        that SQLite begins its log anew instead of growing it."""
        try:
            if not self.inline:
                point("checkpoint.before")
                for _ in range(ROUNDS):
                    await asyncio.get_running_loop().run_in_executor(None, checkpoint, self.path)
                point("checkpoint.copied")
            await self.write(lambda batch: batch.after.append(self._finish))
        except sqlite3.Error as error:
            self._failed(error)
        except MeshError:
            pass  # the mesh is closed or full: the log keeps it all
        finally:
            self.running = None

    def _finish(self) -> None:
        try:
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            self._failed(error)
        else:
            self.done = self._size()
            point("checkpoint.after")

    def _failed(self, error: sqlite3.Error) -> None:
        """The log keeps what could not be copied, so a full disk only delays it, and so does a
        process that has too many files open; what a failed sync leaves is unknown, also where it
        failed for want of room: the kernel may have dropped it, and SQLite counts it as copied."""
        if getattr(error, "sqlite_errorname", "") not in LATER:
            copy_anew(self.path)
            self.stop(error)
