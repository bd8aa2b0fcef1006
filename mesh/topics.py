"""The embedded mesh's topics as the engine holds them, and reading them when a file is opened."""

import gc
from itertools import chain, groupby
from typing import TYPE_CHECKING

from mesh.ids import WINDOWS, IdWindow
from mesh.queue import Queue
from mesh.store import SHIFT, Store, TopicRow

if TYPE_CHECKING:
    from mesh.engine import Engine

__all__ = ["Topic", "load"]


class Topic:
    """A topic as the engine holds it: counters, and the ids it has seen lately."""

    __slots__ = ("due", "name", "queues", "recent_from", "row", "seen", "window")

    def __init__(self, row: TopicRow, name: str, window: IdWindow) -> None:
        self.row = row
        self.name = name
        self.window = window
        self.seen = 0
        """The window holds the ids of all offsets below this."""
        self.queues: list[Queue] = []
        self.recent_from = row.next
        """What the engine has at hand of earlier offsets is not all that there was."""
        self.due = 0.0
        """Wall-clock time before which retention finds nothing to drop, unless something comes."""

    def learn(self, store: Store, since: float) -> None:
        """Read the ids that the file holds and the window does not."""
        rows = store.ids_since(self.row.id, self.seen, since)
        self.window.add_stored(rows, self.row.next - self.seen)
        self.seen = self.row.next


def load(engine: "Engine") -> None:
    """Hold all topics of the engine's namespace, and read the ids that they have seen."""
    # All that is made stays; looking through it again and again took half the time of many topics.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _load(engine)
    finally:
        if collecting:
            gc.enable()


def _load(engine: "Engine") -> None:
    held: dict[int, Topic] = {}
    for row in engine.store.topics():
        topic = engine.hold(row)
        if topic is not None:
            held[row.id] = topic
    since = engine.clock.time() - WINDOWS * engine.options.dedupe_s
    rows = engine.store.all_ids_since(since)
    for number, some in groupby(rows, lambda row: row[0] >> SHIFT):
        topic = held.get(number)
        if topic is not None:
            first = next(some)
            # Not all that it ever had: of many topics with a few ids room for those took it all.
            expected = (number << SHIFT | topic.row.next) - first[0]
            stored = ((at, digests) for _, at, digests in chain([first], some))
            topic.window.add_stored(stored, expected)
    for topic in held.values():
        topic.seen = topic.row.next
