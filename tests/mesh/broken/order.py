"""Breaks of ordered keys."""

from typing import Any

from mesh.transport import (
    Feed,
    Subscription,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks(
    "one_of_a_key_is_out_in_order",
    "a_head_that_ends_otherwise_frees_its_key",
    "a_failed_batch_releases_its_successors",
    "subscribing_again_keeps_keys_and_order",
    "keys_keep_order_whatever_happens",
    "a_changed_order_loses_nothing",
)
class BreaksTheOrderOfKeys(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        return await super().subscribe(change(subscription, order="none"), **more)


@breaks("a_hot_key_does_not_stop_the_others", "many_blocked_keys_do_not_stop_the_others")
class StopsAllForOneKey(Broken):
    """What waits behind busy keys is never put aside."""

    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        feed: Any = await super().subscribe(subscription, **more)
        feed.inner.queue.overflow = list
        return feed  # type: ignore[no-any-return]


@breaks("events_without_a_key_are_ordered_with_nothing")
class TakesNoKeyForAKey(Broken):
    async def subscribe(
        self, subscription: Subscription, *, key_of: Any = None, **more: Any
    ) -> Feed:
        return await super().subscribe(
            subscription, key_of=lambda event: (key_of and key_of(event)) or "", **more
        )


@breaks("a_hot_key_keeps_its_order_over_a_crash")
class TakesTheParkedFirst(Broken):
    """After a restart, what waited behind a key comes before what was out."""

    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        queue = self.inner.engine.queues.get(subscription.name)
        if queue is not None and not queue.opened:
            read_past = queue._read_past

            def all_of_it() -> None:
                queue.cursor, kept = 1 << 40, queue.cursor
                read_past()
                queue.cursor = kept

            queue._read_past = all_of_it
        return await super().subscribe(subscription, **more)


@breaks("a_changed_key_loses_nothing")
class BlocksAnOldKeyForGood(Broken):
    async def subscribe(
        self, subscription: Subscription, *, key_of: Any = None, **more: Any
    ) -> Feed:
        queue = self.inner.engine.queues.get(subscription.name)
        if queue is not None:
            admit = queue._admit

            def anew(entry: Any) -> None:
                entry.key = None
                admit(entry)

            queue._admit = anew
        return await super().subscribe(subscription, key_of=key_of, **more)
