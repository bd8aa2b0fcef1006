"""What the host asks of the runtime zygote: whether something can be had, control groups, ids of
users, and that directories are handed over."""

import asyncio
import itertools
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from funcrt.errors import SandboxError
from funcrt.sandbox.claims import Kind
from funcrt.sandbox.confine import Confinement, bounds_of
from funcrt.sandbox.forking import MAX_ASKED, MAX_MESSAGE
from funcrt.sandbox.groups import Bounds, Group
from funcrt.sandbox.installing import Hand
from funcrt.sandbox.levels import Level
from funcrt.sandbox.runtime import Ask, Claim, Gone, Place, Probe
from funcrt.sandbox.warm import Send
from funcrt.sandbox.zygote import Spec

__all__ = [
    "Grouping",
    "Unclaimed",
    "Users",
    "ask",
    "check_size",
    "claimed",
    "readable",
    "socketpair",
]

MOST_ENTRIES = 8
MOST_SPARE = 4
"""Control groups, each of other bounds, that are ready for an instance."""
PREPARED_AFTER_S = 0.05


def socketpair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Our end, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    return ours, theirs


def check_size(function: str, spec: Spec) -> None:
    """Raises SandboxError where it is more than a zygote can be told to load."""
    if (size := len(msgspec.msgpack.encode(spec))) > MAX_ASKED:
        raise SandboxError(
            f"{function}: what it is to load takes {size} bytes, with its environment, and at most"
            f" {MAX_ASKED} can be handed over; keep large values of [env] in a file"
        )


async def ask(
    send: Send, question: Probe | Ask | Claim | Hand, *of: int
) -> tuple[dict[str, Any], list[int]]:
    """What the runtime zygote answers, asked with these descriptors, and descriptors that are the
    caller's to close. Raises SandboxError where it is gone."""
    ours, theirs = socketpair(socket.SOCK_SEQPACKET)
    with ours:
        try:
            with theirs:
                send(msgspec.msgpack.encode(question), [theirs.fileno(), *of])
            while True:
                await readable(ours.fileno())
                body, descriptors, _, _ = socket.recv_fds(ours, MAX_MESSAGE, MOST_ENTRIES)
                told = msgspec.msgpack.decode(body, type=dict[str, Any]) if body else {}
                if "zygote" not in told:
                    return told, descriptors
                for descriptor in descriptors:
                    os.close(descriptor)
        except OSError as error:
            raise SandboxError(f"the runtime zygote is gone ({error})") from None


async def readable(descriptor: int) -> None:
    """Wait until something can be read there, or its other end is closed."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(descriptor, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(descriptor)


class Grouping:
    """The control groups of instances, where there are any. One is kept ready for the next instance
    with the same bounds, which would wait a millisecond for it."""

    def __init__(self, send: Send) -> None:
        self.there = True
        """As far as is known."""
        self._send = send
        self._numbers = itertools.count(1)
        self._spare: dict[Bounds, tuple[Group, list[int]]] = {}
        """The one used last at the end."""
        self._wanted: set[Bounds] = set()
        self._preparing: asyncio.Task[None] | None = None

    async def make(self, held: Confinement) -> tuple[Group | None, list[int]]:
        """A group, and descriptors to enter it by, the caller's to close; None where there are
        none. Raises SandboxError."""
        bounds = bounds_of(held)
        found = self._spare.pop(bounds, None)
        self.prepare(held)
        return found or await self._made(bounds)

    async def _made(self, bounds: Bounds) -> tuple[Group | None, list[int]]:
        if not self.there:
            return None, []
        name = f"instance-{next(self._numbers)}"
        try:
            told, entries = await ask(self._send, Ask(name, bounds))
        except BaseException:
            self._tell(Gone(name), [])
            raise
        if "group" not in told:
            raise SandboxError(told.get("refused", "the runtime zygote is gone"))
        found = msgspec.convert(told.get("group"), Group | None)
        self.there = found is not None
        return found, entries

    def prepare(self, held: Confinement) -> None:
        """Have a group ready for an instance that is held so; soon, as something else is in more of
        a hurry."""
        if self.there:
            self._wanted.add(bounds_of(held))
            if self._preparing is None:
                self._preparing = asyncio.get_running_loop().create_task(self._prepare())

    async def _prepare(self) -> None:
        try:
            await asyncio.sleep(PREPARED_AFTER_S)
            while self._wanted:
                bounds = self._wanted.pop()
                if bounds not in self._spare:
                    group, entries = await self._made(bounds)
                    if group is not None:
                        self._spare[bounds] = group, entries
                if len(self._spare) > MOST_SPARE:
                    self._let_go(next(iter(self._spare)))
        except SandboxError:
            pass  # whoever needs one is told
        finally:
            self._preparing = None

    def anew(self) -> None:
        """What made them has ended: what is ready is of no use, and another makes some or none."""
        self.there = True
        for bounds in list(self._spare):
            self._let_go(bounds)

    def _let_go(self, bounds: Bounds) -> None:
        group, entries = self._spare.pop(bounds)
        for entry in entries:
            os.close(entry)
        self.release(group)

    def close(self) -> None:
        """Let go of what is ready; nothing more is made."""
        self.there = False
        if self._preparing is not None:
            self._preparing.cancel()
        for bounds in list(self._spare):
            self._let_go(bounds)

    def place(self, group: Group, watch: int) -> None:
        """Have the process of a descriptor put into a group that it cannot enter by itself."""
        self._tell(Place(group.name), [watch])

    def release(self, group: Group | None) -> None:
        """What was in it has ended."""
        if group is not None:
            self._tell(Gone(group.name), [])

    def _tell(self, message: Place | Gone, descriptors: list[int]) -> None:
        try:
            self._send(msgspec.msgpack.encode(message), descriptors)
        except OSError:
            pass  # it is gone, and with it all that it made


class Unclaimed(SandboxError):
    """There is no user id for a process that this host wants to make."""


async def claimed(send: Send, kind: Kind) -> int:
    """An id of a user that no other host has. Raises Unclaimed, and SandboxError where the runtime
    zygote is gone."""
    told, _ = await ask(send, Claim(kind))
    if not told:
        raise SandboxError("the runtime zygote is gone")
    if "user" not in told:
        raise Unclaimed(told.get("refused", "the runtime zygote did not say why"))
    return int(told["user"])


class Users:
    """Whom functions run as where the runtime zygote is root: each as somebody of its own.
    `another` claims an id that nobody has, and raises Unclaimed."""

    def __init__(self, another: Callable[[], Awaitable[int]]) -> None:
        self.alive: list[Callable[[], Iterable[str]]] = []
        """Each tells of functions that have processes."""
        self._claim = another
        self._root = os.geteuid() == 0
        self._ids: dict[str, int] = {}
        """By function; the one that was loaded last comes last."""
        self._loading: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def of(self, function: str, level: Level) -> AsyncIterator[int]:
        """Its id, which stays its own until no process of it is left and others have none; at level
        `none` the host's, and 0 where no process is made another's. Raises Unclaimed,
        SandboxError."""
        if not self._root or level == "none":
            yield os.geteuid() if self._root else 0
            return
        self._loading[function] += 1
        try:
            async with self._lock:
                user = self._ids.pop(function, 0)
                if not user:
                    user = await self._another(function)
                self._ids[function] = user
            yield user
        finally:
            self._loading -= Counter([function])

    def anew(self) -> None:
        """What claimed the ids has ended, and they are anybody's."""
        self._ids.clear()

    async def _another(self, function: str) -> int:
        try:
            return await self._claim()
        except Unclaimed as error:
            busy = {name for told in self.alive for name in told()} | set(self._loading)
            idle = [name for name in self._ids if name not in busy]
            if not idle:
                raise Unclaimed(f"{function}: {error}" if function else str(error)) from None
            return self._ids.pop(idle[0])
