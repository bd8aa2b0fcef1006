"""Making a transaction durable: on the event loop where the disk is quick, else in a thread."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from mesh.failpoint import point

__all__ = ["Committer"]

QUICK_S = 0.001
"""A commit that is quicker is not worth a thread: handing over takes as long, and taking the
interpreter's lock back longer where the loop is busy."""
SLOW_S = 0.005
PROBE = 64
"""A commit in the thread does not tell how quick it would be on the loop: one in so many is made
there, of those that took less than SLOW_S."""


class Committer:
    """Commits the transactions of one connection. `inline`: on the loop whatever the disk does."""

    def __init__(self, db: sqlite3.Connection, *, inline: bool) -> None:
        self.db = db
        self._thread = None if inline else ThreadPoolExecutor(1, "mesh-commit")
        self.took_s = 0.0
        """How long a commit on the loop takes lately. A single slow one counts for little."""
        self._in_thread = 0

    async def commit(self) -> None:
        """Return once what the connection's transaction wrote is on the disk."""
        point("commit.before")
        started = perf_counter()
        if self._thread is None or self.took_s < QUICK_S or self._in_thread >= PROBE:
            self._in_thread = 0
            self.db.execute("COMMIT")
            took = min(perf_counter() - started, 2 * QUICK_S)
            self.took_s += 0.1 * (took - self.took_s)
        else:
            run = asyncio.get_running_loop().run_in_executor
            await run(self._thread, self.db.execute, "COMMIT")
            self._in_thread += perf_counter() - started < SLOW_S
        point("commit.after")

    def close(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._thread.shutdown()
