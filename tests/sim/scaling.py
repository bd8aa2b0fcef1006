"""Scaling policies over traces, in virtual time: `python -m tests.sim.scaling` prints the table.

One queue, first come first served, instances that run one event at a time and take half a second to
start. All policies see the same arrivals and the same service times.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.sim.policies import POLICIES, Seen

COLD_S = 0.5


@dataclass(frozen=True)
class Trace:
    """When events arrive, how long each runs, and when looking ends."""

    name: str
    arrivals: list[float]
    service: list[float]
    until: float


@dataclass(frozen=True)
class Outcome:
    """What a policy did with a trace."""

    trace: str
    policy: str
    p50_s: float
    p99_s: float
    cost: float
    """Instance-seconds over seconds of work."""
    reversals: int
    """Changes of direction of the wanted count."""


def _poisson(rate: Callable[[float], float], most: float, end: float, seed: int) -> list[float]:
    """Arrivals of a varying rate, by thinning (Lewis and Shedler 1979)."""
    chance, now, found = random.Random(seed), 0.0, []
    while (now := now + chance.expovariate(most)) < end:
        if chance.random() < rate(now) / most:
            found.append(now)
    return found


def traces(seed: int = 1) -> Iterator[Trace]:
    """The seven."""

    def make(name: str, arrivals: list[float], mean_s: float = 0.1) -> Trace:
        chance = random.Random(f"{seed}{name}")
        service = [mean_s * chance.lognormvariate(-0.08, 0.4) for _ in arrivals]
        return Trace(name, arrivals, service, (arrivals[-1] if arrivals else 0) + 400.0)

    yield make("burst", [10.0 + 0.0005 * n for n in range(2000)])
    yield make("steady", _poisson(lambda t: 20.0, 20.0, 300.0, seed))
    yield make("square", _poisson(lambda t: 40.0 if t % 60 < 30 else 2.0, 40.0, 300.0, seed))
    yield make("sine", _poisson(lambda t: 15 + 14 * math.sin(t / 19.1), 29.0, 300.0, seed))
    yield make("sparse", _poisson(lambda t: 1 / 40, 1 / 40, 1200.0, seed))
    yield make("slow jobs", _poisson(lambda t: 0.8, 0.8, 400.0, seed), mean_s=5.0)
    yield make("spike", _poisson(lambda t: 200.0 if 100 < t < 105 else 2.0, 200.0, 300.0, seed))


class Simulation:
    """One policy on one trace."""

    def __init__(self, trace: Trace, policy: Any) -> None:
        self.trace = trace
        self.policy = policy
        self.now = 0.0
        self.queue: deque[int] = deque()
        self.idle: dict[int, float] = {}
        self.busy: dict[int, float] = {}
        self.starting: set[int] = set()
        self.born: dict[int, float] = {}
        self.surplus = 0
        self.waits: list[float] = []
        self.alive_s = 0.0
        self.wanted: list[int] = []
        self.names = itertools.count()
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, int]] = []

    def at(self, when: float, what: str, which: int = 0) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, which))

    def run(self) -> Outcome:
        for number, when in enumerate(self.trace.arrivals):
            self.at(when, "arrive", number)
        self.at(0.0, "ask")
        while self.events:
            self.now, _, what, which = heapq.heappop(self.events)
            getattr(self, what)(which)
        for name in list(self.born):
            self.end(name)
        ordered = sorted(self.waits)
        assert len(ordered) == len(self.trace.arrivals), "something was never run"
        return Outcome(
            self.trace.name,
            self.policy.name,
            ordered[len(ordered) // 2],
            ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)],
            self.alive_s / sum(self.trace.service),
            reversals(self.wanted),
        )

    def arrive(self, number: int) -> None:
        self.queue.append(number)
        self.policy.arrived(self.now)
        self.assign()
        if self.policy.wakes and self.queue and not self.busy and not self.starting:
            self.decide()

    def assign(self) -> None:
        while self.queue and self.idle:
            name = max(self.idle, key=lambda n: self.idle[n])
            del self.idle[name]
            number = self.queue.popleft()
            self.waits.append(self.now - self.trace.arrivals[number])
            self.busy[name] = self.now
            self.at(self.now + self.trace.service[number], "finish", name)

    def finish(self, name: int) -> None:
        service = self.now - self.busy.pop(name)
        self.policy.finished(self.now, service)
        if self.surplus:
            self.surplus -= 1
            self.end(name)
            return
        self.idle[name] = self.now
        self.assign()

    def ready(self, name: int) -> None:
        if name in self.starting:
            self.starting.remove(name)
            self.idle[name] = self.now
            self.assign()

    def ask(self, _: int) -> None:
        self.decide()
        if self.now < self.trace.until or self.queue or self.busy:
            self.at(self.now + self.policy.ask_every_s, "ask")

    def decide(self) -> None:
        ages = [self.now - since for since in self.busy.values()]
        seen = Seen(
            len(self.queue), len(self.busy), len(self.starting),
            [self.now - since for since in self.idle.values()],
            sum(ages) / len(ages) if ages else 0.0,
        )  # fmt: skip
        wanted = self.policy.wanted(self.now, seen)
        self.wanted.append(wanted)
        self.surplus = 0
        for _ in range(wanted - seen.alive):
            name = next(self.names)
            self.born[name] = self.now
            self.starting.add(name)
            self.at(self.now + COLD_S, "ready", name)
        for _ in range(seen.alive - wanted):
            if self.idle:
                name = min(self.idle, key=lambda n: self.idle[n])
                del self.idle[name]
                self.end(name)
            elif self.policy.name != "funcrt":
                self.surplus += 1  # ends when its call does

    def end(self, name: int) -> None:
        self.alive_s += self.now - self.born.pop(name)


def reversals(series: list[int]) -> int:
    """How often a series turns from rising to falling or back."""
    steps = [b - a for a, b in itertools.pairwise(series) if a != b]
    return sum(1 for a, b in itertools.pairwise(steps) if (a > 0) != (b > 0))


def outcomes(seed: int = 1) -> list[Outcome]:
    """Every policy on every trace."""
    return [Simulation(trace, policy()).run() for trace in traces(seed) for policy in POLICIES]


def table(found: list[Outcome]) -> str:
    """For people."""
    lines = [f"{'trace':<10} {'policy':<8} {'wait p50 s':>10} {'p99 s':>8} {'cost':>7} {'rev':>4}"]
    lines += [
        f"{o.trace:<10} {o.policy:<8} {o.p50_s:10.2f} {o.p99_s:8.2f} {o.cost:7.2f} {o.reversals:4d}"
        for o in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(outcomes()))
