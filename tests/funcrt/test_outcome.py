"""What a result leads to: ids that a repeated call makes again, attempts, dead letters."""

from typing import Any

import msgspec

from funcrt.manifest import DlqSpec, Manifest, OutputSpec, RetrySpec
from funcrt.outcome import MAX_HOPS, origin_of, retry_wait_s, settle
from funcrt.sandbox.protocol import Failure, Item, Out, Result
from mesh import Event
from mesh.letters import DEAD_LETTER
from mesh.transport import Dead, Delivery, Done, Retry, Settlement

MANIFEST = Manifest(
    name="f",
    output=OutputSpec(topic="out"),
    retry=RetrySpec(attempts=3),
    dlq=DlqSpec(topic="f.dlq"),
)


def delivery(key: str = "1", **more: Any) -> Delivery:
    fields: dict[str, Any] = {
        "event": Event(key, "/s", "t"), "subscription": "f/t", "topic": "in", "position": key,
        "published_at": 0.0, "attempt": 1, "fence": 1, **more,
    }  # fmt: skip
    return Delivery(**fields)


def outs(count: int) -> list[Out]:
    return [Out(Event("", "", "", data=b"%d" % n)) for n in range(count)]


def settled(result: Result, *deliveries: Delivery, now: float = 1.0, **more: Any) -> Settlement:
    spec = msgspec.structs.replace(MANIFEST, **more)
    origin = origin_of(spec, "default", "t")
    return settle(spec, origin, deliveries or [delivery()], result, now=now, jitter=0.5)


def ids(settlement: Settlement) -> list[str]:
    return [output.event.id for output in settlement.outputs]


def test_a_repeated_call_makes_the_same_ids_again_and_no_other_does() -> None:
    first = settled(Result(1, "ok", outs(2)))
    again = settled(Result(9, "ok", outs(2)), delivery(attempt=2, fence=7), now=99.0)
    assert ids(first) == ids(again)
    others = [
        ids(settled(Result(1, "ok", outs(2)), delivery("2"))),
        ids(settled(Result(1, "ok", outs(2)), delivery(replay="r1"))),
        ids(settled(Result(1, "ok", outs(2)), name="g")),
    ]
    everything = [key for found in (ids(first), *others) for key in found]
    assert len(set(everything)) == 8


def test_attempts_end_in_a_dead_letter_with_the_reason() -> None:
    failed = Result(1, "error", [], Failure("ValueError", "no", "main.py:3 in handler"))
    for attempt in (1, 2):
        ((one,),) = [settled(failed, delivery(attempt=attempt)).settled]
        assert isinstance(one.outcome, Retry)
        assert one.outcome.charge
    (last,) = settled(failed, delivery(attempt=3)).settled
    assert isinstance(last.outcome, Dead)
    assert last.outcome.letter is not None
    assert last.outcome.letter.event.type == DEAD_LETTER
    assert last.outcome.letter.event.json()["reason"] == "ValueError: no"
    (dropped,) = settled(failed, delivery(attempt=3), dlq=None).settled
    assert dropped.outcome == Dead("ValueError: no", None)


def test_each_item_of_a_batch_has_an_end_of_its_own() -> None:
    items = [Item("ok", outs(1)), Item("error", [], Failure("E", "x")), Item("reject")]
    settlement = settled(Result(1, "ok", [], None, 1, None, items), *map(delivery, "abc"))
    kinds = [type(one.outcome) for one in settlement.settled]
    assert kinds == [Done, Retry, Dead]
    assert [output.event.extensions["causationid"] for output in settlement.outputs] == ["a"]


def test_a_loop_ends_in_a_dead_letter() -> None:
    (one,) = settled(Result(1, "ok", outs(1)), delivery(hops=MAX_HOPS)).settled
    assert isinstance(one.outcome, Dead)
    assert one.outcome.reason.startswith("Loop: ")
    (fine,) = settled(Result(1, "ok", outs(1)), delivery(hops=MAX_HOPS - 1)).settled
    assert isinstance(fine.outcome, Done)


def test_an_output_to_a_topic_that_is_not_declared_is_refused() -> None:
    (one,) = settled(Result(1, "ok", [Out(Event("", "", ""), "else")])).settled
    assert isinstance(one.outcome, Retry)
    assert "may not publish to 'else'" in one.outcome.error


def test_backoff_doubles_up_to_its_bound() -> None:
    waits = [retry_wait_s(MANIFEST, attempt, 0.999_999) for attempt in (1, 2, 3, 60)]
    assert [round(wait) for wait in waits] == [1, 2, 4, 300]
    assert retry_wait_s(MANIFEST, 60, 0.0) == 0.0
