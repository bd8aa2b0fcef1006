"""Breaks of subscriptions."""

import asyncio
from typing import Any

from mesh.errors import MeshError
from mesh.transport import (
    Feed,
    Subscription,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks("start_decides_what_a_new_subscription_sees")
class AlwaysStartsNew(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        return await super().subscribe(change(subscription, start="new"), **more)


@breaks("two_may_subscribe_at_once")
class SubscribesOneAtATime(Broken):
    busy = False

    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        if self.busy:
            raise MeshError("another subscribes")
        self.busy = True
        feed = await super().subscribe(subscription, **more)
        self.busy = False
        return feed


@breaks("earliest_misses_nothing_that_is_published_meanwhile")
class MissesWhatIsPublishedMeanwhile(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        there = subscription.name in self.inner.engine.queues
        held = subscription.topic in self.inner.engine.topics
        if not there and not held:
            await asyncio.sleep(0.001)
            subscription = change(subscription, start="new")
        return await super().subscribe(subscription, **more)


@breaks("subscribing_again_takes_up_the_queue")
class StartsOverWhenSubscribedAgain(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        if subscription.name in self.inner.engine.queues and subscription.start == "earliest":
            await self.inner.unsubscribe(subscription.name, purge=True)
        return await super().subscribe(subscription, **more)


@breaks("subscriptions_are_kept", "broadcast_copies_outlive_their_hosts")
class ForgetsSubscriptionsAtRestart(Broken):
    def __init__(self, inner: Any, opened: int) -> None:
        super().__init__(inner, opened)
        for queue in list(inner.engine.queues.values()) if opened else []:
            inner.engine.store.remove_sub(queue.row.id)
            inner.engine.topics[queue.topic].queues.remove(queue)
            del inner.engine.queues[queue.name]


@breaks("a_changed_subscription_counts_at_once")
class KeepsTheFirstSubscription(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        queue = self.inner.engine.queues.get(subscription.name)
        return await super().subscribe(queue.spec if queue else subscription, **more)


@breaks("a_backlog_is_removed_only_on_purpose", "a_changed_topic_needs_an_empty_queue")
class AlwaysPurges(Broken):
    async def unsubscribe(self, name: str, *, purge: bool = False) -> None:
        await self.inner.unsubscribe(name, purge=True)

    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        queue = self.inner.engine.queues.get(subscription.name)
        if queue is not None and queue.topic != subscription.topic:
            await self.unsubscribe(subscription.name)
        return await super().subscribe(subscription, **more)


@breaks("removing_and_publishing_at_once_ends_one_way")
class HalfRemovesWhenCancelled(Broken):
    async def unsubscribe(self, name: str, *, purge: bool = False) -> None:
        engine = self.inner.engine
        queue = engine.queue(name)
        engine.topics[queue.topic].queues.remove(queue)
        await asyncio.sleep(0)
        engine.topics[queue.topic].queues.append(queue)
        await self.inner.unsubscribe(name, purge=purge)
