"""Dropping what retention and the deduplication window allow, a little with each commit."""

from functools import partial
from typing import TYPE_CHECKING

from mesh.batch import Batch
from mesh.ids import WINDOWS
from mesh.topics import Topic

if TYPE_CHECKING:
    from mesh.engine import Engine

__all__ = ["Retention"]

EVERY_S = 5.0
ROWS = 512
BYTES = 2 << 20
"""What one commit drops of a topic at the most, so that none is long; a sweep goes on with the
next, for as many small chunks may come between two sweeps as there are commits."""
TOPICS = 64
LOOKED_AT = 4096
"""Topics that one commit sweeps, and those of which memory tells that there is nothing to do."""
PINNED_S = 60.0
"""What a queue still needs is looked at again after this."""


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
            for queue in engine.queues.values():
                batch.forget_keys(queue, ROWS)
        left = TOPICS
        for _ in range(min(len(self._left), LOOKED_AT)):
            topic = engine.topics.get(self._left[-1])
            if topic is not None and not self._idle(topic, batch.now):
                left -= 1
                if self._sweep(batch, topic):
                    break  # there is more of it
            self._left.pop()
            if not left:
                break

    def _idle(self, topic: Topic, now: float) -> bool:
        """Whether there can be nothing to drop of it, by what is in memory."""
        return now < topic.due and topic.row.bytes <= self.engine.options.retention_bytes

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
        topic.window.expire(batch.now)
        forgotten = store.forget_ids(row.id, topic.window.forgotten_before(), ROWS)
        more = more or forgotten == ROWS
        if not more:
            self._rest(batch, topic, floor is not None, dropped=bool(events))
        return more

    def _rest(self, batch: Batch, topic: Topic, pinned: bool, *, dropped: bool) -> None:
        """When to look at a topic again; one that holds nothing, and that nothing needs, goes."""
        engine, row = self.engine, topic.row
        oldest = batch.store.oldest_chunk(row.id)
        expires = topic.window.expires()
        if oldest is not None:
            expires = min(expires, oldest + engine.options.retention_s)
        topic.due = min(expires, batch.now + PINNED_S) if pinned else expires
        if dropped or topic in batch.new:
            topic.due = 0.0
        elif expires == float("inf") and not topic.queues and not engine.tailed(topic.name):
            if batch.store.remove_topic(row):
                batch.after.append(partial(_removed, engine, topic))
            else:
                topic.due = batch.now + PINNED_S


def _trimmed(topic: Topic, events: int, size: int, last: int) -> None:
    topic.row.count -= events
    topic.row.bytes -= size
    topic.recent_from = max(topic.recent_from, last + 1)


def _removed(engine: "Engine", topic: Topic) -> None:
    del engine.topics[topic.name]
