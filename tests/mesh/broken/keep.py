"""Breaks of state, tails, requests, and what is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mesh import Event
from mesh.errors import MeshError
from mesh.transport import (
    Gone,
    Receipt,
    Released,
    Settlement,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks("a_conflict_leaves_the_lease")
class ReleasesAtAConflict(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(settlements)
        for one, gone in zip(settlements, found, strict=True):
            if gone == "conflict":
                for each in one.settled:
                    freed = Settlement(one.subscription, (change(each, outcome=Released()),))
                    await self.inner.commit([freed])
        return found


@breaks("state_and_settle_are_one_over_a_crash")
class WritesStateAfterTheSettle(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit([change(one, state=()) for one in settlements])
        await asyncio.sleep(0.0005)
        for one in settlements:
            await self.inner.commit([Settlement(one.subscription, (), state=one.state)])
        return found


@breaks(
    "one_of_two_writers_of_an_etag_wins",
    "a_conflict_leaves_the_lease",
)
class IgnoresEtags(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(
            [
                change(one, state=tuple(change(op, if_etag=None) for op in one.state))
                for one in settlements
            ]
        )
        return found


@breaks("state_is_written_with_the_settle")
class KeepsExpiredState(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(
            [
                change(one, state=tuple(change(op, expires_at=None) for op in one.state))
                for one in settlements
            ]
        )
        return found


@breaks(
    "a_tail_sees_everything_in_order",
    "others_publish_and_tail_beside_the_host",
)
class TailsWithGaps(Broken):
    async def tail(self, topic: str, start: str = "new") -> AsyncIterator[Any]:
        count = 0
        async for item in self.inner.tail(topic, start):
            count += 1
            if count % 30:
                yield item


@breaks("a_new_tail_sees_what_comes")
class AlwaysTailsFromTheEarliest(Broken):
    def tail(self, topic: str, start: str = "new") -> Any:
        return self.inner.tail(topic, "earliest")


@breaks("reading_leaves_no_trace")
class MakesATopicByReading(Broken):
    async def read(self, topic: str, start: str, limit: int) -> Any:
        await self.inner.publish(topic, [Event("made", "/s", "t")])
        return await self.inner.read(topic, start, limit)


@breaks("a_request_gets_what_the_call_returned", "a_request_that_nobody_answers_ends")
class AnswersWithTheQuestion(Broken):
    async def request(self, topic: str, event: Event, timeout_s: float) -> list[Event]:
        await self.inner.publish(topic, [event])
        return [event]


@breaks("a_request_that_nobody_answers_ends")
class WaitsForAnothersReply(Broken):
    async def request(self, topic: str, event: Event, timeout_s: float) -> Any:
        try:
            return await self.inner.request(topic, event, timeout_s)
        except MeshError as error:
            if "already" in str(error):
                raise TimeoutError from None  # after its time
            raise


@breaks("namespaces_do_not_cross")
class HasOneNamespace(Broken):
    """See `broken_maker` in test_conformance_bites.py."""


@breaks("a_closed_transport_says_so")
class WorksAfterItIsClosed(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        if self.inner.closed:
            return [Receipt("refused", error="closed")] * len(events)
        receipts: list[Receipt] = await self.inner.publish(topic, events, **more)
        return receipts


@breaks("records_are_an_ordered_log", "records_and_blobs_survive_a_crash")
class ForgetsRecords(Broken):
    async def append_record(self, kind: str, body: bytes) -> int:
        return 1


@breaks("it_says_what_stored_means")
class SaysNothing(Broken):
    async def durability(self) -> str:
        return ""


@breaks("a_publish_that_a_crash_cut_off_may_be_tried_again")
class StoresAPublishTwice(Broken):
    """Once at the publish, and once when it looks whether that was stored."""

    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        receipts: list[Receipt] = await self.inner.publish(topic, events, **more)
        if any(receipt.duplicate for receipt in receipts):
            again = [change(event, id=event.id + "'") for event in events]
            await self.inner.publish(topic, again, **more)
        return receipts
