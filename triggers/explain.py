"""Why an event is, or is not, one that a filter asks for: condition by condition."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Explained", "any_of_these", "as_text", "several"]

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


def any_of_these(wanted: Sequence[object]) -> str:
    """Alternatives for people, the first few of them: `= 1 or > 5`."""
    texts = [str(one) for one in wanted[:VALUES_SHOWN]]
    if len(wanted) > VALUES_SHOWN:
        texts.append(f"{len(wanted) - VALUES_SHOWN} more")
    return " or ".join(texts)
