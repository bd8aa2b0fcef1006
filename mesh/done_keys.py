"""The idempotency keys that a subscription's successful calls have left in the file.

A key costs two rows of a tree, its own and that of its expiry, in the commit that settles its
event. What expired goes with the keys that come, so that no commit is long.
"""

import sqlite3
from collections.abc import Sequence

__all__ = ["FORGOTTEN", "DoneKeys"]

FORGOTTEN = 2
"""Keys that may go for each one that comes."""


class DoneKeys:
    """Mixed into the store, which has the connection."""

    db: sqlite3.Connection

    def count_keys(self) -> dict[int, int]:
        """How many keys each subscription has."""
        return dict(self.db.execute("SELECT sub, count(*) FROM done_key GROUP BY sub"))

    def has_keys(self, sub: int, keys: Sequence[bytes], now: float) -> list[bool]:
        """Which of these keys a subscription remembers at a wall-clock time."""
        run = self.db.execute
        found = []
        for key in keys:
            row = run("SELECT expires FROM done_key WHERE sub = ? AND key = ?", (sub, key))
            (expires,) = row.fetchone() or (0.0,)
            found.append(expires > now)
        return found

    def remember_keys(self, sub: int, keys: Sequence[tuple[bytes, float]]) -> int:
        """Remember (key, expiry), again or anew; how many are new."""
        new = 0
        for key, expires in keys:
            (had,) = self.db.execute(
                "SELECT count(*) FROM done_key WHERE sub = ? AND key = ?", (sub, key)
            ).fetchone()
            self.db.execute(
                "INSERT OR REPLACE INTO done_key (sub, key, expires) VALUES (?, ?, ?)",
                (sub, key, expires),
            )
            new += not had
        return new

    def forget_expired(self, sub: int, now: float, limit: int) -> int:
        """Drop up to `limit` keys that have expired, the first of them first; how many."""
        return self.db.execute(
            "DELETE FROM done_key WHERE sub = ? AND key IN (SELECT key FROM done_key"
            " WHERE sub = ? AND expires <= ? ORDER BY expires LIMIT ?)",
            (sub, sub, now, limit),
        ).rowcount

    def forget_soonest(self, sub: int, count: int) -> None:
        """Drop the `count` keys that would expire first."""
        self.db.execute(
            "DELETE FROM done_key WHERE sub = ? AND key IN (SELECT key FROM done_key"
            " WHERE sub = ? ORDER BY expires LIMIT ?)",
            (sub, sub, count),
        )
