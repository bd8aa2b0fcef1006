"""JSONPath conditions on data: `{ path = "$.a.b", op = "==", value = 1 }`.

A condition holds where any value that the path leads to meets it; where it leads to none, no
condition holds but `exists = false`. A *plain* path is names and indices alone (`$.a['b c'][0]`)
and is walked here; any other is jsonpath-ng's, which follows RFC 9535 in most. Of that, what has no
bound in time, or is no RFC 9535, is refused: regular expressions, arithmetic, its own functions,
`..` twice, two unions. Values compare as in RFC 9535 §2.3.5.2.2: numbers with numbers, strings with
strings, nothing is coerced.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mesh.event import Event
from triggers.access import ANY, Group, Key, Place, Way, number, scalar
from triggers.errors import FilterError, FilterMistake, shown
from triggers.explain import Explained, as_text
from triggers.values import COMPARE, compare, is_number, same
from triggers.view import MISSING, View

__all__ = ["MAX_PATH", "OPERATORS", "JsonPath", "parse_jsonpath", "values_of"]

MAX_PATH = 1024
"""Characters of a path."""
MAX_CONDITIONS = 100
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "exists", "contains")
_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*)|\[\s*(?:'(?P<one>[^'\\]*)'|"(?P<two>[^"\\]*)"|(?P<at>-?\d{1,9}))\s*\]"""
)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_REFUSED = {
    "`": "functions of a library's own",
    "=~": "regular expressions",
    "\\": "escapes outside of strings, and sorting",
    "/": "arithmetic, and sorting",
    "+": "arithmetic",
}
_KEYS = ("path", "op", "value")
_EXAMPLE = 'e.g. { path = "$.size", op = ">", value = 10 }'

Steps = tuple[str | int, ...]
"""The names and indices of a plain path."""
Find = Callable[[Any], list[Any]]
"""The values in data that a path leads to."""


class JsonPath:
    """One condition."""

    __slots__ = ("_find", "_plain", "op", "path", "text", "value")

    def __init__(  # noqa: PLR0917
        self, text: str, op: str, value: Any, path: str, steps: Steps | None, find: Find
    ) -> None:
        self.text = text
        self.op = op
        self.value = value
        self.path = path
        self._plain = steps
        self._find = find

    def holds(self, view: View) -> bool:
        """Whether an event meets it."""
        return self._holds(self.found(view))

    def found(self, view: View) -> list[Any]:
        """The values that the path leads to."""
        data = view.data
        if data is MISSING:
            return []
        try:
            return self._find(data)
        except Exception:  # a library's, on data that it does not expect: it leads nowhere
            return []

    def _holds(self, found: list[Any]) -> bool:
        if self.op == "exists":
            return bool(found) is self.value
        return any(_meets(one, self.op, self.value) for one in found)

    def explain(self, view: View) -> Explained:
        """What the path led to."""
        found = self.found(view)
        wanted = f"{self.text} {self.op} {as_text(self.value)}"
        if self.op == "exists":
            wanted = f"{self.text} {'exists' if self.value else 'does not exist'}"
        text = as_text(found[0] if len(found) == 1 else found) if found else view.why or None
        return Explained(self.path, wanted, text, self._holds(found))

    def ways(self) -> Sequence[Way]:
        """A plain path of names is where a pattern would look, too."""
        keys = self._keys()
        steps = self._plain
        if not keys or not steps or any(isinstance(step, int) for step in steps):
            return ANY
        place = Place("data", tuple(str(step) for step in steps))
        return (Way((Group(place, keys),), False),)

    def _keys(self) -> tuple[Key, ...]:
        value = self.value
        match self.op:
            case "==" if _is_scalar(value):
                return (Key("is", scalar(value)),)
            case "in" if all(map(_is_scalar, value)):
                return tuple(Key("is", scalar(one)) for one in value)
            case "contains" if _is_scalar(value):
                inside = (Key("like", ("", "", (value,))),) if isinstance(value, str) else ()
                return (Key("is", scalar(value)), *inside)
            case "<" | "<=" if is_number(value):
                return (Key("range", (float("-inf"), number(value))),)
            case ">" | ">=" if is_number(value):
                return (Key("range", (number(value), float("inf"))),)
        return ()

    def constant(self) -> bool | None:
        """It depends on the event."""
        return None

    def warnings(self) -> Sequence[FilterMistake]:
        """None."""
        return ()


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _equal(a: Any, b: Any) -> bool:
    """Deep equality (RFC 9535 §2.3.5.2.2)."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    return same(a, b)


def _meets(found: Any, op: str, value: Any) -> bool:
    match op:
        case "==":
            return _equal(found, value)
        case "!=":
            return not _equal(found, value)
        case "in":
            return any(_equal(found, one) for one in value)
        case "contains":
            if isinstance(found, str):
                return isinstance(value, str) and value in found
            return isinstance(found, list) and any(_equal(one, value) for one in found)
    if is_number(found) and is_number(value):
        return compare(op, found, value)
    if isinstance(found, str) and isinstance(value, str):
        return COMPARE[op](found, value)
    return False


def _plain_steps(path: str) -> Steps | None:
    """The names and indices of a plain path; None of any other."""
    if not path.startswith("$"):
        return None
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            return None
        if found["at"] is not None:
            steps.append(int(found["at"]))
        else:
            steps.append(found["name"] or found["one"] or found["two"] or "")
        at = found.end()
    return tuple(steps)


def _walker(steps: Steps) -> Find:
    def find(data: Any) -> list[Any]:
        for step in steps:
            if isinstance(step, str):
                if not isinstance(data, dict) or step not in data:
                    return []
                data = data[step]
            else:
                if not isinstance(data, list) or not -len(data) <= step < len(data):
                    return []
                data = data[step]
        return [data]

    return find


def parse_jsonpath(items: Any, path: str, mistakes: list[FilterMistake]) -> list[JsonPath]:
    """The conditions of a list; what is wrong goes to `mistakes`."""
    if not isinstance(items, list):
        mistakes.append(FilterMistake(path, f"expected a list, found {shown(items)}", _EXAMPLE))
        return []
    if len(items) > MAX_CONDITIONS:
        reason = f"{len(items)} conditions; at most {MAX_CONDITIONS}"
        mistakes.append(FilterMistake(path, reason, "use fewer"))
    found = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        before = len(mistakes)
        mistakes.extend(_mistakes(item, where))
        if len(mistakes) > before:
            continue
        text, op = item["path"], item["op"]
        steps = _plain_steps(text)
        find = _library(text, where, mistakes) if steps is None else _walker(steps)
        if find is not None:
            found.append(JsonPath(text, op, item.get("value", True), where, steps, find))
    return found


def values_of(path: str) -> Callable[[Event], list[Any]]:
    """What reads the values that a path leads to in an event's data. Raises FilterError."""
    mistakes: list[FilterMistake] = []
    found = parse_jsonpath([{"path": path, "op": "exists"}], "", mistakes)
    if mistakes:
        raise FilterError(mistakes)
    return lambda event: found[0].found(View(event))


def _mistakes(item: Any, where: str) -> Iterator[FilterMistake]:
    """What is wrong with a condition, but for its path's syntax."""
    if not isinstance(item, dict):
        yield FilterMistake(where, f"expected a table, found {shown(item)}", _EXAMPLE)
        return
    for key in item:
        if key not in _KEYS:
            yield FilterMistake(f"{where}.{shown(key)}", "unknown key", "there are path, op, value")
    text = item.get("path")
    if not isinstance(text, str) or not text.startswith("$"):
        reason = f"expected a path that begins with $, found {shown(text)}"
        yield FilterMistake(f"{where}.path", reason, 'e.g. "$.size"')
    elif len(text) > MAX_PATH:
        reason = f"{len(text)} characters; at most {MAX_PATH}"
        yield FilterMistake(f"{where}.path", reason, "name fewer fields")
    op = item.get("op")
    if op not in OPERATORS:
        reason = f"expected an operator, found {shown(op)}"
        yield FilterMistake(f"{where}.op", reason, f"there are {', '.join(OPERATORS)}")
    elif op == "exists":
        if not isinstance(item.get("value", True), bool):
            reason = f"expected true or false, found {shown(item['value'])}"
            yield FilterMistake(f"{where}.value", reason, "or leave it out")
    elif "value" not in item:
        yield FilterMistake(where, f"{op} needs a value", _EXAMPLE)
    elif op == "in" and not isinstance(item["value"], list):
        reason = f"expected a list, found {shown(item['value'])}"
        yield FilterMistake(f"{where}.value", reason, 'e.g. ["a", "b"]')
    elif op in ("<", "<=", ">", ">=") and not (
        is_number(item["value"]) or isinstance(item["value"], str)
    ):
        reason = f"expected a number or a string, found {shown(item['value'])}"
        yield FilterMistake(f"{where}.value", reason, "only these have an order")


def _library(text: str, where: str, mistakes: list[FilterMistake]) -> Find | None:
    """What finds the values of a path that is not plain; None, and a mistake, for one that is
    refused."""
    bare = _QUOTED.sub("''", text)
    refused = [what for mark, what in _REFUSED.items() if mark in bare]
    if bare.count("..") > 1:
        refused.append(".. more than once")
    if len(re.findall(r"\[[^\[\]]*,", bare)) > 1:
        refused.append("more than one union")
    if bare.count("$") > 1:
        refused.append("a second $")
    if refused:
        mistakes.append(
            FilterMistake(f"{where}.path", f"not taken: {', '.join(refused)}", "use a plainer path")
        )
        return None
    # Late: it takes longer to import than all the rest, and few filters need it.
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    try:
        parsed = parse(text)
    except JSONPathError as error:
        reason = f"no JSONPath: {str(error)[:200]}"
        mistakes.append(FilterMistake(f"{where}.path", reason, 'e.g. "$.items[*].size"'))
        return None
    return lambda data: [match.value for match in parsed.find(data)]
