"""A slow matcher of patterns, for tests: written from the semantics, not from the parser.

A pattern is multiplied out until each alternative is a list of (path, one test); then an
alternative is looked for in the event by definition.
"""

import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

ABSENT = "absent"
Path = tuple[str, ...]
Alternative = list[tuple[Path, Any]]
"""Each with a value or an operator of a pattern, or ABSENT."""


def alternatives(pattern: dict[str, Any], path: Path = ()) -> Iterator[Alternative]:
    choices: list[list[Alternative]] = []
    for key, value in pattern.items():
        if key == "$or":
            choices.append([one for branch in value for one in alternatives(branch, path)])
        elif isinstance(value, dict):
            choices.append(list(alternatives(value, (*path, key))))
        else:
            tests = [ABSENT if test == {"exists": False} else test for test in value]
            choices.append([[((*path, key), test)] for test in tests])
    for chosen in itertools.product(*choices):
        yield [test for part in chosen for test in part]


def flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [part for item in value for part in flat(item)]
    return [value]


def found(alternative: Alternative, thing: dict[str, Any]) -> bool:
    for key in {path[0] for path, _ in alternative}:
        inside = flat(thing[key]) if key in thing else []
        leaves = [item for item in inside if not isinstance(item, dict)]
        objects = [item for item in inside if isinstance(item, dict)]
        for path, test in alternative:
            if path == (key,):
                if test is ABSENT:
                    if leaves:
                        return False
                elif not any(meets(leaf, test) for leaf in leaves):
                    return False
        below = [(path[1:], test) for path, test in alternative if path[0] == key and path[1:]]
        if not below:
            continue
        # Nothing but absence must hold for all elements, anything else within one.
        every = all(test is ABSENT for _, test in below)
        if not (all if every else any)(found(below, item) for item in objects):
            return False
    return True


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and a == b
    return number(a) == number(b)


def number(value: Any) -> Any:
    return value if math.isinf(value) else Fraction(value)


def meets(leaf: Any, test: Any) -> bool:
    if not isinstance(test, dict):
        return equal(leaf, test)
    ((operator, wanted),) = test.items()
    if operator == "exists":
        return True
    if operator == "anything-but":
        if isinstance(wanted, dict):
            ((inner, values),) = wanted.items()
            values = values if isinstance(values, list) else [values]
            return not any(meets(leaf, {inner: value}) for value in values)
        return not any(
            equal(leaf, one) for one in (wanted if isinstance(wanted, list) else [wanted])
        )
    if operator == "numeric":
        if isinstance(leaf, bool) or not isinstance(leaf, int | float):
            return False
        signs = {"<": {-1}, "<=": {-1, 0}, "=": {0}, ">=": {0, 1}, ">": {1}}
        steps = zip(wanted[::2], wanted[1::2], strict=True)
        return all(
            (number(leaf) > number(bound)) - (number(leaf) < number(bound)) in signs[op]
            for op, bound in steps
        )
    if not isinstance(leaf, str):
        return False
    if operator == "equals-ignore-case":
        return leaf.lower() == wanted.lower()
    if operator == "wildcard":
        text = re.sub(
            r"\\(.)|(\*)|(.)",
            lambda found: ".*" if found[2] else re.escape(found[1] or found[3]),
            wanted,
        )
        return re.fullmatch(text, leaf, re.DOTALL) is not None
    if isinstance(wanted, dict):
        leaf, wanted = leaf.lower(), wanted["equals-ignore-case"].lower()
    if operator == "prefix":
        return leaf[: len(wanted)] == wanted
    return leaf[max(0, len(leaf) - len(wanted)) :] == wanted


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    """Whether `event`, attributes and parsed data by name, matches."""
    return any(found(one, event) for one in alternatives(pattern))
