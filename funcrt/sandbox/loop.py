"""The instance of an asynchronous handler: its calls are tasks of one event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from funcrt.sandbox.protocol import (
    HEADER,
    MAX_FRAME,
    Call,
    Cancel,
    Failure,
    FromInstance,
    Recall,
    Result,
    ToInstance,
    encode,
    read_to_instance,
)
from funcrt.sandbox.watchdog import Watchdog
from funcrt.sandbox.worker import STARTING, Worker

__all__ = ["LoopWorker"]


class LoopWorker(Worker):
    """One instance's life, on an event loop."""

    def run(self) -> None:
        """As Worker says."""
        try:
            import uvloop

            uvloop.run(self.main())
        except ImportError:
            asyncio.run(self.main())

    async def main(self) -> None:
        """Serve until the host closes its side of the channel."""
        self.loop = asyncio.get_running_loop()
        self.flushing = False
        self.tasks: set[asyncio.Task[None]] = set()
        """Each takes the first of `ahead` as it begins."""
        self.coming = 0
        """Of these, those that have not begun."""
        self.running: dict[int, asyncio.Task[None] | None] = {}
        """Those that have, by their calls' ids."""
        self.watchdog = Watchdog(self.loop, self.path, lambda: bool(self.tasks))
        self.reader, self.writer = await asyncio.open_unix_connection(
            sock=self.channel, limit=1 << 20
        )
        try:
            async with self._lifespan():
                await self._until_closed()
        except Exception as error:
            if self.bound.lifespan is None:
                raise
            self.left(error)
        self._send()
        await self.writer.drain()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        if self.bound.lifespan is None:
            yield
            return
        made: Any = self.bound.lifespan(self.context(STARTING))
        async with made if hasattr(made, "__aenter__") else self.blocking(made) as value:
            self.entered(value)
            self._send()
            yield

    @asynccontextmanager
    async def blocking(self, made: AbstractContextManager[Any]) -> AsyncIterator[Any]:
        """A lifespan that is not asynchronous."""
        with made as value:
            yield value

    async def _until_closed(self) -> None:
        reader = self.reader
        try:
            while True:
                (length,) = HEADER.unpack(await reader.readexactly(4))
                for message in read_to_instance(await reader.readexactly(length)):
                    self.take(message)
        except asyncio.IncompleteReadError:
            pass
        while self.tasks:
            await asyncio.wait(list(self.tasks))
        self._send()

    def take(self, message: ToInstance) -> None:
        """A message of the host's."""
        if isinstance(message, Call):
            self.ahead.append(message)
            self._more()
        elif isinstance(message, Recall):
            self.lift(message)
            for _ in range(len(self.ahead)):
                self._more()
        elif isinstance(message, Cancel):
            self._cancel(message.id)

    def _cancel(self, key: int) -> None:
        task = self.running.get(key)
        if task is not None:
            task.cancel()
            return
        for at, call in enumerate(self.ahead):
            if call.id == key:
                del self.ahead[at]
                self.begun[0] += 1  # as it is answered
                why = Failure("Cancelled", "nobody waits for it any more")
                self.say(Result(key, "error", [], why))
                return

    def _more(self) -> None:
        """Have one more begin once the loop is free for it, if there is room for one."""
        if len(self.tasks) >= self.concurrency:
            return
        if not self.watchdog.awake:
            self.watchdog.wake()
        self.coming += 1
        task = self.loop.create_task(self._serve())
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if len(self.ahead) > self.coming and self.begun[2] == self.lifted:
            self._more()

    async def _serve(self) -> None:
        self.coming -= 1
        if not (self.ahead and self.begin()):
            return
        call = self.ahead.popleft()
        self.running[call.id] = asyncio.current_task()
        result = await self.call_async(call)
        del self.running[call.id]
        self.say(result)

    # What is said

    def say(self, message: FromInstance) -> None:
        """Send it with what else is said in this turn of the loop."""
        self.out.append(message)
        self._soon()

    def _soon(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self._send)

    def _send(self) -> None:
        self.flushing = False
        self.sample(self.loop.time())
        with self.lock:  # a handler's own threads may log
            ready, lined = self._ready()
        if not ready:
            return
        body = encode(ready)
        if len(body) <= MAX_FRAME:
            self.writer.writelines((HEADER.pack(len(body) | lined), body))
            return
        for message in ready:
            body = encode([message])
            self.writer.writelines((HEADER.pack(len(body) | lined), body))
