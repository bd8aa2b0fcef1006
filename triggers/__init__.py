"""Filters: whether an event is one that a trigger asks for.

`parse` takes the forms a manifest takes and returns a frozen `Filter`: the CloudEvents
Subscriptions dialects (CESQL among them), patterns in the manner of EventBridge (`PATTERNS.md`
here), and JSONPath conditions. `Index` matches an event against any number of them at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mesh.event import Event
from triggers import cesql
from triggers.access import Way, all_of
from triggers.dialects import Condition, parse_filters
from triggers.errors import FilterError, FilterMistake, shown
from triggers.explain import Explained, several
from triggers.index import Index
from triggers.jsonpath import parse_jsonpath, values_of
from triggers.pattern import parse_pattern
from triggers.view import View

__all__ = [
    "Explained",
    "Filter",
    "FilterError",
    "FilterMistake",
    "Index",
    "View",
    "cesql",
    "parse",
    "values_of",
]

FORMS = ("filters", "pattern", "jsonpath")


class Filter(msgspec.Struct, frozen=True, gc=False):
    """A filter, parsed. All its conditions must hold; with none it matches every event."""

    conditions: tuple[Condition, ...]

    def matches(self, event: Event) -> bool:
        """Whether the event is one. Nothing an event holds makes this raise."""
        return self.holds(View(event))

    def holds(self, view: View) -> bool:
        """The same, of an event that other filters look at too."""
        for condition in self.conditions:  # noqa: SIM110 - half the time of all()
            if not condition.holds(view):
                return False
        return True

    def explain(self, event: Event) -> Explained:
        """Why the event is one, or not: each condition with what it wants and what it found. Its
        `holds` is what `matches` says."""
        view = View(event)
        return several("", "all of", [condition.explain(view) for condition in self.conditions])

    def ways(self) -> Sequence[Way]:
        """By what an index can find it."""
        return all_of(condition.ways() for condition in self.conditions)

    def warnings(self) -> Iterator[FilterMistake]:
        """What is allowed and hardly meant: conditions that no event or every event meets, and a
        filter that an index cannot find, so that every event of its topic is matched with it."""
        for condition in self.conditions:
            yield from condition.warnings()
        for condition in self.conditions:
            constant = condition.constant()
            if constant is not None:
                reason = "every event meets this" if constant else "no event meets this"
                yield FilterMistake(condition.path, reason, "leave it out" if constant else "")
        if self.conditions and not all(way.groups for way in self.ways()):
            reason = "cannot be indexed: every event of the topic is matched with it"
            path = self.conditions[0].path if len(self.conditions) == 1 else "filter"
            yield FilterMistake(path, reason, "add a condition for what is there, such as a type")


def parse(spec: Mapping[str, Any]) -> Filter:
    """The filter that `{"filters": [...], "pattern": {...}, "jsonpath": [...]}` says, all ANDed.

    Raises FilterError with every mistake, each with its path, reason and mend.
    """
    if not isinstance(spec, Mapping):
        reason = f"expected a table, found a {type(spec).__name__}"
        raise FilterError([FilterMistake("", reason, f"with {', '.join(FORMS)}")])
    mistakes: list[FilterMistake] = []
    conditions: list[Condition] = []
    for key in spec:
        if key not in FORMS:
            name = key if isinstance(key, str) else shown(key)
            mend = f"there are {', '.join(FORMS[:-1])} and {FORMS[-1]}"
            mistakes.append(FilterMistake(name, "unknown form of filter", mend))
    if "filters" in spec:
        conditions.extend(parse_filters(spec["filters"], "filters", mistakes))
    if spec.get("pattern") is not None:
        pattern = parse_pattern(spec["pattern"], "pattern", mistakes)
        if pattern is not None:
            conditions.append(pattern)
    if spec.get("jsonpath") is not None:
        conditions.extend(parse_jsonpath(spec["jsonpath"], "jsonpath", mistakes))
    if mistakes:
        raise FilterError(mistakes)
    return Filter(tuple(conditions))
