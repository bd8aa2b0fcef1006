"""The tables of a mesh file, and how a file of an older format becomes one of this."""

import sqlite3

from mesh.errors import MeshCorrupt
from mesh.failpoint import point

__all__ = ["FORMAT", "GUARDED", "STEPS", "migrate", "statements"]

GUARDED = ("log", "ids", "backlog", "parked", "dead", "blob")
"""Tables whose rows carry a checksum (`integrity.py`); NULL where an older version wrote them."""
FORMAT = 4
"""Of the file (`PRAGMA user_version`); an older one is migrated, a newer one refused."""

_SCHEMA = """
CREATE TABLE topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    next INTEGER NOT NULL DEFAULT 0, routed INTEGER NOT NULL DEFAULT 0,
    count INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE log (key INTEGER PRIMARY KEY, at REAL NOT NULL, count INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE ids (key INTEGER PRIMARY KEY, at REAL NOT NULL, digests BLOB NOT NULL);
CREATE TABLE sub (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, topic INTEGER NOT NULL,
    spec BLOB NOT NULL, filled INTEGER, waiting INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE backlog (key INTEGER PRIMARY KEY, at REAL NOT NULL, mask BLOB NOT NULL);
CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sub INTEGER NOT NULL, due REAL, key TEXT,
    holder INTEGER NOT NULL, offset INTEGER NOT NULL, attempt INTEGER NOT NULL,
    at REAL NOT NULL, replay TEXT NOT NULL, error TEXT NOT NULL, record BLOB NOT NULL);
CREATE INDEX parked_due ON parked (sub, due) WHERE due IS NOT NULL;
CREATE INDEX parked_key ON parked (sub, key, offset) WHERE key IS NOT NULL;
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sub INTEGER NOT NULL, at REAL NOT NULL,
    attempts INTEGER NOT NULL, reason TEXT NOT NULL, offset INTEGER NOT NULL,
    published_at REAL NOT NULL, record BLOB NOT NULL, letter_topic TEXT NOT NULL,
    letter_offset INTEGER NOT NULL);
CREATE INDEX dead_sub ON dead (sub, id);
CREATE TABLE state (scope TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    etag INTEGER NOT NULL, expires REAL, PRIMARY KEY (scope, key)) WITHOUT ROWID;
CREATE TABLE timer (id INTEGER PRIMARY KEY AUTOINCREMENT, due REAL NOT NULL, topic TEXT NOT NULL,
    record BLOB NOT NULL);
CREATE INDEX timer_due ON timer (due);
CREATE TABLE journal (flow TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (flow, seq)) WITHOUT ROWID;
CREATE TABLE record (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE blob (digest TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_REPLAYED = """
CREATE TABLE replayed (sub INTEGER NOT NULL, replay TEXT NOT NULL, first INTEGER NOT NULL,
    at REAL NOT NULL, mask BLOB NOT NULL, PRIMARY KEY (sub, replay, first)) WITHOUT ROWID;
CREATE INDEX replayed_at ON replayed (at);
"""
_DONE_KEYS = """
CREATE TABLE done_key (sub INTEGER NOT NULL, key BLOB NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (sub, key)) WITHOUT ROWID;
CREATE INDEX done_key_expires ON done_key (sub, expires);
"""
_CHECKSUMS = ";\n".join(f"ALTER TABLE {table} ADD COLUMN crc INTEGER" for table in GUARDED)
STEPS = (_SCHEMA, _REPLAYED, _CHECKSUMS, _DONE_KEYS)
"""What makes a file of each format from the one before."""


def statements(step: str) -> list[str]:
    """The SQL statements of one of STEPS."""
    return [statement for statement in step.split(";\n") if statement.strip()]


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Bring a file of an older format to this one, whole or not at all. Raises MeshCorrupt where it
    is newer."""
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        db.execute("ROLLBACK")
        raise MeshCorrupt(path, f"written by a newer funcrt (format {version})")
    for step in STEPS[version:]:
        for statement in statements(step):
            db.execute(statement)
            point("migrate.statement")
    if version < FORMAT:
        db.execute(f"PRAGMA user_version={FORMAT}")
    point("migrate.before")
    db.execute("COMMIT")
    point("migrate.after")
