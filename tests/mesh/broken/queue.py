"""Breaks of depth and bounds."""

from collections.abc import Sequence
from typing import Any

from mesh.errors import MeshError
from mesh.transport import (
    Depth,
    Feed,
    Gone,
    Settlement,
    Subscription,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks("depth_is_never_made_up", "depth_of_a_lost_transport_raises")
class GuessesDepth(Broken):
    async def depth(self, name: str) -> Depth:
        try:
            depth: Depth = await self.inner.depth(name)
        except MeshError:
            return Depth(0, 0, 0, 0.0, "exact")
        return depth


@breaks("depth_counts_what_is_unsettled", "depth_survives_a_crash")
class CountsTheDelayedAsReady(Broken):
    async def depth(self, name: str) -> Depth:
        d: Depth = await self.inner.depth(name)
        return change(d, ready=d.ready + d.delayed, delayed=0)


@breaks("depth_knows_the_age_of_the_oldest")
class KnowsNoAge(Broken):
    async def depth(self, name: str) -> Depth:
        depth: Depth = change(await self.inner.depth(name), oldest_age_s=0.0)
        return depth


@breaks("retention_keeps_what_is_unsettled")
class DropsTheUnsettled(Broken):
    def __init__(self, inner: Any, opened: int) -> None:
        super().__init__(inner, opened)
        inner.engine.store.pinned = lambda subs: None


@breaks("a_full_queue_refuses", "a_full_queue_sheds_its_oldest", "a_refused_event_sheds_nothing")
class IgnoresTheCap(Broken):
    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        return await super().subscribe(change(subscription, cap=None), **more)


@breaks("an_output_passes_the_cap")
class HoldsOutputsToTheCap(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        for one in settlements:
            for output in one.outputs:
                (receipt,) = await self.inner.publish(output.topic, [output.event])
                if receipt.status == "refused":
                    raise MeshError(receipt.reason)
        found: list[Gone] = await self.inner.commit(settlements)
        return found
