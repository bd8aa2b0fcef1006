"""Filter errors: every mistake at once, each with its path, reason and mend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FilterError", "FilterMistake", "shown"]


def shown(value: Any) -> str:
    """A value as a message shows it, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} beyond words"
    return text if len(text) <= 80 else text[:79] + "…"


@dataclass(frozen=True)
class FilterMistake:
    """One mistake in a filter."""

    path: str
    """E.g. `filters[1].all[2].prefix.invALID`."""
    reason: str
    mend: str = ""
    """What to write instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f"; {self.mend}" if self.mend else "")


class FilterError(ValueError):
    """A filter that is refused. `errors` holds all its mistakes."""

    def __init__(self, errors: Sequence[FilterMistake]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))
