"""What an index holds of one place: which filters to look at for a value that stands there.

Every structure is a dict or a list that grows in place or is replaced whole, so that a thread may
read while another changes it.
"""

import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, TypeVar

from triggers.access import Indexed, Key, number, scalar
from triggers.values import address

T = TypeVar("T")

__all__ = ["CROWDED", "Bucket", "Entry", "Field", "Remove", "every", "take"]

_GRAMS = (8, 5, 3)
"""How many characters of a wildcard's text find it, of a text that has as many."""
CROWDED = 8
"""Filters in one bucket from which on more is asked for: longer text, or several fields."""
_TRIED = {"is": 0, "fold": 0, "prefix": 2, "suffix": 2, "cidr": 2, "like": 4}
"""About how many lookups a kind of key takes, in filters looked at."""


class Entry:
    """A filter in an index, by one of its ways."""

    __slots__ = ("filter", "flat", "full", "key", "way")

    def __init__(
        self, key: Any, filter: Indexed, way: int, *, full: bool = False, flat: bool = False
    ) -> None:
        self.key = key
        self.filter = filter
        self.way = way
        self.full = full
        """What finds it says all: it matches."""
        self.flat = flat
        """It does, of an event without arrays."""


Bucket = list[Entry]
Range = tuple[float, float, Entry]
"""The lowest and the highest of its doubles."""
Remove = Callable[[], None]


class Field:
    """The filters that ask for a value in one place."""

    def __init__(self) -> None:
        self.values: dict[Any, Bucket] = {}
        """By scalar."""
        self.folded: dict[str, Bucket] = {}
        self.prefixes: dict[str, Bucket] = {}
        self.suffixes: dict[str, Bucket] = {}
        self.grams: dict[str, Bucket] = {}
        self.networks: dict[tuple[int, int, int], Bucket] = {}
        """By version, bits, and the network's number in these bits."""
        self.spans: tuple[tuple[int, dict[int, list[Range]]], ...] = ()
        """By the size, and then the number, of the cells, of a line of all doubles, that a range
        touches."""
        self.above: list[tuple[float, int, Entry]] = []
        """Ranges without an upper end, by their lower."""
        self.below: list[tuple[float, int, Entry]] = []
        self.there: Bucket = []
        self.shared: dict[Any, int] = {}
        """By scalar, how many are found by it together with values of other places."""
        self.kinds: tuple[tuple[int, ...], ...] = ((), (), (), ())
        """What lengths of prefixes, suffixes and grams, and bits of networks, there are."""
        self.plain = True
        """Nothing but scalars."""
        self.serial = 0

    # Finding

    def find(self, value: Any, found: list[Bucket]) -> None:
        """Add what a leaf leads to."""
        text = value.__class__ is str
        bucket = self.values.get(value if text else scalar(value))
        if bucket:
            found.append(bucket)
        if self.plain:
            return
        if self.there:
            found.append(self.there)
        if text:
            self._find_text(value, found)
        elif value is not None and value.__class__ is not bool:
            self._find_number(number(value), found)

    def _find_text(self, value: str, found: list[Bucket]) -> None:
        prefixes, suffixes, grams, networks = self.kinds
        length = len(value)
        if self.folded and (bucket := self.folded.get(value.casefold())):
            found.append(bucket)
        for size in prefixes:
            if size > length:
                break
            if bucket := self.prefixes.get(value[:size]):
                found.append(bucket)
        for size in suffixes:
            if size > length:
                break
            if bucket := self.suffixes.get(value[length - size :]):
                found.append(bucket)
        for size in grams:
            self._find_grams(value, size, found)
        if networks and (at := address(value)):
            version, whole = at
            most = 32 if version == 4 else 128
            for bits in networks:
                if bits <= most and (
                    bucket := self.networks.get((version, bits, whole >> (most - bits)))
                ):
                    found.append(bucket)

    def _find_grams(self, value: str, size: int, found: list[Bucket]) -> None:
        grams = self.grams
        if len(value) > 64 * len(grams):  # a long text, and few to look for in it
            found.extend(bucket for gram, bucket in list(grams.items()) if gram in value)
            return
        for gram in {value[at : at + size] for at in range(len(value) - size + 1)}:
            if bucket := grams.get(gram):
                found.append(bucket)

    def _find_number(self, value: float, found: list[Bucket]) -> None:
        if self.spans:
            at = _ordered(value)
            within: Bucket = []
            for size, cells in self.spans:
                for low, high, entry in cells.get(at >> size, ()):
                    if low <= value <= high:
                        within.append(entry)
            if within:
                found.append(within)
        if self.above:
            above = self.above
            found.append([entry for _, _, entry in above[: bisect_right(above, (value, inf))]])
        if self.below:
            below = self.below
            found.append([entry for _, _, entry in below[bisect_left(below, (value, -1)) :]])

    # Filing

    def cost(self, key: Key) -> float:
        """About how many filters a value that this key finds is looked at for in vain."""
        if key.kind == "range":
            return 1e3 if inf in key.value or -inf in key.value else 16
        where = self._where(key)
        if where is None:
            return 1e6
        held = len(where[0].get(where[1], ()))
        return _TRIED[key.kind] + held + (self.shared.get(key.value, 0) if key.kind == "is" else 0)

    def add(self, key: Key, entry: Entry) -> Remove:
        """File an entry under a key; what takes it out again."""
        if key.kind != "is":
            self.plain = False
        if key.kind == "range":
            low, high = key.value
            return self._add_range(low, high, entry)
        where = self._where(key)
        if where is None:
            return self._add_there(entry)
        return self._file(*where, entry)

    def _where(self, key: Key) -> tuple[dict[Any, Bucket], Any] | None:
        """Which buckets, and which of them, a key other than a range stands for; None where any
        value may do."""
        match key.kind:
            case "is":
                return self.values, key.value
            case "fold":
                return self.folded, key.value
            case "prefix":
                return self.prefixes, key.value
            case "suffix":
                return self.suffixes, key.value
            case "cidr":
                return self.networks, key.value
            case "like":
                return self._like(key.value)
        return None

    def _file(self, buckets: dict[Any, list[T]], key: Any, entry: T) -> Remove:
        bucket = buckets.get(key)
        if bucket is None:
            buckets[key] = [entry]
            self._kinds(buckets, key)
        else:
            bucket.append(entry)
        return partial(take, buckets, key, entry)

    def _kinds(self, buckets: dict[Any, Any], key: Any) -> None:
        """Note the length, or size, of a new key."""
        prefixes, suffixes, grams, networks = self.kinds
        if buckets is self.prefixes and len(key) not in prefixes:
            prefixes = tuple(sorted({*prefixes, len(key)}))
        elif buckets is self.suffixes and len(key) not in suffixes:
            suffixes = tuple(sorted({*suffixes, len(key)}))
        elif buckets is self.grams and len(key) not in grams:
            grams = tuple(sorted({*grams, len(key)}))
        elif buckets is self.networks and key[1] not in networks:
            networks = tuple(sorted({*networks, key[1]}))
        else:
            return
        self.kinds = prefixes, suffixes, grams, networks

    def _like(
        self, texts: tuple[str, str, tuple[str, ...]]
    ) -> tuple[dict[str, Bucket], str] | None:
        """By which of its texts a wildcard is found: the rarest part of the longest, or its start
        or end."""
        head, tail, chunks = texts
        longest = max(chunks, key=len, default="")
        size = next((size for size in _GRAMS if size <= len(longest)), len(longest))
        options: list[tuple[dict[str, Bucket], str]] = []
        if size:
            starts = range(min(len(longest) - size + 1, 32))
            options += [(self.grams, longest[at : at + size]) for at in starts]
        if head:
            options.append((self.prefixes, head[:16]))
        if tail:
            options.append((self.suffixes, tail[-16:]))
        return min(options, key=lambda one: len(one[0].get(one[1], ())), default=None)

    def _add_range(self, low: float, high: float, entry: Entry) -> Remove:
        if low == -inf and high == inf:
            return self._add_there(entry)
        if high == inf or low == -inf:
            self.serial += 1
            end = (low if high == inf else high, self.serial, entry)
            ends = self.above if high == inf else self.below
            insort(ends, end)
            return partial(ends.remove, end)
        first, last = _ordered(low), _ordered(high)
        size = (last - first).bit_length()  # of cells so large that it touches two at the most
        cells = next((cells for held, cells in self.spans if held == size), None)
        if cells is None:
            cells = {}
            self.spans = (*self.spans, (size, cells))
        row = low, high, entry
        return every([self._file(cells, cell, row) for cell in {first >> size, last >> size}])

    def _add_there(self, entry: Entry) -> Remove:
        self.there.append(entry)
        return partial(self._take_there, entry)

    def _take_there(self, entry: Entry) -> None:
        self.there = [one for one in self.there if one is not entry]


def every(removes: Sequence[Remove]) -> Remove:
    """All of them as one. An index has a hundred thousand, so it is no closure where one does."""
    return removes[0] if len(removes) == 1 else partial(_run, removes)


def _run(removes: Sequence[Remove]) -> None:
    for remove in removes:
        remove()


def take(buckets: dict[Any, list[T]], key: Any, entry: T) -> None:
    """Take an entry out of a bucket, and the bucket where it is then empty."""
    left = [one for one in buckets.get(key, ()) if one is not entry]
    if left:
        buckets[key] = left
    else:
        buckets.pop(key, None)


_PACKED = struct.Struct("<d"), struct.Struct("<q")


def _ordered(value: float) -> int:
    """A double's place in the order of all doubles (IEEE 754 §5.10)."""
    (bits,) = _PACKED[1].unpack(_PACKED[0].pack(value))
    return int(bits) if bits >= 0 else -(bits + 2**63)
