"""The errors of CESQL (CloudEvents SQL 1.0.0, §3.3), which are values: an evaluation returns them
beside its result."""

from typing import ClassVar

__all__ = [
    "CastError",
    "CesqlError",
    "FunctionEvaluationError",
    "MathError",
    "MissingAttributeError",
    "MissingFunctionError",
    "ParseError",
]


class CesqlError(Exception):
    """Base of those below. Equal where kind and message are."""

    kind: ClassVar[str] = "generic"
    """As the specification's conformance cases name it."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.args == self.args

    def __hash__(self) -> int:
        return hash((self.kind, self.args))


class ParseError(CesqlError):
    """Text that is no expression; `at` is the place, in characters from 0."""

    kind = "parse"

    def __init__(self, reason: str, at: int) -> None:
        self.reason = reason
        self.at = at
        super().__init__(f"at character {at + 1}: {reason}")


class MathError(CesqlError):
    """A division by zero, or a result beyond 32 bits."""

    kind = "math"


class CastError(CesqlError):
    """A value that is none of the type that is needed."""

    kind = "cast"

    def __init__(self, value: str, type: str) -> None:
        text = value if len(value) <= 80 else value[:79] + "…"
        super().__init__(f"{text!r} is no {type}")


class MissingAttributeError(CesqlError):
    """An attribute that the event does not have."""

    kind = "missingAttribute"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the event has no {name}")


class MissingFunctionError(CesqlError):
    """No function of that name takes so many arguments."""

    kind = "missingFunction"

    def __init__(self, name: str, arguments: int) -> None:
        self.name = name
        super().__init__(f"no function {name} takes {arguments} argument{'s' * (arguments != 1)}")


class FunctionEvaluationError(CesqlError):
    """A function was called with what it cannot work on."""

    kind = "functionEvaluation"
