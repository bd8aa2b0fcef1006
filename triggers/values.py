"""The tests of one value that a pattern is made of; `triggers/PATTERNS.md` has their semantics.

Each is called with a leaf that is there (a scalar, null included), says what it wants, and by which
keys an index can find it (none: by any leaf at all).
"""

import ipaddress
import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

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

    full: bool
    """Its keys find nothing else."""

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


class Equal:
    """A value itself."""

    __slots__ = ("full", "wanted")

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.full = not is_number(wanted) or abs(wanted) < _EXACT

    def __call__(self, value: Any) -> bool:
        return same(value, self.wanted)

    def __str__(self) -> str:
        return f"= {as_text(self.wanted)}"

    def found_by(self) -> Sequence[Key]:
        return (Key("is", scalar(self.wanted)),)


class _Text:
    """A test of strings."""

    __slots__ = ("fold", "full", "wanted")
    name = ""

    def __init__(self, wanted: str, fold: bool = False) -> None:
        self.fold = fold
        self.full = not fold
        self.wanted = wanted.casefold() if fold else wanted

    def __str__(self) -> str:
        return f"{self.name} {as_text(self.wanted)}" + (" in any case" if self.fold else "")


class Prefix(_Text):
    """Strings that begin so; in any case with `fold`."""

    __slots__ = ()
    name = "starts with"

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return (value.casefold() if self.fold else value).startswith(self.wanted)

    def found_by(self) -> Sequence[Key]:
        return THERE if self.fold else (Key("prefix", self.wanted),)


class Suffix(_Text):
    """Strings that end so."""

    __slots__ = ()
    name = "ends with"

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return (value.casefold() if self.fold else value).endswith(self.wanted)

    def found_by(self) -> Sequence[Key]:
        return THERE if self.fold else (Key("suffix", self.wanted),)


class Fold(_Text):
    """Strings that are equal in any case (Unicode's case folding)."""

    __slots__ = ()
    name = "="

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted, fold=True)
        self.full = True

    def __call__(self, value: Any) -> bool:
        return isinstance(value, str) and value.casefold() == self.wanted

    def found_by(self) -> Sequence[Key]:
        return (Key("fold", self.wanted),)


class Wildcard:
    """Strings that fit a wildcard."""

    __slots__ = ("_matches", "full", "segments", "text")

    def __init__(self, text: str, segments: Segments) -> None:
        self.text = text
        self.segments = segments
        self.full = len(segments) == 1
        self._matches = matcher(segments)

    def __call__(self, value: Any) -> bool:
        return isinstance(value, str) and self._matches(value)

    def __str__(self) -> str:
        return f"like {as_text(self.text)}"

    def found_by(self) -> Sequence[Key]:
        return (key_of(self.segments),)


class Cidr:
    """Strings that are addresses of a network; one of version 4 holds none of version 6."""

    __slots__ = ("first", "last", "network")
    full = True

    def __init__(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        self.network = network
        self.first = int(network.network_address)
        self.last = int(network.broadcast_address)

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


class Numeric:
    """Numbers within bounds."""

    __slots__ = ("ends", "full", "pairs")

    def __init__(self, pairs: Sequence[tuple[str, int | float]]) -> None:
        self.pairs = tuple(pairs)
        # Beyond that an integer and the double nearest to it differ.
        exact = all(isinstance(bound, float) or abs(bound) < _EXACT for _, bound in self.pairs)
        self.ends = self._doubles(exact)
        """The least and the greatest double."""
        self.full = exact and self.ends[0] <= self.ends[1]

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

    def _doubles(self, exact: bool) -> tuple[float, float]:
        """The least and the greatest within the bounds, or somewhat further out."""
        low, high = -math.inf, math.inf
        for sign, bound in self.pairs:
            end = number(bound)
            if sign in ("=", ">", ">="):
                low = math.nextafter(end, math.inf) if exact and sign == ">" else end
            if sign in ("=", "<", "<="):
                high = math.nextafter(end, -math.inf) if exact and sign == "<" else end
        return low, high


class NoneOf:
    """Leaves that none of these tests takes."""

    __slots__ = ("tests",)
    full = False

    def __init__(self, tests: Sequence[Test]) -> None:
        self.tests = tuple(tests)

    def __call__(self, value: Any) -> bool:
        for test in self.tests:  # noqa: SIM110 - half the time of any()
            if test(value):
                return False
        return True

    def __str__(self) -> str:
        return f"anything but {any_of_these(self.tests)}"

    def found_by(self) -> Sequence[Key]:
        return THERE


class Exists:
    """Any leaf; or, not wanted, none: that is the one test which a missing field meets."""

    __slots__ = ("wanted",)
    full = True

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __call__(self, value: Any) -> bool:
        return self.wanted

    def __str__(self) -> str:
        return "there" if self.wanted else "missing"

    def found_by(self) -> Sequence[Key]:
        return THERE
