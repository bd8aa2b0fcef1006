"""Level `container`: a Docker container for each version, with its zygote inside.

The zygote connects to a Unix socket in a directory that its container is given, and takes all
descriptors over that connection; from there on it is a zygote like any other, and a call costs what
it costs at the other levels. A container whose instances have nothing to do is paused.
"""

import asyncio
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from funcrt.errors import LoadError, Problem, SandboxError
from funcrt.sandbox import Code, HandlerInfo, Instance, OnExit, OnMessages
from funcrt.sandbox.asking import Users
from funcrt.sandbox.box import Container, peer
from funcrt.sandbox.cgroup import Cgroup
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.daemon import PREFIX, Daemon, host_id
from funcrt.sandbox.fit import file_of
from funcrt.sandbox.instance import ProcessInstance
from funcrt.sandbox.interpreter import PythonRefused
from funcrt.sandbox.pausing import Pauses
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call, FromInstance, Recall, Result, ToInstance
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.sandbox.told import exit_code
from funcrt.sandbox.warm import Send
from funcrt.sandbox.zygote import Spec

__all__ = ["ContainerSandbox"]

NOT_ITS_OWN = (
    "a container has the Python of its image: take `python` out of its manifest and name an image"
    " that has it, or run it at another level"
)
PAUSE_AFTER_S = 2.0
"""A container in which nothing has been to do for so long is paused."""


class ContainerSandbox(ProcessSandbox):
    """Zygotes in containers of this machine's Docker daemon, and their instances.

    None of them outlives the host: each ends by itself when its connection does, a process of this
    sandbox removes those that are left when the host is killed, and the next host what that left.
    """

    def __init__(self, users: Users, *, pause_after_s: float = PAUSE_AFTER_S) -> None:
        super().__init__()
        self.users = users  # of who has a runtime zygote
        users.alive.append(self._loaded_names)
        self.daemon = Daemon()
        self.grouping.there = False  # a container has its own
        self.pause_after_s = pause_after_s
        self._host = host_id()
        self._directory: Path | None = None
        self._after: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """As the contract says. Raises DockerUnavailable."""
        await self.daemon.open()
        await self.daemon.sweep()
        self._directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        program = (
            f"import sys; sys.path[:] = {sys.path!r};"
            f"from funcrt.sandbox.daemon import outlive; outlive({self._host!r})"
        )
        self._after = subprocess.Popen(  # noqa: ASYNC220 - it returns once forked
            [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, start_new_session=True
        )

    async def started(self) -> ProcessSandbox:
        """Itself, made ready."""
        await self.start()
        return self

    async def load(self, code: Code) -> ProcessZygote:
        """As the contract says. Raises DockerUnavailable and ImageUnusable, too."""
        if code.python is not None:
            raise PythonRefused(code.name, code.python, NOT_ITS_OWN)
        async with self.users.of(code.name, "container") as user:
            return await self._load(code, self._confinement(code, "container", user))

    async def _parent(self, code: Code, held: Confinement) -> Send:
        return self._send  # of no use: each container's first process is the zygote

    async def _fork(
        self, code: Code, spec: Spec, info: HandlerInfo | None = None, *, send: Send | None = None
    ) -> ProcessZygote:
        if self._directory is None:
            raise SandboxError("the sandbox was not started")
        directory = self._directory / str(next(self._numbers))
        container = Container(self.daemon, self._host, directory, code)
        control = await self._started(container, spec.confine)
        logs = [os.pipe(), os.pipe()]
        zygote = ContainerZygote(self, code, control, [read for read, _ in logs], container)
        self._zygotes.add(zygote)
        try:
            body = msgspec.msgpack.encode(spec)
            socket.send_fds(control, [body], [write for _, write in logs])
        except OSError as error:
            await zygote.stop()
            raise SandboxError(f"{code.name}: its container ended ({error})") from None
        finally:
            for _, write in logs:
                os.close(write)
        await self._loaded(zygote, info)
        return zygote

    async def _started(self, container: Container, held: Confinement) -> socket.socket:
        """Its control socket. What the daemon makes for a caller who has left is taken away."""
        starting = asyncio.get_running_loop().create_task(container.start(held))
        self._tasks.add(starting)
        starting.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(starting)
        except BaseException:
            if starting.done():
                self._unwanted(starting, container)
            else:
                starting.add_done_callback(lambda done: self._unwanted(done, container))
            raise

    def _unwanted(self, started: "asyncio.Task[socket.socket]", container: Container) -> None:
        if not started.cancelled() and started.exception() is None:
            started.result().close()
        self.remove(container)

    def remove(self, container: Container) -> None:
        """End a container, and take it away, in the background. Again is harmless."""
        task = asyncio.get_running_loop().create_task(self._remove(container))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, container: Container) -> None:
        try:
            await container.remove()
        except SandboxError as error:
            log = logging.getLogger("funcrt.sandbox")
            log.warning("%s: its container may be left: %s", container.code.name, error)

    async def close(self) -> None:
        """As the contract says."""
        await super().close()
        while self._tasks:
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)  # one may have left another to be done
        if self._after is not None and self._after.stdin is not None:
            self._after.stdin.write(b".")
            self._after.stdin.close()
            await asyncio.to_thread(self._after.wait)
            self._after = None
        self.daemon.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


class ContainerZygote(ProcessZygote):
    """F, in its container."""

    def __init__(
        self,
        sandbox: ContainerSandbox,
        code: Code,
        control: socket.socket,
        logs: list[int],
        container: Container,
    ) -> None:
        super().__init__(sandbox, code, control, logs, "container")
        self._maker = sandbox
        self._container = container
        self._cgroup = Cgroup(peer(control))
        self._killed_for_memory = 0
        self._why = ""
        """Why it ended, where that was for memory."""
        self.pauses: Pauses | None = None

    async def loaded(self, info: HandlerInfo | None) -> None:
        """As a process's. Raises LoadError."""
        try:
            await super().loaded(info)
        except LoadError:
            if self._why:
                why = f"its import was {self._why}"
                raise LoadError(Problem(file=file_of(self.code), message=why)) from None
            raise
        self.info = msgspec.structs.replace(self.info, grouped=None)
        after_s = self._maker.pause_after_s
        self.pauses = Pauses(self._maker.daemon, self._container.id, self._cgroup, after_s)

    def _too_much(self) -> str:
        mebibytes = self._container.memory_bytes >> 20
        return f"it was over {mebibytes} MiB of memory, [limits] memory for each instance and one"

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> ProcessInstance:
        """As the contract says."""
        await self._container.make_room(len(self.instances) + len(self._spawning) + 1)
        self.work(1)
        try:
            return await super().spawn(on_messages, on_exit, secrets)
        finally:
            self.work(-1)

    def work(self, more: int) -> None:
        """There is more to do in the container, or less."""
        if self.pauses is not None:
            (self.pauses.begin if more > 0 else self.pauses.end)(abs(more))

    def new_instance(
        self, sock: socket.socket, reads: list[int], on_messages: OnMessages, on_exit: OnExit
    ) -> ProcessInstance:
        """Its end in the host."""
        return ContainerInstance(self, sock, reads, on_messages, on_exit)

    def end(self, watch: int) -> None:
        """SIGKILL for the process of a descriptor, which ends only if it does not stand still."""
        self.work(1)
        super().end(watch)
        self.work(-1)

    def why_killed(self) -> str:
        """Why one of its processes was sent SIGKILL, where that was for memory."""
        before, self._killed_for_memory = self._killed_for_memory, self._cgroup.killed_for_memory()
        return f"killed: {self._too_much()}" if self._killed_for_memory > before else ""

    def _lost(self) -> None:
        if self.alive:
            self._why = self.why_killed()
            if self.pauses is not None:
                self.pauses.close()
            self._maker.remove(self._container)
        super()._lost()

    async def stop(self) -> None:
        """As the contract says."""
        if self.pauses is not None:
            self.pauses.close()
        await super().stop()
        self._maker.remove(self._container)


class ContainerInstance(ProcessInstance):
    """An instance which tells what it has to do, so that its container is paused only while that is
    nothing."""

    def __init__(
        self,
        zygote: ContainerZygote,
        sock: socket.socket,
        reads: list[int],
        on_messages: OnMessages,
        on_exit: OnExit,
    ) -> None:
        def heard(instance: Instance, messages: Sequence[FromInstance]) -> None:
            ended = sum(isinstance(message, Result) for message in messages)
            self._release(min(ended, self._calls))
            on_messages(instance, messages)

        super().__init__(zygote, sock, reads, heard, on_exit)
        self._zygote = zygote
        self._calls = 0
        self._ending = 0

    def _release(self, calls: int) -> None:
        if calls:
            self._calls -= calls
            self._zygote.work(-calls)

    def send(self, messages: Sequence[ToInstance]) -> None:
        """As the contract says."""
        calls = sum(isinstance(message, Call) for message in messages)
        self._calls += calls
        self._zygote.work(calls or 1)
        super().send(messages)
        for message in messages:
            if isinstance(message, Recall):
                self._release(min(len(message.ids), self._calls))
        if not calls:
            self._zygote.work(-1)

    def finish(self) -> None:
        """As the contract says."""
        if not self._ending:
            self._ending = 1
            self._zygote.work(1)
        super().finish()

    def ended(
        self, status: int | None, why: str = "", limit: str = "memory", *, innocent: bool = False
    ) -> None:
        """As a process's."""
        if self._over:
            return
        killed = status is not None and exit_code(status) == -signal.SIGKILL
        if killed and not self._reason and not why:
            why = self._zygote.why_killed()
        super().ended(status, why, limit, innocent=innocent)
        self._release(self._calls)
        if self._ending:
            self._zygote.work(-1)
