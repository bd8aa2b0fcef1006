"""The host's end of one instance: its channel, its logs, its end."""

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Protocol

import msgspec

from funcrt.errors import LoadError, Problem, SandboxError
from funcrt.manifest_kinds import Size
from funcrt.sandbox import Code, Exit, HandlerInfo, Instance, OnExit, OnMessages, Usage
from funcrt.sandbox.groups import USUAL_MEMORY, Group
from funcrt.sandbox.lending import Borrower
from funcrt.sandbox.lifespan import TEARDOWN_S
from funcrt.sandbox.logs import Budget, LogReader
from funcrt.sandbox.protocol import (
    HEADER,
    LINED,
    MAX_FRAME,
    SHARED,
    Failure,
    FromInstance,
    Given,
    Log,
    Started,
    ToInstance,
    encode,
    read_from_instance,
)
from funcrt.sandbox.secrets import NO_SECRETS
from funcrt.sandbox.told import exit_code, signal_name
from mesh.failpoint import point

__all__ = ["LOAD_TIMEOUT_S", "Owner", "ProcessInstance", "out_of_memory", "shared"]

LOAD_TIMEOUT_S = 60.0


class Owner(Protocol):
    """The zygote that an instance was forked from."""

    code: Code
    info: HandlerInfo
    said: Callable[[Sequence[Log]], None]
    """Takes lines that are no call's."""

    def end(self, watch: int) -> None:
        """SIGKILL for the process of a descriptor."""

    def ungroup(self, group: Group | None) -> None:
        """What was in it has ended."""


def shared() -> int:
    """A descriptor of the memory that an instance shares with the host (SHARED)."""
    made = os.memfd_create("begun")
    os.ftruncate(made, SHARED.size)
    return made


def out_of_memory(memory_bytes: int | None) -> str:
    """What the kernel ended a process for, as one would say it."""
    if memory_bytes:
        return f"out of memory: over limits.memory = {Size.write(memory_bytes)}"
    usual = f"the usual {USUAL_MEMORY >> 20} MiB; limits.memory in funcrt.toml gives more"
    return f"out of memory: over {usual}"


def _cpu_s(pid: int) -> float | None:
    """CPU time of a process; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[int | None, int | None]:
    """Memory of a process now, and the most it has had, with what it shares with its zygote."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) << 10
    return found.get("VmRSS"), found.get("VmHWM")


class ProcessInstance(asyncio.Protocol):
    """The host's end of one instance's channel."""

    def __init__(
        self,
        owner: Owner,
        sock: socket.socket,
        reads: list[int],
        on_messages: OnMessages,
        on_exit: OnExit,
    ) -> None:
        self.pid = 0
        self.watch = -1
        """A descriptor of its process."""
        self.group: Group | None = None
        self.secrets = NO_SECRETS
        self.borrower: Borrower | None = None
        self.on_hold: Callable[[bool], None] = lambda held: None
        self._owner = owner
        self._sock = sock
        *logs, self._begun = reads
        self._on_messages = on_messages
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]] | None = None
        self._out: list[ToInstance] = []
        self._in = bytearray()
        self._reason = ""
        self._used = Usage()
        self._over = self._closing = False
        self._started: asyncio.Future[Failure | None] | None = None
        if owner.info.lifespan:
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
            raise SandboxError(f"{self._owner.code.name}: an instance ended as it started: "
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
                self._owner.said([message])
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
        name = self._owner.code.name
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
            body = encode(Given(self.secrets.values))
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
        if self._closing or self._transport is None or self._transport.is_closing():
            return
        if self._out:
            point("call.before")
            body = encode(self._out)
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
                messages = read_from_instance(memoryview(buffer)[start + 4 : start + 4 + length])
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

    def begun(self) -> int | None:
        """As the contract says."""
        return None if self._over else self._shared()[0]

    def halt(self, number: int) -> None:
        """As the contract says."""
        if not self._over:
            os.pwrite(self._begun, number.to_bytes(8, sys.byteorder), SHARED.size - 8)

    def usage(self) -> Usage:
        """As the contract says."""
        if self._over:
            return self._used
        own = _cpu_s(self.pid)
        before = self._shared()[1] / 1e9
        memory, peak = _memory(self.pid)
        group = self.group
        return Usage(
            cpu_s=own if group is None or (all := group.cpu_s()) is None else all,
            call_cpu_s=max(own - before, 0.0) if own is not None else None,
            memory_bytes=group.memory_bytes() or memory if group is not None else memory,
            peak_bytes=group.peak_bytes() or peak if group is not None else peak,
            throttled_s=group.throttled_s() if group is not None else 0.0,
        )

    def finish(self) -> None:
        """As the contract says."""
        self._flush()
        if self._transport is not None and self._transport.can_write_eof():
            self._closing = True
            self._transport.write_eof()
        if self._started is not None:
            late = f"its lifespan took longer than {TEARDOWN_S:g} s to end"
            self._loop.call_later(TEARDOWN_S, self.kill, late)

    def kill(self, reason: str) -> None:
        """As the contract says."""
        if not self._over and self.watch >= 0:
            self._reason = self._reason or reason
            self._owner.end(self.watch)

    def ended(
        self, status: int | None, why: str = "", limit: str = "memory", *, innocent: bool = False
    ) -> None:
        """The instance is gone, with a wait status, or with its zygote, which ended of `why` as it
        was over that limit, or, if it is `innocent`, by nobody's fault here."""
        if self._over:
            return
        killed = self.group is not None and self.group.killed_for_memory()
        if not why and exit_code(status) == -SIGKILL and killed:
            why = out_of_memory(self._owner.code.memory_bytes)
        if self._reason or not why:
            limit = ""
        self._reason = self._reason or why
        for reader in self._logs:
            reader.drain()
            reader.close()
        self._used = self.usage()
        self._over = True
        begun = self._shared()[0]
        if self.watch >= 0:
            self._owner.end(self.watch)  # who said so may not have told the truth
        self.close()
        self._owner.ungroup(self.group)
        if self._started is not None and not self._started.done():
            told = f"{self._owner.code.name}: an instance ended before its lifespan was entered"
            self._started.set_exception(SandboxError(told))
        code = exit_code(status)
        if code >= 0:
            self._reason = self._reason or f"exited {code}"
            self._on_exit(
                self,
                Exit(code=code, signal=None, reason=self._reason, begun=begun, usage=self._used),
            )
        else:
            self._reason = self._reason or f"ended by {signal_name(-code)}"
            how = Exit(
                code=None,
                signal=-code,
                reason=self._reason,
                begun=begun,
                limit=limit,
                usage=self._used,
                innocent=innocent,
            )
            self._on_exit(self, how)

    def _shared(self) -> tuple[int, int, int]:
        """SHARED. It is the function's to write, so it may be anything."""
        found = os.pread(self._begun, SHARED.size, 0)
        return SHARED.unpack(found) if len(found) == SHARED.size else (0, 0, 0)

    def close(self) -> None:
        """Let go of the descriptors."""
        if self.borrower is not None:
            self.borrower.close()
        for descriptor in (self._begun, self.watch):
            if descriptor >= 0:
                os.close(descriptor)
        self._begun = self.watch = -1
        for reader in self._logs:
            reader.close()
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is None:
            self._sock.close()
