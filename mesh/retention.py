"""Dropping what retention and the deduplication window allow, a little with each commit."""

from functools import partial
from typing import TYPE_CHECKING

from mesh.batch import Batch, Topic
from mesh.ids import WINDOWS

if TYPE_CHECKING:
    from mesh.engine import Engine

__all__ = ["Retention"]

EVERY_S = 5.0
ROWS = 512
BYTES = 2 << 20
"""What one commit drops of a topic at the most, so that none is long; a sweep goes on with the
next, for as many small chunks may come between two sweeps as there are commits."""
TOPICS = 64


class Retention:
    """Of all topics of an engine. Nothing is dropped that a queue still needs."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self._swept = engine.clock.monotonic()
        self._left: list[str] = []
        """Topics that the sweep under way has yet to see."""

    def sweep(self, batch: Batch) -> None:
        """Begin a sweep, if it is time, or go on with the one under way."""
        engine = self.engine
        if not self._left:
            now = engine.clock.monotonic()
            if now - self._swept < EVERY_S:
                return
            self._swept = now
            self._left = list(engine.topics)
            engine.store.forget_replays(batch.now - WINDOWS * engine.options.dedupe_s)
        for _ in range(min(len(self._left), TOPICS)):
            topic = engine.topics.get(self._left[-1])
            if topic is not None and self._sweep(batch, topic):
                break  # there is more of it
            self._left.pop()

    def _sweep(self, batch: Batch, topic: Topic) -> bool:
        store, row, options = batch.store, topic.row, self.engine.options
        excess = row.bytes - options.retention_bytes
        before = store.pinned([queue.row.id for queue in topic.queues])
        unfilled = [q.row.filled for q in topic.queues if q.row.filled is not None]
        floor = min([offset for offset in (before, *unfilled) if offset is not None], default=None)
        stored = batch.now - options.retention_s
        events, size, last, more = store.trim(
            row.id, floor, stored, max(excess, 0), limit=ROWS, most=BYTES
        )
        if events:
            batch.after.append(partial(_trimmed, topic, events, size, last))
            store.run(
                "UPDATE topic SET count = count - ?, bytes = bytes - ? WHERE id = ?",
                events, size, row.id,
            )  # fmt: skip
        forgotten = store.forget_ids(row.id, topic.window.forgotten_before(), ROWS)
        return more or forgotten == ROWS


def _trimmed(topic: Topic, events: int, size: int, last: int) -> None:
    topic.row.count -= events
    topic.row.bytes -= size
    topic.recent_from = max(topic.recent_from, last + 1)
