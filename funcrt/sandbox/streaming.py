"""The instance of a handler that takes a Request, or whose items are published as it makes them:
what a call sends before its result, no more of it ahead than the host has room for.

Served by an event loop. A synchronous handler, or generator, runs in threads beside it, as many as
calls may run at once.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from funcrt.context import Context
from funcrt.sandbox.handler import output
from funcrt.sandbox.loop import LoopWorker
from funcrt.sandbox.protocol import (
    WINDOW,
    Aside,
    Call,
    Cancel,
    Chunk,
    Failure,
    Made,
    Out,
    Result,
    Start,
    Taken,
    ToInstance,
    late,
    weight,
)
from funcrt.sandbox.said import CALL
from funcrt.sandbox.web import answer_of, is_response, receiver, scope_of, sender

__all__ = ["Gone", "Outlet", "StreamWorker"]

T = TypeVar("T")


class Gone(OSError):
    """Nobody takes what the call sends any more. An OSError, as ASGI (2.4) has it."""


class Outlet:
    """One call's way out."""

    def __init__(self, say: Callable[[Aside], None]) -> None:
        self.say = say
        self.ahead = 0
        """What the host has not taken yet, by weight."""
        self.stopped = False
        self.responding = False
        """The handler has returned its Response, which runs on the loop."""
        self.changed = asyncio.Event()

    async def put(self, message: Aside) -> None:
        """Send it once there is room. Raises Gone."""
        size = weight(message)
        while self.ahead and self.ahead + size > WINDOW and not self.stopped:
            self.changed.clear()
            await self.changed.wait()
        if self.stopped:
            raise Gone("nobody takes what the call sends any more")
        self.ahead += size
        self.say(message)

    def taken(self, size: int) -> None:
        """There is room for as much more."""
        self.ahead -= size
        self.changed.set()

    def stop(self) -> None:
        """Nobody listens."""
        self.stopped = True
        self.changed.set()

    async def gone(self) -> None:
        """Return once nobody listens."""
        while not self.stopped:
            self.changed.clear()
            await self.changed.wait()


class StreamWorker(LoopWorker):
    """One instance's life."""

    async def main(self) -> None:
        """As LoopWorker says."""
        self.outlets: dict[int, Outlet] = {}
        await super().main()

    def take(self, message: ToInstance) -> None:
        """As LoopWorker says."""
        outlet = self.outlets.get(message.id) if isinstance(message, Taken | Cancel) else None
        if isinstance(message, Taken):
            if outlet is not None:
                outlet.taken(message.weight)
            return
        if outlet is not None:
            outlet.stop()
            if not (self.bound.kind.startswith("async") or outlet.responding):
                return
        super().take(message)

    async def call_async(self, call: Call) -> Result:
        """Run the handler; never raises."""
        outlet = self.outlets[call.id] = Outlet(self.say)
        try:
            return await self.streamed(call, outlet)
        finally:
            del self.outlets[call.id]

    async def streamed(self, call: Call, outlet: Outlet) -> Result:
        """Run the handler, its stream going by the outlet; never raises."""
        CALL.set(call.id)
        try:
            return await self._streamed(call, outlet)
        finally:
            self._over(call.id)

    async def _streamed(self, call: Call, outlet: Outlet) -> Result:
        started = time.perf_counter()
        # A thread cannot be cancelled: the host ends an instance in which one takes too long.
        scope = self.limit(call.timeout_s if self.bound.kind.startswith("async") else 0.0)
        try:
            async with scope:
                context = self.context(call)
                returned = None
                if self.bound.request:
                    returned = await self._respond(call, context, outlet)
                else:
                    await self._generate(call, context, outlet)
            return self._ok(call, returned, context, started)
        except TimeoutError as error:
            if scope.expired():
                why = Failure("TimeoutError", late(call), limit="time")
                return Result(
                    call.id, "timeout", [], why, int((time.perf_counter() - started) * 1e6)
                )
            return self._failed(call, error, started)
        except BaseException as error:
            return self._failed(call, error, started)

    # A generator

    async def _generate(self, call: Call, context: Context, outlet: Outlet) -> None:
        arguments = self.bound.arguments(call.events, context)
        if self.bound.kind == "async generator":
            async with aclosing(self.bound.call(*arguments)) as made:
                async for item in made:
                    await outlet.put(self._made(call, item))
            return
        loop = asyncio.get_running_loop()

        def run() -> None:
            made = self.bound.call(*arguments)
            try:
                for item in made:
                    message = self._made(call, item)
                    asyncio.run_coroutine_threadsafe(outlet.put(message), loop).result()
            finally:
                made.close()

        await self._in_thread(run)

    def _made(self, call: Call, item: Any) -> Made:
        event = output(item)
        if len(event.data or b"") > self.most:
            raise ValueError(f"an item has {len(event.data or b'')} bytes, more than {self.most}")
        return Made(call.id, Out(event))

    async def _in_thread(self, run: Callable[[], T]) -> T:
        """Run it in one of the threads."""
        body = partial(contextvars.copy_context().run, run)
        return await asyncio.get_running_loop().run_in_executor(self.threads, body)

    @asynccontextmanager
    async def blocking(self, made: AbstractContextManager[Any]) -> AsyncIterator[Any]:
        """As LoopWorker says; in the thread of the calls where they have but one."""
        if self.bound.kind.startswith("async"):
            async with super().blocking(made) as value:
                yield value
            return
        value = await self._in_thread(made.__enter__)
        try:
            yield value
        except BaseException as error:
            how = (type(error), error, error.__traceback__)
            if not await self._in_thread(lambda: made.__exit__(*how)):
                raise
        else:
            await self._in_thread(lambda: made.__exit__(None, None, None))

    @property
    def threads(self) -> ThreadPoolExecutor:
        """As many as calls may run at once; none is started before it is needed."""
        if self._threads_pool is None:
            self._threads_pool = ThreadPoolExecutor(self.concurrency)
        return self._threads_pool

    _threads_pool: ThreadPoolExecutor | None = None

    # A request

    async def _respond(self, call: Call, context: Context, outlet: Outlet) -> Any:
        """Call the handler and send its Response; what it returned, where that is none."""
        scope = scope_of(call, self.state)
        receive = receiver(call.events[0].data or b"", outlet.gone)
        context._http = scope, receive
        try:
            arguments = self.bound.arguments(call.events, context)
            if self.bound.kind == "async":
                returned = await self.bound.call(*arguments)
            else:
                returned = await self._in_thread(partial(self.bound.call, *arguments))
        except Exception as error:
            returned = answer_of(error)
            if returned is None:
                raise
        if not is_response(returned):
            return returned

        async def put(message: Aside) -> None:
            # What was emitted is durable before the caller is told.
            if isinstance(message, Start) or (isinstance(message, Chunk) and not message.more):
                for event, topic in context._emitted:
                    await outlet.put(Made(call.id, Out(event, topic)))
                context._emitted.clear()
            await outlet.put(message)

        outlet.responding = True
        try:
            await returned(scope, receive, sender(call.id, put))
        finally:
            closing = getattr(getattr(returned, "body_iterator", None), "aclose", None)
            if closing is not None:
                await closing()
        return None
