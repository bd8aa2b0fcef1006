"""What one transaction of the embedded mesh does: gathered, written, and then applied.

A batch changes no memory until its transaction is durable; rolled back, it leaves no trace.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesh.done_keys import FORGOTTEN
from mesh.failpoint import point
from mesh.ids import digest
from mesh.queue import Entry, Part, Queue
from mesh.records import (
    CHUNK_BYTES,
    CHUNK_EVENTS,
    Chunk,
    Record,
    encode_records,
    event_bytes,
)
from mesh.store import TopicRow
from mesh.topics import Topic
from mesh.transport import Coming, Output

if TYPE_CHECKING:
    from mesh.engine import Engine

__all__ = ["Batch"]


class _New:
    """The events that a batch appends to one topic."""

    __slots__ = (
        "first", "keys", "masks", "next", "records", "size", "sizes", "topic", "written"
    )  # fmt: skip

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.next = topic.row.next
        self.keys: dict[bytes, int] = {}
        self.written: list[tuple[Chunk, list[Record], list[int], dict[Queue, int]]] = []
        self._open()

    def _open(self) -> None:
        self.first = self.next
        self.records: list[Record] = []
        self.sizes: list[int] = []
        self.size = 0
        self.masks: dict[Queue, int] = {}

    def add(self, key: bytes, record: Record, queues: Sequence[Queue], size: int) -> bool:
        """Whether its chunk is full with it."""
        if queues:
            bit = 1 << len(self.records)
            for queue in queues:
                self.masks[queue] = self.masks.get(queue, 0) | bit
        self.records.append(record)
        self.sizes.append(size)
        self.keys[key] = self.next
        self.next += 1
        self.size += size
        return len(self.records) >= CHUNK_EVENTS or self.size >= CHUNK_BYTES

    def seal(self, at: float) -> None:
        if self.records:
            chunk = Chunk(self.first, len(self.records), at, encode_records(self.records))
            self.written.append((chunk, self.records, self.sizes, self.masks))
        self._open()


class Batch:
    """One transaction under way."""

    def __init__(self, engine: "Engine", now: float) -> None:
        self.engine = engine
        self.store = engine.store
        self.now = now
        self.new: dict[Topic, _New] = {}
        self.ended: list[tuple[Queue, Entry, bool]] = []
        self.parked: list[tuple[Queue, float | None]] = []
        self.overflowed: list[tuple[Queue, Entry, int]] = []
        self.unparked: list[int] = []
        self.parts: dict[Part, Queue] = {}
        self.counts: dict[Queue, list[int]] = {}
        self.touched: list[Entry] = []
        self.behind: set[Queue] = set()
        """Queues that get events which are in the file alone."""
        self.after: list[Callable[[], None]] = []
        self.undo: list[Callable[[], None]] = []
        self.dead: list[tuple[Any, ...]] = []
        self.done_keys: dict[Queue, list[tuple[bytes, float]]] = {}
        """Idempotency keys to remember, and until when."""

    # Events

    def append(self, topic: Topic, record: Record, size: int = 0) -> tuple[int, bool]:
        """Add an event to a topic and its queues; (offset, False), or (-1, True) where the
        topic has seen it within the window. `size`: its `event_bytes`, where they are known."""
        event = record.event
        key = digest(event.source, event.id)
        new = self.new.get(topic)
        if new is None:
            new = self.new[topic] = _New(topic)
        if key in new.keys or key in topic.window:
            return new.keys.get(key, -1), True
        queues = self.engine.route(topic, event) if topic.queues else ()
        for queue in queues:
            self.count(queue)[0] += 1
        offset = new.next
        if new.add(key, record, queues, size or event_bytes(event)):
            new.seal(self.now)
        return offset, False

    def next(self, topic: Topic) -> int:
        """The offset that a topic's next event gets."""
        new = self.new.get(topic)
        return topic.row.next if new is None else new.next

    def seen(self, topic: Topic, key: bytes) -> bool:
        """Whether an event of that digest would add nothing."""
        new = self.new.get(topic)
        return key in topic.window or (new is not None and key in new.keys)

    def count(self, queue: Queue) -> list[int]:
        """Changes of (waiting, parked, dropped) of a queue."""
        counts = self.counts.get(queue)
        if counts is None:
            counts = self.counts[queue] = [0, 0, 0]
        return counts

    def output(self, output: Output) -> tuple[Topic, int]:
        """Add an output or a dead letter to its topic: (topic, offset)."""
        topic = self.engine.topics.get(output.topic) or self.engine.topic(output.topic)
        offset, _ = self.append(topic, Record(output.event, output.hops))
        return topic, offset

    # Queues

    def clear(self, queue: Queue, entry: Entry) -> None:
        """The event leaves its place in the file."""
        entry.settling = True
        self.touched.append(entry)
        counts = self.counts.get(queue) or self.count(queue)
        part = entry.part
        if part is not None:
            part.settling |= 1 << entry.index
            self.parts[part] = queue
            counts[0] -= 1
        else:
            self.unparked.append(entry.row)
            counts[1] -= 1

    def touch(self, entry: Entry) -> None:
        """Nothing else may settle or expire this lease until the batch is over."""
        entry.settling = True
        self.touched.append(entry)

    def end(self, queue: Queue, entry: Entry) -> None:
        """The event is settled for good."""
        self.clear(queue, entry)
        self.ended.append((queue, entry, True))

    def retry(self, queue: Queue, entry: Entry, at: float, attempt: int, error: str) -> None:
        """The event is to be delivered again at `at`."""
        holder = queue.spec.order == "key" and entry.key is not None
        if entry.part is not None:
            self.clear(queue, entry)
            self.store.park(
                queue.row.id, at, entry.key, holder, entry.offset, attempt, entry.at,
                entry.replay, error, entry.record,
            )  # fmt: skip
            self.count(queue)[1] += 1
        else:
            self.touch(entry)
            self.store.repark(entry.row, at, attempt, holder, error)
        self.ended.append((queue, entry, False))
        self.parked.append((queue, at))

    def again(
        self, queue: Queue, event: Record, offset: int, published_at: float, replay: str
    ) -> None:
        """Queue an event once more, under a replay id."""
        if queue.gone:
            return
        key = queue.key_of(event.event) if queue.key_of and queue.spec.order == "key" else None
        self.store.park(
            queue.row.id, self.now, key, False, offset, 1, published_at, replay, "", event
        )
        self.count(queue)[1] += 1
        self.parked.append((queue, self.now))

    def overflow(self, queue: Queue, entries: Sequence[Entry]) -> None:
        """Park what waits behind busy keys, so that the window can go on."""
        if queue.gone:
            return
        for entry in entries:
            if entry.row:
                self.touch(entry)
                self.store.park_behind(entry.row, entry.key)
                self.overflowed.append((queue, entry, entry.row))
                continue
            self.clear(queue, entry)
            row = self.store.park(
                queue.row.id, None, entry.key, False, entry.offset, 1, entry.at, "", "",
                entry.record,
            )  # fmt: skip
            self.count(queue)[1] += 1
            self.overflowed.append((queue, entry, row))

    # Writing and applying

    def write(self) -> None:
        """Make the statements of what was gathered."""
        store = self.store
        for topic, new in self.new.items():
            new.seal(self.now)
            if not new.written:
                continue
            size = 0
            keys = list(new.keys)
            start = topic.row.next
            for chunk, _, _, masks in new.written:
                digests = b"".join(keys[chunk.first - start : chunk.first - start + chunk.count])
                store.append(topic.row.id, chunk, digests)
                size += len(chunk.body)
                for queue, mask in masks.items():
                    if queue.gone:
                        continue
                    store.queue(queue.row.id, chunk.first, chunk.at, mask)
            row = topic.row
            store.save_topic(
                TopicRow(
                    row.id, row.name, new.next, new.next, row.count + len(keys), row.bytes + size
                )
            )
        if self.new:
            point("write.events")
        for part, queue in self.parts.items():
            if not queue.gone:
                store.queue(queue.row.id, part.first, part.at, part.mask & ~part.settling)
        if self.unparked:
            store.unpark(self.unparked)
        if self.ended:
            point("write.queues")
        for dead in self.dead:
            store.add_dead(*dead)
        if self.dead:
            point("write.dead")
        for queue, done in self.done_keys.items():
            if not queue.gone:
                self._remember(queue, done)
        if self.parked:
            # What is due by the clock comes with the time, which no later start may begin before:
            # with the machine's clock set back by an hour a retry would wait for that hour.
            store.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('latest', ?)", self.now)
        for queue, (waiting, parked, dropped) in self.counts.items():
            store.run(
                "UPDATE sub SET waiting = waiting + ?, parked = parked + ?, dropped = dropped + ?"
                " WHERE id = ?",
                waiting, parked, dropped, queue.row.id,
            )  # fmt: skip

    def _remember(self, queue: Queue, keys: Sequence[tuple[bytes, float]]) -> None:
        """Remember idempotency keys, and let some go of those that nobody can ask for."""
        store, sub, most = self.store, queue.row.id, self.engine.options.idempotency_keys
        count = queue.done_keys + store.remember_keys(sub, keys)
        count -= store.forget_expired(sub, self.now, FORGOTTEN * len(keys))
        if count > most:
            store.forget_soonest(sub, count - most)
            count = most
        self._keys_left(queue, count)

    def forget_keys(self, queue: Queue, limit: int) -> None:
        """Drop idempotency keys that have expired, where none come any more."""
        if queue.done_keys and not queue.gone and queue not in self.done_keys:
            gone = self.store.forget_expired(queue.row.id, self.now, limit)
            self._keys_left(queue, queue.done_keys - gone)

    def _keys_left(self, queue: Queue, count: int) -> None:
        self.after.append(partial(setattr, queue, "done_keys", count))

    def announced(self, coming: Coming) -> bool:
        """Say which subscriptions are about to get events; whether somebody has begun something."""
        begun = [coming(queue.name) for queue, counts in self.counts.items() if counts[0] > 0]
        return any(begun)

    def applied(self) -> None:
        """The transaction is durable: let memory follow."""
        for queue, (waiting, parked, dropped) in self.counts.items():
            queue.row.waiting += waiting
            queue.row.parked += parked
            queue.row.dropped += dropped
        for part in self.parts:
            part.settled()
        for queue in self.behind:  # first: what else comes is behind those
            queue.caught_up = False
            queue.wake()
        for queue, entry, row in self.overflowed:
            queue.overflowing(entry, row)
            queue.wake()
        for topic, new in self.new.items():
            self._apply_new(topic, new)
        for queue, entry, gone in self.ended:
            queue.ended(entry, gone=gone)
        for queue, due in self.parked:
            queue.parked(due)
        for then in self.after:
            then()

    def _apply_new(self, topic: Topic, new: _New) -> None:
        if not new.written:
            return
        row = topic.row
        row.next = row.routed = topic.seen = new.next
        row.count += len(new.keys)
        topic.due = 0.0
        topic.window.add(new.keys, self.now)
        for chunk, records, sizes, masks in new.written:
            row.bytes += len(chunk.body)
            self.engine.published(topic, chunk)
            for queue, mask in masks.items():
                queue.offer(chunk.first, chunk.at, mask, records, sizes)

    def undone(self) -> None:
        """The transaction was rolled back: what it was about to settle is still leased."""
        for entry in self.touched:
            entry.settling = False
        for part in self.parts:
            part.settling = 0
        for undo in reversed(self.undo):
            undo()
