"""The deduplication window: which (source, id) a topic has seen lately, in little memory."""

import hashlib
from collections.abc import Iterable, Sequence

__all__ = ["DIGEST_BYTES", "WINDOWS", "IdWindow", "digest"]

DIGEST_BYTES = 16
WINDOWS = 2
"""How many windows back the file's ids are read: as much as a process that went on remembers. With
one, a wall clock set forward by an hour would end the window of what came a second ago."""
_BEGUN = hashlib.blake2b(digest_size=DIGEST_BYTES)


def digest(source: str, event_id: str) -> bytes:
    """16 bytes that stand for (source, id); a NUL can be in neither, so it separates them.

    With a million ids in the window two different events collide with odds of 1 in 10^26.
    """
    state = _BEGUN.copy()  # quicker than to begin with a digest size each time
    state.update(f"{source}\0{event_id}".encode())
    return state.digest()


EACH = 8
"""Keys in a bucket where it has been split, on average; four times as many at the most before."""


class _Ids:
    """A set of digests in about 25 bytes a key, which grows a bucket at a time (W. Litwin, "Linear
    hashing", VLDB 1980; here a bucket becomes four).

    A bucket is its digests one after another, and a search of its bytes finds one: that something
    matches across two of them is as likely as two digests that are the same. Which bucket is told
    by the process's own hash, whose seed nobody knows who could choose ids that meet in one.
    """

    __slots__ = ("buckets", "large", "room", "small", "split")

    def __init__(self, expected: int = 0) -> None:
        count = 1
        while EACH * count < expected:
            count *= 4
        self.buckets = [b""] * count
        self._level(count)
        self.room = EACH * count
        """Keys that it takes before the next bucket is split."""

    def _level(self, count: int) -> None:
        self.small, self.large, self.split = count - 1, 4 * count - 1, 0

    def __contains__(self, key: bytes) -> bool:
        number = hash(key)
        at = number & self.small
        if at < self.split:
            at = number & self.large
        return key in self.buckets[at]

    def add(self, keys: Sequence[bytes]) -> None:
        """Add what is not in it."""
        buckets, small, large, split = self.buckets, self.small, self.large, self.split
        for key in keys:  # in line, without a call an id: this is done for every event and output
            number = hash(key)
            at = number & small
            buckets[number & large if at < split else at] += key
        self.room -= len(keys)
        while self.room < 0:
            self._grow()

    def _grow(self) -> None:
        buckets, large = self.buckets, self.large
        if not self.split:
            buckets += [b""] * (large - self.small)
        keys, buckets[self.split] = buckets[self.split], b""
        for key in _each(keys):
            buckets[hash(key) & large] += key
        self.split += 1
        self.room += 3 * EACH
        if self.split > self.small:
            self._level(large + 1)


def _each(digests: bytes) -> list[bytes]:
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


class _Generation:
    """Ids seen since a moment."""

    __slots__ = ("count", "ids", "latest", "since")

    def __init__(self, since: float, expected: int) -> None:
        self.since = since
        self.latest = since
        self.count = 0
        self.ids = _Ids(expected)


_NOTHING = _Generation(0.0, 0)
"""Of a topic without ids, as most are; nothing is added to it."""


class IdWindow:
    """Remembers at least the last `most` ids of a topic, or those of the last `seconds` where
    they are fewer, and at most twice that: two generations, the older forgotten whole.
    """

    __slots__ = ("_new", "_old", "most", "seconds")

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds = seconds
        self.most = most
        self._new = self._old = _NOTHING

    def __contains__(self, key: bytes) -> bool:
        return key in self._new.ids or (self._old.count > 0 and key in self._old.ids)

    def add(self, keys: Iterable[bytes], now: float) -> None:
        """Remember `keys`, seen at wall-clock `now` and not in the window yet."""
        self._add(list(keys), now, 0)

    def add_stored(self, rows: Iterable[tuple[float, bytes]], expected: int) -> None:
        """Remember ids as they are stored: (wall-clock time, digest after digest), oldest first;
        `expected` in all, at the most."""
        for at, digests in rows:
            self._add(_each(digests), at, expected)
            expected -= len(digests) // DIGEST_BYTES

    def _add(self, keys: Sequence[bytes], now: float, expected: int) -> None:
        """All of one commit, whose ids belong together. Room for `expected` saves growing."""
        new = self._new
        if not new.count or new.count >= self.most or now - new.since > self.seconds:
            if new.count:
                self._old = new
            new = self._new = _Generation(now, min(expected, self.most))
        new.latest = now
        new.ids.add(keys)
        new.count += len(keys)

    def expire(self, now: float) -> None:
        """Forget all, where nothing was added for as long as a clock may be wrong about `seconds`:
        a topic that nobody writes to any more costs nothing."""
        if now >= self.expires():
            self._old, self._new = _NOTHING, _Generation(now, 0)

    def expires(self) -> float:
        """Wall-clock time at which all is forgotten, if nothing is added."""
        return self._new.latest + WINDOWS * self.seconds if self._new.count else float("inf")

    def forgotten_before(self) -> float:
        """Wall-clock time before which nothing is remembered."""
        return self._old.since if self._old.count else self._new.since
