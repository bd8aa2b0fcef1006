"""The host's end of the runtime zygote: starts it, hands it messages, and starts another where it
was ended, by a kernel without memory, say."""

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from funcrt.errors import SandboxError
from funcrt.sandbox.told import signal_name

__all__ = ["Keeper", "RuntimeLost"]

T = TypeVar("T")
MOST_WAIT_S = 30.0
APART_S = 60.0
"""Two that end within this may have ended of the same."""
END_S = 5.0
log = logging.getLogger("funcrt.sandbox")


class RuntimeLost(SandboxError):
    """The runtime zygote ended, and this host may not make another: it ends as well."""

    def __init__(self, how: str) -> None:
        super().__init__(
            f"the runtime zygote {how}, and with it every function's processes. It was root's, and"
            " this host, which is root no more, has no right to make another: it ends. Events wait"
            " in the mesh; start the host again, or have a supervisor do so"
        )


class Keeper:
    """One host's. What it forks, and what that forks, ends with a runtime zygote."""

    def __init__(self, *, grouped: bool = True) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.number = 0
        """Which one it is; 0 before the first."""
        self.ended: list[Callable[[], None]] = []
        """Told that there is none, for now."""
        self.again: Callable[[], None] = lambda: None
        """Told that there is another."""
        self.lost: Callable[[RuntimeLost], None] = lambda _: None
        """Told that there will be none."""
        self._watch = -1
        self._grouped = grouped
        self._root = os.geteuid() == 0
        self._changed = asyncio.Event()
        self._lost = False
        self._innocent: set[int] = set()
        self._ended_at = float("-inf")
        self._wait_s = 0.0
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start one. Raises OSError."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[2])
        program = (
            f"import sys; sys.path.insert(0, {root!r});"
            f"from funcrt.sandbox.runtime import runtime; runtime({theirs.fileno()}, {os.getpid()},"
            f" grouped={self._grouped})"
        )
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-c", program],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
                )
            except OSError:
                ours.close()
                raise
        self.control = ours
        self.number += 1
        # By the process, and not by the socket: who watches that makes it one that does not block.
        self._watch = os.pidfd_open(self.process.pid)
        loop.add_reader(self._watch, self.look)
        self._changed.set()

    def send(self, body: bytes, descriptors: list[int]) -> None:
        """Hand it a message. Raises OSError where there is none."""
        if self.control is None:
            raise OSError("there is none")
        socket.send_fds(self.control, [body], descriptors)

    async def there(self) -> None:
        """Wait until there is one. Raises SandboxError where there will be none."""
        if self.number == 0:
            raise SandboxError("the sandbox was not started")
        while self.control is None:
            if self._lost:
                raise SandboxError("the runtime zygote is gone, and the host ends")
            if self._following is None:
                raise SandboxError("the sandbox was closed")
            self._changed.clear()
            await self._changed.wait()

    async def steadily(self, do: Callable[[], Awaitable[T]]) -> T:
        """Do what needs one; again, with another, where it fails as one ended meanwhile: once, for
        that may be what ends it. Raises what `do` does."""
        await self.there()
        number = self.number
        try:
            return await do()
        except SandboxError:
            if not self.outlived(number):
                raise
        await self.there()
        return await do()

    # Its end

    def look(self) -> None:
        """See whether it has ended: what it forked is only ended after that can be seen."""
        if self.control is None or not _over(self.control.fileno(), self._watch):
            return
        self._let_go()
        loop = asyncio.get_running_loop()
        alone = loop.time() - self._ended_at > APART_S
        if alone:
            self._innocent.add(self.number)
        wait_s = 0.0 if alone else min(max(1.0, 2 * self._wait_s), MOST_WAIT_S)
        self._ended_at, self._wait_s = loop.time(), wait_s
        for told in self.ended:
            told()
        self._following = loop.create_task(self._follow(self.process, alone), name="runtime")

    def outlived(self, number: int) -> bool:
        """Whether that one has ended; not where it is none, as a container's is."""
        self.look()
        return number > 0 and (number < self.number or self.control is None)

    def innocent(self, number: int) -> bool:
        """Whether what ran below that one, which has ended, is not to be blamed for it: not where
        the one before it had ended as well within a minute, as one event may end them all."""
        return number in self._innocent

    async def _follow(self, process: "subprocess.Popen[bytes] | None", alone: bool) -> None:
        how = await asyncio.to_thread(_how, process)
        if self._root and os.geteuid() != 0:
            self._lost = True
            self._changed.set()
            error = RuntimeLost(how)
            log.critical("%s", error)
            self.lost(error)
            return
        calls = "go back free" if alone else "are charged an attempt, as it is the second in short"
        log.error("the runtime zygote %s, and with it every function's processes; events whose "
                  "calls ran %s", how, calls)  # fmt: skip
        while True:
            if self._wait_s:
                log.error("no function can run; another runtime zygote in %g s", self._wait_s)
            await asyncio.sleep(self._wait_s)
            try:
                self.start()
            except OSError as error:
                log.error("no runtime zygote can be started: %s", error)
                self._wait_s = min(max(1.0, 2 * self._wait_s), MOST_WAIT_S)
                continue
            assert self.process is not None
            log.warning("another runtime zygote is there: process %d", self.process.pid)
            self.again()
            return

    def _let_go(self) -> None:
        if self.control is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
            self.control.close()
            self.control = None

    async def close(self) -> None:
        """End it, and with it all that it forked. Twice is harmless."""
        self._let_go()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
            self._following = None
        self._let_go()
        self._changed.set()
        if self.process is not None:
            await asyncio.to_thread(_how, self.process)
            self.process = None


def _over(control: int, watch: int) -> bool:
    """Whether the other end of its socket is closed, or its process has ended."""
    poll = select.poll()
    poll.register(control, 0)
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(0))


def _how(process: "subprocess.Popen[bytes] | None") -> str:
    """Wait for its end, which has begun; how it ended, for people."""
    if process is None:
        return "was closed"
    try:
        code = process.wait(END_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(PermissionError):
            process.kill()
            process.wait()
        return "was stuck"
    if code >= 0:
        return f"exited {code}"
    hint = ", by somebody or, as the kernel's log then says, for want of memory"
    return f"was ended by {signal_name(-code)}{hint if code == -signal.SIGKILL else ''}"
