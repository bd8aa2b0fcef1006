"""Why an event is, or is not, one that a filter asks for: condition by condition."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mesh.event import Event

__all__ = ["Clause", "Condition", "Explained", "as_text", "several", "wanted_values"]

Condition = Callable[[Event], bool]

SHOWN = 200
"""Characters of a value that an explanation shows."""
VALUES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Explained:
    """One condition of a filter, judged on one event; a tree where it holds others."""

    path: str
    """Where it stands in the filter, as mistakes name it: `filters[0].exact.type`."""
    wanted: str
    """The condition for people, `type = "order.placed"`; of a tree how its parts count: `all of`,
    `any of`, `not`."""
    found: str | None
    """The value that was found, as JSON and cut short; None where there was none. Of a tree a
    remark, or None."""
    holds: bool
    children: "tuple[Explained, ...]" = ()

    @property
    def refusing(self) -> "Explained | None":
        """The innermost condition that it fails on, the first where there are several; None where
        it holds."""
        if self.holds:
            return None
        for child in self.children:
            if not child.holds:
                return child.refusing
        return self

    @property
    def failing(self) -> int:
        """How many conditions without children, of those that count, do not hold."""
        if self.holds:
            return 0
        return sum(child.failing for child in self.children) or 1


@dataclass(frozen=True, slots=True)
class Clause:
    """A condition as it is parsed: the test, and the same with its reasons, which is slow."""

    holds: Condition
    explain: Callable[[Event], Explained]


def several(
    path: str, wanted: str, children: list[Explained], found: str | None = None
) -> Explained:
    """A tree: of `any of` one part must hold, of any other all of them."""
    count = any if wanted == "any of" else all
    return Explained(path, wanted, found, count(child.holds for child in children), tuple(children))


def as_text(value: Any) -> str:
    """A value of an event or a pattern as JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} beyond words"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def wanted_values(values: list[Any]) -> str:
    """A pattern's alternatives for one field, for people: `= 1 or > 5`."""
    texts = [_wanted(value) for value in values[:VALUES_SHOWN]]
    if len(values) > VALUES_SHOWN:
        texts.append(f"{len(values) - VALUES_SHOWN} more")
    return " or ".join(texts)


def _wanted(value: Any) -> str:
    if not isinstance(value, dict):
        return f"= {as_text(value)}"
    ((operator, to),) = value.items()
    match operator:
        case "exists":
            return "there" if to else "missing"
        case "prefix":
            return f"starts with {as_text(to)}"
        case "suffix":
            return f"ends with {as_text(to)}"
        case "equals-ignore-case":
            return f"= {as_text(to)} in any case"
        case "numeric":
            pairs = zip(to[::2], to[1::2], strict=True)
            return " and ".join(f"{sign} {bound}" for sign, bound in pairs)
    if isinstance(to, dict):
        ((inner, texts),) = to.items()
        each = texts if isinstance(texts, list) else [texts]
        return f"anything but {wanted_values([{inner: text} for text in each])}"
    return f"anything but {wanted_values(to if isinstance(to, list) else [to])}"
