"""One version's entries in the host's logbook: what it writes, and how its calls failed."""

import itertools
from collections.abc import Sequence

from funcrt.api import Reply
from funcrt.logbook import LEVELS, MOST_IDS, Line, Logbook
from funcrt.manifest import IdempotencySpec, Manifest
from funcrt.manifest_kinds import Duration
from funcrt.member import Pending
from funcrt.sandbox import Instance
from funcrt.sandbox.protocol import Failure, Log, Result
from mesh.event import Event
from mesh.transport import Clock, Dead, Retry, Settlement

__all__ = ["Diary"]


class Diary:
    """Writes a version's lines."""

    def __init__(self, logbook: Logbook, name: str, version: str, clock: Clock) -> None:
        self.logbook = logbook
        self.name = name
        self.version = version
        self.clock = clock
        self._last: tuple[int, tuple[str, ...]] = 0, ()

    def said(self, instance: Instance, pending: Pending | None, log: Log) -> None:
        """A line that an instance wrote, in that call where it was one."""
        ids: tuple[str, ...] = ()
        if pending is not None:
            if pending.call.id != self._last[0]:
                self._last = pending.call.id, _ids(pending.call.events)
            ids = self._last[1]
        level = log.level if log.level in LEVELS else "info"
        self._write(level, log.text, ids, instance=instance.pid)

    def noted(self, level: str, text: str) -> None:
        """A line of no call: of an import, or on what became of its secrets."""
        self._write(level, text, ())

    def failed(self, manifest: Manifest, result: Result, settlement: Settlement) -> None:
        """Deliveries failed: each with what comes next, and the author's frames."""
        items = result.items or ()
        for index, settled in enumerate(settlement.settled):
            outcome, delivery = settled.outcome, settled.delivery
            if not isinstance(outcome, Retry | Dead):
                continue
            attempts = f"attempt {delivery.attempt} of {manifest.retry.attempts}"
            if isinstance(outcome, Retry):
                then, said = f"{attempts}, next in {outcome.after_s:.1f} s", outcome.error
            elif outcome.letter is None:
                then, said = f"{attempts}, dropped: dlq = false", outcome.reason
            else:
                then, said = f"{attempts}, now a dead letter", outcome.reason
            why = items[index].failure if index < len(items) else result.failure
            text = why.traceback if why is not None and why.traceback else said
            self._write("error", f"failed ({then})\n{text}", (delivery.event.id,), failed=True)

    def deduplicated(self, event: Event, spec: IdempotencySpec) -> None:
        """An event ended without a call."""
        ttl = Duration.write(spec.ttl_s).strip('"')
        text = f"deduplicated: a call with its idempotency key ({spec.key}) succeeded within {ttl}"
        self._write("info", text, (event.id,))

    def unkeyed(self, event: Event, key: str, more: int) -> None:
        """An event without an idempotency key is called for."""
        also = f", as did {more} more since this was said last" if more else ""
        text = f"lacks its idempotency key ({key}){also}: it is called for all the same"
        self._write("warning", text, (event.id,))

    def call_failed(self, event: Event, reply: Reply) -> None:
        """A call that somebody waited for failed."""
        why = reply.failure or Failure("Error", reply.status)
        text = why.traceback or f"{why.error}: {why.message}"
        told = f"failed ({reply.status}, told to its caller)"
        self._write("error", f"{told}\n{text}", (event.id,), failed=True)

    def _write(
        self,
        level: str,
        text: str,
        events: tuple[str, ...],
        *,
        instance: int = 0,
        failed: bool = False,
    ) -> None:
        line = Line(self.clock.time(), level, text, instance, self.version, events, failed)
        self.logbook.add(self.name, line)


def _ids(events: Sequence[Event]) -> tuple[str, ...]:
    return tuple(event.id for event in itertools.islice(events, MOST_IDS))
