"""S, who makes a function's connections: one process for each zygote, forked by R.

A function with `network` has a network of its own in which there is nothing, and asks the kernel
for TCP sockets, `connect` and `listen` in vain: those calls are handed to S (`notify.py`), which
makes the sockets in the host's network and connects them, where `destinations.py` allows that. The
address is copied once, and what was copied is what is connected to. S has no rights but the user's
that the function runs as, and no author's code; of what the function says it reads numbers,
addresses and questions to DNS.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from funcrt.sandbox import kernel, notify
from funcrt.sandbox.destinations import Address, Destinations, address_of
from funcrt.sandbox.resolver import Resolver
from funcrt.sandbox.syscalls import CONNECT, LISTEN, SOCKET, number_of

__all__ = ["supervise"]

MOST_FILES = 4096
MEMORY_BYTES = 1 << 30
"""Of addresses, most of which are shared with R and never touched."""
MOST_SOCKETS = 2048
"""Of one function, alive at once."""


def supervise(
    line: socket.socket,
    listed: tuple[str, ...],
    user: int,
    *,
    near: bool = False,
    unix: bool = False,
) -> None:
    """S's life: from the descriptors that come on `line` until nobody is left who could ask. Where
    it is `near`, names that are listed may stand for this machine; with `unix`, Unix sockets
    connect."""
    os.setsid()
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.clear_capabilities()
    kernel.no_new_privileges()
    kernel.set_dumpable(False)
    kernel.tie_to_parent(signal.SIGKILL)  # a change of user undid it
    for which, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        hard = resource.getrlimit(which)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (least, least))
    body, descriptors, _, _ = socket.recv_fds(line, 16, 2)
    line.close()
    if not body:
        return  # what was to be supervised could not be confined
    listener, *names = descriptors
    asyncio.run(_Supervisor(listener, listed, near, unix).run(*names))


class _OverError(Exception):
    """Nobody is left who could ask."""


class _Supervisor:
    def __init__(self, listener: int, listed: tuple[str, ...], near: bool, unix: bool) -> None:
        self.listener = listener
        self.unix = unix
        self.destinations = Destinations(listed, _own, near=near)
        self.resolver = Resolver(self.destinations, _reachable)
        self.sockets = _Count()
        self.connecting: dict[int, Callable[[], None]] = {}
        calls: dict[tuple[int, int], Callable[[notify.Asked], None]] = {
            SOCKET: self._socket,
            CONNECT: self._connect,
            LISTEN: self._listen,
        }
        self.calls = {number_of(kernel.MACHINE, call): take for call, take in calls.items()}

    async def run(self, names: int = -1) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                if names >= 0:
                    self.resolver.serve(socket.socket(fileno=names), group)
                else:
                    await self.resolver.serve_streams(group)
                self.loop.add_reader(self.listener, self._asked)
                await self.over.wait()
                raise _OverError  # ends what the group still does
        except* _OverError:
            pass
        finally:
            self.resolver.close()

    def _asked(self) -> None:
        try:
            asked = notify.next_of(self.listener)
        except EOFError:
            self.loop.remove_reader(self.listener)
            self.over.set()
            return
        if asked is None:
            return
        try:
            self.calls[asked.number](asked)
        except OSError as error:
            notify.answer(asked, max(error.errno or 0, 0) or errno.EIO)

    def _socket(self, asked: notify.Asked) -> None:
        family, kind, protocol = (each & 0xFFFFFFFF for each in asked.arguments[:3])
        if protocol not in (0, socket.IPPROTO_TCP):
            raise OSError(errno.EPROTONOSUPPORT, "only TCP")
        if self.sockets.full(MOST_SOCKETS):
            raise OSError(errno.EMFILE, "too many sockets")
        wanted = socket.SOCK_STREAM | kind & socket.SOCK_NONBLOCK
        with socket.socket(family, wanted) as made:
            self.sockets.add(made)
            close_on_exec = bool(kind & socket.SOCK_CLOEXEC)
            notify.give(asked, made.fileno(), close_on_exec=close_on_exec)

    def _theirs(self, asked: notify.Asked) -> socket.socket:
        """The socket of its first argument; a swap of descriptors from here on changes nothing."""
        descriptor = notify.descriptor_of(asked, asked.arguments[0] & 0xFFFFFFFF)
        try:
            return socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise

    def _listen(self, asked: notify.Asked) -> None:
        with self._theirs(asked) as sock:
            if sock.family != socket.AF_UNIX:
                raise OSError(errno.EACCES, "only Unix sockets listen")
            sock.listen(asked.arguments[1] & 0x7FFF)
        notify.answer(asked)

    def _connect(self, asked: notify.Asked) -> None:
        size = asked.arguments[2] & 0xFFFFFFFF
        if not 2 <= size <= 128:
            raise OSError(errno.EINVAL, "no address")
        held = notify.memory_of(asked, asked.arguments[1], size)
        sock = self._theirs(asked)
        if not asked.valid():  # the memory and the descriptor were perhaps another's
            sock.close()
            return
        try:
            self._connect_socket(asked, sock, held)
        except BaseException:
            sock.close()
            raise

    def _connect_socket(self, asked: notify.Asked, sock: socket.socket, held: bytes) -> None:
        if sock.family == socket.AF_UNIX:
            if not self.unix:
                raise OSError(errno.EACCES, "no Unix sockets")
            # Landlock holds back what a swap could make of it: a TCP connection of its own.
            notify.go_on(asked)
            sock.close()
            return
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise OSError(errno.EACCES, "no such sockets")
        if struct.unpack_from("=H", held)[0] == socket.AF_UNSPEC:
            kernel.connect(sock.fileno(), held)  # lets go of what it was connected to
            self._done(asked, sock)
            return
        address, port, rest = _parsed(held)
        if sock.type != socket.SOCK_STREAM:  # in its own network, where nobody is
            self._done(asked, sock, sock.connect_ex(_where(sock, str(address), port, rest)))
            return
        if (allowed := self._allowed(address, port)) is None:
            raise OSError(errno.EACCES, "not among its destinations")
        self._open(asked, sock, _where(sock, *allowed, rest))

    def _allowed(self, address: Address, port: int) -> tuple[str, int] | None:
        """Where it is to be connected to indeed; None where it may not be."""
        if port == 53 and (where := self.resolver.instead_of(str(address))):
            return where
        if self.destinations.allows(address, port, time.monotonic()):
            return str(address), port
        return None

    def _open(self, asked: notify.Asked, sock: socket.socket, where: tuple[object, ...]) -> None:
        """Connect without blocking, and answer a socket that blocks once it is connected."""
        flags = fcntl.fcntl(sock, fcntl.F_GETFL)
        blocks = not flags & os.O_NONBLOCK
        if blocks:  # the flag is one for all descriptors of the socket, theirs too
            fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            error = sock.connect_ex(where)
        finally:
            if blocks:
                fcntl.fcntl(sock, fcntl.F_SETFL, flags)
        if not blocks or error not in (errno.EINPROGRESS, errno.EALREADY):
            self._done(asked, sock, error)
            return
        self.loop.add_writer(sock.fileno(), self._connected, asked, sock)

    def _connected(self, asked: notify.Asked, sock: socket.socket) -> None:
        self.loop.remove_writer(sock.fileno())
        self._done(asked, sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _done(self, asked: notify.Asked, sock: socket.socket, error: int = 0) -> None:
        sock.close()
        notify.answer(asked, error)


def _where(
    sock: socket.socket, address: str, port: int, rest: tuple[int, ...]
) -> tuple[object, ...]:
    """An address as this socket takes it."""
    if sock.family == socket.AF_INET6:
        return (address if ":" in address else f"::ffff:{address}", port, *(rest or (0, 0)))
    if ":" in address:
        raise OSError(errno.EAFNOSUPPORT, "an address of IPv6 on a socket of IPv4")
    return address, port


def _parsed(held: bytes) -> tuple[Address, int, tuple[int, ...]]:
    """A sockaddr's address and port, and IPv6's flow and scope."""
    rest: tuple[int, ...] = ()
    try:
        family, port = struct.unpack_from("=H", held)[0], struct.unpack_from(">H", held, 2)[0]
        if family == socket.AF_INET and len(held) >= 8:
            found = socket.inet_ntop(family, held[4:8])
        elif family == socket.AF_INET6 and len(held) >= 24:
            found = socket.inet_ntop(family, held[8:24])
            flow = struct.unpack_from(">I", held, 4)[0]
            scope = struct.unpack_from("=I", held, 24)[0] if len(held) >= 28 else 0
            rest = (flow & 0xFFFFF, scope)
        else:
            raise OSError(errno.EAFNOSUPPORT, "no internet address")
    except struct.error:
        raise OSError(errno.EINVAL, "no address") from None
    address = address_of(found)
    assert address is not None
    return address, port, rest


def _route(address: Address) -> str | None:
    """Which address of this machine's it would be reached from; nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(address), 9))
        return str(sock.getsockname()[0])
    return None


def _own(address: Address) -> bool:
    """Linux reaches what is its own from that same address."""
    found = _route(address)
    return found is not None and address_of(found) == address


def _reachable(address: Address) -> bool:
    return _route(address) is not None


class _Count:
    """How many sockets are alive that were handed out. An epoll holds none of them open, and
    forgets each once its last descriptor is closed: the kernel counts."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.most = 0
        """There are not more than so many."""

    def add(self, sock: socket.socket) -> None:
        self.poll.register(sock.fileno(), 0)
        self.most += 1

    def full(self, limit: int) -> bool:
        if self.most >= limit:
            with Path(f"/proc/self/fdinfo/{self.poll.fileno()}").open() as file:
                self.most = sum(line.startswith("tfd:") for line in file)
        return self.most >= limit
