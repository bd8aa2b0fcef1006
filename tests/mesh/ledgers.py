"""Histories for the tests of the ledger: a tiny system that keeps every promise, and chance."""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from mesh.ledger.entries import (
    Called,
    Dead,
    Entry,
    Fault,
    Output,
    Published,
    Replayed,
    Returned,
    Sampled,
    StateSeen,
)
from mesh.ledger.expectations import Counter, Expectations, Expected

NAME = "add/in"
ATTEMPTS = 3
WAYS = ["ok", "fail", "dies", "host", "host-late"]


def rules(**changed: Any) -> Expectations:
    one = {
        "subscription": NAME, "topic": "in", "outputs": {"out": 1}, "max_attempts": ATTEMPTS,
        "order": "key",
    }  # fmt: skip
    whole = {
        "counters": (Counter(scope="add", subscription=NAME, key="n"),),
        "max_rss": 300 << 20,
        "max_fds": 500,
        "drain_s": 20.0,
    }
    for name, value in changed.items():
        (one if name in Expected.__struct_fields__ else whole)[name] = value
    return Expectations(subscriptions=(Expected(**one),), **whole)  # type: ignore[arg-type]


class Reference:
    """One function with `order = "key"` on one topic, one event after another, and its faults."""

    def __init__(self, chance: random.Random, *, atomic: bool = True, keys: int = 3) -> None:
        self.chance = chance
        self.atomic = atomic
        self.keys = keys
        self.now = 0.0
        self.seen: list[Entry] = []
        self.settled = 0
        self.offset = 0
        self.instances = 0

    def tick(self, seconds: float = 0.001) -> float:
        self.now += seconds * self.chance.uniform(0.5, 1.5)
        return self.now

    def run(self, events: int) -> list[Entry]:
        stored = [n for n in range(events) if self.publish(n)]
        for n in stored:
            self.end(n, "")
            if self.chance.random() < 0.1:
                self.replay(n)
        self.seen.append(StateSeen("add", "n", self.settled, self.tick()))
        self.seen.append(Sampled(self.tick(), "host", 80 << 20, 60, 0))
        return self.seen

    def publish(self, n: int) -> bool:
        """Publish until it is known what became of it, or until the publisher gives up."""
        stored = False
        for _ in range(20):
            self._publish(n, "sent")
            outcome = self.chance.choice(["ok", "ok", "ok", "unknown", "refused", "lost"])
            stored |= outcome in ("ok", "unknown") and (
                outcome == "ok" or self.chance.random() < 0.5
            )
            if outcome != "lost":
                self._publish(n, outcome)
            if outcome == "ok" or self.chance.random() < 0.3:
                break
        return stored

    def _publish(self, n: int, outcome: Any) -> None:
        at, key = self.tick(), f"k{n % self.keys}"
        self.seen.append(Published("in", "/s", f"e{n}", outcome, at, key))

    def end(self, n: int, replay: str) -> None:
        """Attempts until one succeeds or all are used; the host may die at each."""
        attempt = 1
        while True:
            instance = f"i{self.instances}"
            start, key = self.tick(), f"k{n % self.keys}"
            self.seen.append(Called(NAME, "/s", f"e{n}", start, attempt, instance, key))
            (what,) = self.chance.choices(WAYS, [6, 2, 1, 1, 1])
            if what in ("ok", "host-late"):
                self.seen.append(Returned(NAME, "/s", f"e{n}", self.tick(), instance))
            if what == "fail":
                self.seen.append(Returned(NAME, "/s", f"e{n}", self.tick(), instance, "fail"))
            if what in ("host", "host-late"):
                if what == "host-late" and not self.atomic:
                    self.output(n, replay)
                self.seen.append(Fault("host-kill", self.tick()))
                self.instances += 1
                continue
            if what == "dies":
                self.seen.append(Fault("instance-kill", self.tick(), instance))
                self.instances += 1
            if what == "ok":
                self.output(n, replay)
                self.settled += 1
                return
            if attempt == ATTEMPTS:
                letter = f"letter {n} {replay}"
                self.seen.append(Dead(NAME, "/s", f"e{n}", attempt, "ValueError", letter))
                return
            attempt += 1

    def output(self, n: int, replay: str) -> None:
        self.seen.append(Output("out", "/add", f"out {n} {replay}", f"e{n}", "/s", seq=self.offset))
        self.offset += 1

    def replay(self, n: int) -> None:
        name = f"replay {n}"
        self.seen.append(Replayed(NAME, name, "unknown", self.tick(), "/s", f"e{n}"))
        self.seen.append(Replayed(NAME, name, "ok", self.tick(), "/s", f"e{n}"))
        self.end(n, name)
        if self.chance.random() < 0.5:  # again, under the same id
            self.seen.append(Replayed(NAME, name, "ok", self.tick(), "/s", f"e{n}"))


History = list[Entry]
Mutation = Callable[[History, random.Random], tuple[str, History] | None]
"""The invariant that it breaks and what is then seen; None where nothing there can be broken so."""


def _of(seen: History, *kinds: type) -> list[Any]:
    return [entry for entry in seen if isinstance(entry, kinds)]


def _stored(seen: History) -> set[str]:
    return {entry.id for entry in _of(seen, Published) if entry.outcome == "ok"}


def _known(seen: History) -> set[str]:
    """Stored and never replayed."""
    return _stored(seen) - {entry.id for entry in _of(seen, Replayed)}


def _event(entry: Any) -> str:
    return str(entry.cause_id if isinstance(entry, Output) else entry.id)


def lose(seen: History, chance: random.Random) -> tuple[str, History] | None:
    ends = [entry for entry in _of(seen, Output, Dead) if _event(entry) in _stored(seen)]
    if not ends:
        return None
    lost = chance.choice(ends)
    return "I1", [entry for entry in seen if entry is not lost]


def _repeat(entry: Any, seen: History) -> tuple[str, History]:
    replayed = _event(entry) in {each.id for each in _of(seen, Replayed)}
    broken = "I10" if replayed else "I1" if isinstance(entry, Dead) else "I3"
    return broken, [*seen, entry]


def double(seen: History, chance: random.Random) -> tuple[str, History] | None:
    ends = _of(seen, Output, Dead)
    return _repeat(chance.choice(ends), seen) if ends else None


def double_under_another_id(seen: History, chance: random.Random) -> tuple[str, History] | None:
    ends = _of(seen, Output)
    if not ends:
        return None
    return _repeat(msgspec.structs.replace(chance.choice(ends), id="random"), seen)


def bury_what_lives(seen: History, chance: random.Random) -> tuple[str, History] | None:
    ends = [entry for entry in _of(seen, Output) if _event(entry) in _known(seen)]
    if not ends:
        return None
    return "I1", [*seen, Dead(NAME, "/s", chance.choice(ends).cause_id, ATTEMPTS)]


def refuse_what_ended(seen: History, chance: random.Random) -> tuple[str, History] | None:
    ends = _of(seen, Output, Dead)
    if not ends:
        return None
    id = _event(chance.choice(ends))
    return "I2", [
        msgspec.structs.replace(entry, outcome="refused")
        if isinstance(entry, Published) and entry.id == id and entry.outcome != "sent"
        else entry
        for entry in seen
        if not (isinstance(entry, Published) and entry.id == id and entry.outcome == "sent")
    ]


def invent(seen: History, chance: random.Random) -> tuple[str, History] | None:
    return "I2", [*seen, Output("out", "/add", "invented", "nobody", "/s")]


def miscount(seen: History, chance: random.Random) -> tuple[str, History] | None:
    by = chance.choice((-1, 1))
    return "I4", [
        msgspec.structs.replace(entry, value=entry.value + by)
        if isinstance(entry, StateSeen)
        else entry
        for entry in seen
    ]


def swap_outputs(seen: History, chance: random.Random) -> tuple[str, History] | None:
    known = _known(seen)
    keys = {entry.id: entry.key for entry in _of(seen, Published)}
    outputs = [entry for entry in _of(seen, Output) if entry.cause_id in known]
    pairs = [
        (one, two)
        for n, one in enumerate(outputs)
        for two in outputs[n + 1 :]
        if keys[one.cause_id] == keys[two.cause_id]
    ]
    if not pairs:
        return None
    one, two = chance.choice(pairs)
    return "I5", [
        msgspec.structs.replace(entry, seq=two.seq if entry is one else one.seq)
        if entry is one or entry is two
        else entry
        for entry in seen
    ]


def overlap(seen: History, chance: random.Random) -> tuple[str, History] | None:
    kills = [fault.at for fault in _of(seen, Fault) if fault.kind == "host-kill"]
    made = []
    ends = {(entry.id, entry.instance): entry for entry in _of(seen, Returned)}
    for call in _of(seen, Called):
        end = ends.get((call.id, call.instance))
        for other in _of(seen, Called):
            late = other.at + 0.0001
            if end is None or other.key != call.key or other.at <= end.at or other.id == call.id:
                continue
            again = [c for c in _of(seen, Called) if (c.id, c.instance) == (call.id, call.instance)]
            if len(again) == 1 and not any(call.at <= at <= late for at in kills):
                made.append((end, late))
    if not made:
        return None
    end, late = chance.choice(made)
    return "I5", [
        msgspec.structs.replace(entry, at=late) if entry is end else entry for entry in seen
    ]


def call_too_often(seen: History, chance: random.Random) -> tuple[str, History] | None:
    calls = [entry for entry in _of(seen, Called) if entry.id in _known(seen)]
    if not calls:
        return None
    call = chance.choice(calls)
    more = ATTEMPTS + len(_of(seen, Fault))
    return "I6", [*seen, *[call] * more]


def count_beyond(seen: History, chance: random.Random) -> tuple[str, History] | None:
    calls = _of(seen, Called)
    if not calls:
        return None
    call = chance.choice(calls)
    return "I6", [*seen, msgspec.structs.replace(call, attempt=ATTEMPTS + 1)]


def grow(seen: History, chance: random.Random) -> tuple[str, History] | None:
    at = chance.uniform(0, 1)
    return "I7", [*seen, chance.choice([Sampled(at, rss=301 << 20), Sampled(at, fds=501)])]


def hang(seen: History, chance: random.Random) -> tuple[str, History] | None:
    return "I8", [
        msgspec.structs.replace(entry, depth=chance.randint(1, 9))
        if isinstance(entry, Sampled)
        else entry
        for entry in seen
    ]


MUTATIONS: dict[str, Mutation] = {
    each.__name__: each
    for each in (
        lose, double, double_under_another_id, bury_what_lives, refuse_what_ended, invent,
        miscount, swap_outputs, overlap, call_too_often, count_beyond, grow, hang,
    )
}  # fmt: skip
