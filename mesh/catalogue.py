"""Looking up the topics of a mesh file.

A row's key is `owner << 40 | offset`: 2^23 topics or subscriptions, 2^40 events each.
"""

import sqlite3

import msgspec

__all__ = ["SHIFT", "Catalogue", "TopicRow"]

SHIFT = 40


class TopicRow(msgspec.Struct, gc=False):
    """A topic's counters. `next`: the next offset; `routed`: all below it are in their queues."""

    id: int
    name: str
    next: int
    routed: int
    count: int
    bytes: int


class Catalogue:
    """Mixed into the store, which has the connection."""

    db: sqlite3.Connection

    def topics(self) -> list[TopicRow]:
        """All topics of every namespace."""
        rows = self.db.execute("SELECT id, name, next, routed, count, bytes FROM topic")
        return [TopicRow(*row) for row in rows]

    def topic(self, name: str) -> TopicRow | None:
        """A topic by its name, with the namespace."""
        rows = self.db.execute(
            "SELECT id, name, next, routed, count, bytes FROM topic WHERE name = ?", (name,)
        ).fetchall()
        return TopicRow(*rows[0]) if rows else None

    def count_topics(self, prefix: str) -> int:
        """How many topics a namespace has; `prefix` is its name and a slash."""
        rows = self.db.execute(
            "SELECT count(*) FROM topic WHERE name > ? AND name < ?", (prefix, f"{prefix[:-1]}0")
        ).fetchall()
        return int(rows[0][0])

    def fresh_topics(self, last: int) -> list[TopicRow]:
        """Topics that have events in no queue yet, and those that were made after the one of id
        `last`, of every namespace."""
        rows = self.db.execute(
            "SELECT id, name, next, routed, count, bytes FROM topic WHERE routed < next OR id > ?",
            (last,),
        ).fetchall()
        return [TopicRow(*row) for row in rows]

    def latest(self) -> float:
        """The latest wall-clock time that the file is known to hold; 0 where there is none."""
        noted = self.db.execute("SELECT value FROM meta WHERE key = 'latest'").fetchall()
        newest = self.db.execute(
            "SELECT max((SELECT at FROM log WHERE key >= id << 40 AND key < (id + 1) << 40"
            " ORDER BY key DESC LIMIT 1)) FROM topic"
        ).fetchall()
        return max([float(value or 0.0) for (value,) in (*noted, *newest)], default=0.0)

    def newest(self, topic: int) -> float:
        """The wall-clock time of a topic's newest chunk; 0 where there is none."""
        row = self.db.execute(
            "SELECT at FROM log WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT 1",
            (topic << SHIFT, (topic + 1) << SHIFT),
        ).fetchone()
        return row[0] if row else 0.0

    def oldest_chunk(self, topic: int) -> float | None:
        """The wall-clock time of a topic's oldest chunk."""
        rows = self.db.execute(
            "SELECT at FROM log WHERE key >= ? AND key < ? ORDER BY key LIMIT 1",
            (topic << SHIFT, (topic + 1) << SHIFT),
        ).fetchall()
        return float(rows[0][0]) if rows else None
