"""Calls of a function that somebody waits for: no queue, no retry, no dead letter."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from funcrt.api import Answer, Reply
from funcrt.errors import FunctionPaused, Overloaded
from funcrt.member import Pending
from funcrt.observer import Sent
from funcrt.outcome import shape
from funcrt.sandbox.protocol import (
    Aside,
    Call,
    Chunk,
    Failure,
    Http,
    Item,
    Made,
    Out,
    Result,
    Start,
)
from funcrt.streams import Items, Stream
from funcrt.timeouts import Timeout, Timeouts
from mesh.errors import EventError
from mesh.event import Event
from mesh.transport import Output

if TYPE_CHECKING:
    from funcrt.function import Function

__all__ = ["MOST_WAITING_CALLS", "Direct"]

MOST_WAITING_CALLS = 512
FAILURES = ("reject", "retry", "timeout", "crash", "closing")
"""Ends of a call that its caller is told apart; any other is an error."""


class Direct:
    """One version's."""

    def __init__(self, function: "Function") -> None:
        self.function = function
        self.calling = 0
        self._timeouts = Timeouts(function.manifest.timeout_s)

    def _limit(self, timeout_s: float | None) -> float:
        """The call's time. Raises Overloaded, FunctionPaused."""
        function = self.function
        if function.paused:
            raise FunctionPaused(function.name)
        if self.calling >= MOST_WAITING_CALLS or function.pool.draining:
            raise Overloaded(function.name, self.calling)
        limit = function.manifest.timeout_s
        if timeout_s is not None:
            limit = min(limit, timeout_s) if limit else timeout_s
        return limit

    async def call(
        self, event: Event, trigger: str, timeout_s: float | None, http: Http | None = None
    ) -> Reply:
        """Run the function now. Raises Overloaded."""
        function = self.function
        limit = self._limit(timeout_s)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        timer: Timeout | asyncio.TimerHandle | None = None

        def ended(pending: Pending, result: Result) -> None:
            if not future.done():
                future.set_result(result)

        def expired() -> None:
            if not future.done():
                future.set_exception(TimeoutError())

        def held() -> None:
            if timer is not None:
                timer.cancel()

        def released(pending: Pending) -> None:
            if not future.done():
                self._again(pending)

        scope = function.origin(trigger).scope
        call = Call(next(function.numbers), trigger, [event], 1, 1, limit, scope, [], http)
        pending = Pending(call, (), ended, released, held=held)
        self.calling += 1
        # asyncio.timeout, which can nest, takes 6 % of the gateway's time.
        if limit == function.manifest.timeout_s != 0:
            timer = self._timeouts.start(expired)
        elif limit:
            timer = loop.call_later(limit, expired)
        try:
            function.pool.submit([pending])
            result = await future
        except TimeoutError:
            function.pool.cancel(pending)
            return self._called(event, _late(limit), int(limit * 1e6))
        except asyncio.CancelledError:
            function.pool.cancel(pending)
            raise
        finally:
            self.calling -= 1
            if timer is not None:
                timer.cancel()
        return self._called(event, await self._reply(event, trigger, result), result.took_us)

    async def respond(
        self, event: Event, trigger: str, timeout_s: float | None, http: Http | None, answer: Answer
    ) -> Reply:
        """Run the function now; what it sends before its end goes to `answer` as it comes. Raises
        Overloaded."""
        function = self.function
        limit = self._limit(timeout_s)
        stream = Stream()
        scope = function.origin(trigger).scope
        call = Call(next(function.numbers), trigger, [event], 1, 1, limit, scope, [], http)
        pending = Pending(
            call, (), lambda _, result: stream.ended(result), self._again, said=stream.said
        )
        items = Items(function, event, trigger)

        async def handle(messages: Sequence[Aside]) -> None:
            made = [message.out for message in messages if isinstance(message, Made)]
            if made:
                events = await items.publish(made)
                if function.kind == "stream":
                    await answer.items(events)
            for message in messages:
                if isinstance(message, Start):
                    items.sent.status = message.status
                    await answer.head(message.status, message.headers)
                elif isinstance(message, Chunk):
                    await answer.chunk(message.body, message.more)

        self.calling += 1
        try:
            async with asyncio.timeout(limit or None):
                function.pool.submit([pending])
                result = await stream.run(handle)
        except TimeoutError:
            function.pool.cancel(pending)
            stream.abandon()
            return self._called(event, _late(limit), int(limit * 1e6), items.sent)
        except BaseException:
            function.pool.cancel(pending)
            stream.abandon()
            raise
        finally:
            self.calling -= 1
        assert result is not None  # it is abandoned only here
        reply = await self._reply(event, trigger, result, items.sent.count)
        return self._called(event, reply, result.took_us, items.sent)

    def _again(self, pending: Pending) -> None:
        """It had not begun, so it may go to another instance, or to the next version's."""
        if not self.function.pool.draining:
            pending.started = 0.0
            self.function.pool.submit([pending])
            return
        why = Failure("Closing", "the host stopped before the call began")
        pending.ended(pending, Result(pending.call.id, "closing", [], why))

    def _called(self, event: Event, reply: Reply, took_us: int, sent: Sent | None = None) -> Reply:
        function = self.function
        if reply.status != "closing":
            function.meter.ran(function.pool.stamp, took_us)
            if reply.status != "ok":
                function.meter.failed += 1
                function.diary.call_failed(event, reply)
        if function.host.observer is not None:
            function.host.observer.called(function, event, reply, took_us, sent or Sent())
        return reply

    async def _reply(self, event: Event, trigger: str, result: Result, published: int = 0) -> Reply:
        function = self.function
        outs: list[Out] = list(result.outputs)
        ended: Result | Item = result
        for item in result.items or ():
            outs.extend(item.outputs)
            if item.status != "ok" and ended.status == "ok":
                ended = item
        if ended.status != "ok":
            status = ended.status if ended.status in FAILURES else "error"
            return Reply(status, (), ended.failure, ended.retry_after_s)  # type: ignore[arg-type]
        try:
            made = shape(
                function.origin(trigger),
                event,
                outs,
                now=function.host.clock.time(),
                hops=1,
                reply_to="caller",
                first=published,
            )
        except EventError as error:
            return Reply("error", (), Failure("EventError", f"an output is refused: {error}"))
        refused = await self._publish([output for output in made if output.topic])
        if refused:
            return Reply("error", (), Failure("MeshFull", refused))
        function.meter.done += 1
        return Reply("ok", [output.event for output in made])

    async def _publish(self, outputs: Sequence[Output]) -> str:
        function = self.function
        for output in outputs:
            (receipt,) = await function.host.mesh.publish(output.topic, [output.event], hops=1)
            if receipt.status != "stored":
                return f"an output could not be stored: {receipt.reason or receipt.status}"
            function.meter.outputs += 1
        return ""


def _late(limit: float) -> Reply:
    return Reply("timeout", (), Failure("TimeoutError", f"took longer than {limit:g} s"))
