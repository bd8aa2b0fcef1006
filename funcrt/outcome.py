"""What a call's result leads to: settlements, outputs, retries, dead letters. Pure."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from funcrt.ids import cause as cause_of
from funcrt.ids import derived_id
from funcrt.manifest import Manifest
from funcrt.sandbox.protocol import Failure, Item, Out, Result
from mesh.errors import EventError
from mesh.event import Event, Extensions
from mesh.letters import dead_letter
from mesh.transport import (
    Dead,
    Delivery,
    Done,
    Outcome,
    Output,
    Retry,
    Settled,
    Settlement,
)
from mesh.validation import validate, validate_payload

__all__ = ["LOOP", "MAX_HOPS", "Origin", "origin_of", "retry_wait_s", "settle", "shape"]

MAX_HOPS = 16
MAX_OUTPUTS = 1000
SHORT = 1024

DONE = Done()
LOOP = Failure("Loop", f"the event has come through {MAX_HOPS} functions")


class Origin(msgspec.Struct, frozen=True):
    """Where outputs come from: what all of one trigger of a function share."""

    scope: str
    """Of derived ids: namespace, function and trigger, joined by NUL."""
    source: str
    type: str
    topic: str
    topics: frozenset[str]
    """Topics that it may publish to."""
    keep_id: bool
    valid: bool
    """Whether its source and type are ones that an event may have."""
    hide: Callable[[str], str] = str
    """Takes secrets out of what is wrong with an output."""


def origin_of(
    manifest: Manifest, namespace: str, trigger: str, hide: Callable[[str], str] = str
) -> Origin:
    """The origin of what a trigger's calls return."""
    spec, name = manifest.output, manifest.name
    topic, source = spec.topic or "", f"/funcrt/{name}"
    kind = spec.type or f"funcrt.{name}.result"
    return Origin(
        f"{namespace}\0{name}\0{trigger}",
        source,
        kind,
        topic,
        frozenset([topic, *spec.topics]) - {""},
        spec.keep_id,
        len(source) + len(kind) <= SHORT and _valid(Event("id", source, kind)),
        hide,
    )


def _valid(event: Event) -> bool:
    try:
        validate(event)
    except EventError:
        return False
    return True


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


@lru_cache(maxsize=8)
def _moment(now_ms: int) -> str:
    seconds, milliseconds = divmod(now_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


def retry_wait_s(manifest: Manifest, attempt: int, jitter: float) -> float:
    """Seconds until the next attempt: full jitter over an exponential (or constant) backoff;
    `jitter` in [0, 1). Source: AWS Architecture Blog, "Exponential Backoff And Jitter"."""
    retry = manifest.retry
    if retry.backoff == "constant":
        return retry.base_s
    return jitter * min(retry.max_s, retry.base_s * 2.0 ** min(attempt - 1, 40))


def shape(
    origin: Origin,
    cause: Event,
    outs: Sequence[Out],
    *,
    now: float,
    hops: int,
    replay: str = "",
    reply_to: str = "",
    first: int = 0,
) -> list[Output]:
    """The outputs as events: named, timed, tied to their cause. An output without a topic is
    kept only for `reply_to`. `first`: how many of the call were shaped before.

    Raises EventError for one that is no event or goes where it may not.
    """
    if len(outs) > MAX_OUTPUTS:
        raise EventError(f"{len(outs)} outputs of one call; at most {MAX_OUTPUTS}")
    prefix = cause_of(origin.scope, cause.source, cause.id, replay)
    moment = _moment(int(now * 1000))
    if cause.extensions:
        inherited = _inherited(cause)
    else:
        inherited = Extensions(causationid=cause.id, correlationid=cause.id)
    # What it takes from its cause and its origin was looked at there; it may only be too long.
    short = origin.valid and not cause.extensions
    short = short and len(cause.id) + len(cause.subject or "") <= SHORT
    made = []
    for index, out in enumerate(outs, first):
        topic = out.topic or origin.topic
        if topic not in origin.topics and topic:
            named = origin.hide(repr(topic))
            raise EventError(f"may not publish to {named}: add it to [output] topics")
        given = out.event
        extensions = {**inherited, **given.extensions} if given.extensions else inherited
        event = Event(
            given.id if given.id and origin.keep_id else derived_id(f"{prefix}\0{index}"),
            given.source or origin.source,
            given.type or origin.type,
            given.subject if given.subject is not None else cause.subject,
            given.time or moment,
            given.datacontenttype,
            given.dataschema,
            extensions,
            given.data,
        )
        try:
            if short and _bare(given):
                validate_payload(event)
            else:
                validate(event)
        except EventError as error:
            raise EventError(origin.hide(str(error)), status=error.status) from None
        if topic or reply_to:
            made.append(Output(topic, event, hops, reply_to))
    return made


def _bare(given: Event) -> bool:
    """Whether it is data alone, as of a handler that returns data."""
    return not (
        given.id or given.source or given.type or given.time or given.extensions
        or given.subject is not None or given.dataschema is not None
    )  # fmt: skip


def _inherited(cause: Event) -> Extensions:
    """The extensions that every output of a cause has."""
    theirs = cause.extensions
    more = {"traceparent": theirs["traceparent"]} if "traceparent" in theirs else {}
    correlation = theirs.get("correlationid", cause.id)
    return Extensions(causationid=cause.id, correlationid=correlation, **more)


def settle(
    manifest: Manifest,
    origin: Origin,
    deliveries: Sequence[Delivery],
    result: Result,
    *,
    now: float,
    jitter: float,
    first: int = 0,
) -> Settlement:
    """The settlement of a call: of a batch's items each by its own outcome. `first`: how many
    outputs it has published already."""
    items = result.items
    outs: Sequence[Out]
    if items is None or len(items) != len(deliveries):
        if len(deliveries) == 1:
            (delivery,) = deliveries
            outs = result.outputs
            outcome, made = _one(manifest, origin, delivery, result, outs, now, jitter, first)
            return Settlement(delivery.subscription, (Settled(delivery, outcome),), tuple(made))
        items = [Item(result.status, [], result.failure, result.retry_after_s)] * len(deliveries)
    settled: list[Settled] = []
    outputs: list[Output] = []
    for index, (delivery, item) in enumerate(zip(deliveries, items, strict=True)):
        outs = item.outputs
        if index == 0 and result.outputs:
            outs = [*result.outputs, *outs]
        outcome, made = _one(manifest, origin, delivery, item, outs, now, jitter)
        settled.append(Settled(delivery, outcome))
        outputs.extend(made)
    return Settlement(deliveries[0].subscription, tuple(settled), tuple(outputs))


def _one(  # noqa: PLR0917
    manifest: Manifest,
    origin: Origin,
    delivery: Delivery,
    ended: Result | Item,
    outs: Sequence[Out],
    now: float,
    jitter: float,
    first: int = 0,
) -> tuple[Outcome, Sequence[Output]]:
    why = ended.failure
    if ended.status == "ok":
        if not outs:
            return DONE, ()
        hops = delivery.hops + 1
        try:
            made = shape(
                origin, delivery.event, outs,
                now=now, hops=hops, replay=delivery.replay, reply_to=delivery.reply_to, first=first,
            )  # fmt: skip
        except EventError as error:
            why = Failure("EventError", f"an output is refused: {error}")
        else:
            if not made or hops <= MAX_HOPS:
                return DONE, made
            return _dead(manifest, delivery, LOOP, now), ()
    why = why or Failure("Error", ended.status)
    if ended.status == "reject" or delivery.attempt >= manifest.retry.attempts:
        return _dead(manifest, delivery, why, now), ()
    wait = ended.retry_after_s
    if wait is None:
        wait = retry_wait_s(manifest, delivery.attempt, jitter)
    return Retry(max(wait, 0.0), f"{why.error}: {why.message}"[:1000]), ()


def _dead(manifest: Manifest, delivery: Delivery, why: Failure, now: float) -> Dead:
    reason = f"{why.error}: {why.message}"[:2000]
    if manifest.dlq is None:
        return Dead(reason, None)
    letter = dead_letter(
        delivery.event,
        delivery.subscription,
        reason,
        attempts=delivery.attempt,
        at=now,
        error=why.error,
        where=why.where,
        traceback=why.traceback,
        replay=delivery.replay,
    )
    return Dead(reason, Output(manifest.dlq.topic, letter))
