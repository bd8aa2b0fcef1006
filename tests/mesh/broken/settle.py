"""Breaks of settling."""

import asyncio
from collections.abc import Sequence

from mesh.errors import MeshError
from mesh.transport import (
    Gone,
    Released,
    Retry,
    Settled,
    Settlement,
)
from tests.mesh.broken.base import Broken, breaks, change, outcomes


@breaks(
    "a_stale_delivery_settles_nothing",
    "a_delivery_is_settled_once",
    "a_delivery_from_before_a_crash_is_stale",
    "extend_does_not_bring_a_lost_lease_back",
    "released_events_are_back_at_once",
    "each_event_has_exactly_one_end_over_crashes",
)
class AcceptsAStaleSettle(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(settlements)
        for one, gone in zip(settlements, found, strict=True):
            if gone == "stale":
                for output in one.outputs:
                    await self.inner.publish(output.topic, [output.event])
        return ["settled" if gone == "stale" else gone for gone in found]


@breaks("a_commit_that_a_crash_cut_off_is_whole_or_nothing", "closing_amid_work_loses_nothing")
class AcknowledgesBeforeTheOutput(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        bare = [change(one, outputs=()) for one in settlements]
        found: list[Gone] = await self.inner.commit(bare)
        await asyncio.sleep(0.0005)
        for one, gone in zip(settlements, found, strict=True):
            for output in one.outputs:
                if gone == "settled" and output.topic:
                    await self.inner.publish(output.topic, [output.event], hops=output.hops)
        return found


@breaks("an_output_is_durable_with_its_settle", "a_settle_survives_a_crash_with_its_outputs")
class LosesOutputs(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(
            [change(one, outputs=()) for one in settlements]
        )
        return found


@breaks("a_bad_name_settles_nothing")
class SettlesBeforeItLooks(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return [(await self.inner.commit([one]))[0] for one in settlements]


@breaks("a_settlement_is_one_unit")
class SplitsASettlement(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = []
        for one in settlements:
            parts = [change(one, settled=(each,), outputs=()) for each in one.settled[1:]]
            first = change(one, settled=one.settled[:1])
            found.append((await self.inner.commit([first, *parts]))[0])
        return found


@breaks(
    "released_events_are_back_at_once",
    "items_of_a_batch_end_each_their_own_way",
    "a_head_that_ends_otherwise_frees_its_key",
)
class ChargesARelease(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return await outcomes(self, settlements, self._charged)

    def _charged(self, each: Settled) -> Settled:
        if isinstance(each.outcome, Released):
            return change(each, outcome=Retry(self.inner.clock.time() + 0.001))
        return each


@breaks("a_full_store_keeps_the_leases")
class SaysSettledWhereThereIsNoRoom(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        try:
            found: list[Gone] = await self.inner.commit(settlements)
        except MeshError:
            return ["settled"] * len(settlements)
        return found


@breaks("a_cancelled_commit_can_be_made_again", "each_event_has_exactly_one_end")
class SettlesTwiceWhenTriedAgain(Broken):
    """It remembers no lease: what is committed again makes its outputs again."""

    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        for one in settlements:
            for output in one.outputs:
                twice = change(output.event, id=f"{output.event.id}-twice")
                await self.inner.publish(output.topic, [twice, output.event])
        found: list[Gone] = await self.inner.commit(settlements)
        return found
