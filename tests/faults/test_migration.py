"""Files of each older format, full of data, whose migration is ended at each of its statements:
they then open whole, and what was in them goes on. Each try is a process of its own."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mesh import schema
from mesh.failpoint import EXIT_CODE
from mesh.ledger.expectations import Expectations, Expected
from tests.faults.run import Run, watched
from tests.serving import Serving, rows

FUNCTION = """
import os, time
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")

def handler(event, ctx):
    n = event.json()["n"]
    with ledger.call("{name}/in", event, attempt=ctx.attempt):
        while {waits} and not os.path.exists("{go}"):
            time.sleep(0.02)
        if {fails}:
            raise ValueError(n)
        return {{"n": n}}
---
[[trigger]]
topic = "in"
[output]
topic = "{name}.out"
[retry]
attempts = 2
backoff = "constant"
base = "{base}"
[scale]
min = 0
max = 1
"""
NAMES = ["quick/in", "late/in", "idle/in"]
LETTERS = ["dlq", "ls", "quick", "--json", "--limit"]
OLDER = range(1, schema.FORMAT)
OPEN = "import sys; from mesh.store import Store; Store(sys.argv[1]).close()"


class Old:
    """A data directory whose file is made a file of an older format while no host runs."""

    def __init__(self, directory: Path, version: int, total: int, base: str) -> None:
        self.directory = directory
        self.version = version
        self.total = total
        self.base = base
        self.file = directory / "data" / "mesh.db"
        self.host: Serving | None = None

    def serve(self) -> None:
        """`quick` ends all, every eighth as a dead letter; `late` has a retry of all; `idle` gets
        stuck at the first, until it may go."""
        address, go = self.directory / "ledger.sock", self.directory / "go"
        functions = {
            "quick": ("n % 8 == 7", "False", "10ms"),
            "late": ("ctx.attempt == 1", "False", self.base),
            "idle": ("False", "True", "10ms"),
        }
        sources = {
            name: FUNCTION.format(
                address=address, go=go, name=name, fails=fails, waits=waits, base=base
            )
            for name, (fails, waits, base) in functions.items()
        }
        self.host = Serving(self.directory / "data", **sources)

    async def fill(self, run: Run) -> None:
        """Have a host put something into every table that one writes."""
        await asyncio.to_thread(self.serve)
        await run.publish(self.total, 0.0)
        while True:
            quick, late, idle = [await run.client.depth(name) for name in NAMES]
            left = quick.ready + quick.leased + quick.delayed + late.ready + late.leased
            if not left and idle.ready + idle.leased == self.total:
                break
            await asyncio.sleep(0.05)
        assert late.delayed > 0
        assert self.host is not None
        await run.fault("host-kill")
        self.host.stop(signal.SIGKILL)
        self.host = None

    def make_old(self) -> None:
        """What a funcrt that wrote this format would have left."""
        older = self.file.with_suffix(".old")
        with closing(sqlite3.connect(older)) as db, closing(sqlite3.connect(self.file)) as new:
            db.execute("PRAGMA journal_mode=WAL")
            for step in schema.STEPS[: self.version]:
                db.executescript(step)
            for name in tables(db):
                columns = ", ".join(columns_of(db, name))
                marks = ", ".join("?" * len(columns_of(db, name)))
                # Of what versions since then note beside it, an old file has nothing.
                only = " WHERE key = 'epoch'" if name == "meta" else ""
                db.executemany(
                    f"INSERT INTO {name} ({columns}) VALUES ({marks})",
                    new.execute(f"SELECT {columns} FROM {name}{only}"),
                )
            db.execute("INSERT INTO state VALUES ('default/add', 'k', x'01', 7, NULL)")
            db.execute("INSERT INTO journal VALUES ('default/flow', 1, x'02')")
            db.execute("INSERT INTO timer (due, topic, record) VALUES (9e9, 'default/in', x'03')")
            db.execute(f"PRAGMA user_version={self.version}")
            db.commit()
        for each in self.file.parent.glob("mesh.db*"):
            if each.suffix != ".lock":
                each.unlink()
        older.rename(self.file)

    def open(self, point: str) -> int:
        """Open the file in a process that ends at a point; its exit code."""
        env = {**os.environ, "FUNCRT_FAILPOINT": point}
        command = [sys.executable, "-c", OPEN, str(self.file)]
        return subprocess.run(command, env=env, timeout=60, check=False).returncode

    def migrate(self) -> int:
        """End it everywhere, and see that the file is what it was, or whole; how often."""
        with closing(sqlite3.connect(self.file)) as db:
            held = {name: dump(db, name) for name in tables(db)}
        filled = {"topic", "log", "ids", "sub", "backlog", "parked", "dead", "record", "blob"}
        assert all(held[name][1] for name in filled), "something is in each"
        statements = [s for step in schema.STEPS[self.version :] for s in schema.statements(step)]
        points = [f"migrate.statement:{n + 1}" for n in range(len(statements))]
        for point in [*points, "migrate.before", "migrate.after"]:
            assert self.open(point) == EXIT_CODE, point
            with closing(sqlite3.connect(self.file)) as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                assert version == (schema.FORMAT if point == "migrate.after" else self.version)
                for name, (columns, content) in held.items():
                    assert dump(db, name, columns)[1] == content, (point, name)
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert self.open("migrate.statement") == 0, "nothing is left to do"
        return len(points) + 2

    async def run(self) -> int:
        self.directory.mkdir()
        async with watched(self.directory) as run:
            await self.fill(run)
            self.make_old()
            times = await asyncio.to_thread(self.migrate)
            (self.directory / "go").touch()
            await asyncio.to_thread(self.serve)
            assert self.host is not None
            await self.all_again(run)
            await run.drained(self.host.process.pid, *NAMES, within_s=60 + self.total / 100)
            letters = await asyncio.to_thread(self.host.run, *LETTERS, str(self.total))
            assert len(rows(letters)) == self.total // 8
            seen = await run.judge(self.expected(), ["quick.dlq", "late.dlq", "idle.dlq"])
        assert seen["output"] + seen["dead"] == 3 * self.total
        return times

    async def all_again(self, run: Run) -> None:
        """Each event is known."""
        for n in range(self.total):
            key = f"k{n % 16}"
            (receipt,) = await run.publisher.publish("in", [run.event(n, key)], key=key)
            assert receipt.duplicate

    def expected(self) -> Expectations:
        dies = frozenset(("/ledger", f"e{n}") for n in range(7, self.total, 8))
        return Expectations(
            subscriptions=tuple(
                Expected(
                    subscription=name, topic="in", outputs={f"{name.removesuffix('/in')}.out": 1},
                    max_attempts=2, dies=dies if name == "quick/in" else frozenset(),
                )
                for name in NAMES
            ),
            drain_s=60.0,
        )  # fmt: skip


def tables(db: sqlite3.Connection) -> list[str]:
    found = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return [name for (name,) in found if not name.startswith("sqlite_")]


def columns_of(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def dump(
    db: sqlite3.Connection, table: str, columns: list[str] | None = None
) -> tuple[list[str], list[Any]]:
    """All that a table holds, by the columns that it had."""
    columns = columns or columns_of(db, table)
    found = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
    return columns, sorted(found, key=repr)


def soak(directory: Path, total: int = 20_000, base: str = "60s") -> str:
    """With more in the file."""
    olds = [Old(directory / f"format{n}", n, total, base) for n in OLDER]

    async def main() -> list[int]:
        return await asyncio.gather(*(old.run() for old in olds))

    try:
        times = asyncio.run(main())
    finally:
        codes = [old.host.stop(signal.SIGTERM) for old in olds if old.host is not None]
    assert codes == [0] * len(olds)
    return f"{len(olds)} formats, {total} events in each, {sum(times)} ends of a migration"


@pytest.mark.timeout(120)
def test_a_migration_that_is_ended_anywhere_loses_nothing(tmp_path: Path) -> None:
    print(soak(tmp_path, 64, "2s"))
