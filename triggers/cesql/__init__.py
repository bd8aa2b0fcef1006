"""CESQL, the CloudEvents SQL expression language 1.0.0, over an event's attributes.

Source: https://github.com/cloudevents/spec/blob/main/cesql/spec.md. Complete evaluation (§4.1):
an operator has a value even where an operand had an error, and all errors are returned. As a filter
an expression holds where it is `true` without an error.
"""

from collections.abc import Sequence
from typing import Any

from mesh.event import Event
from triggers.cesql.errors import (
    CastError,
    CesqlError,
    FunctionEvaluationError,
    MathError,
    MissingAttributeError,
    MissingFunctionError,
    ParseError,
)
from triggers.cesql.evaluation import MISSING, compiled, kind_of
from triggers.cesql.syntax import Attribute, Call, Exists, Value, parse, parts
from triggers.cesql.values import function

__all__ = [
    "CastError",
    "CesqlError",
    "Expression",
    "FunctionEvaluationError",
    "MathError",
    "MissingAttributeError",
    "MissingFunctionError",
    "ParseError",
    "evaluate",
]


class _Strict(list[CesqlError]):
    """Errors of a filter: the first decides, so it ends the evaluation ("fail fast", §4.1)."""

    def append(self, error: CesqlError) -> None:
        raise error


class Expression:
    """A parsed expression. Raises ParseError."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = parse(text)
        self._run = compiled(self.tree)

    def evaluate(self, event: Event) -> tuple[Value, Sequence[CesqlError]]:
        """Its value for an event, and what went wrong on the way."""
        errors: list[CesqlError] = []
        value = self._run(event, errors)
        return (False if value is MISSING else value), errors

    def matches(self, event: Event) -> bool:
        """Whether it is true, without an error."""
        try:
            return self._run(event, _Strict()) is True
        except CesqlError:
            return False

    @property
    def kind(self) -> type[Any] | None:
        """The type of its value: str, int or bool, or None where that is an attribute's."""
        return kind_of(self.tree)

    @property
    def constant(self) -> bool | None:
        """What it comes to as a filter for any event; None where that depends on the event."""
        if self.kind not in (bool, None):
            return False
        if any(isinstance(node, Attribute | Exists) for node in parts(self.tree)):
            return None
        return self.matches(Event("", "", ""))

    @property
    def unknown(self) -> list[Call]:
        """Calls of functions that there are not: an error wherever they are reached."""
        return [
            node
            for node in parts(self.tree)
            if isinstance(node, Call) and function(node.name, len(node.arguments)) is None
        ]


def evaluate(expression: str, event: Event) -> tuple[Value, Sequence[CesqlError]]:
    """The value of an expression for an event, and the errors on the way: none, or several; of one
    that cannot be parsed `False` and its ParseError."""
    try:
        return Expression(expression).evaluate(event)
    except ParseError as error:
        return False, [error]
