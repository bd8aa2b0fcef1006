"""Patterns in the manner of EventBridge, over attributes and `data`.

Semantics: a missing field meets only `exists: false`; nothing is coerced (`1` is neither `"1"`
nor `true`; `300`, `300.0` and `3.0e2` are one number); null is a value, objects and `[]` are not;
of an array any element may match, and several fields under one array must match in the same
element; a sub-pattern of only `exists: false` must hold for every element. `$or` distributes: a
pattern is the alternatives that it multiplies out to, and so are the values of a field.

Data that is missing, no JSON (whatever its datacontenttype says), nested too deep or too large is
a missing field. Integers compare exactly, an integer and a float as doubles.
"""

import difflib
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from mesh.event import CONTEXT, Event, parse_json
from triggers.errors import FilterMistake, shown
from triggers.explain import Clause, Explained, as_text, several, wanted_values

__all__ = ["parse_pattern"]

Test = Callable[[Any], bool]
"""Whether a value, which is there, matches."""

MAX_DEPTH = 10
MAX_VALUES = 200
MAX_ALTERNATIVES = 256
"""Of one pattern, once every `$or` is multiplied out."""
MAX_DATA_BYTES = 4 << 20
"""Larger data is not looked into."""
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


_EXAMPLE = 'e.g. { type = ["com.example"] }'
_RANGE = 'e.g. [">", 0, "<=", 5]'
_ONE = 'e.g. { prefix = "a" }'
_INSTEAD = f"there are {', '.join(_OPERATORS)}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Any, b: Any) -> bool:
    if _number(a) and _number(b):
        return _compare("=", a, b)
    return type(a) is type(b) and bool(a == b)


def _compare(operator: str, a: int | float, b: int | float) -> bool:
    if type(a) is not type(b):
        a, b = _double(a), _double(b)
    return _COMPARE[operator](a, b)


def _double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


class _Exists:
    """The tests for being there; that for being absent is the one that a missing field meets."""

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
        table = _Table(path=path)
        if not isinstance(pattern, dict) or not pattern:
            self.wrong(path, "expected a table of fields that is not empty", _EXAMPLE)
            return table
        if depth > MAX_DEPTH:
            self.wrong(path, f"nested more than {MAX_DEPTH} deep", "match fewer levels")
            return table
        for key, value in pattern.items():
            where = f"{path}.{key if isinstance(key, str) else shown(key)}"
            if not isinstance(key, str):
                self.wrong(where, "a field's name is a string", f'write "{shown(key)}"')
            elif key == "$or":
                table.ors.append(self.either(value, where, depth))
            elif isinstance(value, dict):
                table.fields.append((key, self.table(value, where, depth + 1)))
            elif isinstance(value, list):
                table.fields.append((key, self.leaf(value, where)))
            else:
                mend = f"write [{shown(value)}]"
                self.wrong(where, "expected a list of values, or a table of fields", mend)
        return table

    def either(self, value: Any, path: str, depth: int) -> "list[_Table]":
        """The branches of `$or`."""
        if not isinstance(value, list) or len(value) < 2:
            self.wrong(path, "expected a list of at least two patterns", "or leave $or out")
            return []
        return [self.table(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]

    def leaf(self, values: list[Any], path: str) -> "_Leaf":
        """A field's alternatives."""
        if not 0 < len(values) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} values, found {len(values)}"
            self.wrong(path, reason, "to ask whether it is there, [{ exists = true }]")
        tests = [self.test(value, f"{path}[{n}]") for n, value in enumerate(values)]
        wanted = "" if None in tests else wanted_values(values)
        return _Leaf([test for test in tests if test is not None], path, wanted)

    def test(self, value: Any, path: str) -> Test | None:
        """One alternative."""
        if value is None or isinstance(value, str | bool | int | float):
            if isinstance(value, float) and not math.isfinite(value):
                self.wrong(path, f"{value} is no JSON number", "use numeric for ranges")
                return None
            return lambda found: _same(found, value)
        if not isinstance(value, dict) or len(value) != 1:
            self.wrong(path, "expected a value, or a table with one operator", _ONE)
            return None
        ((name, wanted),) = value.items()
        name = name if isinstance(name, str) else shown(name)
        where = f"{path}.{name}"
        if name in _LATER:
            self.wrong(where, f"the operator {name} is not built yet", _INSTEAD)
            return None
        if name not in _OPERATORS:
            close = difflib.get_close_matches(name[:40], _OPERATORS, 1)
            mend = f'did you mean "{close[0]}"?' if close else _INSTEAD
            self.wrong(where, "unknown operator", mend)
            return None
        parse: Callable[[Any, str], Test | None] = getattr(self, name.replace("-", "_"))
        return parse(wanted, where)

    def _string(self, wanted: Any, path: str) -> str | None:
        if isinstance(wanted, str) and wanted:
            return wanted
        reason = f"expected a string that is not empty, found {shown(wanted)}"
        self.wrong(path, reason, "one operator for each string")
        return None

    def prefix(self, wanted: Any, path: str) -> Test | None:
        text = self._string(wanted, path)
        return text and (lambda found: isinstance(found, str) and found.startswith(text))  # type: ignore[return-value]

    def suffix(self, wanted: Any, path: str) -> Test | None:
        text = self._string(wanted, path)
        return text and (lambda found: isinstance(found, str) and found.endswith(text))  # type: ignore[return-value]

    def equals_ignore_case(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, str):
            self.wrong(path, f"expected a string, found {shown(wanted)}", 'e.g. "gold"')
            return None
        folded = wanted.casefold()
        return lambda found: isinstance(found, str) and found.casefold() == folded

    def exists(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, bool):
            self.wrong(path, f"expected true or false, found {shown(wanted)}", "write true")
            return None
        return _Exists(wanted)

    def anything_but(self, wanted: Any, path: str) -> Test | None:
        if isinstance(wanted, dict):
            return self._anything_but_like(wanted, path)
        values = wanted if isinstance(wanted, list) else [wanted]
        if not 0 < len(values) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} values, found {len(values)}"
            self.wrong(path, reason, "for any value at all, { exists = true }")
            return None
        if any(isinstance(value, list | dict) for value in values):
            self.wrong(path, f"expected values, found {shown(wanted)}", 'e.g. ["a", "b"]')
            return None
        return self._none_of([self.test(value, path) for value in values])

    def _anything_but_like(self, wanted: dict[Any, Any], path: str) -> Test | None:
        """`prefix`, `suffix` or `equals-ignore-case` of a string or of any of a list."""
        name, value = next(iter(wanted.items()), ("", None))
        if len(wanted) != 1 or name not in ("prefix", "suffix", "equals-ignore-case"):
            reason = "expected values, or a table with prefix, suffix or equals-ignore-case"
            self.wrong(path, reason, 'e.g. { prefix = "a" }')
            return None
        where = f"{path}.{name}"
        if not isinstance(value, list):
            return self._none_of([self.test({name: value}, path)])
        if not 0 < len(value) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} strings, found {len(value)}"
            self.wrong(where, reason, "for any value at all, { exists = true }")
            return None
        parse: Callable[[Any, str], Test | None] = getattr(self, name.replace("-", "_"))
        return self._none_of([parse(item, f"{where}[{n}]") for n, item in enumerate(value)])

    def _none_of(self, tests: list[Test | None]) -> Test | None:
        known = [test for test in tests if test is not None]
        if len(known) < len(tests):
            return None
        return lambda found: not any(test(found) for test in known)

    def numeric(self, wanted: Any, path: str) -> Test | None:
        pairs: list[tuple[Any, Any]] = []
        if isinstance(wanted, list) and len(wanted) in (2, 4):
            pairs = list(zip(wanted[::2], wanted[1::2], strict=True))
        if not pairs or not all(
            isinstance(op, str) and op in _COMPARE and _number(bound) and abs(bound) < math.inf
            for op, bound in pairs
        ):
            self.wrong(path, f"expected comparisons, found {shown(wanted)}", _RANGE)
            return None
        if len(pairs) == 2 and not self._range(pairs, path):
            return None
        return lambda found: _number(found) and all(_compare(op, found, to) for op, to in pairs)

    def _range(self, pairs: list[tuple[str, Any]], path: str) -> bool:
        """Whether two comparisons are a lower and then an upper bound with numbers between."""
        (low, bottom), (high, top) = pairs
        if low[0] != ">" or high[0] != "<":
            reason = f"expected a lower and then an upper bound, found {low} and {high}"
            self.wrong(path, reason, _RANGE)
            return False
        if _compare(">", bottom, top) or (_same(bottom, top) and (low, high) != (">=", "<=")):
            self.wrong(path, f"no number is {low} {shown(bottom)} and {high} {shown(top)}", _RANGE)
            return False
        return True


class _Leaf:
    """A field's alternatives: tests of a value, of which one may be that there is none."""

    def __init__(self, tests: list[Test], path: str, wanted: str) -> None:
        self.path = path
        self.wanted = wanted
        self.absent = any(isinstance(test, _Exists) and not test.wanted for test in tests)
        self.tests = [test for test in tests if not isinstance(test, _Exists) or test.wanted]

    def matches(self, value: Any) -> bool:
        """Whether a value that is there matches."""
        return bool(self.tests) and any(
            test(leaf) for leaf in _leaves(value) for test in self.tests
        )

    def missing(self, values: list[Any]) -> bool:
        """Whether it may be, and is, missing everywhere."""
        return self.absent and not any(_leaves(value) for value in values)

    def explain(self, value: Any, name: str) -> Explained:
        """Why a value, or none, is one; `name` is where the event has it."""
        found = None if value is _MISSING else as_text(value)
        holds = self.matches(value) or self.missing([value])
        return Explained(self.path, f"{name} {self.wanted}", found, holds)


class _Table:
    """An object's fields, all of which must match. `ors` is empty once it is multiplied out."""

    def __init__(
        self, fields: "list[tuple[str, _Leaf | _Table]] | None" = None, path: str = ""
    ) -> None:
        self.path = path
        self.fields = fields or []
        self.absent: bool = all(field.absent for _, field in self.fields)
        self.ors: list[list[_Table]] = []

    def holds(self, found: Mapping[str, Any]) -> bool:
        """Whether an object matches."""
        return self._matches(found) or (self.absent and self._missing([found]))

    def matches(self, value: Any) -> bool:
        """Whether an object that is there, or one of an array, matches by a value."""
        return any(self._matches(found) for found in _objects(value))

    def missing(self, values: list[Any]) -> bool:
        """Whether every field may be, and is, missing everywhere."""
        objects = [found for value in values for found in _objects(value)]
        return self.absent and self._missing(objects)

    def explain(self, value: Any, name: str) -> Explained:
        """Why a value, or none, is an object that matches, or an array with one. Of an array the
        element tells that comes nearest; where none matches, one that has a field at fault."""
        objects = _objects(value)[::-1]  # in the order they stand in
        inside = [self._fields(found, name) for found in objects] or [self._fields({}, name)]
        good = [n for n, found in enumerate(objects) if self._matches(found)]
        if good:
            chosen = good[0]
        else:
            faults = [sum(not child.holds for child in children) for children in inside]
            missing = self.absent and self._missing(objects)
            chosen = min(range(len(inside)), key=lambda n: faults[n] or (0 if missing else 999))
        remark = None
        if not objects and value is not _MISSING:
            remark = f"{as_text(value)}, no object"
        elif isinstance(value, list):
            remark = f"element {chosen + 1} of {len(objects)}"
        return several(self.path, f"{name}: all of", inside[chosen], remark)

    def _fields(self, found: Mapping[str, Any], name: str) -> list[Explained]:
        prefix = f"{name}." if name else ""
        return [
            field.explain(found.get(key, _MISSING), f"{prefix}{_key(key)}")
            for key, field in self.fields
        ]

    def _matches(self, found: Mapping[str, Any]) -> bool:
        some = False
        for key, field in self.fields:
            value = found.get(key, _MISSING)
            if field.matches(value):
                some = True
            elif not (field.absent and field.missing([value])):
                return False
        return some

    def _missing(self, objects: list[Mapping[str, Any]]) -> bool:
        return all(
            field.missing([found.get(key, _MISSING) for found in objects])
            for key, field in self.fields
        )


class _TooMany(Exception):
    pass


def _alternatives(table: _Table) -> list[_Table]:
    """The tables without `$or` of which one must match. Raises _TooMany."""
    choices = [[one for branch in ors for one in _alternatives(branch)] for ors in table.ors]
    for key, field in table.fields:
        options = _alternatives(field) if isinstance(field, _Table) else [field]
        choices.append([_Table([(key, option)], table.path) for option in options])
    if math.prod(map(len, choices)) > MAX_ALTERNATIVES:
        raise _TooMany
    return [
        functools.reduce(_merged, chosen, _Table(path=table.path))
        for chosen in itertools.product(*choices)
    ]


def _merged(a: _Table, b: _Table) -> _Table:
    """Both tables' fields; those under one array must match in the same element."""
    tables = {key: field for key, field in b.fields if isinstance(field, _Table)}
    fields: list[tuple[str, _Leaf | _Table]] = []
    for key, field in a.fields:
        if isinstance(field, _Table) and key in tables:
            fields.append((key, _merged(field, tables.pop(key))))
        else:
            fields.append((key, field))
    fields += [one for one in b.fields if isinstance(one[1], _Leaf) or one[0] in tables]
    return _Table(fields, a.path)


def _key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False) if "." in key or not key else key


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [item for item in _flat(value) if not isinstance(item, dict)]
    return [] if value is _MISSING or isinstance(value, dict) else [value]


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


def parse_pattern(pattern: Any, path: str, mistakes: list[FilterMistake]) -> Clause:
    """The condition that a pattern is; what is wrong goes to `mistakes`."""
    table = _Parser(mistakes).table(pattern, path, 1)
    alternatives: list[_Table] = []
    try:
        alternatives = _alternatives(table)
    except _TooMany:
        reason = f"multiplies out to more than {MAX_ALTERNATIVES} alternatives"
        mistakes.append(FilterMistake(path, reason, "use fewer or shorter $or lists"))
    reads_data = any(key == "data" for one in alternatives for key, _ in one.fields)

    def holds(event: Event) -> bool:
        found, _ = _read(event, reads_data)
        return any(one.holds(found) for one in alternatives)

    def explain(event: Event) -> Explained:
        found, why_not = _read(event, reads_data)
        each = [several(path, "all of", one._fields(found, ""), why_not) for one in alternatives]
        return each[0] if len(each) == 1 else several(path, "any of", each, why_not)

    return Clause(holds, explain)


def _read(event: Event, data: bool) -> tuple[dict[str, Any], str | None]:
    """What a pattern sees of an event, with its data where asked, or why not with it."""
    found: dict[str, Any] = {"specversion": "1.0", **event.extensions}
    for name in CONTEXT:
        value = getattr(event, name)
        if value is not None:
            found[name] = value
    if not data:
        return found, None
    if event.data is None:
        return found, "the event has no data"
    if len(event.data) > MAX_DATA_BYTES:
        return found, f"the data is larger than {MAX_DATA_BYTES} bytes, and not looked into"
    try:
        found["data"] = parse_json(event.data)
    except ValueError:
        return found, "the data is no JSON"
    return found, None
