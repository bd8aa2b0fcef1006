"""CESQL trees to functions of an event.

Every operator is total: it has a value whatever happens, and errors are put beside it (§3.3). An
attribute that is missing makes the operator or function right above it return the zero value of its
type (§3.2), and what stands above that goes on.
"""

import operator
from collections.abc import Callable
from typing import Any

from mesh.event import Event
from triggers.cesql.errors import MathError, MissingAttributeError, MissingFunctionError
from triggers.cesql.like import segments
from triggers.cesql.syntax import (
    Attribute,
    Binary,
    Call,
    Exists,
    In,
    Like,
    Literal,
    Logic,
    Node,
    Unary,
    Value,
)
from triggers.cesql.values import MOST, Errors, cast, function, zero
from triggers.wildcard import matcher

__all__ = ["MISSING", "Step", "compiled", "kind_of"]

MISSING: Any = object()
"""The value of an attribute that the event does not have."""

Step = Callable[[Event, Errors], Any]
"""The value of a part of an expression, or MISSING; its errors are added."""

_ORDER: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compiled(node: Node) -> Step:
    """A part of an expression as a function."""
    match node:
        case Literal(value):
            return lambda event, errors: value
        case Attribute(name):
            return _attribute(name)
        case Exists(name):
            return lambda event, errors: event.attribute(name) is not None
        case Unary(sign, operand):
            return _not(compiled(operand)) if sign == "NOT" else _minus(compiled(operand))
        case Binary("=" | "!=" as sign, left, right):
            return _equal(compiled(left), compiled(right), sign == "=")
        case Binary(sign, left, right) if sign in _ORDER:
            return _ordered(compiled(left), compiled(right), _ORDER[sign])
        case Binary(sign, left, right):
            return _arithmetic(compiled(left), compiled(right), sign)
        case Logic(operands, operators):
            return _logic([compiled(operand) for operand in operands], operators)
        case Like(operand, pattern, negated):
            return _like(compiled(operand), matcher(segments(pattern)), negated)
        case In(operand, items, negated):
            return _in(compiled(operand), [compiled(item) for item in items], negated)
        case Call(name, arguments):
            return _call(name, [compiled(argument) for argument in arguments])
    raise TypeError(node)


def kind_of(node: Node) -> type[Any] | None:
    """The type of a part's value, as far as its text says it."""
    match node:
        case Literal(value):
            return type(value)
        case Attribute():
            return None
        case Unary("-") | Binary("+" | "-" | "*" | "/" | "%"):
            return int
        case Call(name, arguments):
            found = function(name, len(arguments))
            return bool if found is None else found.result
    return bool


def _attribute(name: str) -> Step:
    missing = MissingAttributeError(name)

    def step(event: Event, errors: Errors) -> Any:
        value = event.attribute(name)
        if value is None:
            errors.append(missing)
            return MISSING
        return value

    return step


def _not(operand: Step) -> Step:
    def step(event: Event, errors: Errors) -> bool:
        value = operand(event, errors)
        return value is not MISSING and not cast(value, bool, errors)

    return step


def _minus(operand: Step) -> Step:
    def step(event: Event, errors: Errors) -> int:
        value = operand(event, errors)
        return 0 if value is MISSING else _fitting(-cast(value, int, errors), errors)

    return step


def _fitting(value: int, errors: Errors) -> int:
    """An Integer, or zero and an error beyond 32 bits, where the specification is silent."""
    if -MOST - 1 <= value <= MOST:
        return value
    errors.append(MathError(f"{value} is beyond 32 bits"))
    return 0


def _equal(left: Step, right: Step, wanted: bool) -> Step:
    def step(event: Event, errors: Errors) -> bool:
        a, b = left(event, errors), right(event, errors)
        if a is MISSING or b is MISSING:
            return False
        # Ambiguous by its types: the right operand's decides (§3.7).
        return (cast(a, type(b), errors) == b) is wanted

    return step


def _ordered(left: Step, right: Step, holds: Callable[[int, int], bool]) -> Step:
    def step(event: Event, errors: Errors) -> bool:
        a, b = left(event, errors), right(event, errors)
        if a is MISSING or b is MISSING:
            return False
        return holds(cast(a, int, errors), cast(b, int, errors))

    return step


def _arithmetic(left: Step, right: Step, sign: str) -> Step:
    run = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": _quotient,
        "%": _remainder,
    }[sign]

    def step(event: Event, errors: Errors) -> int:
        a, b = left(event, errors), right(event, errors)
        if a is MISSING or b is MISSING:
            return 0
        a, b = cast(a, int, errors), cast(b, int, errors)
        if b == 0 and sign in "/%":
            errors.append(MathError(f"{a} {sign} 0"))
            return 0
        return _fitting(run(a, b), errors)

    return step


def _quotient(a: int, b: int) -> int:
    """Rounded towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) is (b < 0) else -1)


def _remainder(a: int, b: int) -> int:
    """With the sign of `a`."""
    return a - b * _quotient(a, b)


def _logic(operands: list[Step], operators: tuple[str, ...]) -> Step:
    *before, last = operands

    def step(event: Event, errors: Errors) -> bool:
        flip = False  # by the XORs passed so far: what comes is the right operand of each
        for sign, operand in zip(operators, before, strict=True):
            value = operand(event, errors)
            if value is MISSING:
                return flip
            held = cast(value, bool, errors)
            if sign == "XOR":
                flip ^= held
            elif held is (sign == "OR"):
                return held ^ flip
        value = last(event, errors)
        return flip if value is MISSING else cast(value, bool, errors) ^ flip

    return step


def _like(operand: Step, matches: Callable[[str], bool], negated: bool) -> Step:
    def step(event: Event, errors: Errors) -> bool:
        value = operand(event, errors)
        return value is not MISSING and matches(cast(value, str, errors)) is not negated

    return step


def _in(operand: Step, items: list[Step], negated: bool) -> Step:
    def step(event: Event, errors: Errors) -> bool:
        value = operand(event, errors)
        if value is MISSING:
            return False
        for item in items:
            other = item(event, errors)
            if other is MISSING:
                return False
            if cast(other, type(value), errors) == value:
                return not negated
        return negated

    return step


def _call(name: str, arguments: list[Step]) -> Step:
    found = function(name, len(arguments))
    if found is None:
        missing = MissingFunctionError(name, len(arguments))

        def no_such(event: Event, errors: Errors) -> bool:
            errors.append(missing)
            return False

        return no_such

    def step(event: Event, errors: Errors) -> Value:
        values = [argument(event, errors) for argument in arguments]
        if any(value is MISSING for value in values):
            return zero(found.result)
        cast_to = [
            value if kind is None else cast(value, kind, errors)
            for value, kind in zip(values, found.parameters, strict=True)
        ]
        return found.run(errors, *cast_to)

    return step
