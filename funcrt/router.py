"""Which subscriptions an event of a topic goes to."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from funcrt.verdict import Plan
from mesh.event import Event
from triggers import Filter, Index, View

__all__ = ["FEW", "Router"]

FEW = 4
"""Filters of a topic up to which trying each is quicker than looking them up."""
MISSED = 8
"""Events of a topic that are remembered because some filter refused them."""
MISSED_BYTES = 16 << 10
"""Of the data of one; larger ones are not remembered."""


class Router:
    """The filters of the subscriptions that are served, by topic."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.time = time
        self._missed: dict[str, deque[tuple[float, Event]]] = {}
        self._filters: dict[str, dict[str, Filter]] = {}
        self._indexes: dict[str, Index[str]] = {}

    def route(self, topic: str, event: Event) -> list[str]:
        """The names of those that ask for the event."""
        filters = self._filters.get(topic)
        if filters is None:
            return []
        if len(filters) > FEW:
            names = sorted(self._indexes[topic].match(event))
        else:
            view, names = View(event), []
            for name, filter in filters.items():  # a comprehension is a call
                if filter.holds(view):
                    names.append(name)
        if len(names) < len(filters) and len(event.data or b"") <= MISSED_BYTES:
            self._missed[topic].append((self.time(), event))
        return names

    def plan(self, topic: str, filter: Filter) -> Plan:
        """How the filter is come to, one of those of the topic."""
        count, index = len(self._filters.get(topic, ())), self._indexes.get(topic)
        found = (Index[str]() if index is None else index).plan(filter)
        return Plan(found, count, index is not None)

    def serves(self, topic: str) -> bool:
        """Whether any subscription reads it."""
        return topic in self._filters

    def missed(self, topic: str, filter: Filter, since: float) -> Iterator[tuple[float, Event]]:
        """The last events that a filter refused from a moment on, the latest first, and when: of
        the few that any filter of their topic refused."""
        for at, event in reversed(self._missed.get(topic, ())):
            if at >= since and not filter.matches(event):
                yield at, event

    def update(self, wanted: Mapping[str, Mapping[str, Filter]]) -> None:
        """Route by these from now on: topic, subscription, filter. Only what is new is indexed."""
        for topic, filters in wanted.items():
            if len(filters) > FEW:
                index = self._indexes.setdefault(topic, Index())
                # Of an index that is new the filters before are not in it.
                before = self._filters.get(topic, {}) if len(index) else {}
                for name in before.keys() - filters.keys():
                    index.remove(name)
                for name, filter in filters.items():
                    if before.get(name) is not filter:
                        index.add(name, filter)
            else:
                self._indexes.pop(topic, None)
        for topic in self._filters.keys() - wanted.keys():
            self._indexes.pop(topic, None)
        none: deque[tuple[float, Event]] = deque()
        self._missed = {topic: deque(self._missed.get(topic, none), MISSED) for topic in wanted}
        self._filters = {topic: dict(filters) for topic, filters in wanted.items()}
