"""How many instances others would want: models of their documented policies, at their defaults.

Each is asked at its own pace (`ask_every_s`), and at once for an event that finds no instance
where its platform reacts to that. `wanted(now, seen)` returns the count it would set.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from funcrt.manifest import ScaleSpec
from funcrt.scale import Observed, Scaler

MAX = 32


@dataclass
class Seen:
    """The queue and the instances at one moment."""

    backlog: int
    busy: int
    starting: int
    idle_s: list[float]
    running_age_s: float

    @property
    def alive(self) -> int:
        """Instances that exist, those that start included."""
        return self.busy + self.starting + len(self.idle_s)


class Funcrt:
    """Ours: the class that the host uses."""

    name = "funcrt"
    ask_every_s = 0.25
    wakes = True

    def __init__(self) -> None:
        self.scaler = Scaler(ScaleSpec(max=MAX), cold_start_s=0.5)

    def arrived(self, now: float) -> None:
        self.scaler.arrived(now)

    def finished(self, now: float, service_s: float) -> None:
        self.scaler.finished(now, service_s)

    def wanted(self, now: float, seen: Seen) -> int:
        decision = self.scaler.decide(
            now,
            Observed(
                backlog=seen.backlog,
                instances=seen.busy + len(seen.idle_s),
                starting=seen.starting,
                busy=seen.busy,
                idle_s=sorted(seen.idle_s, reverse=True),
                running_age_s=seen.running_age_s,
            ),
        )
        return decision.wanted


@dataclass
class Keda:
    """KEDA with the HPA (keda.sh "Scaling Deployments": pollingInterval 30 s, cooldownPeriod 300 s;
    queueLength 5; kubernetes.io "HorizontalPodAutoscaler": sync 15 s, tolerance 0.1, scale up by
    the greater of 4 pods and 100 % in 15 s, scale down after a stabilization window of 300 s)."""

    name: str = "keda"
    ask_every_s: float = 15.0
    wakes: bool = False
    length: int = 5
    active_at: float = -math.inf
    polled_at: float = -math.inf
    history: deque[tuple[float, int]] = field(default_factory=deque)

    def arrived(self, now: float) -> None:
        """The queue is polled, nobody tells."""

    def finished(self, now: float, service_s: float) -> None:
        """Nor of that."""

    def wanted(self, now: float, seen: Seen) -> int:
        count, metric = seen.alive, seen.backlog + seen.busy
        if metric:
            self.active_at = now
        if count == 0:
            if now - self.polled_at < 30.0:
                return 0
            self.polled_at = now
            return 1 if metric else 0
        ratio = metric / (count * self.length)
        desired = count if abs(ratio - 1) <= 0.1 else math.ceil(metric / self.length)
        desired = min(max(desired, 1), max(count + 4, count * 2), MAX)
        self.history.append((now, desired))
        while self.history[0][0] < now - 300.0:
            self.history.popleft()
        if desired < count:
            desired = min(max(d for _, d in self.history), count)
        if not metric and now - self.active_at >= 300.0:
            return 0
        return desired


@dataclass
class Knative:
    """Knative's KPA (knative.dev "Additional autoscaling configuration": stable window 60 s, panic
    window 6 s, panic at 200 %, target utilisation 70 %, tick 2 s, scale-down rate 2, zero grace
    30 s), one call an instance. Its activator wakes an instance at once."""

    name: str = "knative"
    ask_every_s: float = 2.0
    wakes: bool = True
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    panic_until: float = -math.inf
    panic_most: int = 0
    zero_since: float | None = None

    def arrived(self, now: float) -> None:
        """Concurrency is sampled."""

    def finished(self, now: float, service_s: float) -> None:
        """So is this."""

    def _mean(self, now: float, span: float) -> float:
        found = [value for at, value in self.samples if at > now - span]
        return sum(found) / len(found) if found else 0.0

    def wanted(self, now: float, seen: Seen) -> int:
        self.samples.append((now, seen.backlog + seen.busy))
        while self.samples[0][0] < now - 60.0:
            self.samples.popleft()
        ready = max(seen.busy + len(seen.idle_s), 1)
        stable = math.ceil(self._mean(now, 60.0) / 0.7)
        panic = math.ceil(self._mean(now, 6.0) / 0.7)
        stable = max(stable, math.floor(ready / 2))
        if panic / ready >= 2.0:
            self.panic_until = now + 60.0
        if now < self.panic_until:
            self.panic_most = max(self.panic_most, panic, seen.alive)
            return min(self.panic_most, MAX)
        self.panic_most = 0
        if self._mean(now, 60.0) > 0:
            self.zero_since = None
            return min(max(stable, 1), MAX)
        self.zero_since = now if self.zero_since is None else self.zero_since
        return 0 if now - self.zero_since >= 30.0 else min(seen.alive, 1)


@dataclass
class Lambda:
    """Lambda behind SQS (docs.aws.amazon.com "Configuring scaling behavior for SQS event source
    mappings": five pollers at first, 300 more a minute), one event an environment, which is kept
    when idle; for how long is not documented, five minutes are assumed."""

    name: str = "lambda"
    ask_every_s: float = 1.0
    wakes: bool = True
    pollers: float = 5.0
    grown_at: float | None = None

    def arrived(self, now: float) -> None:
        """Pollers find it."""

    def finished(self, now: float, service_s: float) -> None:
        """And the next."""

    def wanted(self, now: float, seen: Seen) -> int:
        span = 0.0 if self.grown_at is None else now - self.grown_at
        self.grown_at = now
        if seen.backlog:
            self.pollers = min(self.pollers + 5.0 * span, MAX)
        else:
            self.pollers = max(self.pollers - 5.0 * span, 5.0)
        need = min(seen.busy + seen.backlog, int(self.pollers))
        fresh = sum(1 for idle in seen.idle_s if idle < 300.0)
        return min(max(need, seen.busy + seen.starting + fresh), MAX)


POLICIES = (Funcrt, Keda, Knative, Lambda)
