"""CESQL's three types: their casts, and the functions over them (CESQL 1.0.0, §3.5 and §3.7)."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from triggers.cesql.errors import CastError, CesqlError, FunctionEvaluationError, MathError
from triggers.cesql.syntax import Value

__all__ = ["FUNCTIONS", "MOST", "Errors", "Function", "cast", "function", "zero"]

MOST = 2**31 - 1
"""The largest Integer."""
Errors = list[CesqlError]
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space; Python's own strip takes four control characters too."""


def zero(kind: type[Any]) -> Value:
    """The type's zero value."""
    value: Value = kind()
    return value


def cast(value: Value, kind: type[Any], errors: Errors) -> Any:
    """The value as another type; its zero and an error where it is none."""
    if type(value) is kind:
        return value
    if kind is str:
        return ("true" if value else "false") if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        return kind(value)
    if kind is bool:
        lower = value.lower()
        if lower not in ("true", "false"):
            errors.append(CastError(value, "Boolean"))
        return lower == "true"
    if _INTEGER.fullmatch(value) and len(value) <= 1000 and -MOST - 1 <= int(value) <= MOST:
        return int(value)
    errors.append(CastError(value, "Integer"))
    return 0


class Function(NamedTuple):
    """A function of fixed parameters, of which the last may repeat any number of times."""

    parameters: tuple[type[Any] | None, ...]
    """None takes any type as it is."""
    result: type[Any]
    run: Callable[..., Value]
    """Called with the errors and the arguments."""
    repeats: bool = False


def _left(errors: Errors, text: str, count: int) -> str:
    if count < 0:
        errors.append(FunctionEvaluationError(f"LEFT: a length of {count}"))
        return text
    return text[:count]


def _right(errors: Errors, text: str, count: int) -> str:
    if count < 0:
        errors.append(FunctionEvaluationError(f"RIGHT: a length of {count}"))
        return text
    return text[max(len(text) - count, 0) :]


def _substring(errors: Errors, text: str, at: int, count: int = MOST) -> str:
    if not -len(text) <= at <= len(text) or count < 0:
        errors.append(FunctionEvaluationError(f"SUBSTRING: position {at}, length {count}"))
        return ""
    if at == 0:
        return ""
    start = at - 1 if at > 0 else len(text) + at
    return text[start : start + count]


def _abs(errors: Errors, value: int) -> int:
    if abs(value) > MOST:
        errors.append(MathError(f"ABS({value}) is beyond 32 bits"))
        return MOST
    return abs(value)


def _castable(kind: type[Any]) -> Callable[..., bool]:
    def run(errors: Errors, value: Value) -> bool:
        found: Errors = []
        cast(value, kind, found)
        return not found

    return run


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "LENGTH": (Function((str,), int, lambda errors, text: len(text)),),
    "CONCAT": (Function((str,), str, lambda errors, *texts: "".join(texts), repeats=True),),
    "CONCAT_WS": (
        Function(
            (str, str), str, lambda errors, between, *texts: between.join(texts), repeats=True
        ),
    ),
    "LOWER": (Function((str,), str, lambda errors, text: text.lower()),),
    "UPPER": (Function((str,), str, lambda errors, text: text.upper()),),
    "TRIM": (Function((str,), str, lambda errors, text: text.strip(_WHITE)),),
    "LEFT": (Function((str, int), str, _left),),
    "RIGHT": (Function((str, int), str, _right),),
    "SUBSTRING": (
        Function((str, int), str, _substring),
        Function((str, int, int), str, _substring),
    ),
    "ABS": (Function((int,), int, _abs),),
    # Casts: §2.1 and §3.7 use INT and STRING; all five are in the drafts and the SDKs.
    "INT": (Function((int,), int, lambda errors, value: value),),
    "BOOL": (Function((bool,), bool, lambda errors, value: value),),
    "STRING": (Function((str,), str, lambda errors, value: value),),
    "IS_INT": (Function((None,), bool, _castable(int)),),
    "IS_BOOL": (Function((None,), bool, _castable(bool)),),
}
"""Name -> its definitions, which differ in how many parameters they have."""


def function(name: str, arguments: int) -> Function | None:
    """The function that takes so many arguments; its parameters repeated as often as it needs."""
    for found in FUNCTIONS.get(name, ()):
        if found.repeats and arguments >= len(found.parameters) - 1:
            *fixed, last = found.parameters
            more = (last,) * (arguments - len(fixed))
            return found._replace(parameters=(*fixed, *more))
        if len(found.parameters) == arguments:
            return found
    return None
