"""Patterns, parsed: the obvious matcher, which is their semantics.

A missing field meets only `exists: false`; null is a value, objects and `[]` are not; of an array
any element may match, and several fields under one array must match in the same element; a
sub-pattern of only `exists: false` must hold for every element. `$or` distributes: a pattern is the
alternatives that it multiplies out to, and so are the values of a field.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from triggers.access import ANY, Group, Place, Way, any_of
from triggers.errors import FilterMistake
from triggers.explain import Explained, any_of_these, as_text, several
from triggers.values import Exists, Numeric, Test
from triggers.view import MISSING, View

__all__ = ["MAX_ALTERNATIVES", "Leaf", "Pattern", "Table", "TooMany"]

MAX_ALTERNATIVES = 256
"""Of one pattern, once every `$or` is multiplied out."""


class TooMany(Exception):
    """A pattern has more than MAX_ALTERNATIVES."""


class Leaf(msgspec.Struct, eq=False, gc=False):
    """A field's alternatives: tests of a value, of which one may be that there is none."""

    tests: tuple[Test, ...]
    absent: bool
    path: str

    @classmethod
    def of(cls, tests: Sequence[Test], path: str) -> "Leaf":
        """That of these alternatives."""
        there = tuple([test for test in tests if not isinstance(test, Exists) or test.wanted])
        return cls(there, len(there) < len(tests), path)

    def matches(self, value: Any) -> bool:
        """Whether a value that is there matches."""
        if value.__class__ is list:
            return any(test(leaf) for leaf in _leaves(value) for test in self.tests)
        if value is MISSING or value.__class__ is dict:
            return False
        for test in self.tests:  # noqa: SIM110 - half the time of any()
            if test(value):
                return True
        return False

    def missing(self, values: Sequence[Any]) -> bool:
        """Whether it may be, and is, missing everywhere."""
        return self.absent and not any(_leaves(value) for value in values)

    def explain(self, value: Any, name: str) -> Explained:
        """Why a value, or none, is one; `name` is where the event has it."""
        wanted = [*self.tests, *([Exists(False)] if self.absent else [])]
        found = None if value is MISSING else as_text(value)
        holds = self.matches(value) or self.missing([value])
        return Explained(self.path, f"{name} {any_of_these(wanted)}", found, holds)

    def constant(self) -> bool | None:
        """What it always comes to, whatever the event; None where that depends."""
        if self.absent and any(isinstance(test, Exists) for test in self.tests):
            return True
        empty = all(isinstance(test, Numeric) and test.empty for test in self.tests)
        return False if empty and not self.absent else None


class Table(msgspec.Struct, eq=False, gc=False):
    """An object's fields, all of which must match. `ors` is empty once it is multiplied out."""

    fields: "tuple[tuple[str, Leaf | Table], ...]"
    absent: bool
    path: str
    ors: "tuple[Sequence[Table], ...]" = ()

    @classmethod
    def of(
        cls,
        fields: "Sequence[tuple[str, Leaf | Table]]",
        path: str,
        ors: "Sequence[Sequence[Table]]" = (),
    ) -> "Table":
        """That of these fields."""
        return cls(tuple(fields), all(field.absent for _, field in fields), path, tuple(ors))

    def holds(self, found: Mapping[str, Any]) -> bool:
        """Whether an object matches."""
        return self._matches(found) or (self.absent and self._missing([found]))

    def matches(self, value: Any) -> bool:
        """Whether an object that is there, or one of an array, matches by a value."""
        if value.__class__ is dict:
            return self._matches(value)
        return any(self._matches(found) for found in _objects(value))

    def missing(self, values: Sequence[Any]) -> bool:
        """Whether every field may be, and is, missing everywhere."""
        objects = [found for value in values for found in _objects(value)]
        return self.absent and self._missing(objects)

    def explain(self, value: Any, name: str) -> Explained:
        """Why a value, or none, is an object that matches, or an array with one. Of an array the
        element tells that comes nearest; where none matches, one that has a field at fault."""
        objects = _objects(value)[::-1]  # in the order they stand in
        inside = [self.told(found, name) for found in objects] or [self.told({}, name)]
        good = [n for n, found in enumerate(objects) if self._matches(found)]
        if good:
            chosen = good[0]
        else:
            faults = [sum(not child.holds for child in children) for children in inside]
            missing = self.absent and self._missing(objects)
            chosen = min(range(len(inside)), key=lambda n: faults[n] or (0 if missing else 999))
        remark = None
        if not objects and value is not MISSING:
            remark = f"{as_text(value)}, no object"
        elif isinstance(value, list):
            remark = f"element {chosen + 1} of {len(objects)}"
        return several(self.path, f"{name}: all of", inside[chosen], remark)

    def told(self, found: Mapping[str, Any], name: str = "") -> list[Explained]:
        """Why each field of an object matches, or not."""
        prefix = f"{name}." if name else ""
        return [
            field.explain(found.get(key, MISSING), f"{prefix}{_quoted(key)}")
            for key, field in self.fields
        ]

    def _matches(self, found: Mapping[str, Any]) -> bool:
        some = False
        for key, field in self.fields:
            value = found.get(key, MISSING)
            if field.matches(value):
                some = True
            elif not (field.absent and field.missing([value])):
                return False
        return some

    def _missing(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        return all(
            field.missing([found.get(key, MISSING) for found in objects])
            for key, field in self.fields
        )

    def groups(self, path: tuple[str, ...] = ()) -> "Iterator[tuple[Group, bool]]":
        """By which values an index can find it, and whether a group says all of its field."""
        for key, field in self.fields:
            below = (*path, key)
            if isinstance(field, Table):
                yield from field.groups(below)
            elif not field.absent and field.tests:
                keys = tuple(key for test in field.tests for key in test.found_by())
                yield Group(_place(below), keys), all(test.full for test in field.tests)


def _place(path: tuple[str, ...]) -> Place:
    return Place("data", path[1:]) if path[0] == "data" else Place("attribute", path)


_Seen = Callable[[View], Mapping[str, Any]]
_BODY: _Seen = attrgetter("body")
_WHOLE: _Seen = attrgetter("whole")
_ATTRIBUTES: _Seen = attrgetter("attributes")


class Pattern(msgspec.Struct, eq=False, gc=False):
    """A whole pattern, over attributes and `data`."""

    path: str
    alternatives: tuple[Table, ...]
    seen: _Seen
    """What of an event it looks at: its data costs a parse, its attributes a dict."""

    @classmethod
    def of(cls, table: Table) -> "Pattern":
        """That of a table. Raises TooMany."""
        each = tuple(alternatives(table))
        names = {key for one in each for key, _ in one.fields}
        seen = _BODY if names == {"data"} else _WHOLE if "data" in names else _ATTRIBUTES
        return cls(table.path, each, seen)

    def holds(self, view: View) -> bool:
        """Whether an event matches."""
        found = self.seen(view)
        for one in self.alternatives:  # noqa: SIM110 - half the time of any()
            if one.holds(found):
                return True
        return False

    def explain(self, view: View) -> Explained:
        """Why, by each alternative."""
        found, why = self.seen(view), view.why or None
        each = [several(self.path, "all of", one.told(found), why) for one in self.alternatives]
        return each[0] if len(each) == 1 else several(self.path, "any of", each, why)

    def ways(self) -> Sequence[Way]:
        """By what an index can find it."""
        return any_of(_ways(one) for one in self.alternatives)

    def constant(self) -> bool | None:
        """What it always comes to."""
        found = [{field.constant() for field in _all_leaves(one)} for one in self.alternatives]
        if any(verdicts == {True} for verdicts in found):
            return True
        return False if all(False in verdicts for verdicts in found) else None

    def warnings(self) -> Sequence[FilterMistake]:
        """None: what is hardly meant in one makes it constant."""
        return ()


def _ways(table: Table) -> Sequence[Way]:
    groups = list(table.groups())
    if not groups:
        return ANY
    leaves = sum(1 for _ in _all_leaves(table))
    flat = leaves == len(groups) and all(full for _, full in groups)
    # One field says it all; several must meet in one element of an array.
    return (Way(tuple(group for group, _ in groups), flat and leaves == 1, flat),)


def _all_leaves(table: Table) -> Iterator[Leaf]:
    for _, field in table.fields:
        if isinstance(field, Table):
            yield from _all_leaves(field)
        else:
            yield field


def alternatives(table: Table) -> list[Table]:
    """The tables without `$or` of which one must match. Raises TooMany."""
    if not _has_or(table):
        return [table]
    choices = [[one for branch in ors for one in alternatives(branch)] for ors in table.ors]
    for key, field in table.fields:
        options: Sequence[Leaf | Table] = (
            alternatives(field) if isinstance(field, Table) else [field]
        )
        choices.append([Table.of([(key, option)], table.path) for option in options])
    if math.prod(map(len, choices)) > MAX_ALTERNATIVES:
        raise TooMany
    return [
        functools.reduce(_merged, chosen, Table.of((), table.path))
        for chosen in itertools.product(*choices)
    ]


def _has_or(table: Table) -> bool:
    if table.ors:
        return True
    return any(isinstance(field, Table) and _has_or(field) for _, field in table.fields)


def _merged(a: Table, b: Table) -> Table:
    """Both tables' fields; those under one array must match in the same element."""
    tables = {key: field for key, field in b.fields if isinstance(field, Table)}
    fields: list[tuple[str, Leaf | Table]] = []
    for key, field in a.fields:
        if isinstance(field, Table) and key in tables:
            fields.append((key, _merged(field, tables.pop(key))))
        else:
            fields.append((key, field))
    fields += [one for one in b.fields if isinstance(one[1], Leaf) or one[0] in tables]
    return Table.of(fields, a.path or b.path)


def _quoted(key: str) -> str:
    return as_text(key) if "." in key or not key else key


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [item for item in _flat(value) if not isinstance(item, dict)]
    return [] if value is MISSING or isinstance(value, dict) else [value]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return [item for item in _flat(value) if isinstance(item, dict)]
    return [value] if isinstance(value, dict) else []


def _flat(items: list[Any]) -> list[Any]:
    flat, open_ = [], list(items)
    while open_:
        item = open_.pop()
        if isinstance(item, list):
            open_.extend(item)
        else:
            flat.append(item)
    return flat
