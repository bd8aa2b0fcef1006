"""Filters as the accelerator takes them, where it is installed.

The accelerator (the package `funcrt-accelerator`, in Rust) finds and matches what the dialects and
patterns say of attributes and data. Of a filter that says more, such as a JSONPath condition, it
finds the events that may match. What it cannot find, and everything without it, is for the index in
Python. Both are held to the plain matcher.
"""

import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from mesh.event import MAX_JSON_DEPTH, Event
from triggers.access import Group, Indexed, Key, Place, Way
from triggers.dialects import All, AnyOf, Attribute, Not
from triggers.match import Leaf, Pattern, Table
from triggers.values import Equal, Exists, NoneOf, Numeric, Prefix, Suffix, Test, Wildcard
from triggers.view import MAX_DATA_BYTES

__all__ = ["Engine", "engine", "rule"]

Spec = tuple[list[Any], list[Any], bool]
"""Its conditions, the ways to find it, and whether that is not all it says."""


FORMAT = 2
"""Of what the accelerator is given."""


class Engine(Protocol):
    """Rules by number. None of its calls runs Python, so that they are whole to other threads."""

    def add(self, key: Any, conditions: list[Any], ways: list[Any], doubtful: bool) -> int:
        """Add a rule with the key that is found by it; its number."""

    def remove(self, id: int) -> None:
        """Take it out."""

    def choose(self, ways: list[Any]) -> list[list[int]]:
        """By which groups of each way a rule is, or would be, found; none where it is tried."""

    def find(self, event: Event) -> tuple[set[Any], list[Any]]:
        """The keys of the rules that an event matches; and of those that are doubtful, which it
        matches as far as the accelerator knows."""


class _Foreign(Exception):
    """What the accelerator does not know."""


def engine() -> Engine | None:
    """An accelerator without rules; None where it is not installed."""
    made: Engine | None = _made(MAX_JSON_DEPTH, MAX_DATA_BYTES)
    return made


def _none(depth: int, most: int) -> None:
    return None


def _installed() -> Callable[[int, int], Any]:
    """What makes an engine."""
    try:
        module = importlib.import_module("funcrt_accelerator")
    except ImportError:
        return _none
    found = getattr(module, "FORMAT", 1)
    if found != FORMAT:
        warnings.warn(
            f"funcrt-accelerator is not used: its format is {found}, expected {FORMAT}."
            " Install that of this version of funcrt, or none.",
            RuntimeWarning,
            stacklevel=2,
        )
        return _none
    made: Callable[[int, int], Any] = module.Engine
    return made


_made = _installed()


def rule(filter: Indexed) -> Spec | None:
    """A filter as `Engine.add` takes it; None where the accelerator could not find it."""
    conditions: Sequence[Any] | None = getattr(filter, "conditions", None)
    if conditions is None:
        return None
    lowered = []
    try:
        found = filter.ways()
        ways = [_way(way) for way in found]
        if all(way.full and len(way.groups) == 1 for way in found):
            return [], ways, False  # what finds it says all
        for condition in conditions:
            with suppress(_Foreign):
                lowered.append(_condition(condition))
    except _Foreign:
        return None
    doubtful = len(lowered) < len(conditions)
    if doubtful and not all(groups for groups, _, _ in ways):
        return None
    return lowered, ways, doubtful


def _condition(condition: Any) -> tuple[Any, ...]:
    match condition:
        case Pattern():
            tables = [("pattern", _table(one)) for one in condition.alternatives]
            return tables[0] if len(tables) == 1 else ("any", tables)
        case Attribute():
            kind = "is" if condition.dialect == "exact" else condition.dialect
            place = Place.text(condition.name)
            return ("text", place.root, condition.name, (kind, _text(condition.wanted)))
        case AnyOf():
            return ("any", [_condition(one) for one in condition.conditions])
        case All():
            return ("all", [_condition(one) for one in condition.conditions])
        case Not():
            return ("not", _condition(condition.condition))
    raise _Foreign


def _table(table: Table) -> list[Any]:
    return [(_text(name), _field(below)) for name, below in table.fields]


def _field(field: Leaf | Table) -> Any:
    if isinstance(field, Table):
        return _table(field)
    return ([_test(test) for test in field.tests], field.absent)


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


def _way(way: Way) -> tuple[list[Any], bool, bool]:
    return [_group(group) for group in way.groups], way.full, way.flat


def _group(group: Group) -> tuple[str, list[str], list[tuple[Any, ...]]]:
    place = group.place
    return place.root, [_text(name) for name in place.path], [_key(key) for key in group.keys]


def _key(key: Key) -> tuple[Any, ...]:
    kind, value = key.kind, key.value
    if kind == "is":
        if isinstance(value, str):
            return (kind, _text(value))
        return (kind, value[0] if isinstance(value, tuple) else value)
    if kind in ("prefix", "suffix"):
        return (kind, _text(value))
    if kind == "like":
        head, tail, chunks = value
        return (kind, _text(head), _text(tail), _text(max(chunks, key=len, default="")))
    if kind == "range":
        return (kind, *value)
    if kind == "there":
        return (kind,)
    raise _Foreign


def _text(text: Any) -> str:
    """Text that is UTF-8: the accelerator takes none with lone surrogates."""
    if not isinstance(text, str):
        raise _Foreign
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Foreign from None
    return text
