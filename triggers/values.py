"""The tests of one value that a pattern is made of; `triggers/PATTERNS.md` has their semantics.

Each is called with a leaf that is there (a scalar, null included), says what it wants, and by which
keys an index can find it (none: by any leaf at all). They hold no cycles, and the collector does
not know them: of a hundred thousand filters it took half of the time to parse them.
"""

import ipaddress
import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import msgspec

from triggers.access import Key, number, scalar
from triggers.explain import any_of_these, as_text
from triggers.wildcard import Segments, key_of, matcher

__all__ = [
    "COMPARE",
    "Cidr",
    "Equal",
    "Exists",
    "Fold",
    "NoneOf",
    "Numeric",
    "Prefix",
    "Suffix",
    "Test",
    "Wildcard",
    "address",
    "compare",
    "is_number",
    "same",
]

THERE = (Key("there", None),)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXACT = 2**53
"""Up to this a double tells integers apart."""


class Test(Protocol):
    """Whether a leaf that is there is one that is wanted."""

    @property
    def full(self) -> bool:
        """Whether its keys find nothing else."""

    def __call__(self, value: Any) -> bool:
        """Whether it is."""

    def __str__(self) -> str:
        """What is wanted, for people."""

    def found_by(self) -> Sequence[Key]:
        """By which an index can find it."""


def is_number(value: Any) -> bool:
    """Whether a value is a JSON number: `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(sign: str, a: int | float, b: int | float) -> bool:
    """Integers exactly, an integer and a float as doubles."""
    if type(a) is not type(b):
        a, b = number(a), number(b)
    return COMPARE[sign](a, b)


def same(a: Any, b: Any) -> bool:
    """Whether scalars are equal: nothing is coerced, and `300`, `300.0` and `3.0e2` are one."""
    if is_number(a) and is_number(b):
        return compare("=", a, b)
    return type(a) is type(b) and bool(a == b)


class _Plain(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the collector does not look at."""


class Equal(_Plain, frozen=True):
    """A value itself."""

    wanted: Any

    @property
    def full(self) -> bool:
        wanted = self.wanted
        return wanted.__class__ is str or not is_number(wanted) or abs(wanted) < _EXACT

    def __call__(self, value: Any) -> bool:
        return same(value, self.wanted)

    def __str__(self) -> str:
        return f"= {as_text(self.wanted)}"

    def found_by(self) -> Sequence[Key]:
        return (Key("is", scalar(self.wanted)),)


class _Text(_Plain, frozen=True):
    """A test of strings. Of one in any case `wanted` is case-folded."""

    wanted: str
    fold: bool = False
    name: ClassVar[str] = ""

    @property
    def full(self) -> bool:
        return not self.fold

    def __str__(self) -> str:
        return f"{self.name} {as_text(self.wanted)}" + (" in any case" if self.fold else "")


class Prefix(_Text, frozen=True):
    """Strings that begin so; in any case with `fold`."""

    name: ClassVar[str] = "starts with"

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return (value.casefold() if self.fold else value).startswith(self.wanted)

    def found_by(self) -> Sequence[Key]:
        return THERE if self.fold else (Key("prefix", self.wanted),)


class Suffix(_Text, frozen=True):
    """Strings that end so."""

    name: ClassVar[str] = "ends with"

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return (value.casefold() if self.fold else value).endswith(self.wanted)

    def found_by(self) -> Sequence[Key]:
        return THERE if self.fold else (Key("suffix", self.wanted),)


class Fold(_Plain, frozen=True):
    """Strings that are equal in any case (Unicode's case folding). `wanted` is case-folded."""

    wanted: str
    full: ClassVar[bool] = True

    def __call__(self, value: Any) -> bool:
        return isinstance(value, str) and value.casefold() == self.wanted

    def __str__(self) -> str:
        return f"= {as_text(self.wanted)} in any case"

    def found_by(self) -> Sequence[Key]:
        return (Key("fold", self.wanted),)


class Wildcard(_Plain, frozen=True):
    """Strings that fit a wildcard."""

    text: str
    segments: Segments
    fits: Callable[[str], bool]

    @classmethod
    def of(cls, text: str, segments: Segments) -> "Wildcard":
        """That of a text with these segments."""
        return cls(text, segments, matcher(segments))

    @property
    def full(self) -> bool:
        return len(self.segments) == 1

    def __call__(self, value: Any) -> bool:
        return isinstance(value, str) and self.fits(value)

    def __str__(self) -> str:
        return f"like {as_text(self.text)}"

    def found_by(self) -> Sequence[Key]:
        return (key_of(self.segments),)


class Cidr(_Plain, frozen=True):
    """Strings that are addresses of a network; one of version 4 holds none of version 6."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    first: int
    last: int
    full: ClassVar[bool] = True

    @classmethod
    def of(cls, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> "Cidr":
        """That of a network."""
        return cls(network, int(network.network_address), int(network.broadcast_address))

    def __call__(self, value: Any) -> bool:
        found = address(value) if isinstance(value, str) else None
        return (
            found is not None
            and found[0] == self.network.version
            and self.first <= found[1] <= self.last
        )

    def __str__(self) -> str:
        return f"in {self.network}"

    def found_by(self) -> Sequence[Key]:
        bits = self.network.prefixlen
        shift = self.network.max_prefixlen - bits
        return (Key("cidr", (self.network.version, bits, self.first >> shift)),)


@lru_cache(maxsize=1024)
def address(text: str) -> tuple[int, int] | None:
    """The version and the number of an IP address; None where the text is none."""
    if len(text) > 45 or "%" in text:
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return found.version, int(found)


class Numeric(_Plain, frozen=True):
    """Numbers within bounds."""

    pairs: tuple[tuple[str, int | float], ...]
    ends: tuple[float, float]
    """The least and the greatest double."""
    full: bool

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, int | float]]) -> "Numeric":
        """That of these bounds."""
        # Beyond that an integer and the double nearest to it differ.
        exact = all(isinstance(bound, float) or abs(bound) < _EXACT for _, bound in pairs)
        ends = _doubles(pairs, exact)
        return cls(tuple(pairs), ends, exact and ends[0] <= ends[1])

    def __call__(self, value: Any) -> bool:
        if not is_number(value):
            return False
        for sign, bound in self.pairs:  # noqa: SIM110 - half the time of all()
            if not compare(sign, value, bound):
                return False
        return True

    def __str__(self) -> str:
        return " and ".join(f"{sign} {bound}" for sign, bound in self.pairs)

    @property
    def empty(self) -> bool:
        """No number is within the bounds."""
        if len(self.pairs) < 2:
            return False
        (low, bottom), (high, top) = self.pairs
        return compare(">", bottom, top) or (same(bottom, top) and (low, high) != (">=", "<="))

    def found_by(self) -> Sequence[Key]:
        low, high = min(self.ends), max(self.ends)
        return (Key("is", low),) if low == high else (Key("range", (low, high)),)


def _doubles(pairs: Sequence[tuple[str, int | float]], exact: bool) -> tuple[float, float]:
    """The least and the greatest within the bounds, or somewhat further out."""
    low, high = -math.inf, math.inf
    for sign, bound in pairs:
        end = number(bound)
        if sign in ("=", ">", ">="):
            low = math.nextafter(end, math.inf) if exact and sign == ">" else end
        if sign in ("=", "<", "<="):
            high = math.nextafter(end, -math.inf) if exact and sign == "<" else end
    return low, high


class NoneOf(_Plain, frozen=True):
    """Leaves that none of these tests takes."""

    tests: tuple[Test, ...]
    full: ClassVar[bool] = False

    def __call__(self, value: Any) -> bool:
        for test in self.tests:  # noqa: SIM110 - half the time of any()
            if test(value):
                return False
        return True

    def __str__(self) -> str:
        return f"anything but {any_of_these(self.tests)}"

    def found_by(self) -> Sequence[Key]:
        return THERE


class Exists(_Plain, frozen=True):
    """Any leaf; or, not wanted, none: that is the one test which a missing field meets."""

    wanted: bool
    full: ClassVar[bool] = True

    def __call__(self, value: Any) -> bool:
        return self.wanted

    def __str__(self) -> str:
        return "there" if self.wanted else "missing"

    def found_by(self) -> Sequence[Key]:
        return THERE
