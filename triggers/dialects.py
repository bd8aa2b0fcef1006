"""The CloudEvents Subscriptions dialects: conditions on attributes.

Source: CloudEvents Subscriptions API 0.1, §3.2.4. Values compare with an attribute's canonical
string; an absent attribute meets no condition but `not`.
"""

import difflib
import re
from typing import Any

from mesh.event import Event, canonical
from triggers.errors import FilterMistake, shown
from triggers.explain import Clause, Condition, Explained, as_text, several

__all__ = ["parse_filters"]

MAX_DEPTH = 10
_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
_PLAIN = ("exact", "prefix", "suffix")
_NESTED = ("all", "any")
_KNOWN = (*_PLAIN, *_NESTED, "not")
_EXAMPLE = 'e.g. [{ exact = { type = "com.example" } }]'
_INSTEAD = f"use {', '.join(_KNOWN)}"


def _exact(name: str, value: str) -> Condition:
    if name in ("id", "source", "type"):
        return lambda event: getattr(event, name) == value

    def holds(event: Event) -> bool:
        found = event.attribute(name)
        return found is not None and canonical(found) == value

    return holds


def _prefix(name: str, value: str) -> Condition:
    def holds(event: Event) -> bool:
        found = event.attribute(name)
        return found is not None and canonical(found).startswith(value)

    return holds


def _suffix(name: str, value: str) -> Condition:
    def holds(event: Event) -> bool:
        found = event.attribute(name)
        return found is not None and canonical(found).endswith(value)

    return holds


_MAKE = {"exact": _exact, "prefix": _prefix, "suffix": _suffix}
_SAID = {"exact": "=", "prefix": "starts with", "suffix": "ends with"}


def _attribute(dialect: str, name: str, value: str, path: str) -> Clause:
    """One attribute's condition."""
    holds = _MAKE[dialect](name, value)
    wanted = f"{name} {_SAID[dialect]} {as_text(value)}"

    def explain(event: Event) -> Explained:
        found = event.attribute(name)
        text = None if found is None else as_text(canonical(found))
        return Explained(path, wanted, text, holds(event))

    return Clause(holds, explain)


def _together(clauses: list[Clause], path: str, wanted: str) -> Clause:
    """Several conditions as one: `all of` them, or `any of` them."""
    inner = [clause.holds for clause in clauses]
    holds: Condition
    if wanted == "all of":
        holds = lambda event: all(condition(event) for condition in inner)  # noqa: E731
    else:
        holds = lambda event: any(condition(event) for condition in inner)  # noqa: E731
    return Clause(
        holds,
        lambda event: several(path, wanted, [clause.explain(event) for clause in clauses]),
    )


def _negated(clause: Clause, path: str) -> Clause:
    def explain(event: Event) -> Explained:
        inner = clause.explain(event)
        return Explained(path, "not", None, not inner.holds, (inner,))

    inner = clause.holds
    return Clause(lambda event: not inner(event), explain)


def parse_filters(
    filters: Any, path: str, mistakes: list[FilterMistake], depth: int = 0
) -> list[Clause]:
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


def _parse(item: Any, path: str, mistakes: list[FilterMistake], depth: int) -> Clause | None:
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
        return None if inner is None else _negated(inner, where)
    if dialect in _NESTED:
        return _several(dialect, value, where, mistakes, depth)
    if dialect in ("sql", "cesql"):
        mistakes.append(FilterMistake(where, "CESQL is not built yet", _INSTEAD))
        return None
    close = difflib.get_close_matches(name[:40], _KNOWN, 1)
    mend = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(_KNOWN)}"
    mistakes.append(FilterMistake(where, "unknown dialect", mend))
    return None


def _several(
    dialect: str, value: Any, where: str, mistakes: list[FilterMistake], depth: int
) -> Clause | None:
    inner = parse_filters(value, where, mistakes, depth + 1)
    if isinstance(value, list) and not value:
        reason = "holds no filter, expected at least one"
        mistakes.append(FilterMistake(where, reason, f"add one, or leave {dialect} out"))
    if not inner:
        return None
    return _together(inner, where, f"{dialect} of")


def _attributes(
    dialect: str, value: Any, where: str, mistakes: list[FilterMistake]
) -> Clause | None:
    if not isinstance(value, dict) or not value:
        reason = f"expected attributes and their values, found {_kind(value)}"
        mistakes.append(
            FilterMistake(where, reason, f'e.g. {dialect} = {{ type = "com.example" }}')
        )
        return None
    clauses: list[Clause] = []
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
            clauses.append(_attribute(dialect, name, wanted, at))
    return clauses[0] if len(clauses) == 1 else _together(clauses, where, "all of")


def _kind(value: Any) -> str:
    if isinstance(value, dict) and not value:
        return "an empty table"
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), shown(value))


def _lower(name: Any) -> str:
    lower = re.sub("[^a-z0-9]", "", shown(name).lower())
    return f'did you mean "{lower}"?' if lower else "e.g. type, source or subject"
