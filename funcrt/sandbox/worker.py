"""The instance: takes calls from its channel, runs the handler, sends results back.

A synchronous handler with one call at a time runs in the main thread without an event loop, with
several in threads; an asynchronous one is served by `loop.py`.
"""

import asyncio
import contextlib
import ctypes
import mmap
import os
import queue
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from funcrt.context import Context, Reject, Retry
from funcrt.sandbox.handler import Bound, NotAnEvent, failed, failure, items, output, outputs
from funcrt.sandbox.lifespan import beside, resources_of
from funcrt.sandbox.protocol import (
    HEADER,
    LINED,
    MAX_FRAME,
    SHARED,
    Call,
    Failure,
    FromInstance,
    Given,
    Item,
    Log,
    Out,
    Recall,
    Result,
    Started,
    ToInstance,
    encode,
    late,
    read_to_instance,
)
from funcrt.sandbox.said import CALL, LINE, Printed, tagged

if TYPE_CHECKING:
    from funcrt.sandbox.breakpoints import Terminal
    from funcrt.sandbox.confine import Confinement

__all__ = ["STARTING", "Worker"]

STARTING = Call(0, "", [], 1, 1, 0.0)
"""What the context of a lifespan is made of."""
NO_ANSWER = "pdb found no terminal; breakpoint() has one under `funcrt dev`"
_PR_SET_DUMPABLE = 4
FLUSH_S = 0.0005
"""A result waits for those after it in its frame no longer than this, or than the one call that is
begun meanwhile."""
SAMPLE_S = 0.01


class Worker:
    """One instance's life."""

    def __init__(
        self,
        channel: socket.socket,
        bound: Bound,
        path: Path,
        concurrency: int,
        most: int,
        *,
        begun: int | None = None,
    ) -> None:
        self.channel = channel
        self.bound = bound
        self.path = path
        self.concurrency = concurrency
        self.most = min(most, MAX_FRAME // 2)
        self.begun: memoryview[int] | list[int] = [0, 0, 0]
        """SHARED. The host reads how many calls have begun once this process has ended, for results
        are held back a little, and those it has do not tell which call began last; and the CPU
        time as they were sent, so that a call's own is known."""
        if begun is not None:  # None: there is no other process
            self.begun = memoryview(mmap.mmap(begun, SHARED.size)).cast("Q")
            os.close(begun)
        self.ahead: deque[Call] = deque()
        """Received, and not begun."""
        self.lifted = 0
        """The last halt that has ended."""
        self.held: Confinement | None = None
        """What it is held to, for what its failures say."""
        self.beginning = threading.Lock()
        self.alive = False
        """Its lifespan was entered."""
        self.env: Mapping[str, str] = dict(os.environ)
        self.secrets: Mapping[str, str] = {}
        """What `ctx.secret` gives."""
        self.now: Callable[[], float] = time.monotonic
        self.out: list[FromInstance] = []
        self.resources: Any = resources_of(None)
        """What the lifespan yielded, as `ctx.resources`."""
        self.state: Mapping[str, Any] = {}
        """The same as `request.state` has it."""
        self.lock = threading.RLock()
        """Of `out`. A destructor may print while it is held."""
        self.flushed = 0.0
        """When `out` was sent last, by time.perf_counter."""
        self.sampled = 0.0
        """When the CPU time was noted last."""
        self.pipe = -1
        """Where lines go; there is none in a test, which finds them in `out`."""
        self.wrote = False
        """Since `out` was sent last."""
        self.streams: list[Printed] = []
        self.terminal: Terminal | None = None
        self.scopes: weakref.WeakSet[asyncio.Timeout] = weakref.WeakSet()
        """Of the calls that run, where there is a terminal."""

    def listen(self) -> None:
        """Take what calls print, which is told with the call from then on, through a descriptor of
        our own: the handler may lay others over its standard error."""
        self.pipe = os.dup(2)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Printed):
                stream.say = self._log
                self.streams.append(stream)

    def receive(self) -> bool:
        """Take the secrets, which the host sends before anything else; False where it has gone.
        This process leaves no core from then on, and its user's others cannot look into it."""
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        head = self._exactly(HEADER.size)
        body = self._exactly(HEADER.unpack(head)[0]) if head else b""
        if body:
            self.secrets = msgspec.msgpack.decode(body, type=Given).secrets
        return bool(body)

    def _exactly(self, size: int) -> bytes:
        """So many bytes of the channel; none at its end."""
        found = bytearray()
        while len(found) < size:
            data = self.channel.recv(size - len(found))
            if not data:
                return b""
            found += data
        return bytes(found)

    def borrow(self, terminal: "Terminal") -> None:
        """Where `breakpoint()` finds a terminal. Time at its prompt is nobody's."""
        self.terminal = terminal
        terminal.taken = self._untimed

    def _untimed(self) -> None:
        for scope in list(self.scopes):
            with contextlib.suppress(RuntimeError):  # it is over, or has not begun
                scope.reschedule(None)

    def limit(self, seconds: float) -> asyncio.Timeout:
        """The scope that a call's time ends; 0 for never."""
        scope = asyncio.timeout(seconds or None)
        if self.terminal is not None:
            self.scopes.add(scope)
        return scope

    def run(self) -> None:
        """Serve until the host closes its side of the channel."""
        serve = self._threads if self.concurrency > 1 else self._plain
        if self.bound.lifespan is None:
            serve()
            return
        try:
            made: Any = self.bound.lifespan(self.context(STARTING))
            with beside(made) if hasattr(made, "__aenter__") else made as value:
                self.entered(value)
                self.flush()
                serve()
        except Exception as error:
            self.left(error)
            self.flush()

    # Its lifespan

    def entered(self, value: Any) -> None:
        """It yielded this: calls may come."""
        self.resources = resources_of(value)
        self.state = value if isinstance(value, Mapping) else {}
        self.alive = True
        self.out.append(Started())

    def left(self, error: BaseException) -> None:
        """It failed, as it was entered or left."""
        why = failure(error, self.path, self.held)
        if self.alive:
            self._log(0, "error", f"lifespan failed as it ended: {why.traceback}")
        else:
            self.out.append(Started(why))

    # Frames

    def _frames(self) -> Any:
        buffer = bytearray()
        while True:
            while len(buffer) >= 4:
                (length,) = HEADER.unpack_from(buffer)
                if len(buffer) < 4 + length:
                    break
                messages = read_to_instance(memoryview(buffer)[4 : 4 + length])
                del buffer[: 4 + length]
                yield messages
            data = self.channel.recv(1 << 18)
            if not data:
                return
            buffer += data

    def _ready(self) -> tuple[list[FromInstance], int]:
        """What is to be sent, and LINED where lines were written before it. By who holds the
        lock."""
        ready, self.out = self.out, []
        if not (ready and self.wrote):
            return ready, 0
        self.wrote = False
        return ready, LINED

    def sample(self, now: float) -> None:
        """Note the CPU time, but not for every frame: to ask for it costs a microsecond."""
        if now - self.sampled > SAMPLE_S:
            self.sampled = now
            self.begun[1] = time.process_time_ns()

    def flush(self) -> None:
        """Send what is ready, in frames that the host takes."""
        with self.lock:
            self.flushed = time.perf_counter()
            self.sample(self.flushed)
            ready, lined = self._ready()
            if not ready:
                return
            body = encode(ready)
            if len(body) <= MAX_FRAME:
                self.channel.sendall(HEADER.pack(len(body) | lined) + body)
                return
            for message in ready:
                body = encode([message])
                self.channel.sendall(HEADER.pack(len(body) | lined) + body)

    # The ways to serve without an event loop

    def _plain(self) -> None:
        ahead = self.ahead
        for messages in self._frames():
            self.flushed = time.perf_counter()  # or the first result would go alone
            self._received(messages)
            while ahead:
                if self.out and time.perf_counter() - self.flushed > FLUSH_S:
                    self.flush()
                if not self.begin():
                    break  # the next frames say how it goes on
                result = self.call(ahead.popleft())
                with self.lock:
                    self.out.append(result)
                if time.perf_counter() - self.flushed > FLUSH_S:
                    self.flush()
            self.flush()

    def _threads(self) -> None:
        more: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """True for each call that may be in `ahead`, False for a thread's end."""

        def serve() -> None:
            while more.get():
                with self.beginning:  # in the order they were sent
                    if not (self.ahead and self.begin()):
                        continue
                    call = self.ahead.popleft()
                result = self.call(call)
                with self.lock:
                    self.out.append(result)
                self.flush()

        pool = [threading.Thread(target=serve) for _ in range(self.concurrency)]
        for thread in pool:
            thread.start()
        for messages in self._frames():
            with self.beginning:
                lifted = self._received(messages)
            for _ in range(len(self.ahead if lifted else messages)):
                more.put(True)
        for _ in pool:
            more.put(False)
        for thread in pool:
            thread.join()

    def _received(self, messages: Iterable[ToInstance]) -> bool:
        """Take what the host sends; whether a halt is over."""
        lifted = False
        for message in messages:
            if type(message) is Call:
                self.ahead.append(message)
            elif type(message) is Recall:
                self.lift(message)
                lifted = True
        return lifted

    def begin(self) -> bool:
        """Count one more call as begun; False, and it has not, during a halt."""
        begun = self.begun
        begun[0] += 1  # before it looks: see Recall
        if begun[2] == self.lifted:
            return True
        begun[0] -= 1
        return False

    def lift(self, message: Recall) -> None:
        """End a halt, without the calls that others have now."""
        gone = set(message.ids)
        kept = [call for call in self.ahead if call.id not in gone]
        self.ahead.clear()
        self.ahead.extend(kept)
        self.lifted = message.halt

    # One call

    def context(self, call: Call) -> Context:
        """What the handler gets beside its event."""
        return Context(call, self.env, self._log, self.now, self.resources, secrets=self.secrets)

    def _over(self, call: int) -> None:
        """Nothing more is the call's."""
        if self.terminal is not None:
            self.terminal.over()
        for stream in self.streams:
            if stream.rest:
                stream.ended(call)

    def _log(self, call: int, level: str, text: str) -> None:
        """Say it at once: the call may be long, or the last. The host drops what is too much."""
        if self.pipe < 0:
            self.out.append(Log(call, level, text[:LINE]))
            return
        line = tagged(call, level, text[:LINE])
        with self.lock, contextlib.suppress(OSError):  # the handler may have closed everything
            while line:
                line = line[os.write(self.pipe, line) :]
            self.wrote = True

    def call(self, call: Call) -> Result:
        """Run a synchronous handler; never raises."""
        CALL.set(call.id)
        started = time.perf_counter()
        try:
            context = self.context(call)
            returned = self.bound.call(*self.bound.arguments(call.events, context))
            if self.bound.kind == "generator":
                returned = [output(item) for item in returned]
            result = self._ok(call, returned, context, started)
        except BaseException as error:
            result = self._failed(call, error, started)
        self._over(call.id)
        return result

    async def call_async(self, call: Call) -> Result:
        """Run an asynchronous handler; never raises."""
        CALL.set(call.id)
        try:
            return await self._run(call)
        finally:
            self._over(call.id)

    async def _run(self, call: Call) -> Result:
        started = time.perf_counter()
        scope = self.limit(call.timeout_s)
        try:
            async with scope:
                context = self.context(call)
                made = self.bound.call(*self.bound.arguments(call.events, context))
                if self.bound.kind == "async generator":
                    returned: Any = [output(item) async for item in made]
                else:
                    returned = await made
            return self._ok(call, returned, context, started)
        except TimeoutError as error:
            if scope.expired():
                why = Failure("TimeoutError", late(call), limit="time")
                return Result(call.id, "timeout", [], why, _us(started))
            return self._failed(call, error, started)
        except BaseException as error:
            return self._failed(call, error, started)

    def _ok(self, call: Call, returned: Any, context: Context, started: float) -> Result:
        each: list[Item] | None = None
        outs: list[Out] = []
        listed = items(returned, len(call.events)) if self.bound.batch else None
        if listed is not None:
            each = [_item(item) for item in listed]
        else:
            outs = outputs(returned)
        if context._emitted:
            outs = [*outs, *(Out(event, topic) for event, topic in context._emitted)]
        result = Result(call.id, "ok", outs, None, _us(started), None, each)
        size = _size(result)
        if size > self.most:
            message = f"returned {size} bytes, more than the {self.most} allowed"
            why = Failure("OutputTooLarge", message, limit="output")
            result = Result(call.id, "error", [], why, _us(started))
        return result

    def _failed(self, call: Call, error: BaseException, started: float) -> Result:
        why = failure(error, self.path, self.held)
        if type(error).__name__ == "BdbQuit":  # its module is slow to import
            left = "its debugger was left" if self.terminal is not None else NO_ANSWER
            why = msgspec.structs.replace(why, message=left)
            return Result(call.id, "reject", [], why, _us(started))
        if isinstance(error, Retry):
            return Result(call.id, "retry", [], why, _us(started), error.after)
        status = "reject" if isinstance(error, Reject | NotAnEvent) else "error"
        return Result(call.id, status, [], why, _us(started))


def _item(item: Any) -> Item:
    why = failed(item)
    return Item("error", [], why) if why is not None else Item("ok", outputs(item))


def _size(result: Result) -> int:
    total = sum(len(out.event.data or b"") for out in result.outputs)
    for item in result.items or ():
        total += sum(len(out.event.data or b"") for out in item.outputs)
    return total


def _us(started: float) -> int:
    return int((time.perf_counter() - started) * 1e6)
