"""Which subscriptions an event of a topic goes to."""

from collections.abc import Mapping

from mesh.event import Event
from triggers import Filter, Index, View

__all__ = ["Router"]

FEW = 4
"""Filters of a topic up to which trying each is quicker than looking them up."""


class Router:
    """The filters of the subscriptions that are served, by topic."""

    def __init__(self) -> None:
        self._filters: dict[str, dict[str, Filter]] = {}
        self._indexes: dict[str, Index[str]] = {}

    def route(self, topic: str, event: Event) -> list[str]:
        """The names of those that ask for the event."""
        filters = self._filters.get(topic)
        if filters is None:
            return []
        if len(filters) > FEW:
            return sorted(self._indexes[topic].match(event))
        view = View(event)
        return [name for name, filter in filters.items() if filter.holds(view)]

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
        self._filters = {topic: dict(filters) for topic, filters in wanted.items()}
