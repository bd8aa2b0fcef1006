"""What a call in memory led to."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from funcrt.gathered import Response, decoded
from funcrt.manifest import Manifest
from funcrt.outcome import origin_of, settle
from funcrt.sandbox.protocol import Failure, Item, Log, Result
from mesh.event import Event
from mesh.transport import Dead, Delivery, Retry, Settlement

__all__ = ["Outcome", "judged", "plain"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended, and what the host would do about it."""

    status: Literal["ok", "error", "retry", "reject", "timeout"]
    """`error`: the handler raised; `retry`, `reject`: it raised Retry or Reject, or the data did
    not fit its annotation; `timeout`: it took longer than the manifest's `timeout`."""
    outputs: list[Event] = []
    """The events it returned and emitted, named and typed as they would be published."""
    topics: list[str] = []
    """Where each of `outputs` would go; "" for one that only a caller gets."""
    failure: Failure | None = None
    """Why it failed: `error`, `message`, `where`, and `traceback` cut to the author's frames."""
    retry_after_s: float | None = None
    """Seconds until the next attempt, at most; None where there is none."""
    dead: bool = False
    """The event would become a dead letter, or be dropped where the manifest says `dlq = false`."""
    items: list["Outcome"] | None = None
    """Of a batch: each event's own outcome. `outputs` above are then all of theirs."""
    logs: list[tuple[str, str]] = []
    """(level, text) of what the handler wrote to `ctx.log`."""
    response: Response | None = None
    """What it answered to a Request: `status`, `headers`, `body`, `text`, `json()`."""

    @property
    def error(self) -> str:
        """`Reject: no total`, or "" where nothing failed."""
        return f"{self.failure.error}: {self.failure.message}" if self.failure else ""

    @property
    def data(self) -> Any:
        """The data of the only output, or of the response: decoded JSON, text, or bytes. Raises
        AssertionError that says what happened instead."""
        if self.failure is not None:
            raise AssertionError(f"the handler failed: {self.failure.traceback or self.error}")
        if self.response is not None and not self.outputs:
            return self.response.data
        if len(self.outputs) != 1:
            raise AssertionError(f"expected one output, found {len(self.outputs)}: {self.outputs}")
        return plain(self.outputs[0])

    def to(self, topic: str) -> list[Event]:
        """The outputs that would go to a topic."""
        pairs = zip(self.topics, self.outputs, strict=True)
        return [event for where, event in pairs if where == topic]


def plain(event: Event) -> Any:
    """An event's data as a test reads it."""
    return decoded(event.datacontenttype, event.data)


def judged(
    manifest: Manifest,
    namespace: str,
    trigger: str,
    events: Sequence[Event],
    result: Result,
    *,
    now: float,
    attempt: int = 1,
    logs: Sequence[Log] = (),
    response: Response | None = None,
    hide: Callable[[str], str] = str,
) -> Outcome:
    """What a host would make of the result of a call on these events; `now` in wall-clock
    seconds. `hide` takes secrets out of what is wrong with an output."""
    deliveries = [
        Delivery(
            event, f"{manifest.name}/{trigger}", "", f"@{at}", now, attempt, at, reply_to="caller"
        )
        for at, event in enumerate(events, 1)
    ]
    origin = origin_of(manifest, namespace, trigger, hide)
    settlement = settle(manifest, origin, deliveries, result, now=now, jitter=1.0)
    outcome = outcome_of(result, settlement, logs)
    return msgspec.structs.replace(outcome, response=response) if response else outcome


def outcome_of(result: Result, settlement: Settlement, logs: Sequence[Log]) -> Outcome:
    """What the host makes of a result, for the test to read."""
    said = [(log.level, log.text) for log in logs]
    if result.items is None:
        return msgspec.structs.replace(_one(result, settlement, 0), logs=said)
    each = [_one(item, settlement, at, alone=False) for at, item in enumerate(result.items)]
    failed = next((one for one in each if one.failure), None)
    return Outcome(
        status=failed.status if failed else "ok",
        outputs=[output.event for output in settlement.outputs],
        topics=[output.topic for output in settlement.outputs],
        failure=failed.failure if failed else None,
        dead=any(one.dead for one in each),
        items=each,
        logs=said,
    )


def _one(ended: Result | Item, settlement: Settlement, at: int, *, alone: bool = True) -> Outcome:
    delivery, outcome = settlement.settled[at].delivery, settlement.settled[at].outcome
    retry = outcome.after_s if isinstance(outcome, Retry) else None
    dead = isinstance(outcome, Dead)
    status, failure = ended.status, ended.failure
    if status == "ok" and (dead or retry is not None):  # an output that was refused
        assert isinstance(outcome, Dead | Retry)
        reason = outcome.reason if isinstance(outcome, Dead) else outcome.error
        error, _, message = reason.partition(": ")
        status, failure = "error", Failure(error, message)
    cause = delivery.event.id
    mine = [
        output
        for output in settlement.outputs
        if alone or output.event.extensions.get("causationid") == cause
    ]
    return Outcome(
        status=status,  # type: ignore[arg-type]
        outputs=[output.event for output in mine],
        topics=[output.topic for output in mine],
        failure=failure,
        retry_after_s=retry,
        dead=dead,
    )
