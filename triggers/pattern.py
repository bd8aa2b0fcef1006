"""Patterns in the manner of EventBridge, over attributes and `data`.

Semantics: a missing field meets only `exists: false`; nothing is coerced (`1` is neither `"1"`
nor `true`; `300`, `300.0` and `3.0e2` are one number); null is a value, objects and `[]` are not;
of an array any element may match, and several fields under one array must match in the same
element; a sub-pattern of only `exists: false` must hold for every element.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mesh.event import CONTEXT, Event
from triggers.dialects import Condition
from triggers.errors import FilterMistake

__all__ = ["parse_pattern"]

Test = Callable[[Any], bool]
Rule = Callable[[Any], bool]
"""Whether a field's value (or _MISSING) matches."""

MAX_DEPTH = 10
MAX_VALUES = 200
_MISSING: Any = object()
_OPERATORS = ("prefix", "suffix", "anything-but", "numeric", "exists", "equals-ignore-case")
_LATER = ("cidr", "wildcard")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Any, b: Any) -> bool:
    if _number(a) and _number(b):
        return bool(a == b)
    return type(a) is type(b) and bool(a == b)


class _Exists:
    """The one test that a missing field can meet."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __call__(self, value: Any) -> bool:
        return self.wanted


class _Parser:
    """Turns a pattern into rules, gathering what is wrong with it."""

    def __init__(self, mistakes: list[FilterMistake]) -> None:
        self.mistakes = mistakes

    def wrong(self, path: str, reason: str, mend: str = "") -> None:
        self.mistakes.append(FilterMistake(path, reason, mend))

    def table(self, pattern: Any, path: str, depth: int) -> "_Table":
        """A pattern's object."""
        table = _Table()
        if not isinstance(pattern, dict) or not pattern:
            self.wrong(path, "expected a table of fields that is not empty")
            return table
        if depth > MAX_DEPTH:
            self.wrong(path, f"nested more than {MAX_DEPTH} deep")
            return table
        for key, value in pattern.items():
            where = f"{path}.{key}"
            if key == "$or":
                table.ors.append(self.either(value, where, depth))
            elif isinstance(value, dict):
                table.fields[key] = self.table(value, where, depth + 1)
            elif isinstance(value, list):
                table.fields[key] = self.leaf(value, where)
            else:
                mend = f"write [{value!r}]"
                self.wrong(where, "expected a list of values, or a table of fields", mend)
        return table

    def either(self, value: Any, path: str, depth: int) -> "list[_Table]":
        """The branches of `$or`."""
        if not isinstance(value, list) or len(value) < 2:
            self.wrong(path, "expected a list of at least two patterns")
            return []
        return [self.table(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]

    def leaf(self, values: list[Any], path: str) -> "_Leaf":
        """A field's alternatives."""
        if not 0 < len(values) <= MAX_VALUES:
            self.wrong(path, f"expected 1 to {MAX_VALUES} values, found {len(values)}")
        tests = [self.test(value, f"{path}[{n}]") for n, value in enumerate(values)]
        return _Leaf([test for test in tests if test is not None])

    def test(self, value: Any, path: str) -> Test | None:
        """One alternative."""
        if value is None or isinstance(value, str | bool | int | float):
            return lambda found: _same(found, value)
        if not isinstance(value, dict) or len(value) != 1:
            self.wrong(path, "expected a value, or a table with one operator")
            return None
        ((name, wanted),) = value.items()
        where = f"{path}.{name}"
        if name in _LATER:
            self.wrong(where, f"the operator {name} is not built yet")
            return None
        if name not in _OPERATORS:
            close = difflib.get_close_matches(str(name), _OPERATORS, 1)
            mend = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(_OPERATORS)}"
            self.wrong(where, "unknown operator", mend)
            return None
        parse: Callable[[Any, str], Test | None] = getattr(self, name.replace("-", "_"))
        return parse(wanted, where)

    def _string(self, wanted: Any, path: str) -> str | None:
        if isinstance(wanted, str) and wanted:
            return wanted
        self.wrong(path, f"expected a string that is not empty, found {wanted!r}")
        return None

    def prefix(self, wanted: Any, path: str) -> Test | None:
        text = self._string(wanted, path)
        return text and (lambda found: isinstance(found, str) and found.startswith(text))  # type: ignore[return-value]

    def suffix(self, wanted: Any, path: str) -> Test | None:
        text = self._string(wanted, path)
        return text and (lambda found: isinstance(found, str) and found.endswith(text))  # type: ignore[return-value]

    def equals_ignore_case(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, str):
            self.wrong(path, f"expected a string, found {wanted!r}")
            return None
        folded = wanted.casefold()
        return lambda found: isinstance(found, str) and found.casefold() == folded

    def exists(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, bool):
            self.wrong(path, f"expected true or false, found {wanted!r}")
            return None
        return _Exists(wanted)

    def anything_but(self, wanted: Any, path: str) -> Test | None:
        if isinstance(wanted, dict):
            if len(wanted) == 1 and next(iter(wanted)) in ("prefix", "suffix"):
                inner = self.test(wanted, path)
                return None if inner is None else lambda found: not inner(found)
            self.wrong(path, "expected values, or a table with prefix or suffix")
            return None
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values or not all(
            value is None or isinstance(value, str | bool | int | float) for value in values
        ):
            self.wrong(path, "expected a value or a list of values that is not empty")
            return None
        return lambda found: not any(_same(found, value) for value in values)

    def numeric(self, wanted: Any, path: str) -> Test | None:
        pairs: list[tuple[Any, Any]] = []
        if isinstance(wanted, list) and len(wanted) in (2, 4):
            pairs = list(zip(wanted[::2], wanted[1::2], strict=True))
        if not pairs or not all(
            isinstance(op, str) and op in _COMPARE and _number(bound) and math.isfinite(bound)
            for op, bound in pairs
        ):
            self.wrong(path, 'expected comparisons, e.g. [">", 0, "<=", 5]')
            return None
        return lambda found: (
            _number(found) and all(_COMPARE[op](found, bound) for op, bound in pairs)
        )


class _Leaf:
    """A field's alternatives."""

    def __init__(self, tests: list[Test]) -> None:
        self.tests = tests
        self.absent = any(isinstance(test, _Exists) and not test.wanted for test in tests)
        self.only_absent = bool(tests) and all(
            isinstance(test, _Exists) and not test.wanted for test in tests
        )

    def matches(self, value: Any) -> bool:
        leaves = list(_leaves(value))
        if not leaves:
            return self.absent
        return any(test(leaf) for leaf in leaves for test in self.tests)


class _Table:
    """An object's fields, all of which must match, and its `$or`s."""

    def __init__(self) -> None:
        self.fields: dict[str, _Leaf | _Table] = {}
        self.ors: list[list[_Table]] = []

    @property
    def only_absent(self) -> bool:
        """Nothing but `exists: false` below here."""
        return all(field.only_absent for field in self.fields.values()) and not self.ors

    def matches(self, value: Any) -> bool:
        if isinstance(value, dict):
            return self.holds(value)
        elements = list(_objects(value))
        if not elements:
            return self.holds({})
        if self.only_absent:
            return all(self.holds(element) for element in elements)
        return any(self.holds(element) for element in elements)

    def holds(self, found: Mapping[str, Any]) -> bool:
        for key, field in self.fields.items():
            if not field.matches(found.get(key, _MISSING)):
                return False
        return all(any(branch.holds(found) for branch in branches) for branches in self.ors)


def _leaves(value: Any) -> Any:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not _MISSING and not isinstance(value, dict):
        yield value


def _objects(value: Any) -> Any:
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)
    elif isinstance(value, dict):
        yield value


def parse_pattern(pattern: Any, path: str, mistakes: list[FilterMistake]) -> Condition:
    """The condition that a pattern is; what is wrong goes to `mistakes`."""
    table = _Parser(mistakes).table(pattern, path, 1)

    def holds(event: Event) -> bool:
        found: dict[str, Any] = {"specversion": "1.0", **event.extensions}
        for name in CONTEXT:
            value = getattr(event, name)
            if value is not None:
                found[name] = value
        if event.data is not None:
            try:
                found["data"] = msgspec.json.decode(event.data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        try:
            return table.holds(found)
        except RecursionError:
            return False

    return holds
