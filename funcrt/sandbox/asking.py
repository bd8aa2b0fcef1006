"""What the host asks of the runtime zygote: whether something can be had, control groups, and that
directories are handed over."""

import asyncio
import itertools
import os
import socket
from typing import Any

import msgspec

from funcrt.errors import SandboxError
from funcrt.sandbox.confine import Confinement, bounds_of
from funcrt.sandbox.forking import MAX_ASKED, MAX_MESSAGE
from funcrt.sandbox.groups import Group
from funcrt.sandbox.installing import Hand
from funcrt.sandbox.runtime import Ask, Gone, Place, Probe
from funcrt.sandbox.warm import Send
from funcrt.sandbox.zygote import Spec

__all__ = ["Grouping", "ask", "check_size", "readable", "socketpair"]

MOST_ENTRIES = 8


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
    send: Send, question: Probe | Ask | Hand, *of: int
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
    """The control groups of instances, where there are any."""

    def __init__(self, send: Send) -> None:
        self.there = True
        """As far as is known."""
        self._send = send
        self._numbers = itertools.count(1)

    async def make(self, held: Confinement) -> tuple[Group | None, list[int]]:
        """A group, and descriptors to enter it by, the caller's to close; None where there are
        none. Raises SandboxError."""
        if not self.there:
            return None, []
        name = f"instance-{next(self._numbers)}"
        try:
            told, entries = await ask(self._send, Ask(name, bounds_of(held)))
        except BaseException:
            self._tell(Gone(name), [])
            raise
        if "refused" in told:
            raise SandboxError(told["refused"])
        found = msgspec.convert(told.get("group"), Group | None)
        self.there = found is not None
        return found, entries

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
