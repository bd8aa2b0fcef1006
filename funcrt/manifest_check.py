"""Reading a TOML table by a declared section: types, ranges, unknown keys, all mistakes at once.

A section is a mapping of key names to `Key`s, so what is read, what is refused and (later) the
JSON schema come from one place. Nothing here knows what a manifest holds.
"""

import datetime
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from funcrt.errors import Problem
from funcrt.locate import KeyPath, show
from mesh.errors import NameInvalid
from mesh.transport import check_name

__all__ = [
    "BAD",
    "Anything",
    "Choice",
    "Document",
    "Duration",
    "Flag",
    "Int",
    "Key",
    "Later",
    "ListOf",
    "MapOf",
    "Name",
    "OrFlag",
    "Section",
    "Size",
    "Table",
    "Text",
    "Wrong",
    "describe",
    "read_table",
    "read_value",
]


class Wrong(Exception):
    """A value that its key does not take; the message says expected and found."""


def describe(value: object) -> str:
    """A TOML value as messages show it, cut short: `"abc"`, `true`, `a table`."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 60 else f'{text[:56]}..."'
        case dict():
            return "a table"
        case list():
            return "an array" if value else "an empty array"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case int() if abs(value) > 10**18:
            return "a number of more than 18 digits"
    return str(value)


def _wrong(expected: str, value: object) -> Wrong:
    return Wrong(f"expected {expected}, found {describe(value)}")


@dataclass(frozen=True)
class Text:
    """A string, matched by `pattern` as a whole where there is one."""

    expected: str = "a string"
    pattern: str = ""

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or (
            self.pattern and not re.fullmatch(self.pattern, value, re.ASCII)
        ):
            raise _wrong(self.expected, value)
        return value


@dataclass(frozen=True)
class Name:
    """A name of the mesh: of a `topic`, `function` or `trigger`."""

    kind: str

    def __call__(self, value: object) -> str:
        try:
            return check_name(self.kind, Text(f"a {self.kind} name")(value))
        except NameInvalid as error:
            raise Wrong(str(error)) from None


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def __call__(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise _wrong("true or false", value)
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few strings."""

    values: tuple[str, ...]

    def __call__(self, value: object) -> str:
        if value not in self.values or not isinstance(value, str):
            wrong = _wrong(_one_of(self.values), value)
            raise Wrong(f"{wrong}{_nearest(value, self.values)}")
        return value


@dataclass(frozen=True)
class Int:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def __call__(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong("a whole number", value)
        if not self.least <= value <= self.most:
            raise _wrong(f"{self.least} to {self.most}", value)
        return value


def _amount(value: object, units: Mapping[str, float], bare: str, expected: str) -> float:
    """A number, or a string of a number and a unit, in the base unit."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]+)", value, re.ASCII)
        if match is None or match[2] not in units:
            raise _wrong(expected, value)
        return float(match[1]) * units[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(f"{expected} or a number of {bare}", value)
    if abs(value) > 1e18 or not math.isfinite(value):
        raise _wrong(f"{expected} or a number of {bare}", value)
    return float(value)


@dataclass(frozen=True)
class Duration:
    """`"200ms"`, `"30s"`, `"5m"`, `"1h"`, or a number of seconds; gives seconds."""

    least_s: float
    most_s: float

    UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012 - no field

    def __call__(self, value: object) -> float:
        seconds = _amount(value, self.UNITS, "seconds", 'a duration such as "30s"')
        if not self.least_s <= seconds <= self.most_s:
            raise _wrong(f"{self.write(self.least_s)} to {self.write(self.most_s)}", value)
        return seconds

    @classmethod
    def write(cls, seconds: float) -> str:
        """Seconds as one writes them: `"5m"`."""
        for unit in ("h", "m", "s"):
            count = seconds / cls.UNITS[unit]
            if count >= 1 and count == int(count):
                return f'"{int(count)}{unit}"'
        return f'"{seconds * 1000:g}ms"'


@dataclass(frozen=True)
class Size:
    """`"256MiB"`, `"1MB"`, or a number of bytes; gives bytes."""

    least: int
    most: int

    UNITS = {  # noqa: RUF012 - no field
        "B": 1,
        "kB": 10**3,
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
    }

    def __call__(self, value: object) -> int:
        size = _amount(value, self.UNITS, "bytes", 'a size such as "256MiB"')
        if not self.least <= size <= self.most or size != int(size):
            raise _wrong(f"{self.write(self.least)} to {self.write(self.most)}", value)
        return int(size)

    @classmethod
    def write(cls, size: int) -> str:
        """Bytes as one writes them: `"256MiB"`."""
        for unit in ("GiB", "MiB", "KiB"):
            if size >= cls.UNITS[unit] and size % cls.UNITS[unit] == 0:
                return f'"{size // cls.UNITS[unit]}{unit}"'
        return f'"{size}B"'


@dataclass(frozen=True)
class Anything:
    """A table that another check reads, such as a filter: kept as it is."""

    def __call__(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong("a table", value)
        return value


@dataclass(frozen=True)
class ListOf:
    """An array; each element is read, and reported, by itself."""

    item: "Callable[[Any], Any] | Table"
    most: int


@dataclass(frozen=True)
class MapOf:
    """A table with keys of the author's choice that match `pattern`."""

    item: Callable[[object], Any]
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


@dataclass(frozen=True)
class Later:
    """A key that the documents name and that is not built yet: refused, never ignored."""

    what: str


Section = Mapping[str, Key | Later]

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
        elif isinstance(key, Later):
            doc.report(here, f"{key.what} not built yet; remove this key for now")
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
                doc.report(path, str(_wrong("a table", value)))
                return BAD
            values = read_table(doc, path, value, kind.section)
            missing = [need for need in kind.needs if need not in value]
            for need in missing:
                doc.report((*path, need), "missing")
            left_out = any(need not in values for need in kind.needs)
            return BAD if left_out else kind.make(**values)
        case OrFlag():
            if isinstance(value, bool | dict):
                return value if value in (True, False) else read_value(doc, path, kind.table, value)
            doc.report(path, str(_wrong("true, false or a table", value)))
            return BAD
        case ListOf():
            if not isinstance(value, list) or len(value) > kind.most:
                doc.report(path, str(_wrong(f"an array of at most {kind.most}", value)))
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
        doc.report(path, str(_wrong("a table", value)))
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


def _unknown(name: str, known: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    names = sorted(known)
    near = _nearest(name, names)
    if near:
        return f"unknown key{near}"
    if name in elsewhere:
        return f"unknown key here; it belongs {elsewhere[name]}"
    return f"unknown key; known here: {', '.join(names)}"


def _nearest(value: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, known, 1) if isinstance(value, str) else []
    return f', did you mean "{close[0]}"?' if close else ""


def _one_of(values: Sequence[str]) -> str:
    quoted = [f'"{value}"' for value in values]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 1 else quoted[0]
