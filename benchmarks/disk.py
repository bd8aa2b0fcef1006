"""The bare durable commit: what the disk allows, measured where the systems write."""

import sqlite3
import time
from pathlib import Path

from benchmarks.table import Row, percentile

RATE = 200.0
BODY = b"x" * 1024


def _commits(database: sqlite3.Connection, count: int, every_s: float) -> list[float]:
    took, due = [], time.perf_counter()
    for _ in range(count):
        due += every_s
        if (wait := due - time.perf_counter()) > 0 and every_s:
            time.sleep(wait)
        began = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO row (body) VALUES (?)", (BODY,))
        database.execute("COMMIT")
        took.append((time.perf_counter() - began) * 1000)
    return took


class Disk:
    """Commits of one 1 KB row, SQLite in WAL mode at `synchronous=FULL`, over a whole run."""

    def __init__(self) -> None:
        self.straight: list[float] = []
        self.paced: list[float] = []

    def measure(self, directory: Path, count: int = 400) -> None:
        """Once back to back, once at 200 a second."""
        database = sqlite3.connect(directory / "commit.db", isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB)")
            _commits(database, 20, 0)
            self.straight += _commits(database, count, 0)
            self.paced += _commits(database, count, 1 / RATE)
        finally:
            database.close()

    def rows(self) -> list[Row]:
        """Over all rounds."""
        return [
            {
                "name": f"bare commit, {how}",
                "events/s": 1000 * len(took) / sum(took) if how == "back to back" else None,
                "p50 ms": percentile(took, 50),
                "p99 ms": percentile(took, 99),
            }
            for how, took in (("back to back", self.straight), ("200 a second", self.paced))
        ]


def kind_of(directory: Path) -> str:
    """The file system that holds a directory, e.g. `ext4`; a `tmpfs` syncs nothing."""
    best, found = "", "?"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        inside = f"{directory.resolve()}/".startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, found = place, kind
    return found
