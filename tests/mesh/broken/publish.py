"""Breaks of publishing."""

import asyncio
from collections.abc import Sequence
from typing import Any

from mesh import Event
from mesh.transport import (
    Gone,
    Receipt,
    Settlement,
)
from tests.mesh.broken.base import Broken, breaks, change


@breaks(
    "what_is_stored_survives_a_crash",
    "a_full_store_refuses_and_recovers",
    "one_bad_event_spoils_no_other",
    "a_duplicate_is_stored_once",
)
class ConfirmsBeforeItIsDurable(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        self.task = asyncio.ensure_future(self.inner.publish(topic, events, **more))
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return [Receipt("stored", str(n)) for n, _ in enumerate(events)]


@breaks("a_duplicate_is_stored_once", "others_publish_and_tail_beside_the_host")
class CallsNothingADuplicate(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        receipts = await self.inner.publish(topic, events, **more)
        return [change(receipt, duplicate=False) for receipt in receipts]


@breaks(
    "a_duplicate_is_stored_once",
    "a_cancelled_publish_may_be_tried_again",
    "a_repeated_output_is_stored_once",
    "a_duplicate_takes_no_room",
)
class DoesNotDeduplicate(Broken):
    """Each event that comes again is another to it."""

    def _anew(self, event: Event) -> Event:
        seen: set[str] = self.__dict__.setdefault("seen", set())
        if event.id not in seen:
            seen.add(event.id)
            return event
        return change(event, extensions={**event.extensions, "again": 1}, id=event.id + "\u200b")

    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        receipts: list[Receipt] = await self.inner.publish(
            topic, [self._anew(event) if event.id else event for event in events], **more
        )
        return receipts

    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        anew = [
            change(one, outputs=tuple(change(o, event=self._anew(o.event)) for o in one.outputs))
            for one in settlements
        ]
        gone: list[Gone] = await self.inner.commit(anew)
        return gone


@breaks("a_duplicate_is_known_after_a_crash")
class ForgetsIdsAtRestart(Broken):
    def __init__(self, inner: Any, opened: int) -> None:
        super().__init__(inner, opened)
        for topic in inner.engine.topics.values():
            topic.window = type(topic.window)(3600.0, 1_000_000)


@breaks("one_bad_event_spoils_no_other")
class RefusesAllForOne(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        if not all(event.id for event in events):
            return [Receipt("refused", reason="one is bad", error="invalid")] * len(events)
        receipts: list[Receipt] = await self.inner.publish(topic, events, **more)
        return receipts


@breaks("an_event_comes_out_as_it_went_in")
class TakesEmptyDataForNone(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        changed = [change(event, data=event.data or None) for event in events]
        receipts: list[Receipt] = await self.inner.publish(topic, changed, **more)
        return receipts


@breaks("an_event_comes_out_as_it_went_in")
class LosesHops(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        receipts: list[Receipt] = await self.inner.publish(topic, events)
        return receipts


@breaks("several_publishers_lose_and_double_nothing", "a_publish_gives_each_event_its_receipt")
class ShufflesATopic(Broken):
    async def publish(self, topic: str, events: Sequence[Event], **more: Any) -> list[Receipt]:
        if events and events[0].id.endswith("7"):
            await asyncio.sleep(0.005)
        elif len(events) < 3 and events:
            self.tasks = [*self.__dict__.get("tasks", []), events]
            receipts = [Receipt("stored", "0")] * len(events)
            if len(self.tasks) > 3:
                for late in reversed(self.tasks):
                    receipts = await self.inner.publish(topic, late, **more)
                self.tasks = []
            return receipts
        got: list[Receipt] = await self.inner.publish(topic, list(reversed(events)), **more)
        return got
