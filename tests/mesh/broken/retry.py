"""Breaks of leases and retries."""

from collections.abc import Sequence
from typing import Any

from mesh.transport import (
    Delivery,
    Feed,
    Gone,
    Retry,
    Settled,
    Settlement,
    Subscription,
)
from tests.mesh.broken.base import Broken, breaks, change, outcomes


@breaks("a_lost_lease_is_delivered_again", "depth_counts_a_lost_lease_as_ready")
class NeverEndsALease(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        return await super().subscribe(change(subscription, lease_s=1e9), **more)


@breaks("an_extended_lease_lasts")
class DoesNotExtend(Broken):
    async def extend(self, feed: Any, deliveries: Sequence[Delivery], seconds: float) -> None:
        pass


@breaks("extend_does_not_bring_a_lost_lease_back")
class BringsALostLeaseBack(Broken):
    async def extend(self, feed: Any, deliveries: Sequence[Delivery], seconds: float) -> None:
        for entry in feed.queue.leased.values():
            entry.deadline = feed.engine.clock.monotonic() + seconds


@breaks("a_step_of_the_wall_clock_ends_no_lease")
class LeasesOnTheWallClock(Broken):
    def __init__(self, inner: Any, opened: int) -> None:
        super().__init__(inner, opened)
        inner.clock.monotonic = inner.clock.time


@breaks("a_lease_that_runs_out_wakes_a_waiting_pull", "a_retry_that_falls_due_wakes_a_waiting_pull")
class WaitsForEventsAlone(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        feed: Any = await super().subscribe(subscription, **more)
        feed.inner.queue.wait_s = lambda: 1e6
        feed.inner.queue.parked = lambda due: setattr(feed.inner.queue, "next_due", due)
        return feed  # type: ignore[no-any-return]


@breaks("a_retry_waits_until_it_is_due", "one_of_a_key_is_out_in_order")
class RetriesAtOnce(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return await outcomes(self, settlements, self._now)

    def _now(self, each: Settled) -> Settled:
        if isinstance(each.outcome, Retry):
            return change(each, outcome=change(each.outcome, at=0.0))
        return each


@breaks("an_uncharged_retry_costs_no_attempt")
class ChargesEveryRetry(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return await outcomes(self, settlements, self._charged)

    def _charged(self, each: Settled) -> Settled:
        if isinstance(each.outcome, Retry):
            return change(each, outcome=change(each.outcome, charge=True))
        return each


@breaks("attempts_survive_a_crash", "a_blocked_key_stays_blocked_over_a_crash")
class ForgetsAttemptsAtRestart(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, wait, size)
        return [change(d, attempt=1) for d in got] if self.opened else got
