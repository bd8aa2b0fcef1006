"""What a call's result leads to: settlements, outputs, retries, dead letters. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from funcrt.ids import cause as cause_of
from funcrt.ids import derived_id
from funcrt.manifest import Manifest
from funcrt.sandbox.protocol import Failure, Item, Out, Result
from mesh.codec import validate
from mesh.errors import EventError
from mesh.event import AttributeValue, Event
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

__all__ = ["MAX_HOPS", "retry_wait_s", "settle", "shape"]

MAX_HOPS = 16
MAX_OUTPUTS = 1000


@lru_cache(maxsize=8)
def _moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def retry_wait_s(manifest: Manifest, attempt: int, jitter: float) -> float:
    """Seconds until the next attempt: full jitter over an exponential (or constant) backoff;
    `jitter` in [0, 1). Source: AWS Architecture Blog, "Exponential Backoff And Jitter"."""
    retry = manifest.retry
    if retry.backoff == "constant":
        return retry.base_s
    return jitter * min(retry.max_s, retry.base_s * 2.0 ** min(attempt - 1, 40))


def shape(
    manifest: Manifest,
    namespace: str,
    trigger: str,
    cause: Event,
    outs: Sequence[Out],
    *,
    now: float,
    hops: int,
    replay: str = "",
    reply_to: str = "",
) -> list[Output]:
    """The outputs as events: named, timed, tied to their cause. An output without a topic is
    kept only for `reply_to`. Raises EventError for one that is no event or goes where it may not.
    """
    if len(outs) > MAX_OUTPUTS:
        raise EventError(f"{len(outs)} outputs of one call; at most {MAX_OUTPUTS}")
    spec = manifest.output
    scope = f"{namespace}\0{manifest.name}\0{trigger}"
    prefix = cause_of(scope, cause.source, cause.id, replay)
    moment = _moment(int(now * 1000))
    made = []
    for index, out in enumerate(outs):
        topic = out.topic or spec.topic or ""
        if out.topic and out.topic != spec.topic and out.topic not in spec.topics:
            raise EventError(f"may not publish to {out.topic!r}: add it to [output] topics")
        event = out.event
        extensions: dict[str, AttributeValue] = {"causationid": cause.id}
        extensions["correlationid"] = cause.extensions.get("correlationid", cause.id)
        if "traceparent" in cause.extensions:
            extensions["traceparent"] = cause.extensions["traceparent"]
        if event.extensions:
            extensions.update(event.extensions)
        event = Event(
            event.id if spec.keep_id and event.id else derived_id(f"{prefix}\0{index}"),
            event.source or f"/funcrt/{manifest.name}",
            event.type or spec.type or f"funcrt.{manifest.name}.result",
            event.subject if event.subject is not None else cause.subject,
            event.time or moment,
            event.datacontenttype,
            event.dataschema,
            extensions,
            event.data,
        )
        validate(event)
        if topic or reply_to:
            made.append(Output(topic, event, hops, reply_to))
    return made


def settle(
    manifest: Manifest,
    namespace: str,
    trigger: str,
    deliveries: Sequence[Delivery],
    result: Result,
    *,
    now: float,
    jitter: float,
) -> Settlement:
    """The settlement of a call: of a batch's items each by its own outcome."""
    items = result.items
    if items is not None and len(items) == len(deliveries):
        each = items
    else:
        each = [Item(result.status, [], result.failure, result.retry_after_s) for _ in deliveries]
    settled: list[Settled] = []
    outputs: list[Output] = []
    for index, (delivery, item) in enumerate(zip(deliveries, each, strict=True)):
        outs = item.outputs
        if index == 0 and result.outputs:
            outs = [*result.outputs, *outs]
        outcome, made = _one(manifest, namespace, trigger, delivery, item, outs, now, jitter)
        settled.append(Settled(delivery, outcome))
        outputs.extend(made)
    return Settlement(deliveries[0].subscription, tuple(settled), tuple(outputs))


def _one(  # noqa: PLR0917
    manifest: Manifest,
    namespace: str,
    trigger: str,
    delivery: Delivery,
    item: Item,
    outs: Sequence[Out],
    now: float,
    jitter: float,
) -> tuple[Outcome, list[Output]]:
    why = item.failure or Failure("Error", item.status)
    if item.status == "ok":
        hops = delivery.hops + 1
        try:
            made = shape(
                manifest, namespace, trigger, delivery.event, outs,
                now=now, hops=hops, replay=delivery.replay, reply_to=delivery.reply_to,
            ) if outs else []  # fmt: skip
        except EventError as error:
            why = Failure("EventError", f"an output is refused: {error}")
        else:
            if not made or hops <= MAX_HOPS:
                return Done(), made
            loop = Failure("Loop", f"the event has come through {MAX_HOPS} functions")
            return _dead(manifest, delivery, loop, now), []
    elif item.status == "reject":
        return _dead(manifest, delivery, why, now), []
    if delivery.attempt >= manifest.retry.attempts:
        return _dead(manifest, delivery, why, now), []
    wait = item.retry_after_s
    if wait is None:
        wait = retry_wait_s(manifest, delivery.attempt, jitter)
    return Retry(max(wait, 0.0), f"{why.error}: {why.message}"[:1000]), []


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
