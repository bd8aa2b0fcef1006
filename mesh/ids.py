"""The deduplication window: which (source, id) a topic has seen lately, in little memory."""

import hashlib
import struct
from array import array
from collections.abc import Iterable

__all__ = ["DIGEST_BYTES", "IdWindow", "digest"]

DIGEST_BYTES = 16
_STORED = struct.Struct("<QQ")


def digest(source: str, event_id: str) -> bytes:
    """16 bytes that stand for (source, id); a NUL can be in neither, so it separates them.

    With a million ids in the window two different events collide with odds of 1 in 10^26.
    """
    return hashlib.blake2b(f"{source}\0{event_id}".encode(), digest_size=DIGEST_BYTES).digest()


class _Table:
    """An open-addressing set of 128-bit keys: 32 bytes a key at a load of one half."""

    __slots__ = ("count", "high", "low", "mask")

    def __init__(self) -> None:
        self.count = 0
        self._allot(8)

    def _allot(self, slots: int) -> None:
        self.mask = slots - 1
        self.low = array("Q", bytes(8 * slots))
        self.high = array("Q", bytes(8 * slots))

    def contains(self, low: int, high: int) -> bool:
        slot = low & self.mask
        while found := self.low[slot]:
            if found == low and self.high[slot] == high:
                return True
            slot = (slot + 1) & self.mask
        return False

    def add(self, low: int, high: int) -> None:
        slot = low & self.mask
        while found := self.low[slot]:
            if found == low and self.high[slot] == high:
                return
            slot = (slot + 1) & self.mask
        self.low[slot] = low
        self.high[slot] = high
        self.count += 1
        if self.count * 2 > self.mask:
            self._grow()

    def _grow(self) -> None:
        old = zip(self.low, self.high, strict=True)
        self._allot((self.mask + 1) * 2)
        self.count = 0
        for low, high in old:
            if low:
                self.add(low, high)


class _Generation:
    """Ids seen since a moment, spread over tables so that growing one never takes long."""

    __slots__ = ("count", "since", "tables")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.tables: dict[int, _Table] = {}


def _halves(key: bytes) -> tuple[int, int]:
    """The key as two words; the first is never 0, which marks an empty slot."""
    low, high = _STORED.unpack(key)
    return low or 1, high


class IdWindow:
    """Remembers at least the last `most` ids of a topic, or those of the last `seconds` where
    they are fewer, and at most twice that: two generations, the older forgotten whole.
    """

    __slots__ = ("_new", "_old", "most", "seconds")

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds = seconds
        self.most = most
        self._new = _Generation(0.0)
        self._old = _Generation(0.0)

    def __contains__(self, key: bytes) -> bool:
        low, high = _halves(key)
        shard = high & 255
        new, old = self._new.tables.get(shard), self._old.tables.get(shard)
        return (new is not None and new.contains(low, high)) or (
            old is not None and old.contains(low, high)
        )

    def add(self, keys: Iterable[bytes], now: float) -> None:
        """Remember `keys`, seen at wall-clock `now` and not in the window yet."""
        self._add(map(_halves, keys), now)

    def add_stored(self, digests: bytes, at: float) -> None:
        """Remember ids as they are stored, one digest after the other."""
        self._add(((low or 1, high) for low, high in _STORED.iter_unpack(digests)), at)

    def _add(self, keys: Iterable[tuple[int, int]], now: float) -> None:
        new = self._new
        for low, high in keys:
            if not new.count:
                new.since = now
            elif new.count >= self.most or now - new.since > self.seconds:
                self._old, self._new = new, _Generation(now)
                new = self._new
            table = new.tables.get(high & 255)
            if table is None:
                table = new.tables[high & 255] = _Table()
            table.add(low, high)
            new.count += 1

    def forgotten_before(self) -> float:
        """Wall-clock time before which nothing is remembered."""
        return self._old.since if self._old.count else self._new.since
