"""Breaks of pulling."""

import asyncio
from typing import Any

from mesh.transport import (
    Delivery,
    Feed,
    Released,
    Settled,
    Settlement,
    Subscription,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks("a_pull_returns_no_more_than_asked")
class PullsMoreThanAsked(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        return await super().pull(feed, max_n + 1, wait, size)


@breaks("a_pull_stays_within_max_bytes")
class IgnoresMaxBytes(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        return await super().pull(feed, max_n, wait, 8 << 20)


@breaks("a_cancelled_pull_loses_nothing")
class LosesWhatACancelledPullTook(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, wait, size)
        await asyncio.sleep(0)
        return got


@breaks("a_waiting_pull_gets_the_next_event", "released_events_are_back_at_once")
class DoesNotWakeAPull(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, 0.0, size)
        if not got and wait:
            await asyncio.sleep(min(wait, 1000.0))
        return got


@breaks("feeds_of_one_subscription_share_its_queue", "a_lost_lease_is_delivered_again")
class LeasesNothing(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, wait, size)
        for d in got:
            freed = Settlement(d.subscription, (Settled(d, Released()),))
            await self.inner.commit([freed])
        return got


@breaks("a_closed_feed_gives_its_events_back")
class KeepsWhatAClosedFeedHeld(Broken):
    async def close_feed(self, feed: Any) -> None:
        feed.closed = True
        feed.queue.wake()


@breaks("closing_ends_what_waits")
class ClosesNoFeed(Broken):
    async def close_feed(self, feed: Any) -> None:
        pass


@breaks("each_subscription_gets_its_own_copy", "broadcast_gives_each_host_every_event")
class TakesSubscriptionsForOneGroup(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        one = change(subscription, function="f", mode="cluster", host="")
        return await super().subscribe(one, **more)


@breaks("a_delivery_says_where_it_is_from")
class SaysNowForPublishedAt(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, wait, size)
        return [change(d, published_at=self.inner.clock.time() + 0.5) for d in got]


@breaks("the_router_decides_and_can_be_swapped", "what_nobody_serves_yet_misses_nothing")
class IgnoresTheRouter(Broken):
    def set_router(self, router: Any) -> None:
        pass
