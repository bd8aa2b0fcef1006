"""The CloudEvents Subscriptions dialects: conditions on attributes.

Source: CloudEvents Subscriptions API 0.1, §3.2.4. Values compare with an attribute's canonical
string; an absent attribute meets no condition but `not`. `sql` (or `cesql`, as Knative calls it) is
a CESQL 1.0 expression, which holds where it is true without an error.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Protocol

import msgspec

from mesh.event import CONTEXT, Event, canonical
from triggers.access import ANY, Group, Key, Place, Way, all_of, any_of
from triggers.cesql import Expression, MissingFunctionError, ParseError
from triggers.cesql.values import FUNCTIONS
from triggers.cesql.ways import ways_of
from triggers.errors import FilterMistake, shown
from triggers.explain import Explained, as_text, several
from triggers.view import View

__all__ = ["MAX_DEPTH", "All", "AnyOf", "Attribute", "Condition", "Not", "parse_filters"]

MAX_DEPTH = 10
_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
_PLAIN = ("exact", "prefix", "suffix")
_NESTED = ("all", "any")
_SQL = ("sql", "cesql")
_KNOWN = (*_PLAIN, *_NESTED, "not", "sql")
_EXAMPLE = 'e.g. [{ exact = { type = "com.example" } }]'


class Condition(Protocol):
    """What a filter is made of. Immutable; nothing that an event holds makes it raise."""

    path: str
    """Its place in the filter."""

    def holds(self, view: View) -> bool:
        """Whether the event meets it."""

    def explain(self, view: View) -> Explained:
        """Why; its `holds` is the same."""

    def ways(self) -> Sequence[Way]:
        """By what an index can find it."""

    def constant(self) -> bool | None:
        """What it comes to whatever the event; None where that depends, or is not seen."""

    def warnings(self) -> Iterable[FilterMistake]:
        """What in it is hardly meant."""


class Attribute(msgspec.Struct, eq=False, gc=False):
    """`exact`, `prefix` or `suffix` of one attribute."""

    dialect: str
    name: str
    wanted: str
    path: str
    takes: Callable[[str, str], bool]

    def holds(self, view: View) -> bool:
        read = _READ.get(self.name)
        found = read(view.event) if read is not None else view.event.attribute(self.name)
        if found is None:
            return False
        text = found if found.__class__ is str else canonical(found)
        return self.takes(text, self.wanted)

    def explain(self, view: View) -> Explained:
        found = view.event.attribute(self.name)
        text = None if found is None else as_text(canonical(found))
        wanted = f"{self.name} {_SAID[self.dialect]} {as_text(self.wanted)}"
        return Explained(self.path, wanted, text, self.holds(view))

    def ways(self) -> Sequence[Way]:
        kind: Any = "is" if self.dialect == "exact" else self.dialect
        return (Way((Group(Place.text(self.name), (Key(kind, self.wanted),)),), True),)

    def constant(self) -> bool | None:
        return None

    def warnings(self) -> Iterable[FilterMistake]:
        return ()


_READ: dict[str, Callable[[Event], str | None]] = {name: attrgetter(name) for name in CONTEXT}
_SAID = {"exact": "=", "prefix": "starts with", "suffix": "ends with"}
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


class All(msgspec.Struct, eq=False, gc=False):
    """Conditions that must all hold."""

    conditions: tuple[Condition, ...]
    path: str
    count: ClassVar[str] = "all of"

    def holds(self, view: View) -> bool:
        for condition in self.conditions:  # noqa: SIM110 - half the time of all()
            if not condition.holds(view):
                return False
        return True

    def explain(self, view: View) -> Explained:
        told = [condition.explain(view) for condition in self.conditions]
        return several(self.path, self.count, told)

    def ways(self) -> Sequence[Way]:
        return all_of(condition.ways() for condition in self.conditions)

    def constant(self) -> bool | None:
        verdicts = {condition.constant() for condition in self.conditions}
        return False if False in verdicts else True if verdicts == {True} else None

    def warnings(self) -> Iterable[FilterMistake]:
        return [one for condition in self.conditions for one in condition.warnings()]


class AnyOf(All):
    """Conditions of which one must."""

    count: ClassVar[str] = "any of"

    def holds(self, view: View) -> bool:
        return any(condition.holds(view) for condition in self.conditions)

    def ways(self) -> Sequence[Way]:
        return any_of(condition.ways() for condition in self.conditions)

    def constant(self) -> bool | None:
        verdicts = {condition.constant() for condition in self.conditions}
        return True if True in verdicts else False if verdicts == {False} else None


class Not(msgspec.Struct, eq=False, gc=False):
    """A condition that must not hold."""

    condition: Condition
    path: str

    def holds(self, view: View) -> bool:
        return not self.condition.holds(view)

    def explain(self, view: View) -> Explained:
        inner = self.condition.explain(view)
        return Explained(self.path, "not", None, not inner.holds, (inner,))

    def ways(self) -> Sequence[Way]:
        return ANY

    def constant(self) -> bool | None:
        verdict = self.condition.constant()
        return None if verdict is None else not verdict

    def warnings(self) -> Iterable[FilterMistake]:
        return self.condition.warnings()


class _Sql(msgspec.Struct, eq=False, gc=False):
    expression: Expression
    path: str

    def holds(self, view: View) -> bool:
        return self.expression.matches(view.event)

    def explain(self, view: View) -> Explained:
        value, errors = self.expression.evaluate(view.event)
        found = "; ".join(dict.fromkeys([as_text(value), *map(str, errors)]))
        return Explained(self.path, self.expression.text, found, self.holds(view))

    def ways(self) -> Sequence[Way]:
        return ways_of(self.expression.tree)

    def constant(self) -> bool | None:
        return self.expression.constant

    def warnings(self) -> Iterable[FilterMistake]:
        for call in self.expression.unknown:
            reason = str(MissingFunctionError(call.name, len(call.arguments)))
            yield FilterMistake(self.path, reason, f"there are {', '.join(FUNCTIONS)}")


def parse_filters(
    filters: Any, path: str, mistakes: list[FilterMistake], depth: int = 0
) -> list[Condition]:
    """The conditions of a list of filters; what is wrong goes to `mistakes`."""
    if not isinstance(filters, list):
        mistakes.append(FilterMistake(path, f"expected a list, found {_kind(filters)}", _EXAMPLE))
        return []
    found = []
    for index, item in enumerate(filters):
        condition = _parse(item, f"{path}[{index}]", mistakes, depth)
        if condition is not None:
            found.append(condition)
    return found


def _parse(item: Any, path: str, mistakes: list[FilterMistake], depth: int) -> Condition | None:
    if not isinstance(item, dict):
        reason = f"expected a table, found {_kind(item)}"
        mistakes.append(FilterMistake(path, reason, _EXAMPLE))
        return None
    if len(item) != 1:
        names = ", ".join(sorted(map(shown, item))[:9]) or "none"
        reason = f"a filter has one dialect, found {names}"
        mistakes.append(FilterMistake(path, reason, "use all = [...] to combine several"))
        return None
    if depth >= MAX_DEPTH:
        mistakes.append(FilterMistake(path, f"nested more than {MAX_DEPTH} deep", "flatten it"))
        return None
    ((dialect, value),) = item.items()
    name = dialect if isinstance(dialect, str) else shown(dialect)
    where = f"{path}.{name}"
    if dialect in _PLAIN:
        return _attributes(dialect, value, where, mistakes)
    if dialect == "not":
        inner = _parse(value, where, mistakes, depth + 1)
        return None if inner is None else Not(inner, where)
    if dialect in _NESTED:
        return _several(dialect, value, where, mistakes, depth)
    if dialect in _SQL:
        return _sql(value, where, mistakes)
    close = difflib.get_close_matches(name[:40], _KNOWN, 1)
    mend = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(_KNOWN)}"
    mistakes.append(FilterMistake(where, "unknown dialect", mend))
    return None


def _several(
    dialect: str, value: Any, where: str, mistakes: list[FilterMistake], depth: int
) -> Condition | None:
    inner = parse_filters(value, where, mistakes, depth + 1)
    if isinstance(value, list) and not value:
        reason = "holds no filter, expected at least one"
        mistakes.append(FilterMistake(where, reason, f"add one, or leave {dialect} out"))
    if not inner:
        return None
    return (All if dialect == "all" else AnyOf)(tuple(inner), where)


def _attributes(
    dialect: str, value: Any, where: str, mistakes: list[FilterMistake]
) -> Condition | None:
    if not isinstance(value, dict) or not value:
        reason = f"expected attributes and their values, found {_kind(value)}"
        mistakes.append(
            FilterMistake(where, reason, f'e.g. {dialect} = {{ type = "com.example" }}')
        )
        return None
    conditions: list[Condition] = []
    for name, wanted in value.items():
        at = f"{where}.{name if isinstance(name, str) else shown(name)}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(FilterMistake(at, "an attribute name is a-z0-9", _lower(name)))
        elif name == "data":
            mistakes.append(FilterMistake(at, "data is no attribute", "use a pattern for it"))
        elif not isinstance(wanted, str) or not wanted:
            reason = f"expected a string that is not empty, found {shown(wanted)}"
            small = isinstance(wanted, int) and -(2**31) <= wanted < 2**31
            mend = "to ask whether it is set, use a pattern"
            mend = f'write "{canonical(wanted)}"' if small else mend
            mistakes.append(FilterMistake(at, reason, mend))
        else:
            conditions.append(Attribute(dialect, name, wanted, at, _TESTS[dialect]))
    return conditions[0] if len(conditions) == 1 else All(tuple(conditions), where)


def _sql(value: Any, where: str, mistakes: list[FilterMistake]) -> Condition | None:
    example = "e.g. \"type = 'com.example' AND EXISTS subject\""
    if not isinstance(value, str):
        reason = f"expected a CESQL expression, found {_kind(value)}"
        mistakes.append(FilterMistake(where, reason, example))
        return None
    try:
        expression = Expression(value)
    except ParseError as error:
        mistakes.append(FilterMistake(where, str(error), example))
        return None
    return _Sql(expression, where)


def _kind(value: Any) -> str:
    if isinstance(value, dict) and not value:
        return "an empty table"
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), shown(value))


def _lower(name: Any) -> str:
    lower = re.sub("[^a-z0-9]", "", shown(name).lower())
    return f'did you mean "{lower}"?' if lower else "e.g. type, source or subject"
