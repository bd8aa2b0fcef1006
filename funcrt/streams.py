"""What a call sends before its result, on the host's side: taken in order, each piece seen through
before there is room for more."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from funcrt.observer import Sent
from funcrt.outcome import LOOP, MAX_HOPS, shape
from funcrt.sandbox import Instance
from funcrt.sandbox.protocol import WINDOW, Aside, Cancel, Failure, Out, Result, Taken, weight
from mesh.errors import EventError, MeshError
from mesh.event import Event

if TYPE_CHECKING:
    from funcrt.function import Function

__all__ = ["Handle", "Items", "Stream", "StreamFailed"]

Handle = Callable[[Sequence[Aside]], Awaitable[None]]
"""Sees messages through: published, or read by who asked. Raises StreamFailed."""


class StreamFailed(Exception):
    """What a call sent cannot go its way: the call has failed. `status` as in Result."""

    def __init__(self, why: Failure, status: str = "error") -> None:
        self.why = why
        self.status = status
        super().__init__(f"{why.error}: {why.message}")


class Stream:
    """One call's. `said` and `ended` are what its Pending tells."""

    def __init__(self) -> None:
        self._messages: deque[Aside] = deque()
        self._result: Result | None = None
        self._over = False
        self._changed = asyncio.Event()
        self._instance: Instance | None = None
        self._ahead = 0
        self._count = 0

    def said(self, instance: Instance, message: Aside) -> None:
        """The call sent something."""
        self._instance = instance
        self._ahead += weight(message)
        self._count += 1
        if self._ahead > WINDOW and self._count > 1:
            instance.kill("sent more of a stream than there was room for")
            return
        self._messages.append(message)
        self._changed.set()

    def ended(self, result: Result) -> None:
        """It ended."""
        self._result = self._result or result
        self._changed.set()

    def abandon(self) -> None:
        """It will not be told to the end: `run` returns None."""
        self._over = True
        self._changed.set()

    async def run(self, handle: Handle) -> Result | None:
        """Hand on what is sent until the call has ended; its result. Where `handle` fails, the call
        is cancelled, and that is its result."""
        failed: StreamFailed | None = None
        while not self._over:
            if self._messages:
                # No more at once than came at once: who waits for room gets it soon.
                some = list(self._messages)
                self._messages.clear()
                if failed is None:
                    try:
                        await handle(some)
                    except StreamFailed as error:
                        failed = error
                        if self._result is None and self._instance is not None:
                            self._instance.send([Cancel(some[0].id)])
                self._taken(some)
            elif self._result is not None:
                result = self._result
                if failed is None:
                    return result
                return Result(result.id, failed.status, [], failed.why, result.took_us)
            else:
                self._changed.clear()
                await self._changed.wait()
        return None

    def _taken(self, messages: Sequence[Aside]) -> None:
        size = sum(map(weight, messages))
        self._ahead -= size
        self._count -= len(messages)
        if self._instance is not None and self._result is None:
            self._instance.send([Taken(messages[0].id, size)])


class Items:
    """What one call makes, published while it runs: each durable before the next ones are taken.

    An item's id is derived from the event's and its place, so that a repeated call, as far as it
    makes the same items in the same order, adds nothing.
    """

    def __init__(
        self, function: "Function", cause: Event, trigger: str, hops: int = 0, replay: str = ""
    ) -> None:
        self.function = function
        self.cause = cause
        self.origin = function.origin(trigger)
        self.hops = hops + 1
        self.replay = replay
        self.sent = Sent()
        """Of items so far."""

    async def publish(self, outs: Sequence[Out]) -> list[Event]:
        """Publish items, those that have a topic; all as events. Raises StreamFailed."""
        if not outs:
            return []
        host = self.function.host
        try:
            made = shape(
                self.origin, self.cause, outs, now=host.clock.time(), hops=self.hops,
                replay=self.replay, reply_to="caller", first=self.sent.count,
            )  # fmt: skip
        except EventError as error:
            why = Failure("EventError", f"an output is refused: {error}")
            raise StreamFailed(why) from None
        if self.hops > MAX_HOPS and any(output.topic for output in made):
            raise StreamFailed(LOOP, "reject")
        for topic, some in groupby(made, lambda output: output.topic):
            if topic:
                await self._store(topic, [output.event for output in some])
        self.sent.add(made)
        return [output.event for output in made]

    async def _store(self, topic: str, events: Sequence[Event]) -> None:
        try:
            receipts = await self.function.host.mesh.publish(topic, events, hops=self.hops)
        except MeshError as error:
            raise StreamFailed(Failure(type(error).__name__, str(error))) from None
        for receipt in receipts:
            if receipt.status != "stored":
                told = f"an output could not be stored: {receipt.reason or receipt.status}"
                raise StreamFailed(Failure("MeshFull", told))
        self.function.meter.outputs += len(receipts)
