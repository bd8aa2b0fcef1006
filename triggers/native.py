"""Patterns that look at data alone, as the accelerator takes them, where it is installed.

The accelerator (the package `funcrt-accelerator`, in Rust) finds and matches them by itself; all
else, and everything without it, is for the index in Python. Both are held to `match.py`.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mesh.event import MAX_JSON_DEPTH
from triggers.access import Group, Indexed, Key, Way
from triggers.match import Leaf, Pattern, Table
from triggers.values import Equal, Exists, NoneOf, Numeric, Prefix, Suffix, Test, Wildcard

__all__ = ["Engine", "engine", "rule"]

Spec = tuple[list[Any], list[Any]]


class Engine(Protocol):
    """Rules by number. None of its calls runs Python, so that they are whole to other threads."""

    def add(self, key: Any, alternatives: list[Any], ways: list[Any]) -> int:
        """Add a rule with the key that is found by it; its number."""

    def remove(self, id: int) -> None:
        """Take it out."""

    def choose(self, ways: list[Any]) -> list[list[int]]:
        """By which groups of each way a rule is, or would be, found; none where it is tried."""

    def find(self, body: bytes) -> list[Any]:
        """The keys of the rules that data matches; none where it is no JSON."""


class _Foreign(Exception):
    """What the accelerator does not know."""


def engine() -> Engine | None:
    """An accelerator without rules; None where it is not installed."""
    made: Engine | None = _made(MAX_JSON_DEPTH)
    return made


def _none(depth: int) -> None:
    return None


try:
    _made = importlib.import_module("funcrt_accelerator").Engine
except ImportError:
    _made = _none


def rule(filter: Indexed) -> Spec | None:
    """A filter as `Engine.add` takes it; None where it is not one pattern of data that the
    accelerator knows."""
    conditions: Sequence[Any] = getattr(filter, "conditions", ())
    if len(conditions) != 1 or not isinstance(conditions[0], Pattern):
        return None
    pattern = conditions[0]
    try:
        return [_below_data(one) for one in pattern.alternatives], [
            _way(way) for way in pattern.ways()
        ]
    except _Foreign:
        return None


def _below_data(table: Table) -> tuple[Any, ...]:
    if [name for name, _ in table.fields] != ["data"]:
        raise _Foreign
    return _field(table.fields[0][1])


def _field(field: Leaf | Table) -> tuple[Any, ...]:
    if isinstance(field, Leaf):
        return ("leaf", [_test(test) for test in field.tests], field.absent)
    return ("table", [(_text(name), _field(below)) for name, below in field.fields])


def _test(test: Test) -> tuple[Any, ...]:
    told = _TOLD.get(type(test))
    if told is None:
        raise _Foreign
    return told(test)


def _equal(test: Equal) -> tuple[Any, ...]:
    if not test.full:
        raise _Foreign
    return ("is", _text(test.wanted) if isinstance(test.wanted, str) else test.wanted)


def _ends(test: Prefix | Suffix) -> tuple[Any, ...]:
    if test.fold:
        raise _Foreign
    return ("prefix" if isinstance(test, Prefix) else "suffix", _text(test.wanted))


def _like(test: Wildcard) -> tuple[Any, ...]:
    parts = [_text(part) for part in test.segments]
    return ("is", parts[0]) if len(parts) == 1 else ("like", parts)


def _numeric(test: Numeric) -> tuple[Any, ...]:
    if not test.full:
        raise _Foreign
    return ("range", *test.ends)


def _none_of(test: NoneOf) -> tuple[Any, ...]:
    return ("none", [_test(one) for one in test.tests])


_TOLD: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    Equal: _equal,
    Prefix: _ends,
    Suffix: _ends,
    Wildcard: _like,
    Numeric: _numeric,
    NoneOf: _none_of,
    Exists: lambda test: ("there",),
}


def _way(way: Way) -> list[tuple[list[str], list[tuple[Any, ...]]]]:
    return [_group(group) for group in way.groups]


def _group(group: Group) -> tuple[list[str], list[tuple[Any, ...]]]:
    return [_text(name) for name in group.place.path], [_key(key) for key in group.keys]


def _key(key: Key) -> tuple[Any, ...]:
    match key.kind:
        case "is":
            return ("is", key.value[0] if isinstance(key.value, tuple) else key.value)
        case "prefix" | "suffix":
            return (key.kind, key.value)
        case "like":
            head, tail, chunks = key.value
            return ("like", head, tail, max(chunks, key=len, default=""))
        case "range":
            return ("range", *key.value)
        case "there":
            return ("there",)
    raise _Foreign


def _text(text: Any) -> str:
    """Text that is UTF-8: the accelerator takes none with lone surrogates."""
    if not isinstance(text, str):
        raise _Foreign
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Foreign from None
    return text
