"""A function's DNS, in the process that makes its connections.

Names that its manifest lists are looked up as the host looks names up, and their addresses pinned;
other questions are handed on to the host's nameservers where the function has the internet, and
there is no such name where it has not. No datagram of the function's leaves its network.
"""

import asyncio
import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from funcrt.sandbox import dns
from funcrt.sandbox.destinations import Address, Destinations, address_of

__all__ = ["Resolver", "hosts", "nameservers"]

FRESH_S = 30.0
"""A name is not looked up again sooner."""
LOOKUP_S, HANDED_ON_S = 15.0, 4.0
MOST_AT_ONCE = 128
MOST_STREAMS = 32
RESOLV_CONF = "/etc/resolv.conf"
HOSTS = "/etc/hosts"


def nameservers(path: str = RESOLV_CONF) -> list[str]:
    """The host's, as the C library takes them."""
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path(path).read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                found.append(words[1])
    return found[:3] or ["127.0.0.1"]


def hosts(path: str = HOSTS) -> Iterator[tuple[str, Address]]:
    """The names that this machine has itself, each with its address."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path(path).read_text().splitlines():
            number, *names = line.partition("#")[0].split() or [""]
            if (address := address_of(number)) is not None:
                yield from ((name.lower(), address) for name in names)


class Resolver:
    """Answers on the socket that it is given."""

    def __init__(self, destinations: Destinations, reachable: Callable[[Address], bool]) -> None:
        self.destinations = destinations
        self.reachable = reachable
        self.known: dict[str, tuple[float, list[Address]]] = {}
        self.looking: dict[str, asyncio.Future[list[Address] | None]] = {}
        self.busy = 0
        self.at: socket.socket | None = None
        self.server: asyncio.Server | None = None

    def serve(self, sock: socket.socket, group: asyncio.TaskGroup) -> None:
        """Answer datagrams on this one."""
        sock.setblocking(False)
        self.at = sock
        self.group = group
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    async def serve_streams(self, group: asyncio.TaskGroup) -> None:
        """Answer on connections: where a function shares the host's network, and may send no
        datagrams. It reads the machine's own names by itself, so it may not ask for those."""
        self.group = group
        if self.destinations.near:
            for name, address in hosts():
                if self.destinations.ports(name):
                    self.destinations.pin(name, [address], time.monotonic())
        self.server = await asyncio.start_server(self._stream, "127.0.0.1", 0, limit=1024)

    def close(self) -> None:
        """No more answers."""
        if self.at is not None:
            asyncio.get_running_loop().remove_reader(self.at.fileno())
            self.at.close()
        if self.server is not None:
            self.server.close()

    def instead_of(self, server: str) -> tuple[str, int] | None:
        """Where a connection to a nameserver's port is to go; None for what is no nameserver."""
        if self.server is not None and server in nameservers():
            found: tuple[str, int] = self.server.sockets[0].getsockname()[:2]
            return found
        if self.at is not None and server == "127.0.0.1" and self.destinations.outbound:
            return nameservers()[0], 53  # an answer that is too long for a datagram
        return None

    def _readable(self) -> None:
        assert self.at is not None
        for _ in range(16):
            try:
                packet, client = self.at.recvfrom(4096)
            except OSError:
                return
            if self.busy < MOST_AT_ONCE:
                self.busy += 1
                self.group.create_task(self._datagram(packet, client))

    async def _datagram(self, packet: bytes, client: tuple[str, int]) -> None:
        try:
            answer = await self.answer(packet)
            if answer and self.at is not None:
                with contextlib.suppress(OSError):
                    self.at.sendto(answer, client)
        finally:
            self.busy -= 1

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy += 1
        try:
            while self.busy <= MOST_STREAMS:
                async with asyncio.timeout(60):
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    packet = await reader.readexactly(size)
                answer = await self.answer(packet)
                if not answer:
                    break
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self.busy -= 1
            writer.close()

    async def answer(self, packet: bytes) -> bytes | None:
        """The answer to a question; None for what is none."""
        question = dns.Question.of(packet)
        if question is None:
            return None
        if self.destinations.ports(question.name):
            found = await self.addresses(question.name)
            if found is None:
                return dns.reply(question, error=dns.SERVER_FAILED)
            return dns.reply(question, found)
        if self.destinations.outbound:
            handed = await _hand_on(packet)
            return handed or dns.reply(question, error=dns.SERVER_FAILED)
        return dns.reply(question, error=dns.NO_SUCH_NAME)

    async def addresses(self, name: str) -> list[Address] | None:
        """What may be connected to under a listed name; None where it could not be looked up."""
        at, known = self.known.get(name, (0.0, []))
        if known and time.monotonic() - at < FRESH_S:
            return known
        if name not in self.looking:
            self.looking[name] = self.group.create_task(self._look_up(name))
        return await asyncio.shield(self.looking[name])

    async def _look_up(self, name: str) -> list[Address] | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_S):
                # Bytes: for a str a codec is imported, of a Python which S may not read.
                told = await loop.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return None
        finally:
            self.looking.pop(name, None)
        found = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in told]
        now = time.monotonic()
        good = self.destinations.pin(name, found, now)
        # Without IPv6 here, its addresses would only be tried in vain.
        good = [each for each in good if self.reachable(each)] or good
        if len(self.known) > MOST_AT_ONCE:
            self.known.clear()
        self.known[name] = now, good
        return good


async def _hand_on(packet: bytes) -> bytes | None:
    loop = asyncio.get_running_loop()
    for server in nameservers():
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((server, 53))  # from a port of its own; only that server's answer comes
            await loop.sock_sendall(sock, packet)
            async with asyncio.timeout(HANDED_ON_S):
                while (found := await loop.sock_recv(sock, 4096))[:2] != packet[:2]:
                    pass
            return found
    return None
