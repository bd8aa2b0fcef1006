"""How settlements become statements, and how a full queue answers a publish."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mesh.batch import Batch
from mesh.errors import QueueFull
from mesh.event import Event
from mesh.failpoint import point
from mesh.ids import digest
from mesh.letters import dead_letter
from mesh.queue import Entry, Queue
from mesh.records import Record, encode_records
from mesh.topics import Topic
from mesh.transport import (
    Dead,
    Done,
    Filtered,
    Gone,
    Output,
    Released,
    Retry,
    Settlement,
    StateOp,
)

if TYPE_CHECKING:
    from mesh.engine import Engine

__all__ = ["Settler"]


class Settler:
    """Applies outcomes to a batch. Holds no state of its own."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine

    def settle(self, batch: Batch, settlements: Sequence[Settlement]) -> list[Gone]:
        """Put each settlement into the batch, whole or not at all; what became of each."""
        now = self.engine.clock.monotonic()
        gone = [self._settle(batch, settlement, now) for settlement in settlements]
        point("settle.gathered")
        return gone

    def _settle(self, batch: Batch, settlement: Settlement, now: float) -> Gone:
        leased = self.engine.leased
        held: list[tuple[Queue, Entry]] = []
        for settled in settlement.settled:
            lease = leased(settled.delivery, now)
            if lease is None:
                return "stale"
            held.append(lease)
        if len(held) > 1 and len({entry.fence for _, entry in held}) < len(held):
            return "stale"
        if settlement.state and not self._state_holds(batch, settlement.state):
            return "conflict"
        for (queue, entry), settled in zip(held, settlement.settled, strict=True):
            outcome = settled.outcome
            if type(outcome) is Done or type(outcome) is Filtered:
                batch.end(queue, entry)
            elif isinstance(outcome, Retry):
                attempt = entry.attempt + outcome.charge
                batch.retry(queue, entry, batch.now + outcome.after_s, attempt, outcome.error)
            elif isinstance(outcome, Dead):
                self._dead(batch, queue, entry, outcome, entry.attempt)
            elif isinstance(outcome, Released):
                batch.touch(entry)
                batch.after.append(partial(queue.give_back, [entry]))
        for output in settlement.outputs:
            if output.topic:
                batch.output(output)
        if settlement.done_keys:
            keys = batch.done_keys.setdefault(self.engine.queue(settlement.subscription), [])
            keys += [(done.key, batch.now + done.ttl_s) for done in settlement.done_keys]
        if settlement.state or settlement.timers or settlement.journal:
            self._rest(batch, settlement)
        if self.engine.replies:
            self._reply(batch, settlement)
        return "settled"

    def _dead(self, batch: Batch, queue: Queue, entry: Entry, outcome: Dead, attempts: int) -> None:
        batch.end(queue, entry)
        if outcome.letter is None:
            batch.count(queue)[2] += 1
            return
        _, offset = batch.output(outcome.letter)
        batch.dead.append(
            (
                queue.row.id,
                batch.now,
                attempts,
                outcome.reason,
                entry.offset,
                entry.at,
                encode_records(entry.record),
                outcome.letter.topic,
                offset,
            )
        )

    def _reply(self, batch: Batch, settlement: Settlement) -> None:
        """Answer those who asked, once what they asked for is durable."""
        replies = self.engine.replies
        for settled in settlement.settled:
            answer = replies.get(settled.delivery.reply_to)
            if answer is None:
                continue
            if isinstance(settled.outcome, Done):
                address = settled.delivery.reply_to
                events = [o.event for o in settlement.outputs if o.reply_to == address]
                batch.after.append(partial(answer, events))
            elif isinstance(settled.outcome, Dead):
                batch.after.append(partial(answer, None))

    # State, timers, journal

    def _state_holds(self, batch: Batch, operations: Sequence[StateOp]) -> bool:
        for op in operations:
            if op.if_etag is None:
                continue
            found = batch.store.one(
                "SELECT etag FROM state WHERE scope = ? AND key = ?"
                " AND (expires IS NULL OR expires > ?)",
                self.engine.prefix + op.scope, op.key, batch.now,
            )  # fmt: skip
            if (str(found[0]) if found else "") != op.if_etag:
                return False
        return True

    def _rest(self, batch: Batch, settlement: Settlement) -> None:
        prefix, run = self.engine.prefix, batch.store.run
        for op in settlement.state:
            scope = prefix + op.scope
            if op.value is None:
                run("DELETE FROM state WHERE scope = ? AND key = ?", scope, op.key)
            else:
                run(
                    "INSERT OR REPLACE INTO state (scope, key, value, etag, expires)"
                    " VALUES (?, ?, ?, ?, ?)",
                    scope, op.key, op.value, self.engine.fences.next(), op.expires_at,
                )  # fmt: skip
        for timer in settlement.timers:
            record = encode_records(Record(timer.output.event, timer.output.hops))
            run(
                "INSERT INTO timer (due, topic, record) VALUES (?, ?, ?)",
                timer.at, prefix + timer.output.topic, record,
            )  # fmt: skip
        for row in settlement.journal:
            run(
                "INSERT OR REPLACE INTO journal (flow, seq, body) VALUES (?, ?, ?)",
                prefix + row.flow, row.seq, row.body,
            )  # fmt: skip

    # A queue at its cap

    def admit(self, batch: Batch, topic: Topic, event: Event) -> None:
        """Make room for an event in the queues it goes to, or raise QueueFull, and then shed
        nothing. A duplicate needs no room."""
        capped = [queue for queue in topic.queues if queue.spec.cap is not None]
        if not capped or batch.seen(topic, digest(event.source, event.id)):
            return
        routed = self.engine.route(topic, event)
        full = [
            queue
            for queue in capped
            if queue in routed and self._length(batch, queue) >= (queue.spec.cap or 0)
        ]
        for queue in full:
            if queue.spec.overflow == "refuse" or not self._can_shed(queue):
                raise QueueFull(queue.name, queue.spec.cap or 0)
        for queue in full:
            self._shed(batch, queue)

    def _length(self, batch: Batch, queue: Queue) -> int:
        waiting, parked, _ = batch.counts.get(queue, (0, 0, 0))
        return queue.total + waiting + parked

    def _can_shed(self, queue: Queue) -> bool:
        """Whether any event is not out."""
        if not queue.ready:
            queue.fill()
        return bool(queue.ready)

    def _shed(self, batch: Batch, queue: Queue) -> None:
        """Dead-letter the oldest event that is not out."""
        entry = queue.ready.popleft()
        queue.bytes -= entry.size
        entry.fence = self.engine.fences.next()
        entry.deadline = float("inf")
        queue.leased[entry.fence] = entry
        batch.undo.append(partial(queue.give_back, [entry]))
        reason = f"the queue is at its cap of {queue.spec.cap} events"
        letter = None
        attempts = entry.attempt - 1
        if queue.spec.dlq is not None:
            event = dead_letter(
                entry.record.event, queue.name, reason, attempts=attempts, at=batch.now
            )
            letter = Output(queue.spec.dlq, event)
        self._dead(batch, queue, entry, Dead(reason, letter), attempts)
