"""The host's side of the process sandbox: starts zygotes, holds channels, ends instances."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from funcrt.errors import LoadError, Problem, SandboxError
from funcrt.sandbox import Code, HandlerInfo, OnExit, OnMessages
from funcrt.sandbox.asking import (
    Grouping,
    Unclaimed,
    Users,
    ask,
    check_size,
    claimed,
    socketpair,
)
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.daemon import docker_missing
from funcrt.sandbox.debugging import Debug
from funcrt.sandbox.fit import file_of, unfit
from funcrt.sandbox.groups import Group
from funcrt.sandbox.instance import LOAD_TIMEOUT_S, ProcessInstance, out_of_memory, shared
from funcrt.sandbox.interpreter import PythonRefused
from funcrt.sandbox.keeper import Keeper
from funcrt.sandbox.lending import Borrower, Lending
from funcrt.sandbox.levels import Level, NetworkUnenforced, NotLinux, Policy, choose, system
from funcrt.sandbox.logs import Budget, LogReader
from funcrt.sandbox.protocol import Log
from funcrt.sandbox.runtime import Fork, Kill, Probe
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.sandbox.told import Forged, Told, info_of, is_child, pid_of, read, received
from funcrt.sandbox.warm import Send, WarmProcesses
from funcrt.sandbox.workshop import Workshop
from funcrt.sandbox.zygote import Spawn, Spec

__all__ = ["Debugging", "ProcessSandbox", "ProcessZygote"]


class Debugging(Protocol):
    """The debugger's end in the host."""

    async def attached(self) -> Debug:
        """Wait until an editor has attached, once; where the adapter is now."""


class ProcessSandbox:
    """Zygotes and instances as processes of this machine.

    With `warm`, each function has a process that holds its dependencies (`warm.py`), and versions
    are forked from that. With a `debugger`, instances attach to it, and none starts before an
    editor has attached for the first time. Without `grouped`, no control groups are made.
    """

    def __init__(
        self,
        *,
        warm: bool = False,
        debugger: "Debugging | None" = None,
        policy: Policy | None = None,
        grouped: bool = True,
    ) -> None:
        ahead = ("debugpy.server.api",) if debugger is not None else ()
        self._warm = WarmProcesses(ahead) if warm else None
        self.debugger = debugger
        self.lending: Lending | None = None
        """Who has a terminal, where instances are to have one for `breakpoint()`."""
        self.policy = policy if policy is not None else Policy.of_environment()
        self.missing: dict[Level, str] = {}
        """The levels that cannot be had here, and why."""
        self._probed: asyncio.Future[None] | None = None
        self.users = Users(partial(claimed, self._send, "function"))
        """Whom functions run as."""
        self.users.alive.append(self._loaded_names)
        self.grouping = Grouping(self._send)
        self.workshop = Workshop(self.policy, self.probed, self._send, self.end)
        """Where what functions need is installed."""
        self.keeper = Keeper(grouped=grouped)
        self.keeper.ended.append(self._anew)
        self._containers: asyncio.Future[ProcessSandbox] | None = None
        self._zygotes: set[ProcessZygote] = set()
        self.apart: Callable[[str], Sequence[Path]] = lambda _: ()
        """What a function of this name is never shown, wherever the names of its files lead."""
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

    def _anew(self) -> None:
        """The runtime zygote has ended, and what it held for this."""
        self._probed = None
        self.users.anew()
        self.grouping.anew()

    async def start(self) -> None:
        """As the contract says. Raises NotLinux."""
        if system() != "Linux":
            raise NotLinux(system())
        self.keeper.start()

    async def load(self, code: Code) -> "ProcessZygote":
        """As the contract says."""
        return await self.keeper.steadily(partial(self._load_at_level, code))

    async def _load_at_level(self, code: Code) -> "ProcessZygote":
        level = await self._level(code)
        if level == "container":
            if code.network not in ((), ("outbound",)):
                why = "in a container, nothing looks at which hosts are connected to"
                raise NetworkUnenforced(code.name, level, why)
            return await (await self._in_containers()).load(code)
        async with self.users.of(code.name, level) as user:
            return await self._load(code, self._confinement(code, level, user))

    async def _load(self, code: Code, held: Confinement) -> "ProcessZygote":
        spec = Spec(
            path=str(code.path),
            handler=code.handler,
            concurrency=code.concurrency or 0,
            env=dict(code.env),
            confine=held,
            max_output_bytes=code.max_output_bytes,
            batch=code.batch,
            source=str(code.source or ""),
            stream=code.stream,
            packages=str(code.packages or ""),
            python=code.python,
        )
        check_size(code.name, spec)
        zygote = await self._fork(code, spec, send=await self._parent(code, held))
        info = zygote.info
        if info.threads > 1:
            await zygote.stop()
            late = msgspec.structs.replace(spec, late=True)
            zygote = await self._fork(code, late, info)
        return zygote

    async def _in_containers(self) -> "ProcessSandbox":
        """What makes containers: started with the first. Raises SandboxError."""
        if self._containers is None:
            from funcrt.sandbox.container import ContainerSandbox

            made = ContainerSandbox(self.users)
            made.heard = self._heard
            self._containers = asyncio.ensure_future(made.started())
        try:
            return await asyncio.shield(self._containers)
        except SandboxError:
            self._containers = None
            raise

    def _heard(self, code: Code, level: str, text: str) -> None:
        self.heard(code, level, text)  # who listens may not do so yet

    async def _level(self, code: Code) -> Level:
        """The level that it gets. Raises IsolationMissing."""
        if self.policy.forced == "none":
            return "none"
        return choose(code.name, code.isolation, await self.probed(), self.policy)

    async def probed(self) -> dict[Level, str]:
        """The levels that cannot be had here, and why: each was tried once, in a forked child."""
        if self._probed is None:
            self._probed = asyncio.ensure_future(self._probe())
        try:
            await asyncio.shield(self._probed)
        except SandboxError:  # it is asked again
            self._probed = None
            raise
        return self.missing

    async def primitives(self) -> list[tuple[str, int, str]]:
        """(primitive, errno, text) of all that levels are made of; 0 where it is there."""
        told, _ = await ask(self._send, Probe(Confinement(), primitives=True))
        return msgspec.convert(told.get("primitives", []), list[tuple[str, int, str]])

    async def _probe(self) -> None:
        if why := docker_missing():
            self.missing["container"] = why
        levels: tuple[Level, ...] = ("process", "sandbox")
        for level in levels:
            number = self.keeper.number
            try:
                async with self.users.of("", level) as user:
                    told, _ = await ask(self._send, Probe(Confinement(level=level, user=user)))
            except Unclaimed as error:
                told = {"refused": str(error)}
            if not told and self.keeper.outlived(number):
                raise SandboxError("the runtime zygote is gone")
            if "had" not in told:
                self.missing[level] = told.get("refused", "the process that tried it ended")

    def _confinement(self, code: Code, level: Level, user: int) -> Confinement:
        warm = self._warm is not None
        readable = [str(code.path.parent if warm else code.path)]
        if code.packages:
            readable.append(str(code.packages))
        if code.source:
            readable.append(str(code.source))
        return Confinement(
            level=level,
            readable=tuple(readable),
            files=code.files,
            apart=tuple(map(os.path.realpath, self.apart(code.name))) if code.files else (),
            network=code.network,
            tmp_bytes=code.tmp_bytes,
            memory_bytes=code.memory_bytes or 0,
            cpu=code.cpu or 0.0,
            user=user,
        )

    def _loaded_names(self) -> set[str]:
        """Of functions that have a zygote."""
        return {each.code.name for each in self._zygotes}

    async def _parent(self, code: Code, held: Confinement) -> Send:
        """What takes the message to fork this version."""
        if self._warm is not None:
            try:
                warmed = await self._warm.get(code, held, self._send, self.said_by(code))
            except OSError as error:
                raise SandboxError(f"the runtime zygote is gone ({error})") from None
            if warmed is not None:
                return warmed.fork
        return self._send

    def _send(self, body: bytes, descriptors: list[int]) -> None:
        self.keeper.send(body, descriptors)

    async def _fork(
        self, code: Code, spec: Spec, info: HandlerInfo | None = None, *, send: Send | None = None
    ) -> "ProcessZygote":
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        logs = [os.pipe(), os.pipe()]
        zygote = ProcessZygote(self, code, ours, [read for read, _ in logs], spec.confine.level)
        zygote.held = spec.confine
        try:
            descriptors = [theirs.fileno(), *(write for _, write in logs)]
            ours.send(msgspec.msgpack.encode(spec))
            asked = msgspec.msgpack.encode(Fork(spec.confine, spec.python))
            (send or self._send)(asked, descriptors)
        except OSError as error:
            await zygote.stop()
            raise SandboxError(f"the runtime zygote is gone ({error})") from None
        finally:
            theirs.close()
            for _, write in logs:
                os.close(write)
        self._zygotes.add(zygote)
        await self._loaded(zygote, info)
        self.grouping.prepare(spec.confine)
        return zygote

    async def _loaded(self, zygote: "ProcessZygote", info: HandlerInfo | None) -> None:
        """Wait for its import; without one, it ends."""
        try:
            await zygote.loaded(info)
        except BaseException:
            await zygote.stop()
            raise

    def end(self, watch: int) -> None:
        """SIGKILL for the process of a descriptor; by the runtime zygote, where only that may."""
        try:
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            with contextlib.suppress(OSError):  # it is gone, and with it all that it forked
                self._send(msgspec.msgpack.encode(Kill()), [watch])

    def forget(self, zygote: "ProcessZygote") -> None:
        """A zygote is gone."""
        self._zygotes.discard(zygote)

    async def close(self) -> None:
        """As the contract says."""
        self.grouping.close()
        for zygote in list(self._zygotes):
            await zygote.stop()
        if self._containers is not None:
            with contextlib.suppress(SandboxError):
                await (await self._containers).close()
            self._containers = None
        if self._warm is not None:
            self._warm.close()
        await self.keeper.close()


FORK_TIMEOUT_S = 30.0
WITH_RUNTIME = "ended with the runtime zygote"
MOST_UNASKED = 4
"""Messages of a zygote besides two an instance: who it is, and what its import came to."""


class ProcessZygote:
    """F: one version's code, loaded."""

    info: HandlerInfo

    def __init__(
        self,
        sandbox: ProcessSandbox,
        code: Code,
        control: socket.socket,
        logs: list[int],
        level: Level,
    ) -> None:
        self.sandbox = sandbox
        self.level = level
        self.held = Confinement(level=level)
        self.group: Group | None = None
        """Its own, which its instances leave."""
        self.pid = 0
        self.watch = -1
        """A descriptor of its process."""
        self.code = code
        self.alive = True
        self._loop = asyncio.get_running_loop()
        self._runtime = sandbox.keeper.number
        self._control = control
        self._asked = 0
        """Instances that it was asked for."""
        self._heard = 0
        self._spawning: dict[int, tuple[asyncio.Future[None], ProcessInstance]] = {}
        """Those that it has not told of, by number; each is done once it has."""
        self._ready: asyncio.Future[Told] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.said: Callable[[Sequence[Log]], None] = sandbox.said_by(code)
        names = ("stdout", "stderr")
        budget = Budget(self._loop.time)
        self._logs = [
            LogReader(fd, name, self.said, budget) for fd, name in zip(logs, names, strict=True)
        ]
        self.instances: dict[int, ProcessInstance] = {}
        self._loop.add_reader(control.fileno(), self._readable)

    @property
    def busy(self) -> bool:
        """As the contract says."""
        return bool(self.instances or self._spawning)

    def _readable(self) -> None:
        if not self.alive:
            return
        try:
            body, descriptors = received(self._control)
        except BlockingIOError:
            return
        if not body:
            self._lost()
            return
        self._heard += 1
        try:
            if self._heard > 2 * self._asked + MOST_UNASKED:
                raise Forged("more than it was asked for")
            self._told(read(body), descriptors)
        except Forged as error:
            log = logging.getLogger(f"funcrt.function.{self.code.name}")
            log.warning("it wrote to the socket of its zygote, which is ended: %s", error)
            self._lost()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._loop.call_soon(self._readable)  # once what this one leads to is done

    def _told(self, message: Told, descriptors: list[int]) -> None:
        """What F, or who forked it, says. Descriptors that are kept are taken off the list. Raises
        Forged."""
        if message.zygote is not None:
            if self.watch < 0 and descriptors:
                self.pid = pid_of(descriptors[0])
                self.watch = descriptors.pop()
                self.group = message.group
        elif message.spawned is not None:
            self._spawned(message.spawned[0], descriptors)
        elif message.unforked is not None:
            number, why = message.unforked
            found = self._spawning.pop(number, None)
            if found is not None and not found[0].done():
                told = f"{self.code.name}: cannot fork ({os.strerror(why)})"
                found[0].set_exception(SandboxError(told))
        elif message.exit is not None:
            number, status = message.exit
            instance = self.instances.pop(number, None)
            if instance is not None:
                instance.ended(status)
        elif not self._ready.done():
            self._ready.set_result(message)

    def _spawned(self, number: int, descriptors: list[int]) -> None:
        if not descriptors:
            raise Forged("an instance without a descriptor")
        pid = pid_of(descriptors[0])
        if pid and not is_child(pid, self.pid):
            raise Forged("not its child")
        found = self._spawning.pop(number, None)
        if found is None or found[0].done():  # nobody waits for it any more
            self.end(descriptors[0])
            return
        future, instance = found
        instance.pid, instance.watch = pid, descriptors.pop()
        if instance.borrower is not None:
            instance.borrower.pid = pid
        self.instances[number] = instance  # before its exit is read
        future.set_result(None)

    def _lost(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self.sandbox.forget(self)
        for future, _ in self._spawning.values():
            if not future.done():
                future.set_exception(SandboxError(f"{self.code.name}: its zygote ended"))
        if not self._ready.done():
            self._ready.set_result(Told(gone=True))
        why, limit, innocent = self.why_ended(), "memory", False
        if self._with_runtime():
            why, limit = WITH_RUNTIME, ""
            innocent = self.sandbox.keeper.innocent(self._runtime)
        for instance in list(self.instances.values()):
            instance.ended(None, why, limit, innocent=innocent)
        self.instances.clear()
        for reader in self._logs:
            reader.close()
        if self.watch >= 0:
            self.end(self.watch)  # it may have closed its socket, and live
            os.close(self.watch)
            self.watch = -1
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
        if message.error is not None:
            raise LoadError(message.error.problem, message.error.traceback)
        if message.refused is not None:
            if message.refused.startswith("supervised connections"):
                raise NetworkUnenforced(self.code.name, self.level, message.refused)
            python = self.code.python
            if python is not None and message.refused.startswith(("the interpreter", "Python ")):
                raise PythonRefused.at(self.level, self.code.name, python, message.refused)
            raise SandboxError(f"{self.code.name}: isolation {self.level!r}: {message.refused}")
        if not message.ready:
            if self._with_runtime():
                raise SandboxError(f"{self.code.name}: its import {WITH_RUNTIME}")
            why = self.why_ended() or "it exited by os._exit, or crashed"
            if self.code.python is not None:
                why += f"; its log says why, if {self.code.python.executable} did not start at all"
            text = f"its process ended during the import: {why}"
            raise LoadError(Problem(file=file, message=text))
        try:
            found = info or info_of(message.ready, self.code.concurrency or 0)
        except Forged as error:
            text = f"its import wrote to the socket of its process: {error}"
            raise LoadError(Problem(file=file, message=text)) from None
        held = tuple(self.group.directories) if self.group is not None else ()
        lacking = {} if self.sandbox.policy.forced else self.sandbox.missing
        why = lacking.get(self.code.isolation, "")
        self.info = msgspec.structs.replace(found, isolation=self.level, lacking=why, grouped=held)
        if wrong := unfit(self.code, self.info):
            raise LoadError(Problem(file=file, message=wrong))

    def _with_runtime(self) -> bool:
        """Whether it has ended as the runtime zygote did."""
        return self.sandbox.keeper.outlived(self._runtime)

    def why_ended(self) -> str:
        """Where the kernel has ended it."""
        if self.group is not None and self.group.killed_for_memory():
            return out_of_memory(self.code.memory_bytes)
        return ""

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> "ProcessInstance":
        """As the contract says."""
        debugger, lending = self.sandbox.debugger, self.sandbox.lending
        debug = await debugger.attached() if debugger is not None else None
        if not self.alive:
            raise SandboxError(f"{self.code.name}: its zygote is gone")
        group, entries = await self.sandbox.grouping.make(self.held)
        ours, theirs = socketpair(socket.SOCK_STREAM)
        logs = [os.pipe(), os.pipe()]
        begun = shared()
        number = self._asked = self._asked + 1
        desk = socketpair(socket.SOCK_SEQPACKET) if lending is not None else None
        try:
            asked = Spawn(number, debug, desk is not None, bool(secrets), len(entries))
            descriptors = [*entries, theirs.fileno(), *(write for _, write in logs), begun]
            descriptors += [desk[1].fileno()] if desk is not None else []
            socket.send_fds(self._control, [msgspec.msgpack.encode(asked)], descriptors)
        except OSError as error:
            self.ungroup(group)
            ours.close()
            for descriptor in (begun, *(read for read, _ in logs)):
                os.close(descriptor)
            if desk is not None:
                desk[0].close()
            raise SandboxError(f"{self.code.name}: cannot fork ({error})") from None
        finally:
            theirs.close()
            for descriptor in (*entries, *(write for _, write in logs)):
                os.close(descriptor)
            if desk is not None:
                desk[1].close()
        reads = [*(read for read, _ in logs), begun]
        instance = self.new_instance(ours, reads, on_messages, on_exit)
        instance.secrets, instance.group = secrets, group
        if desk is not None and lending is not None:
            instance.borrower = Borrower(self.code.name, desk[0], lending, instance.hold)
        future: asyncio.Future[None] = self._loop.create_future()
        self._spawning[number] = future, instance
        try:
            await self._forked(future)
        except BaseException:
            instance.close()
            self.ungroup(group)
            raise
        if group is not None and not entries:
            self.sandbox.grouping.place(group, instance.watch)
        await instance.open()
        instance.give()
        if self.info.lifespan:
            await instance.started(file_of(self.code))
        return instance

    async def _forked(self, future: "asyncio.Future[None]") -> None:
        """Wait for F, which the author's code may have stopped. Raises SandboxError."""
        try:
            async with asyncio.timeout(FORK_TIMEOUT_S):
                await future
        except TimeoutError:
            self._lost()
            told = f"{self.code.name}: its zygote did not fork within {FORK_TIMEOUT_S:g} s"
            raise SandboxError(told) from None

    def new_instance(
        self, sock: socket.socket, reads: list[int], on_messages: OnMessages, on_exit: OnExit
    ) -> ProcessInstance:
        """The host's end of one."""
        return ProcessInstance(self, sock, reads, on_messages, on_exit)

    def end(self, watch: int) -> None:
        """SIGKILL for the process of a descriptor."""
        self.sandbox.end(watch)

    def ungroup(self, group: Group | None) -> None:
        """What was in it has ended."""
        self.sandbox.grouping.release(group)

    async def stop(self) -> None:
        """As the contract says."""
        if self.alive:
            for instance in list(self.instances.values()):
                instance.kill("its function was stopped")
            self._control.shutdown(socket.SHUT_WR)
            try:
                async with asyncio.timeout(5):
                    await asyncio.shield(self._gone)  # others may wait for it, too
            except TimeoutError:
                self._lost()
