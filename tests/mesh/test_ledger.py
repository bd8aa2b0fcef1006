"""The judge names each planted violation and nothing else; whoever keeps the rules is clean."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ledger.book import CauseAmbiguous
from mesh.ledger.entries import (
    Called,
    Dead,
    Entry,
    Fault,
    FlowEnded,
    Output,
    Published,
    Replayed,
    Returned,
    Sampled,
    Settled,
    StateSeen,
    Step,
)
from mesh.ledger.expectations import Expectations, Expected
from mesh.ledger.judge import judge
from mesh.ledger.violation import Violation
from tests.mesh.ledgers import ATTEMPTS, MUTATIONS, NAME, Reference, rules

History = list[Entry]
ID = ("/s", "e1")


def published(n: int, outcome: Any = "ok", at: float | None = None) -> Published:
    return Published("in", "/s", f"e{n}", outcome, n if at is None else at, f"k{n % 2}", seq=n)


def called(n: int, at: float, *, attempt: int = 1, instance: str = "i") -> Called:
    return Called(NAME, "/s", f"e{n}", at, attempt, instance, f"k{n % 2}")


def returned(n: int, at: float, instance: str = "i") -> Returned:
    return Returned(NAME, "/s", f"e{n}", at, instance)


def output(n: int, id: str = "", seq: int = -1) -> Output:
    return Output("out", "/add", id or f"out{n}", f"e{n}", "/s", seq=n if seq < 0 else seq)


def dead(n: int, attempts: int = ATTEMPTS) -> Dead:
    return Dead(NAME, "/s", f"e{n}", attempts, "ValueError: no", f"letter{n}")


def base() -> History:
    """Ten events; the fourth died of it, all others came through; then all is quiet."""
    seen: History = [published(n) for n in range(10)]
    for n in range(10):
        start = 20.0 + n
        if n == 3:
            seen += [called(n, start + a / 10, attempt=a) for a in (1, 2, 3)]
            seen += [dead(n)]
        else:
            seen += [called(n, start), returned(n, start + 0.5), output(n)]
    return [*seen, StateSeen("add", "n", 9, 40), Sampled(40.0, "host", 80 << 20, 60, 0)]


def without(*kinds: type, n: int) -> Callable[[History], History]:
    def change(seen: History) -> History:
        def stays(entry: Any) -> bool:
            if not isinstance(entry, kinds):
                return True
            return (entry.cause_id if isinstance(entry, Output) else entry.id) != f"e{n}"

        return [entry for entry in seen if stays(entry)]

    return change


def plus(*entries: Entry) -> Callable[[History], History]:
    return lambda seen: [*seen, *entries]


def swap(old: type, new: Entry) -> Callable[[History], History]:
    return lambda seen: [new if isinstance(entry, old) else entry for entry in seen]


def both(*changes: Callable[[History], History]) -> Callable[[History], History]:
    def change(seen: History) -> History:
        for each in changes:
            seen = each(seen)
        return seen

    return change


def names(found: list[Violation]) -> list[str]:
    return [each.invariant for each in found]


def counted(n: int) -> Callable[[History], History]:
    return swap(StateSeen, StateSeen("add", "n", n, 40))


def order_of_outputs(first: int, second: int) -> Callable[[History], History]:
    """Both outputs change places in the log."""
    return both(
        without(Output, n=first), without(Output, n=second),
        plus(output(first, seq=second), output(second, seq=first)),
    )  # fmt: skip


LOGGED = [Output("log", "/add", f"log{n}", f"e{n}", "/s", seq=n) for n in range(10) if n != 3]
FAULTS = {
    "lost": ("I1", both(without(Called, Returned, Output, n=5), counted(8)), {}),
    "called, and its output is lost": ("I1", both(without(Output, n=5), counted(8)), {}),
    "dead letter lost": ("I1", without(Dead, n=3), {}),
    "two dead letters": ("I1", plus(dead(3)), {}),
    "an output and a dead letter": ("I1", plus(output(3), StateSeen("add", "n", 10, 41)), {}),
    "filtered, though it matches": (
        "I1",
        both(without(Called, Returned, Output, n=5), plus(Settled(NAME, "/s", "e5", "filtered")),
             counted(8)),
        {},
    ),
    "settled twice": ("I1", plus(*[Settled(NAME, "/s", "e5", "done")] * 2), {}),
    "poison came through": ("I1", lambda seen: seen, {"dies": frozenset({("/s", "e5")})}),
    "an unknown dead letter and its output": (
        "I1",
        both(without(Published, n=3), plus(published(3, "unknown"), output(3)), counted(10)),
        {},
    ),
    "output of what was refused": (
        "I2",
        both(without(Published, n=5), plus(published(5, "sent"), published(5, "refused"))), {},
    ),
    "output of what was never published": (
        "I2", plus(output(77), StateSeen("add", "n", 10, 41)), {},
    ),
    "call of what was never published": ("I2", plus(called(77, 30.0)), {}),
    "dead letter of what does not match": (
        "I2", lambda seen: seen,
        {"only": frozenset(("/s", f"e{n}") for n in range(10) if n != 3)},
    ),
    "died after an output, not atomic, with no fault between": (
        "I1", plus(output(3), Fault("host-kill", 10.0)), {"atomic_settle": False},
    ),
    "output without a cause": ("I2", plus(Output("out", "/add", "stray", "")), {}),
    "another subscription's dead letter": ("I2", plus(Dead("other/in", "/s", "e1")), {}),
    "output twice, same id": ("I3", plus(output(5)), {}),
    "output twice, another id": ("I3", plus(output(5, "random")), {}),
    "another id, where settling is not atomic": (
        "I3", plus(output(5, "random")), {"atomic_settle": False},
    ),
    "an unknown event's output twice": (
        "I3",
        both(without(Published, n=5), plus(published(5, "unknown"), output(5, "random"))), {},
    ),
    "one of two outputs": ("I3", plus(*LOGGED[1:]), {"outputs": {"out": 1, "log": 1}}),
    "one id for two inputs' outputs": (
        "I3", both(without(Output, n=5), plus(output(5, "out4"))), {},
    ),
    "counter one short": ("I4", counted(8), {}),
    "counter one over": ("I4", counted(10), {}),
    "counter never written": ("I4", swap(StateSeen, Fault("other", 1.0)), {}),
    "counter short, not atomic": ("I4", counted(8), {"atomic_settle": False}),
    "outputs out of order": ("I5", order_of_outputs(5, 7), {}),
    "calls out of order": ("I5", both(
        without(Called, Returned, n=5), plus(called(5, 28.0), returned(5, 28.5))), {}),
    "calls of a key overlap": (
        "I5", both(without(Returned, n=5), plus(returned(5, 27.2))), {},
    ),
    "a retry overlaps the call before": (
        "I5", plus(called(5, 25.2, attempt=2, instance="j"), returned(5, 25.9, "j")), {},
    ),
    "called once too often": ("I6", plus(called(3, 23.4, attempt=3)), {}),
    "called too often, the kill was before": (
        "I6", plus(called(3, 23.4, attempt=3), Fault("host-kill", 10.0)), {},
    ),
    "an instance's death excuses nothing": (
        "I6", plus(called(3, 23.4, attempt=3), Fault("instance-kill", 23.15)), {},
    ),
    "one result lost, and two calls too many": (
        "I6", plus(returned(3, 23.15), *[called(3, 23.4, attempt=3)] * 2), {},
    ),
    "the result that came through excuses nothing": (
        "I6", plus(*[called(5, 24.0 + n / 10, attempt=3) for n in range(3)]), {},
    ),
    "an attempt above the maximum": ("I6", plus(called(5, 25.6, attempt=4)), {}),
    "dead after too many": ("I6", both(without(Dead, n=3), plus(dead(3, 4))), {}),
    "poison died early": (
        "I6", both(without(Dead, n=3), plus(dead(3, 2))), {"dies": frozenset({("/s", "e3")})},
    ),
    "memory": ("I7", plus(Sampled(30.0, "host", 301 << 20, 60)), {}),
    "open files": ("I7", plus(Sampled(30.0, "host", 80 << 20, 501)), {}),
    "memory nobody looked at": ("I7", swap(Sampled, Sampled(40.0, "host", -1, 60, 0)), {}),
    "never drains": ("I8", swap(Sampled, Sampled(40.0, "host", 1, 60, 4)), {}),
    "drains too late": ("I8", swap(Sampled, Sampled(40.0, "host", 1, 60, 0)), {"drain_s": 10.0}),
    "nobody looked at the backlog": ("I8", swap(Sampled, Sampled(40.0, "host", 1, 60)), {}),
    "empty, then not": ("I8", plus(Sampled(41.0, "host", 1, 60, 2)), {}),
    "a replay made again has effects again": (
        "I10",
        plus(*[Replayed(NAME, "r", "ok", 50, "/s", "e5")] * 2, output(5, "r1", 20),
             output(5, "r2", 21), Sampled(51.0, "host", 1, 1, 0), StateSeen("add", "n", 11, 52)),
        {},
    ),
    "a replay that was lost": (
        "I1", plus(Replayed(NAME, "r", "ok", 50, "/s", "e5"), Sampled(51.0, "host", 1, 1, 0)), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_violation_is_named_and_nothing_else(name: str) -> None:
    invariant, change, changed = FAULTS[name]
    seen = change(base())
    expected = rules(**changed)
    found = judge(seen, expected)
    assert names(found) == [invariant], "\n".join(map(str, found))
    shuffled = random.Random(1).sample(seen, len(seen))
    if invariant != "I5":  # the order of outputs without `seq` is the order of entries
        assert judge(shuffled, expected) == found
    assert str(found[0]).startswith(f"{invariant} ")


CLEAN = {
    "nothing happened": (lambda seen: [StateSeen("add", "n", 0), seen[-1]], {}),
    "base": (lambda seen: seen, {}),
    "unknown, and it came through": (
        both(without(Published, n=5), plus(published(5, "sent"), published(5, "unknown"))), {},
    ),
    "unknown, and it did not": (
        both(without(Published, Called, Returned, Output, n=5), plus(published(5, "sent")),
             counted(8)),
        {},
    ),
    "refused once, the try before is unknown": (
        both(without(Published, n=5), plus(*[published(5, "sent", 5.0)] * 2,
                                           published(5, "refused", 5.1))),
        {},
    ),
    "refused, and it did not": (
        both(without(Published, Called, Returned, Output, n=5), plus(published(5, "refused")),
             counted(8)),
        {},
    ),
    "published a thousand times": (plus(*[published(5)] * 1000), {}),
    "published again after the window": (
        plus(published(5, at=5000.0), output(5, "again"), StateSeen("add", "n", 10, 5009),
             Sampled(5010.0, "host", 1, 1, 0)), {},
    ),
    "published again where nothing dedupes": (
        plus(published(5), output(5, "again"), StateSeen("add", "n", 10, 50)), {"dedupe_s": 0.0},
    ),
    "the same output twice, not atomic": (
        plus(output(5), dead(3), StateSeen("add", "n", 12, 50)), {"atomic_settle": False},
    ),
    "a call more, for a kill of the host": (
        plus(called(3, 23.4, attempt=3), Fault("host-kill", 23.35)), {},
    ),
    "a call more, for a result that went down with its instance": (
        plus(returned(3, 23.15), called(3, 23.4, attempt=3), Fault("instance-kill", 23.17)), {},
    ),
    "a call that a kill left behind overlaps": (
        both(without(Returned, n=5), plus(returned(5, 27.2), Fault("host-kill", 25.1))), {},
    ),
    "a stopped instance goes on later": (
        both(plus(called(5, 26.0, attempt=2, instance="j"), returned(5, 26.1, "j")),
             without(Returned, n=5),
             plus(returned(5, 28.1), returned(5, 26.1, "j"), Fault("resume", 28.0))), {},
    ),
    "the end of a call is not known": (without(Returned, n=5), {}),
    "no order between publishers side by side": (
        both(order_of_outputs(5, 7), without(Published, n=5), without(Published, n=7),
             plus(*[Published("in", "/s", id, "ok", at, "k1") for id in ("e5", "e7")
                    for at in (5.0, 7.0)])),
        {},
    ),
    "a replay, made twice under one id": (
        plus(*[Replayed(NAME, "r", "ok", 50, "/s", "e5")] * 2, output(5, "r1", 20),
             Sampled(51.0, "host", 1, 1, 0), StateSeen("add", "n", 10, 52)),
        {},
    ),
    "a dead letter was redriven": (
        plus(Replayed(NAME, "r", "ok", 50, "/s", "e3"), output(3, seq=20),
             Sampled(51.0, "host", 1, 1, 0), StateSeen("add", "n", 10, 52)),
        {},
    ),
    "all was replayed": (
        plus(Replayed(NAME, "r", "ok", 50), *[output(n, f"r{n}", 20 + n) for n in range(10)],
             Sampled(51.0, "host", 1, 1, 0), StateSeen("add", "n", 19, 52)),
        {},
    ),
    "a replay that nobody knows of": (
        plus(Replayed(NAME, "r", "unknown", 50, "/s", "e5"), Sampled(51.0, "host", 1, 1, 0)), {},
    ),
    "died after an output, torn by a kill, not atomic": (
        plus(output(3), Fault("host-kill", 23.15)), {"atomic_settle": False},
    ),
    "poison": (lambda seen: seen, {"dies": frozenset({("/s", "e3")})}),
    "dropped": (without(Dead, n=3), {"drops": True}),
    "no outputs, calls stand for the end": (
        both(lambda seen: [e for e in seen if not isinstance(e, Output)], plus(called(5, 25.6))),
        {"outputs": {}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_a_history_that_keeps_its_promises_has_no_violation(name: str) -> None:
    change, changed = CLEAN[name]
    assert list(map(str, judge(change(base()), rules(**changed)))) == []


@given(st.integers(0, 1 << 32), st.integers(0, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_system_that_keeps_the_rules_is_clean(seed: int, events: int, atomic: bool) -> None:
    seen = Reference(random.Random(seed), atomic=atomic).run(events)
    expected = rules(atomic_settle=atomic, grace_s=0.0)
    assert list(map(str, judge(seen, expected))) == []


@pytest.mark.parametrize("kind", MUTATIONS)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_one_broken_rule_is_always_found(kind: str, seed: int) -> None:
    chance = random.Random(seed)
    seen = Reference(chance).run(40)
    broken = MUTATIONS[kind](seen, chance)
    if broken is not None:
        invariant, history = broken
        assert invariant in names(judge(history, rules(grace_s=0.0)))


def test_every_mutation_applies_to_most_histories() -> None:
    for kind, mutate in MUTATIONS.items():
        made = [mutate(Reference(random.Random(n)).run(40), random.Random(n)) for n in range(20)]
        assert sum(each is not None for each in made) >= 10, kind


FLOW = [Step("f", f"s{n}", "completed", n) for n in range(3)]
UNDONE = [Step("f", f"s{n}", "compensated", 10 - n) for n in range(3)]


@pytest.mark.parametrize(
    ("steps", "end", "kept"),
    [
        (FLOW, "completed", True),
        (FLOW + UNDONE, "compensated", True),
        (
            [*FLOW, Step("f", "mail", "completed", 4, compensable=False), *UNDONE],
            "compensated",
            True,
        ),
        (FLOW + UNDONE[1:], "compensated", False),
        (FLOW + UNDONE[:1], "completed", False),
        ([*FLOW, *UNDONE, UNDONE[0]], "compensated", False),
        (
            FLOW + [Step("f", f"s{n}", "compensated", 10 + n) for n in range(3)],
            "compensated",
            False,
        ),
        ([*FLOW[:2], *UNDONE], "compensated", False),
        (FLOW, "", False),
    ],
)
def test_flows_stand_or_are_compensated(steps: list[Entry], end: Any, kept: bool) -> None:
    seen = [*steps, FlowEnded("f", end)] if end else steps
    found = judge(seen, Expectations(subscriptions=()))
    assert names(found) == ([] if kept else ["I9"])


def test_an_output_is_the_next_function_s_input() -> None:
    one, two = (
        Expected(subscription="one/in", topic="in", outputs={"mid": 1}),
        Expected(subscription="two/mid", topic="mid", outputs={"out": 1}),
    )
    expected = Expectations(subscriptions=(one, two))
    seen: History = [
        Published("in", "/s", "a", "ok"),
        Output("mid", "/one", "b", "a"),
        Output("out", "/two", "c", "b"),
    ]
    assert judge(seen, expected) == []
    (lost,) = judge(seen[:2], expected)
    assert (lost.invariant, lost.subject, lost.events) == ("I1", "two/mid", ("/one b",))


def test_a_predicate_says_what_matches_and_what_comes_out() -> None:
    def matches(subscription: str, event: Published) -> bool | None:
        return {"e1": True, "e2": False}.get(event.id)

    def outputs_of(subscription: str, source: str, id: str) -> dict[str, int]:
        return {"out": 2}

    seen: History = [Published("in", "/s", f"e{n}", "ok") for n in range(5)]
    seen += [output(1), output(1, "other")]
    assert judge(seen, rules(counters=(), max_rss=0, max_fds=0, drain_s=None),
                 matches=matches, outputs_of=outputs_of) == []  # fmt: skip
    seen += [output(2), output(2, "another")]
    found = judge(seen, rules(counters=(), max_rss=0, max_fds=0, drain_s=None),
                  matches=matches, outputs_of=outputs_of)  # fmt: skip
    assert [(each.invariant, each.events) for each in found] == [("I2", ("/s e2",))]


def test_events_of_one_id_need_the_source_of_the_cause() -> None:
    seen: History = [Published("in", source, "e1", "ok", key=source) for source in ("/a", "/b")]
    plain = rules(counters=(), max_rss=0, max_fds=0, drain_s=None)
    exact = [Output("out", "/add", f"out{s}", "e1", s) for s in ("/a", "/b")]
    assert judge(seen + exact, plain) == []
    vague = [Output("out", "/add", "outa", "e1")]
    for history in (seen + vague, vague + seen):
        with pytest.raises(CauseAmbiguous):
            judge(history, plain)


def test_many_violations_are_counted_not_kept() -> None:
    seen: History = [published(n) for n in range(500)]
    found = judge(seen, rules(counters=(), max_rss=0, max_fds=0, drain_s=None), most=10)
    assert names(found) == ["I1"] * 11
    assert found[-1].seen == "490 violations more"


def test_a_hundred_thousand_events_are_judged_in_seconds() -> None:
    def history(count: int) -> Iterator[Entry]:
        for n in range(count):
            yield Published("in", "/s", f"e{n}", "sent", n, f"k{n % 99}")
            yield Published("in", "/s", f"e{n}", "ok", n + 0.5, f"k{n % 99}")
            yield Called(NAME, "/s", f"e{n}", n + 0.6, 1, "i", f"k{n % 99}")
            yield Returned(NAME, "/s", f"e{n}", n + 0.7, "i")
            yield Output("out", "/add", f"out{n}", f"e{n}", "/s")

    plain = rules(counters=(), max_rss=0, max_fds=0, drain_s=None)
    started = time.process_time()
    assert judge(history(100_000), plain) == []
    assert time.process_time() - started < 6
