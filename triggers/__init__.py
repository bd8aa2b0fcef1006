"""Filters: whether an event is one that a trigger asks for.

`parse` takes the forms a manifest takes and returns a frozen `Filter`. Built so far: the
Subscriptions dialects `exact prefix suffix all any not`, and patterns with values, prefix,
suffix, anything-but, numeric, exists, equals-ignore-case and `$or`. CESQL, JSONPath, the other
operators and the index are refused in words or missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.event import Event
from triggers.dialects import parse_filters
from triggers.errors import FilterError, FilterMistake, shown
from triggers.explain import Clause, Condition, Explained, several
from triggers.pattern import parse_pattern

__all__ = ["Explained", "Filter", "FilterError", "FilterMistake", "parse"]


@dataclass(frozen=True)
class Filter:
    """A filter, parsed. All its conditions must hold; with none it matches every event."""

    clauses: tuple[Clause, ...]
    _conditions: tuple[Condition, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_conditions", tuple(clause.holds for clause in self.clauses))

    def matches(self, event: Event) -> bool:
        """Whether the event is one. Nothing an event holds makes this raise."""
        for condition in self._conditions:  # noqa: SIM110 - half the time of all()
            if not condition(event):
                return False
        return True

    def explain(self, event: Event) -> Explained:
        """Why `matches` says so, condition by condition; as slow as that is quick."""
        return several("", "all of", [clause.explain(event) for clause in self.clauses])


def parse(spec: Mapping[str, Any]) -> Filter:
    """The filter that `{"filters": [...], "pattern": {...}}` says, both ANDed.

    Raises FilterError with every mistake, each with its path, reason and mend.
    """
    if not isinstance(spec, Mapping):
        reason = f"expected a table, found a {type(spec).__name__}"
        raise FilterError([FilterMistake("", reason, "with filters and pattern")])
    mistakes: list[FilterMistake] = []
    clauses: list[Clause] = []
    for key in spec:
        if key == "jsonpath" and spec[key]:
            mistakes.append(
                FilterMistake("jsonpath", "JSONPath conditions are not built yet", "use pattern")
            )
        elif key not in ("filters", "pattern", "jsonpath"):
            mend = "there are filters and pattern"
            mistakes.append(
                FilterMistake(
                    shown(key) if not isinstance(key, str) else key, "unknown form of filter", mend
                )
            )
    if "filters" in spec:
        clauses.extend(parse_filters(spec["filters"], "filters", mistakes))
    if spec.get("pattern") is not None:
        clauses.append(parse_pattern(spec["pattern"], "pattern", mistakes))
    if mistakes:
        raise FilterError(mistakes)
    return Filter(tuple(clauses))
