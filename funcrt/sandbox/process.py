"""The host's side of the process sandbox: starts zygotes, holds channels, ends instances."""

import asyncio
import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from funcrt.errors import LoadError, Problem, SandboxError
from funcrt.sandbox import Code, Exit, HandlerInfo, Instance, OnExit, OnMessages
from funcrt.sandbox.debugging import Debug
from funcrt.sandbox.fit import file_of, unfit
from funcrt.sandbox.lending import Borrower, Lending
from funcrt.sandbox.lifespan import TEARDOWN_S
from funcrt.sandbox.logs import Budget, LogReader
from funcrt.sandbox.protocol import (
    HEADER,
    LINED,
    MAX_FRAME,
    Failure,
    FromChannel,
    FromInstance,
    Given,
    Log,
    Started,
    ToInstance,
)
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.sandbox.warm import Send, WarmProcesses
from funcrt.sandbox.zygote import MAX_MESSAGE, Spawn, Spec
from mesh.failpoint import point

__all__ = ["Debugging", "ProcessSandbox"]

LOAD_TIMEOUT_S = 60.0


def _socketpair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    return ours, theirs


class Debugging(Protocol):
    """The debugger's end in the host."""

    async def attached(self) -> Debug:
        """Wait until an editor has attached, once; where the adapter is now."""


class ProcessSandbox:
    """Zygotes and instances as processes of this machine.

    With `warm`, each function has a process that holds its dependencies (`warm.py`), and versions
    are forked from that. With a `debugger`, instances attach to it, and none starts before an
    editor has attached for the first time.
    """

    def __init__(self, *, warm: bool = False, debugger: "Debugging | None" = None) -> None:
        ahead = ("debugpy.server.api",) if debugger is not None else ()
        self._warm = WarmProcesses(ahead) if warm else None
        self.debugger = debugger
        self.lending: Lending | None = None
        """Who has a terminal, where instances are to have one for `breakpoint()`."""
        self._runtime: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._zygotes: set[ProcessZygote] = set()
        self.heard: Callable[[Code, str, str], None] = lambda *_: None
        """Told of each line (level, text) that an import writes."""

    def said_by(self, code: Code) -> Callable[[Sequence[Log]], None]:
        """Takes what an import prints, which is not a call's: it goes to the host's own log too."""
        log = logging.getLogger(f"funcrt.function.{code.name}")

        def said(lines: Sequence[Log]) -> None:
            for line in lines:
                log.info("%s: %s", line.level, line.text)
                self.heard(code, line.level, line.text)

        return said

    async def start(self) -> None:
        """As the contract says."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[2])
        program = (
            f"import sys; sys.path.insert(0, {root!r});"
            f"from funcrt.sandbox.zygote import runtime; runtime({theirs.fileno()}, {os.getpid()})"
        )
        with theirs:
            self._runtime = subprocess.Popen(  # noqa: ASYNC220 - it returns once forked
                [sys.executable, "-I", "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
            )

    async def load(self, code: Code) -> "ProcessZygote":
        """As the contract says."""
        if self._control is None:
            raise SandboxError("the sandbox was not started")
        spec = Spec(
            path=str(code.path),
            handler=code.handler,
            concurrency=code.concurrency or 0,
            env=dict(code.env),
            memory_bytes=code.memory_bytes or 0,
            max_output_bytes=code.max_output_bytes,
            batch=code.batch,
            source=str(code.source or ""),
            stream=code.stream,
        )
        zygote = await self._fork(code, spec, send=await self._parent(code))
        info = zygote.info
        if info.threads > 1:
            await zygote.stop()
            late = msgspec.structs.replace(spec, late=True)
            zygote = await self._fork(code, late, info)
        return zygote

    async def _parent(self, code: Code) -> Send:
        """What takes the message to fork this version."""
        if self._warm is not None:
            try:
                warmed = await self._warm.get(code, self._send, self.said_by(code))
            except OSError as error:
                raise SandboxError(f"the runtime zygote is gone ({error})") from None
            if warmed is not None:
                return warmed.fork
        return self._send

    def _send(self, body: bytes, descriptors: list[int]) -> None:
        if self._control is None:
            raise OSError("the sandbox was closed")
        socket.send_fds(self._control, [body], descriptors)

    async def _fork(
        self, code: Code, spec: Spec, info: HandlerInfo | None = None, *, send: Send | None = None
    ) -> "ProcessZygote":
        ours, theirs = _socketpair(socket.SOCK_SEQPACKET)
        logs = [os.pipe(), os.pipe()]
        zygote = ProcessZygote(self, code, ours, [read for read, _ in logs])
        try:
            descriptors = [theirs.fileno(), *(write for _, write in logs)]
            (send or self._send)(msgspec.msgpack.encode(spec), descriptors)
        except OSError as error:
            await zygote.stop()
            raise SandboxError(f"the runtime zygote is gone ({error})") from None
        finally:
            theirs.close()
            for _, write in logs:
                os.close(write)
        self._zygotes.add(zygote)
        try:
            await zygote.loaded(info)
        except BaseException:
            await zygote.stop()
            raise
        return zygote

    def forget(self, zygote: "ProcessZygote") -> None:
        """A zygote is gone."""
        self._zygotes.discard(zygote)

    async def close(self) -> None:
        """As the contract says."""
        for zygote in list(self._zygotes):
            await zygote.stop()
        if self._warm is not None:
            self._warm.close()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._runtime is not None:
            try:
                await asyncio.to_thread(self._runtime.wait, 5)
            except subprocess.TimeoutExpired:
                self._runtime.kill()
                self._runtime.wait()
            self._runtime = None


class ProcessZygote:
    """F: one version's code, loaded."""

    info: HandlerInfo

    def __init__(
        self, sandbox: ProcessSandbox, code: Code, control: socket.socket, logs: list[int]
    ) -> None:
        self.sandbox = sandbox
        self.code = code
        self.alive = True
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._numbers = itertools.count(1)
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        said = sandbox.said_by(code)
        names = ("stdout", "stderr")
        budget = Budget(self._loop.time)
        self._logs = [
            LogReader(fd, name, said, budget) for fd, name in zip(logs, names, strict=True)
        ]
        self.instances: dict[int, ProcessInstance] = {}
        self._loop.add_reader(control.fileno(), self._readable)

    @property
    def busy(self) -> bool:
        """As the contract says."""
        return bool(self.instances or self._spawning)

    def _readable(self) -> None:
        try:
            body = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            body = b""
        if not body:
            self._lost()
            return
        try:
            message = msgspec.msgpack.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            self._lost()
            return
        if "spawned" in message:
            number, pid = message["spawned"]
            future = self._spawning.pop(number, None)
            if future is not None and not future.done():
                future.set_result(pid)
        elif "exit" in message:
            pid, status = message["exit"]
            instance = self.instances.pop(pid, None)
            if instance is not None:
                instance.ended(status)
        elif not self._ready.done():
            self._ready.set_result(message)

    def _lost(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self.sandbox.forget(self)
        for future in self._spawning.values():
            if not future.done():
                future.set_exception(SandboxError(f"{self.code.name}: its zygote ended"))
        if not self._ready.done():
            self._ready.set_result({"gone": True})
        for instance in list(self.instances.values()):
            instance.ended(None)
        self.instances.clear()
        for reader in self._logs:
            reader.close()
        if not self._gone.done():
            self._gone.set_result(None)

    async def loaded(self, info: HandlerInfo | None) -> None:
        """Wait for the import. Raises LoadError."""
        file = file_of(self.code)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                message = await self._ready
        except TimeoutError:
            text = f"its import took longer than {LOAD_TIMEOUT_S:g} s"
            raise LoadError(Problem(file=file, message=text)) from None
        if "error" in message:
            told = message["error"]
            raise LoadError(msgspec.convert(told["problem"], Problem), told["traceback"])
        if "gone" in message:
            text = "its process ended during the import: it exited by os._exit, or crashed"
            raise LoadError(Problem(file=file, message=text))
        self.info = info or msgspec.convert(message["ready"], HandlerInfo)
        if wrong := unfit(self.code, self.info):
            raise LoadError(Problem(file=file, message=wrong))

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> "ProcessInstance":
        """As the contract says."""
        debugger, lending = self.sandbox.debugger, self.sandbox.lending
        debug = await debugger.attached() if debugger is not None else None
        if not self.alive:
            raise SandboxError(f"{self.code.name}: its zygote is gone")
        ours, theirs = _socketpair(socket.SOCK_STREAM)
        logs = [os.pipe(), os.pipe()]
        begun = os.memfd_create("begun")
        os.ftruncate(begun, 8)
        number = next(self._numbers)
        future: asyncio.Future[int] = self._loop.create_future()
        self._spawning[number] = future
        desk = _socketpair(socket.SOCK_SEQPACKET) if lending is not None else None
        try:
            body = msgspec.msgpack.encode(Spawn(number, debug, desk is not None, bool(secrets)))
            descriptors = [theirs.fileno(), *(write for _, write in logs), begun]
            if desk is not None:
                descriptors.append(desk[1].fileno())
            socket.send_fds(self._control, [body], descriptors)
        except OSError as error:
            self._spawning.pop(number, None)
            ours.close()
            for descriptor in (begun, *(read for read, _ in logs)):
                os.close(descriptor)
            if desk is not None:
                desk[0].close()
            raise SandboxError(f"{self.code.name}: cannot fork ({error})") from None
        finally:
            theirs.close()
            for _, write in logs:
                os.close(write)
            if desk is not None:
                desk[1].close()
        reads = [*(read for read, _ in logs), begun]
        instance = ProcessInstance(self, ours, reads, on_messages, on_exit)
        instance.secrets = secrets
        if desk is not None and lending is not None:
            instance.borrower = Borrower(self.code.name, desk[0], lending, instance.hold)
        # Registered as soon as the pid is known, in the same turn, so that no exit is missed.
        future.add_done_callback(lambda done: self._register(done, instance))
        try:
            await future
        except BaseException:
            instance.close()
            raise
        await instance.open()
        instance.give()
        if self.info.lifespan:
            await instance.started(file_of(self.code))
        return instance

    def _register(self, done: "asyncio.Future[int]", instance: "ProcessInstance") -> None:
        if done.cancelled() or done.exception() is not None:
            return
        instance.pid = done.result()
        if instance.borrower is not None:
            instance.borrower.pid = instance.pid
        self.instances[instance.pid] = instance

    async def stop(self) -> None:
        """As the contract says."""
        if self.alive:
            for instance in list(self.instances.values()):
                instance.kill("its function was stopped")
            self._control.shutdown(socket.SHUT_WR)
            try:
                async with asyncio.timeout(5):
                    await self._gone
            except TimeoutError:
                self._lost()


class ProcessInstance(asyncio.Protocol):
    """The host's end of one instance's channel."""

    def __init__(
        self,
        zygote: ProcessZygote,
        sock: socket.socket,
        reads: list[int],
        on_messages: OnMessages,
        on_exit: OnExit,
    ) -> None:
        self.pid = 0
        self.secrets = NO_SECRETS
        self.borrower: Borrower | None = None
        self.on_hold: Callable[[bool], None] = lambda held: None
        self._zygote = zygote
        self._sock = sock
        *logs, self._begun = reads
        self._on_messages = on_messages
        self._on_exit = on_exit
        self._loop = zygote._loop
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]] | None = None
        self._out: list[ToInstance] = []
        self._in = bytearray()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[FromChannel]).decode
        self._reason = ""
        self._over = False
        self._started: asyncio.Future[Failure | None] | None = None
        if zygote.info.lifespan:
            self._started = self._loop.create_future()
            self._on_messages, self._later = self._first, on_messages
        names = ("stdout", "stderr")
        budget = Budget(self._loop.time)
        self._logs = [
            LogReader(fd, name, self._said, budget) for fd, name in zip(logs, names, strict=True)
        ]

    async def open(self) -> None:
        """Put the channel on the loop. Raises SandboxError where the instance has ended."""
        if not self._over:
            # A task of its own, which no one cancels, and a socket that no one closes meanwhile:
            # uvloop polls the bare descriptor until it is done, and aborts if that is gone.
            opening = self._loop.create_connection(lambda: self, sock=self._sock)
            self._opening = self._loop.create_task(opening)
            self._opening.add_done_callback(self._opened)
            await asyncio.wait([self._opening])
        if self._over:
            raise SandboxError(f"{self._zygote.code.name}: an instance ended as it started: "
                               f"{self._reason}")  # fmt: skip

    def _opened(self, task: "asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]]") -> None:
        self._opening = None
        if task.cancelled() or task.exception() is not None:
            self._sock.close()
            self.kill("its channel cannot be opened")
            return
        self._transport = task.result()[0]
        if self._over:
            self._transport.abort()
        elif self._out:
            self._flush()

    # Its lifespan

    def _first(self, instance: Instance, messages: Sequence[FromInstance]) -> None:
        """Until it is entered nobody else listens."""
        for at, message in enumerate(messages, 1):
            if isinstance(message, Log):
                self._zygote.sandbox.said_by(self._zygote.code)([message])
            elif isinstance(message, Started) and self._started is not None:
                self._on_messages = self._later
                if not self._started.done():
                    self._started.set_result(message.failure)
                self._on_messages(instance, messages[at:])
                return
            else:
                self.kill("answered before its lifespan was entered")
                return

    async def started(self, file: str) -> None:
        """Wait until its lifespan is entered. Raises LoadError, SandboxError."""
        assert self._started is not None
        name = self._zygote.code.name
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                why = await self._started
        except TimeoutError:
            self.kill(f"its lifespan took longer than {LOAD_TIMEOUT_S:g} s to start")
            raise SandboxError(f"{name}: {self._reason}") from None
        except asyncio.CancelledError:
            self.kill("its function was stopped")
            raise
        if why is not None:
            found = re.match(r"(.+):(\d+) in ", why.where)
            message = f"lifespan failed: {why.error}: {why.message}"
            place = {"file": found[1], "line": int(found[2])} if found else {"file": file}
            raise LoadError(Problem(**place, message=message), why.traceback)

    def give(self) -> None:
        """Tell it its secrets, if it has any, before anything else."""
        if self.secrets and self._transport is not None:
            body = self._encode(Given(self.secrets.values))
            self._transport.writelines((HEADER.pack(len(body)), body))

    def _said(self, lines: Sequence[Log]) -> None:
        if not self._over:
            self._on_messages(self, self.secrets.clean(lines))

    def _read_lines(self) -> None:
        """Calls whose results are here have written them."""
        for reader in self._logs:
            reader.drain()
            reader.tell()

    def hold(self, held: bool) -> None:
        """Its calls stand at a prompt, or go on."""
        self.on_hold(held)

    def send(self, messages: Sequence[ToInstance]) -> None:
        """As the contract says."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.extend(messages)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            point("call.before")
            body = self._encode(self._out)
            self._transport.writelines((HEADER.pack(len(body)), body))
            self._out = []
            point("call.sent")

    def data_received(self, data: bytes) -> None:
        """asyncio's own."""
        buffer = self._in
        buffer += data
        start, size = 0, len(buffer)
        while size - start >= 4:
            (length,) = HEADER.unpack_from(buffer, start)
            if lined := length >= LINED:
                length -= LINED
            if length > MAX_FRAME:
                self.kill(f"sent a frame of {length} bytes, more than {MAX_FRAME}")
                return
            if size - start - 4 < length:
                break
            try:
                messages = self._decode(memoryview(buffer)[start + 4 : start + 4 + length])
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.kill("sent a frame that is not of the protocol")
                return
            start += 4 + length
            if lined:
                self._read_lines()
            if not self._over:
                self._on_messages(self, self.secrets.clean(messages))
        if start:
            del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's own. An instance whose channel is gone is of no use."""
        if not self._over and not self._reason:
            self._loop.call_later(0.2, self.kill, "closed its channel")

    def finish(self) -> None:
        """As the contract says."""
        self._flush()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
        if self._started is not None:
            late = f"its lifespan took longer than {TEARDOWN_S:g} s to end"
            self._loop.call_later(TEARDOWN_S, self.kill, late)

    def kill(self, reason: str) -> None:
        """As the contract says. The pid is F's child until F says it ended, so it is no other's."""
        if not self._over and self.pid in self._zygote.instances:
            self._reason = self._reason or reason
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def ended(self, status: int | None) -> None:
        """The instance is gone, with a wait status, or with its zygote."""
        if self._over:
            return
        for reader in self._logs:
            reader.drain()
            reader.close()
        self._over = True
        begun = self._calls_begun()
        self.close()
        if self._started is not None and not self._started.done():
            told = f"{self._zygote.code.name}: an instance ended before its lifespan was entered"
            self._started.set_exception(SandboxError(told))
        code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
        if code >= 0:
            self._reason = self._reason or f"exited {code}"
            self._on_exit(self, Exit(code=code, signal=None, reason=self._reason, begun=begun))
        else:
            name = signal.strsignal(-code) or f"signal {-code}"
            told = f"ended by {signal.Signals(-code).name} ({name.lower()})"
            self._reason = self._reason or told
            how = Exit(code=None, signal=-code, reason=self._reason, begun=begun)
            self._on_exit(self, how)

    def _calls_begun(self) -> int:
        """What the instance counted; it is the function's to write, so it may be anything."""
        return int.from_bytes(os.pread(self._begun, 8, 0), sys.byteorder)

    def close(self) -> None:
        """Let go of the descriptors."""
        if self.borrower is not None:
            self.borrower.close()
        if self._begun >= 0:
            os.close(self._begun)
            self._begun = -1
        for reader in self._logs:
            reader.close()
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is None:
            self._sock.close()
