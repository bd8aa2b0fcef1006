"""By what an index can find a filter.

A filter's *ways* are the alternatives by which it can match; of each way the index uses one group
of keys, and whatever that finds is matched again in full, unless the group says all. So a way may
leave conditions out, and must never ask for more than its filter does.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from mesh.event import CONTEXT
from triggers.view import View

__all__ = [
    "ANY",
    "Group",
    "Indexed",
    "Key",
    "Kind",
    "Place",
    "Way",
    "all_of",
    "any_of",
    "number",
    "scalar",
]

MAX_WAYS = 64
"""More alternatives than this are not multiplied out: fewer conditions find the same filter."""
_STRINGS = frozenset((*CONTEXT, "specversion"))

Kind = Literal["is", "fold", "prefix", "suffix", "like", "cidr", "range", "there"]


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a value stands: an attribute, as it is or as its canonical text, or a path in data."""

    root: Literal["attribute", "text", "data"]
    path: tuple[str, ...]

    @classmethod
    def text(cls, name: str) -> "Place":
        """An attribute's canonical text; of those that are strings anyway, as they are."""
        return cls("attribute" if name in _STRINGS else "text", (name,))

    def __str__(self) -> str:
        return ".".join(("data", *self.path) if self.root == "data" else self.path)


class Key(msgspec.Struct, frozen=True, gc=False):
    """One value, or kind of value, that a place may hold.

    `value` by kind: `is` a scalar's key, `fold` case-folded text, `prefix` and `suffix` text,
    `like` the text around and between a wildcard's stars, `cidr` (version, network as a number,
    bits), `range` (lowest, highest) as doubles, `there` nothing: any leaf.
    """

    kind: Kind
    value: Any


class Group(msgspec.Struct, frozen=True, gc=False):
    """Keys of one place, of which any may be there."""

    place: Place
    keys: tuple[Key, ...]


class Way(msgspec.Struct, frozen=True, gc=False):
    """Groups that must all be there for the filter to match in this way."""

    groups: tuple[Group, ...]
    full: bool
    """The groups say all there is to say."""
    flat: bool = False
    """They do of an event without arrays, in which several fields must meet in one element."""


class Indexed(Protocol):
    """What an index asks of a filter."""

    def holds(self, view: View) -> bool:
        """Whether an event matches."""

    def ways(self) -> Sequence[Way]:
        """By what it can be found."""


ANY = (Way((), False),)
"""Of a condition that says nothing about where to find it, such as `not`."""


def scalar(value: Any) -> Any:
    """What stands for a scalar in an index: equal where patterns call the values equal, or nearly
    (integers beyond 2^53 are then told apart by the match in full)."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return (value,)
    return number(value)


def number(value: int | float) -> float:
    """A number as a double, infinite beyond their range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def all_of(parts: Iterable[Sequence[Way]]) -> tuple[Way, ...]:
    """The ways of conditions that must all hold."""
    first, *more = [*parts] or [(Way((), True),)]
    ways: Sequence[Way] = first
    for part in more:
        if len(ways) * len(part) <= MAX_WAYS:
            ways = [_both(a, b) for a in ways for b in part]
        else:
            # Either alone finds a superset of both: the one whose every way has a group.
            better = min(
                (ways, part), key=lambda some: (not all(w.groups for w in some), len(some))
            )
            ways = [Way(way.groups, False) for way in better]
    return tuple(ways)


def _both(a: Way, b: Way) -> Way:
    flat = (a.full or a.flat) and (b.full or b.flat)
    return Way(a.groups + b.groups, a.full and b.full, flat)


def any_of(parts: Iterable[Sequence[Way]]) -> tuple[Way, ...]:
    """The ways of conditions of which one must hold."""
    ways = [way for part in parts for way in part]
    return ANY if not all(way.groups for way in ways) else tuple(ways)
