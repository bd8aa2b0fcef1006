"""What happened in a simulated run, and whether it was as promised (I1 to I8 of the guarantees)."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from funcrt.manifest import Manifest, MeshTrigger
from mesh import Event
from mesh.options import Options

__all__ = ["History", "judge"]

WINDOW_S = Options().dedupe_s


class History:
    """One run, as seen from outside the host."""

    def __init__(self) -> None:
        self.stored: dict[str, Event] = {}
        self.unknown: dict[str, Event] = {}
        self.order: list[str] = []
        self.calls: list[tuple[str, str, str, bool, float]] = []
        """(function, event id, key, starts, when)."""
        self.hangs: Counter[str] = Counter()
        """Function -> calls that outlived their timeout."""
        self.falls: list[float] = []
        self.faults: list[Any] = []
        self.topics: dict[str, list[Any]] = {}
        self.violations: list[str] = []
        self.torn = 0
        self.recalled = 0
        """Calls that were taken back from instances that had not begun them."""
        self.ended_at = 0.0

    def published(self, event: Event, status: str, now: float) -> None:
        if status == "stored":
            if event.id not in self.stored:
                self.order.append(event.id)
            self.stored[event.id] = event
            self.unknown.pop(event.id, None)
        elif event.id not in self.stored:
            self.unknown[event.id] = event

    def called(self, function: str, event: Event, starts: bool, now: float) -> None:
        key = str(event.extensions.get("partitionkey", ""))
        self.calls.append((function, event.id, key, starts, now))

    def hung(self, function: str) -> None:
        self.hangs[function] += 1

    def fell(self, now: float) -> None:
        self.falls.append(now)
        self.calls.append(("", "", "", False, now))

    def failed(self, error: BaseException) -> None:
        self.violations.append(f"the host failed: {error!r}")

    async def read(self, transport: Any, functions: Sequence[Manifest]) -> None:
        names = {"in", *(f.output.topic for f in functions), *(f"{f.name}.dlq" for f in functions)}
        for name in sorted(str(name) for name in names):
            self.topics[name] = await transport.read(name, "earliest", 1_000_000)

    def digest(self) -> str:
        """Of everything that happened: two runs of one seed must agree."""
        state = hashlib.sha256(repr((self.calls, self.falls, sorted(self.stored))).encode())
        for name, items in self.topics.items():
            state.update(
                repr((name, [(i.event.id, i.position, i.published_at) for i in items])).encode()
            )
        return state.hexdigest()[:16]


def judge(history: History, functions: Sequence[Manifest]) -> None:
    """Add what was not as promised to the history's violations."""
    _log(history, history.topics.get("in", ()))
    for spec in functions:
        (trigger,) = spec.triggers
        assert isinstance(trigger, MeshTrigger)
        source = [item.event for item in history.topics.get(trigger.topic, ())]
        wanted = [e for e in source if not trigger.filters or e.type.startswith("a.")]
        _ends(history, spec, wanted)
        if trigger.order == "key":
            _order(history, spec, wanted)
    _attempts(history, functions)


def _log(history: History, inside: Sequence[Any]) -> None:
    """What was confirmed is in the log, once within the deduplication window; what is there was
    published."""
    times: dict[str, list[float]] = defaultdict(list)
    for item in inside:
        times[item.event.id].append(item.published_at)
    for key in history.stored:
        if key not in times:
            history.violations.append(f"G1: {key} was confirmed and is not in the log")
    for key, stored in times.items():
        if any(later - at <= WINDOW_S for at, later in pairwise(stored)):
            history.violations.append(f"I3: {key} is in the log {len(stored)} times")
        if key not in history.stored and key not in history.unknown:
            history.violations.append(f"I2: {key} is in the log and was never published")


def _ends(history: History, spec: Manifest, wanted: Sequence[Event]) -> None:
    """Each event has one end, an output or a dead letter. One that is in the log again, after the
    window, may have another."""
    times = Counter(event.id for event in wanted)
    done = Counter(
        str(item.event.extensions["causationid"])
        for item in history.topics.get(str(spec.output.topic), ())
    )
    dead = Counter(
        item.event.json()["event"]["id"] for item in history.topics.get(f"{spec.name}.dlq", ())
    )
    for event in wanted:
        ends = done[event.id] + dead[event.id]
        if not 1 <= ends <= times[event.id]:
            what = f"{done[event.id]} outputs and {dead[event.id]} dead letters"
            history.violations.append(f"I1: {spec.name} {event.id} has {what}")
    extra = (set(done) | set(dead)) - {event.id for event in wanted}
    if extra:
        history.violations.append(f"I2: {spec.name} has ends of {sorted(extra)[:5]}")


def _order(history: History, spec: Manifest, wanted: Sequence[Event]) -> None:
    """Calls of one key do not overlap, and its outputs come in the order of publishing."""
    place = {event.id: index for index, event in enumerate(wanted)}
    keys = {event.id: str(event.extensions["partitionkey"]) for event in wanted}
    last: dict[str, int] = defaultdict(lambda: -1)
    for item in history.topics.get(str(spec.output.topic), ()):
        cause = str(item.event.extensions["causationid"])
        at, key = place.get(cause, -1), keys.get(cause, "")
        if at < last[key]:
            history.violations.append(f"I5: {spec.name} {cause} came after a later one of {key}")
        last[key] = at


def _attempts(history: History, functions: Sequence[Manifest]) -> None:
    """No event is tried more often than allowed, but for what a host's end cut short, and for what
    ran beside a call that hung (I6)."""
    stops = sum(fault.kind == "stop" for fault in history.faults)
    most = {spec.name: spec.retry.attempts for spec in functions}
    for spec in functions:
        if (spec.concurrency or 1) > 1:
            most[spec.name] += history.hangs[spec.name] + stops
    starts = Counter(
        (function, key) for function, key, _, begins, _ in history.calls if begins and key
    )
    cut = len(history.falls) + sum(fault.kind in ("freeze", "deploy") for fault in history.faults)
    for (function, key), count in starts.items():
        if function != "batch" and count > most[function] + cut:
            history.violations.append(f"I6: {function} tried {key} {count} times")
