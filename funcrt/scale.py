"""How many instances a function wants: decided from plain figures, without a clock.

All times are monotonic seconds passed in, so that a simulator drives this same class.
"""

import math
from collections import deque
from collections.abc import Sequence

import msgspec

from funcrt.manifest import ScaleSpec

__all__ = ["Decision", "Observed", "Scaler"]

UTILISATION = 0.8
RATE_SPAN_S = 2.0
STEP_S = 0.25
DOWN_EVERY_S = 2.0
IDLE_S = 10.0
MEMORY_S = 30.0
ZERO_LEAST_S, ZERO_MOST_S = 15.0, 120.0
GAPS = 1.5
"""Mean gaps between events that an instance outlives: covers four gaps in five where they are
random; twice the longest gap cost 1.6 times as much for the same p99."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the host sees of a function at one moment."""

    backlog: int
    """Events due and waiting, HTTP calls included, those already handed to instances not."""
    instances: int
    """Alive."""
    starting: int = 0
    busy: int = 0
    idle_s: Sequence[float] = ()
    """How long each idle instance has been idle."""
    running_age_s: float = 0.0
    """Mean age of the running calls."""
    depth_known: bool = True
    limit: int | None = None
    """Of memory, keys or partitions."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    wanted: int
    """Instances to have; more than there are starts some."""
    retire: int = 0
    """Idle instances to end, the longest idle first."""
    reason: str = ""
    check_after_s: float | None = None
    """Ask again then, if nothing happens before; None: only when something does."""


class Scaler:
    """One function's. `concurrency` is the calls that an instance runs at once."""

    def __init__(self, spec: ScaleSpec, concurrency: int = 1, cold_start_s: float = 0.01) -> None:
        self.spec = spec
        self.concurrency = max(concurrency, 1)
        self.cold_start_s = cold_start_s
        self.service_s = 0.0
        self.rate = 0.0
        self._counted = 0
        self._rated_at: float | None = None
        self._needs: deque[tuple[float, int]] = deque()
        self._stepped = -math.inf
        self._lowered = -math.inf
        self._last_event = -math.inf
        self._gap_s = 0.0

    def bound(self, spec: ScaleSpec) -> None:
        """Decide within other bounds; needs that were seen under the old ones are forgotten."""
        self.spec = spec
        self._needs.clear()

    def arrived(self, now: float, n: int = 1) -> None:
        """`n` events came into the queue, or into view."""
        if self._last_event > -math.inf and now > self._last_event:
            gap = now - self._last_event
            if gap > 1.0:  # within a burst, nobody would think of ending instances
                self._gap_s += (0.3 if self._gap_s else 1.0) * (gap - self._gap_s)
        self._last_event = now
        self._counted += n

    def finished(self, now: float, service_s: float, n: int = 1) -> None:
        """`n` calls ended after `service_s` each."""
        weight = 1.0 if self.service_s == 0.0 else 1.0 - 0.8**n
        self.service_s += weight * (service_s - self.service_s)
        self._last_event = max(self._last_event, now)

    def decide(self, now: float, seen: Observed) -> Decision:
        """How many instances to have."""
        self._rate(now)
        most = self.spec.max if seen.limit is None else min(self.spec.max, seen.limit)
        least = min(self.spec.min, most)
        have = seen.instances + seen.starting
        if not seen.depth_known and not seen.backlog:
            return Decision(
                wanted=max(have, least), reason="depth unknown: hold", check_after_s=1.0
            )
        need, why = self._need(seen, most, least)
        self._needs.append((now, need))
        while self._needs and self._needs[0][0] < now - MEMORY_S:
            self._needs.popleft()
        if need > have:
            return self._up(now, need, have, least, why)
        return self._down(now, need, have, least, seen, why)

    def _rate(self, now: float) -> None:
        if self._rated_at is None:
            self._rated_at = now
        span = now - self._rated_at
        if span > 0.05:
            weight = 1.0 - math.exp(-span / RATE_SPAN_S)
            self.rate += weight * (self._counted / span - self.rate)
            self._counted = 0
            self._rated_at = now

    def _need(self, seen: Observed, most: int, least: int) -> tuple[int, str]:
        service = max(self.service_s, seen.running_age_s) / self.concurrency
        idle = len(seen.idle_s)
        backlog = seen.backlog
        if idle and service > 0:
            backlog = max(backlog - int(idle * self.cold_start_s / service), 0)
        flow = self.rate * service / UTILISATION
        need = min(flow + backlog * service / self.spec.target_lag_s, seen.busy + backlog)
        wanted = math.ceil(need - 1e-9)
        if seen.backlog and most:
            wanted = max(wanted, 1)
        wanted = min(max(wanted, least), most)
        why = (
            f"depth {seen.backlog}, mean {service * 1000:.3g} ms,"
            f" target {self.spec.target_lag_s:g} s -> {wanted}"
        )
        return wanted, why

    def _up(self, now: float, need: int, have: int, least: int, why: str) -> Decision:
        step = max(2 * have, have + 4)
        if now - self._stepped < STEP_S and have:
            wanted = max(have, min(least, step))  # the least there must be does not wait
            return Decision(wanted=wanted, reason=why, check_after_s=STEP_S)
        self._stepped = now
        return Decision(wanted=min(need, step), reason=why, check_after_s=STEP_S)

    def _down(  # noqa: PLR0917
        self, now: float, need: int, have: int, least: int, seen: Observed, why: str
    ) -> Decision:
        floor = max((n for _, n in self._needs), default=0)
        floor = max(floor, least, seen.busy)
        if seen.backlog or seen.busy:
            floor = max(floor, 1)
        quiet = now - self._last_event
        zero_after = self.zero_after_s()
        kept = f", kept for {MEMORY_S:g} s after it was needed"
        if floor == 0 or (need == 0 and least == 0 and not seen.backlog and not seen.busy):
            if quiet >= zero_after:
                retire = len(seen.idle_s)
                idle_for = f"idle for {quiet:.0f} s" if quiet < math.inf else "no event yet"
                reason = f"{idle_for} -> 0"
                return Decision(wanted=0, retire=retire, reason=reason)
            floor = max(floor, 1)
            kept = f", kept until idle for {zero_after:.3g} s"
        why += kept if have > need else ""
        wait = None if not have else min(max(zero_after - quiet, 0.05), DOWN_EVERY_S)
        idle = sum(1 for age in seen.idle_s if age >= IDLE_S)
        excess = have - floor
        if excess <= 0 or not idle or now - self._lowered < DOWN_EVERY_S:
            return Decision(wanted=have, reason=why, check_after_s=wait)
        retire = min(idle, math.ceil(excess / 2))
        self._lowered = now
        return Decision(wanted=have - retire, retire=retire, reason=why, check_after_s=wait)

    def zero_after_s(self) -> float:
        """How long without an event until there are no instances."""
        if self.spec.idle_s is not None:
            return self.spec.idle_s
        return min(max(GAPS * self._gap_s, ZERO_LEAST_S), ZERO_MOST_S)
