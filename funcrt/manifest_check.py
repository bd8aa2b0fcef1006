"""Reading a TOML table by a declared section: types, ranges, unknown keys, all mistakes at once.

A section is a mapping of key names to `Key`s, so what is read, what is refused and (later) the
JSON schema come from one place. Nothing here knows what a manifest holds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from funcrt.errors import Problem
from funcrt.locate import KeyPath, show
from funcrt.manifest_kinds import nearest
from funcrt.wrong import Wrong, wrong

__all__ = [
    "BAD",
    "Document",
    "Key",
    "ListOf",
    "MapOf",
    "OrFlag",
    "Section",
    "Table",
    "read_table",
    "read_value",
]


@dataclass(frozen=True)
class ListOf:
    """An array; each element is read, and reported, by itself."""

    item: "Callable[[Any], Any] | Table"
    most: int
    least: int = 0
    what: str = "an array"
    mend: str = ""
    """What to do about a table in its place."""

    @property
    def expected(self) -> str:
        least = f"{self.least} to " if self.least else "at most "
        return f"{self.what} of {least}{self.most}"


@dataclass(frozen=True)
class MapOf:
    """A table with keys of the author's choice that match `pattern`."""

    item: "Callable[[Any], Any] | Table"
    pattern: str
    expected: str


@dataclass(frozen=True)
class OrFlag:
    """A table, or true or false in its place."""

    table: "Table"


@dataclass(frozen=True)
class Table:
    """A table with a section of its own; `make` builds the result from what was read."""

    section: "Section"
    make: Callable[..., Any]
    needs: tuple[str, ...] = ()


Kind = Callable[[Any], Any] | ListOf | MapOf | OrFlag | Table
"""What a key takes. A callable gives the value to keep, or raises Wrong."""


@dataclass(frozen=True)
class Key:
    """One key: what it takes, and the field it fills where that is named otherwise."""

    kind: Kind
    field: str = ""


Section = Mapping[str, Key]

BAD = object()
"""Stands for a value that was reported and left out."""


@dataclass
class Document:
    """One parsed file, the line of each key, and the problems found in it so far."""

    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Key -> where it belongs (`in [retry]`), to help with keys in the wrong table."""

    def line(self, path: KeyPath) -> int | None:
        """The line of a key, or of the nearest table around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def report(self, path: KeyPath, message: str) -> None:
        """Note a mistake at a key."""
        self.problems.append(
            Problem(file=self.file, line=self.line(path), path=show(path), message=message)
        )

    def report_at(self, where: str, message: str) -> None:
        """Note a mistake at a path in words; its line is that of the longest known part."""
        known = {_plain(path): line for path, line in self.lines.items()}
        parts = [at for at in known if where == at or where.startswith((f"{at}.", f"{at}["))]
        line = known[max(parts, key=len)] if parts else None
        self.problems.append(Problem(file=self.file, line=line, path=where, message=message))

    def sound(self, *paths: KeyPath) -> bool:
        """Nothing was reported at or below these keys, so that a check of several makes sense."""
        at = tuple(show(path) for path in paths)
        return not any(
            problem.path == one or problem.path.startswith((f"{one}.", f"{one}["))
            for problem in self.problems
            for one in at
        )

    def in_order(self) -> list[Problem]:
        """The problems in the order of the file."""
        return sorted(self.problems, key=lambda problem: problem.line or 0)


def _plain(path: KeyPath) -> str:
    """A path as other checkers write it: as `show`, but with no key quoted."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def read_table(
    doc: Document, path: KeyPath, raw: Mapping[str, Any], section: Section
) -> dict[str, Any]:
    """Field -> value of all that is right in a table; reports the rest."""
    values: dict[str, Any] = {}
    for name, value in raw.items():
        here = (*path, name)
        key = section.get(name)
        if key is None:
            doc.report(here, _unknown(name, section, doc.elsewhere))
        else:
            kept = read_value(doc, here, key.kind, value)
            if kept is not BAD:
                values[key.field or name] = kept
    return values


def read_value(doc: Document, path: KeyPath, kind: Kind, value: object) -> Any:
    """The value to keep, or BAD after reporting what is wrong with it."""
    match kind:
        case Table():
            if not isinstance(value, dict):
                doc.report(path, str(wrong("a table", value)))
                return BAD
            values = read_table(doc, path, value, kind.section)
            missing = [need for need in kind.needs if need not in value]
            for need in missing:
                doc.report((*path, need), f"missing; add {need} = ...")
            left_out = any(need not in values for need in kind.needs)
            return BAD if left_out else kind.make(**values)
        case OrFlag():
            if isinstance(value, bool | dict):
                return value if value in (True, False) else read_value(doc, path, kind.table, value)
            doc.report(path, str(wrong(f"true, false or a table ([{show(path)}])", value)))
            return BAD
        case ListOf():
            if not isinstance(value, list) or not kind.least <= len(value) <= kind.most:
                mend = kind.mend if isinstance(value, dict) else ""
                doc.report(path, f"{wrong(kind.expected, value)}{mend}")
                return BAD
            items = [read_value(doc, (*path, i), kind.item, v) for i, v in enumerate(value)]
            return [item for item in items if item is not BAD]
        case MapOf():
            return _read_map(doc, path, kind, value)
    try:
        return kind(value)
    except Wrong as error:
        doc.report(path, str(error))
        return BAD


def _read_map(doc: Document, path: KeyPath, kind: MapOf, value: object) -> Any:
    if not isinstance(value, dict):
        doc.report(path, str(wrong("a table", value)))
        return BAD
    kept: dict[str, Any] = {}
    for name, one in value.items():
        if not re.fullmatch(kind.pattern, name, re.ASCII):
            doc.report((*path, name), f"expected {kind.expected}")
            continue
        item = read_value(doc, (*path, name), kind.item, one)
        if item is not BAD:
            kept[name] = item
    return kept


def _unknown(name: str, known: Section, elsewhere: Mapping[str, str]) -> str:
    """A slip of the pen first, then a key of another table, then what is only somewhat like it."""
    place = elsewhere.get(name)
    near = nearest(name, sorted(known), 0.8 if place else 0.6)
    if near:
        return f"unknown key{near}"
    if place:
        return f"unknown key here; it belongs {place}"
    return f"unknown key; known here: {', '.join(sorted(known))}"
