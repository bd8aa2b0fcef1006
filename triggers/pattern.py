"""Patterns in the manner of EventBridge, over attributes and `data`: from what a manifest holds to
what `match.py` runs. `triggers/PATTERNS.md` is the specification.

Source of the operators: AWS event-ruler 2.x (the language of Amazon EventBridge).
"""

import difflib
import ipaddress
import json
import math
from collections.abc import Callable
from typing import Any

from triggers.errors import FilterMistake, shown
from triggers.match import MAX_ALTERNATIVES, Leaf, Pattern, Table, TooMany
from triggers.values import (
    COMPARE,
    Cidr,
    Equal,
    Exists,
    Fold,
    NoneOf,
    Numeric,
    Prefix,
    Suffix,
    Test,
    Wildcard,
    is_number,
)

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_STARS", "MAX_VALUES", "parse_pattern"]

MAX_DEPTH = 10
MAX_BYTES = 4096
"""Of a pattern, as JSON."""
MAX_VALUES = 200
"""Of one field."""
MAX_STARS = 5
"""Of one wildcard."""
_OPERATORS = (
    "prefix", "suffix", "anything-but", "numeric", "exists", "equals-ignore-case", "wildcard",
    "cidr",
)  # fmt: skip
_SCALARS = (str, bool, int, float)
_NEGATED = ("prefix", "suffix", "equals-ignore-case", "wildcard")
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_EXAMPLE = 'e.g. { type = ["com.example"] }'
_RANGE = 'e.g. [">", 0, "<=", 5]'
_ONE = 'e.g. { prefix = "a" }'


class _Parser:
    """Turns a pattern into rules, gathering what is wrong with it."""

    def __init__(self, mistakes: list[FilterMistake]) -> None:
        self.mistakes = mistakes

    def wrong(self, path: str, reason: str, mend: str = "") -> None:
        self.mistakes.append(FilterMistake(path, reason, mend))

    def table(self, pattern: Any, path: str, depth: int) -> Table:
        """A pattern's object."""
        fields: list[tuple[str, Leaf | Table]] = []
        ors: list[list[Table]] = []
        if not isinstance(pattern, dict) or not pattern:
            self.wrong(path, "expected a table of fields that is not empty", _EXAMPLE)
            return Table.of((), path)
        if depth > MAX_DEPTH:
            self.wrong(path, f"nested more than {MAX_DEPTH} deep", "match fewer levels")
            return Table.of((), path)
        for key, value in pattern.items():
            where = f"{path}.{key if isinstance(key, str) else shown(key)}"
            if not isinstance(key, str):
                self.wrong(where, "a field's name is a string", f'write "{shown(key)}"')
            elif key == "$or":
                ors.append(self.either(value, where, depth))
            elif isinstance(value, dict):
                fields.append((key, self.table(value, where, depth + 1)))
            elif isinstance(value, list):
                fields.append((key, self.leaf(value, where)))
            else:
                mend = f"write [{shown(value)}]"
                self.wrong(where, "expected a list of values, or a table of fields", mend)
        return Table.of(fields, path, ors)

    def either(self, value: Any, path: str, depth: int) -> list[Table]:
        """The branches of `$or`."""
        if not isinstance(value, list) or len(value) < 2:
            self.wrong(path, "expected a list of at least two patterns", "or leave $or out")
            return []
        return [self.table(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]

    def leaf(self, values: list[Any], path: str) -> Leaf:
        """A field's alternatives."""
        if not 0 < len(values) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} values, found {len(values)}"
            self.wrong(path, reason, "to ask whether it is there, [{ exists = true }]")
        tests = [self.test(value, f"{path}[{n}]") for n, value in enumerate(values)]
        return Leaf.of([test for test in tests if test is not None], path)

    def test(self, value: Any, path: str) -> Test | None:
        """One alternative."""
        if value is None or isinstance(value, _SCALARS):
            if isinstance(value, float) and not math.isfinite(value):
                self.wrong(path, f"{value} is no JSON number", "use numeric for ranges")
                return None
            return Equal(value)
        if not isinstance(value, dict) or len(value) != 1:
            self.wrong(path, "expected a value, or a table with one operator", _ONE)
            return None
        ((name, wanted),) = value.items()
        name = name if isinstance(name, str) else shown(name)
        where = f"{path}.{name}"
        if name not in _OPERATORS:
            close = difflib.get_close_matches(name[:40], _OPERATORS, 1)
            known = f"there are {', '.join(_OPERATORS)}"
            self.wrong(where, "unknown operator", f'did you mean "{close[0]}"?' if close else known)
            return None
        return self.operator(name, wanted, where)

    def operator(self, name: str, wanted: Any, where: str) -> Test | None:
        """What an operator of that name tests."""
        parse: Callable[[Any, str], Test | None] = getattr(self, name.replace("-", "_"))
        return parse(wanted, where)

    def prefix(self, wanted: Any, path: str) -> Test | None:
        text = self._text(wanted, path)
        return None if text is None else Prefix(*text)

    def suffix(self, wanted: Any, path: str) -> Test | None:
        text = self._text(wanted, path)
        return None if text is None else Suffix(*text)

    def _text(self, wanted: Any, path: str) -> tuple[str, bool] | None:
        """The text of a prefix or suffix, and whether its case is all one."""
        fold = isinstance(wanted, dict) and list(wanted) == ["equals-ignore-case"]
        text = wanted["equals-ignore-case"] if fold else wanted
        if isinstance(text, str) and text:
            return (text.casefold() if fold else text), fold
        reason = f"expected a string that is not empty, found {shown(text)}"
        self.wrong(f"{path}.equals-ignore-case" if fold else path, reason, "one operator a string")
        return None

    def equals_ignore_case(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, str):
            self.wrong(path, f"expected a string, found {shown(wanted)}", 'e.g. "gold"')
            return None
        return Fold(wanted.casefold())

    def exists(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, bool):
            self.wrong(path, f"expected true or false, found {shown(wanted)}", "write true")
            return None
        return Exists(wanted)

    def wildcard(self, wanted: Any, path: str) -> Test | None:
        if not isinstance(wanted, str) or not wanted:
            reason = f"expected a string that is not empty, found {shown(wanted)}"
            self.wrong(path, reason, 'e.g. "img-*.png"')
            return None
        segments = [""]
        characters = iter(wanted)
        for character in characters:
            if character == "*":
                if len(segments) > 1 and not segments[-1]:
                    self.wrong(path, "two stars in a row", "write one")
                    return None
                segments.append("")
            elif character == "\\":
                after = next(characters, "")
                if after not in ("*", "\\"):
                    self.wrong(path, f"\\{after} is no escape", r"there are \* and \\")
                    return None
                segments[-1] += after
            else:
                segments[-1] += character
        if len(segments) > MAX_STARS + 1:
            self.wrong(path, f"{len(segments) - 1} stars; at most {MAX_STARS}", "use fewer")
            return None
        return Wildcard.of(wanted, segments)

    def cidr(self, wanted: Any, path: str) -> Test | None:
        example = 'e.g. "10.0.0.0/24" or "2001:db8::/32"'
        if not isinstance(wanted, str) or "%" in wanted:
            self.wrong(path, f"expected a network, found {shown(wanted)}", example)
            return None
        network, _, bits = wanted.partition("/")
        try:
            if "/" in wanted and not (bits.isascii() and bits.isdecimal()):
                raise ValueError  # a netmask, which ipaddress takes
            return Cidr.of(
                ipaddress.ip_network(f"{network}/{bits}" if bits else network, strict=False)
            )
        except ValueError:
            self.wrong(path, f"{shown(wanted)} is no network", example)
            return None

    def anything_but(self, wanted: Any, path: str) -> Test | None:
        if isinstance(wanted, dict):
            return self._anything_but_like(wanted, path)
        values = wanted if isinstance(wanted, list) else [wanted]
        if not 0 < len(values) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} values, found {len(values)}"
            self.wrong(path, reason, "for any value at all, { exists = true }")
            return None
        if any(isinstance(value, dict | list) for value in values):
            self.wrong(path, f"expected values, found {shown(wanted)}", 'e.g. ["a", "b"]')
            return None
        return self._none_of([self.test(value, path) for value in values])

    def _anything_but_like(self, wanted: dict[Any, Any], path: str) -> Test | None:
        """An operator of a string, or of any of a list."""
        name, value = next(iter(wanted.items()), ("", None))
        if len(wanted) != 1 or name not in _NEGATED:
            known = f"{', '.join(_NEGATED[:-1])} or {_NEGATED[-1]}"
            self.wrong(path, f"expected values, or a table with {known}", _ONE)
            return None
        where = f"{path}.{name}"
        if not isinstance(value, list):
            return self._none_of([self.operator(name, value, where)])
        if not 0 < len(value) <= MAX_VALUES:
            reason = f"expected 1 to {MAX_VALUES} strings, found {len(value)}"
            self.wrong(where, reason, "for any value at all, { exists = true }")
            return None
        tests = [self.operator(name, item, f"{where}[{n}]") for n, item in enumerate(value)]
        return self._none_of(tests)

    def _none_of(self, tests: list[Test | None]) -> Test | None:
        known = [test for test in tests if test is not None]
        return None if len(known) < len(tests) else NoneOf(tuple(known))

    def numeric(self, wanted: Any, path: str) -> Test | None:
        pairs: list[tuple[Any, Any]] = []
        if isinstance(wanted, list) and len(wanted) in (2, 4):
            pairs = list(zip(wanted[::2], wanted[1::2], strict=True))
        if not pairs or not all(
            isinstance(sign, str) and sign in COMPARE and is_number(bound) and abs(bound) < math.inf
            for sign, bound in pairs
        ):
            self.wrong(path, f"expected comparisons, found {shown(wanted)}", _RANGE)
            return None
        if len(pairs) == 2 and (pairs[0][0][0] != ">" or pairs[1][0][0] != "<"):
            low, high = pairs[0][0], pairs[1][0]
            reason = f"expected a lower and then an upper bound, found {low} and {high}"
            self.wrong(path, reason, _RANGE)
            return None
        return Numeric.of(pairs)


def parse_pattern(pattern: Any, path: str, mistakes: list[FilterMistake]) -> Pattern | None:
    """The condition that a pattern is; what is wrong goes to `mistakes`, and then there is none."""
    before = len(mistakes)
    table = _Parser(mistakes).table(pattern, path, 1)
    found = None
    try:
        found = Pattern.of(table)
    except TooMany:
        reason = f"multiplies out to more than {MAX_ALTERNATIVES} alternatives"
        mistakes.append(FilterMistake(path, reason, "use fewer or shorter $or lists"))
    if len(mistakes) == before and (size := _size(pattern)) > MAX_BYTES:
        reason = f"{size} bytes as JSON; at most {MAX_BYTES}"
        mistakes.append(FilterMistake(path, reason, "match less, or use several triggers"))
    return found if len(mistakes) == before else None


def _size(pattern: Any) -> int:
    """Bytes of a pattern as JSON; more than may be where a number has too many digits for text."""
    try:
        text = _JSON.encode(pattern)
    except ValueError:
        return MAX_BYTES + 1
    return len(text.encode(errors="replace"))
