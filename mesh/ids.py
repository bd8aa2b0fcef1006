"""The deduplication window: which (source, id) a topic has seen lately, in little memory."""

import hashlib
import struct
from array import array
from collections.abc import Iterable

__all__ = ["DIGEST_BYTES", "WINDOWS", "IdWindow", "digest"]

DIGEST_BYTES = 16
WINDOWS = 2
"""How many windows back the file's ids are read: as much as a process that went on remembers. With
one, a wall clock set forward by an hour would end the window of what came a second ago."""
_STORED = struct.Struct("<QQ")
_BEGUN = hashlib.blake2b(digest_size=DIGEST_BYTES)


def digest(source: str, event_id: str) -> bytes:
    """16 bytes that stand for (source, id); a NUL can be in neither, so it separates them.

    With a million ids in the window two different events collide with odds of 1 in 10^26.
    """
    state = _BEGUN.copy()  # quicker than to begin with a digest size each time
    state.update(f"{source}\0{event_id}".encode())
    return state.digest()


class _Table:
    """An open-addressing set of 128-bit keys: 32 bytes a key at a load of one half."""

    __slots__ = ("count", "high", "low", "mask")

    def __init__(self, expected: int = 0) -> None:
        self.count = 0
        self._allot(max(8, 1 << (expected * 2).bit_length()))

    def _allot(self, slots: int) -> None:
        self.mask = slots - 1
        self.low = array("Q", bytes(8 * slots))
        self.high = array("Q", bytes(8 * slots))

    def grow(self) -> None:
        """Make room: four times as much while it is small, so that most ids are moved once."""
        old = zip(self.low, self.high, strict=True)
        self._allot((self.mask + 1) * (4 if self.mask < SMALL else 2))
        lows, highs, mask = self.low, self.high, self.mask
        for low, high in old:
            if low:
                slot = low & mask
                while lows[slot]:
                    slot = (slot + 1) & mask
                lows[slot] = low
                highs[slot] = high


SHARDS = 256
SMALL = 1024


class _Tables(dict[int, _Table]):
    """A table a shard, made when it is first needed: most topics have few ids."""

    def __init__(self, expected: int) -> None:
        self.each = expected // SHARDS

    def __missing__(self, shard: int) -> _Table:
        table = self[shard] = _Table(self.each)
        return table


class _Generation:
    """Ids seen since a moment, spread over tables so that growing one never takes long."""

    __slots__ = ("count", "latest", "since", "tables")

    def __init__(self, since: float, tables: _Tables) -> None:
        self.since = since
        self.latest = since
        self.count = 0
        self.tables = tables


_EMPTY = _Tables(0)
"""Of a generation without ids, which most topics have two of; nothing is added to it."""
_NOTHING = _Generation(0.0, _EMPTY)


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
        low, high = _STORED.unpack(key)
        low = low or 1  # 0 marks an empty slot
        shard = high % SHARDS
        for generation in (self._new, self._old):
            table = generation.tables.get(shard)
            if table is not None:
                lows, mask = table.low, table.mask
                slot = low & mask
                while found := lows[slot]:
                    if found == low and table.high[slot] == high:
                        return True
                    slot = (slot + 1) & mask
        return False

    def add(self, keys: Iterable[bytes], now: float) -> None:
        """Remember `keys`, seen at wall-clock `now` and not in the window yet."""
        self._add(_STORED.iter_unpack(b"".join(keys)), now, 0)

    def add_stored(self, rows: Iterable[tuple[float, bytes]], expected: int) -> None:
        """Remember ids as they are stored: (wall-clock time, digest after digest), oldest first;
        `expected` in all, at the most."""
        for at, digests in rows:
            self._add(_STORED.iter_unpack(digests), at, expected)
            expected -= len(digests) // DIGEST_BYTES

    def _add(self, pairs: Iterable[tuple[int, ...]], now: float, expected: int) -> None:
        """All of one commit, whose ids belong together. Room for `expected` saves growing."""
        new = self._new
        if not new.count or new.count >= self.most or now - new.since > self.seconds:
            if new.count:
                self._old = new
            new = self._new = _Generation(now, _Tables(min(expected, self.most)))
        new.latest = now
        tables = new.tables
        for low, high in pairs:
            # In line, without a call an id: this is done for every event and output.
            low = low or 1  # noqa: PLW2901
            table = tables[high % SHARDS]
            lows, mask = table.low, table.mask
            slot = low & mask
            while found := lows[slot]:
                if found == low and table.high[slot] == high:
                    break
                slot = (slot + 1) & mask
            else:
                lows[slot] = low
                table.high[slot] = high
                table.count += 1
                if table.count * 2 > mask:
                    table.grow()
            new.count += 1

    def expire(self, now: float) -> None:
        """Forget all, where nothing was added for as long as a clock may be wrong about `seconds`:
        a topic that nobody writes to any more costs nothing."""
        if now >= self.expires():
            self._old, self._new = _NOTHING, _Generation(now, _EMPTY)

    def expires(self) -> float:
        """Wall-clock time at which all is forgotten, if nothing is added."""
        return self._new.latest + WINDOWS * self.seconds if self._new.count else float("inf")

    def forgotten_before(self) -> float:
        """Wall-clock time before which nothing is remembered."""
        return self._old.since if self._old.count else self._new.since
