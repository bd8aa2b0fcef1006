"""The host's side of the mesh file's Unix socket."""

import asyncio
import contextlib
import os
import resource
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from mesh.errors import MeshError
from mesh.event import Event
from mesh.records import Chunk, split
from mesh.transport import Receipt
from mesh.wire import (
    PAGE_BYTES,
    TAIL_BYTES,
    Ask,
    Channel,
    Failed,
    FromClient,
    Publish,
    Published,
    Said,
    Stop,
    Tail,
    Told,
    chunk_row,
    receipt_row,
    short_path,
)

if TYPE_CHECKING:
    from mesh.embedded import Embedded

__all__ = [
    "Server",
    "new_address",
]

OUTSTANDING = 4096
"""Publishes of one client that may wait; its socket is not read beyond that."""
CLIENTS = 1024
"""Processes that may be connected at once: one of them costs the host an open file. Fewer where the
host may open few files, which functions and the mesh's file need too."""
CLIENTS_OF_FILES = 8
"""They take no more than one in so many of them."""
TOPICS = 10_000
"""In one answer: names of at most 200 characters, and numbers."""


class _Client:
    """One connected process."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.mesh = server.mesh
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.waiting = 0
        self.paging = asyncio.Lock()
        """One page at a time, once the last is on its way: what a client asks for is not kept."""
        self.channel = Channel(FromClient, self.received, self.lost)

    def received(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if type(message) is Publish:
                self.publish(message)
            elif type(message) is Stop:
                task = self.tasks.get(message.id)
                if task is not None:
                    task.cancel()
            elif message.id not in self.tasks:
                work = self.tail(message) if type(message) is Tail else self.answer(message)
                task = asyncio.get_running_loop().create_task(work)
                self.tasks[message.id] = task
                task.add_done_callback(partial(self._over, message.id))

    def _over(self, key: int, task: "asyncio.Task[None]") -> None:
        self.tasks.pop(key, None)

    def publish(self, message: Publish) -> None:
        self.waiting += len(message.events)
        if self.waiting > OUTSTANDING and self.channel.transport is not None:
            self.channel.transport.pause_reading()
        done = partial(self.published, message.id, len(message.events))
        self.mesh.publish_soon(message.topic, message.events, message.hops, done)

    def published(self, key: int, count: int, receipts: list[Receipt]) -> None:
        self.waiting -= count
        if self.waiting <= OUTSTANDING // 2 and self.channel.transport is not None:
            self.channel.transport.resume_reading()
        self.channel.send(Published(key, [receipt_row(receipt) for receipt in receipts]))
        self.server.confirmed.add(self.channel)

    async def tail(self, message: Tail) -> None:
        try:
            engine = self.mesh.engine_or_raise()
            offset = self.mesh.resolve(message.topic, message.start)
            while True:
                chunks = engine.read(message.topic, offset)
                if not chunks:
                    await engine.changed(message.topic)
                    continue
                for some in _said(chunks):
                    self.channel.send(Said(message.id, offset, [chunk_row(c) for c in some]))
                    offset = some[-1].first + some[-1].count
                    await self.channel.drained()
        except (MeshError, sqlite3.Error) as error:
            self.channel.send(Failed(message.id, type(error).__name__, str(error)))

    async def answer(self, message: Ask) -> None:
        try:
            value = await self._answer(message.what, message.arguments)
        except TimeoutError:
            self.channel.send(Failed(message.id, "TimeoutError", "no answer in time"))
        except (MeshError, sqlite3.Error, ValueError, TypeError) as error:
            self.channel.send(Failed(message.id, type(error).__name__, str(error)))
        else:
            self.channel.send(Told(message.id, value))

    async def _answer(self, what: str, arguments: list[Any]) -> Any:
        if what == "doorbell":
            return await self.mesh.engine_or_raise().doorbell()
        if what == "host":
            return os.getpid()
        if what == "namespace":
            return self.mesh.namespace
        if what == "request":
            topic, event, timeout_s = arguments
            parsed = msgspec.convert(event, Event)
            return await self.mesh.request(topic, parsed, float(timeout_s))
        if what in ("durability", "depth"):
            return await getattr(self.mesh, what)(*arguments)
        if what in ("read", "topics", "dead_letters"):
            async with self.paging:
                await self.channel.drained()
                return await self._page(what, arguments)
        raise MeshError(f"the host does not know the question {what!r}")

    async def _page(self, what: str, arguments: list[Any]) -> Any:
        if what == "read":
            topic, start, limit = arguments
            return self.mesh.page(topic, start, int(limit), PAGE_BYTES)
        if what == "topics":
            (after,) = arguments
            return self.mesh.some_topics(str(after), TOPICS)
        name, after, limit = arguments
        return await self.mesh.dead_letters(name, after=int(after), limit=int(limit))

    def lost(self) -> None:
        self.server.clients.discard(self)
        for task in self.tasks.values():
            task.cancel()


def _said(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks of a topic as a tail says them, TAIL_BYTES at once."""
    some: list[Chunk] = []
    size = 0
    for chunk in chunks:
        for part in split(chunk, PAGE_BYTES):
            some.append(part)
            size += len(part.body)
            if size >= TAIL_BYTES:
                yield some
                some, size = [], 0
    if some:
        yield some


class _Refused(Channel):
    """A client too many: told so, and closed."""

    def __init__(self, most: int) -> None:
        super().__init__(FromClient, lambda messages: None, lambda: None)
        self._why = f"{most} processes use this mesh already, the most that its host takes"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(Failed(0, "MeshFull", self._why))
        self.close()


def clients_allowed() -> int:
    """How many processes may be connected, by this process's limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CLIENTS if soft == resource.RLIM_INFINITY else min(CLIENTS, soft // CLIENTS_OF_FILES)


class Server:
    """Listens beside the mesh file, for its owner alone (mode 0600)."""

    def __init__(self, mesh: "Embedded", path: str) -> None:
        self.mesh = mesh
        self.path = path
        self.clients: set[_Client] = set()
        self.confirmed: set[Channel] = set()
        """With receipts that are to be sent."""
        self._server: asyncio.AbstractServer | None = None

    def _connected(self) -> Channel:
        most = clients_allowed()
        if len(self.clients) >= most:
            return _Refused(most)
        client = _Client(self)
        self.clients.add(client)
        return client.channel

    def flush(self) -> None:
        """Send the receipts that there are at once."""
        for channel in self.confirmed:
            channel.flush()
        self.confirmed.clear()

    async def start(self) -> None:
        """Listen. The caller holds the host's lock, so a socket that is there is a dead host's."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108
        loop = asyncio.get_running_loop()
        mask = os.umask(0o177)
        try:
            with short_path(self.path) as path:
                self._server = await loop.create_unix_server(self._connected, path, backlog=CLIENTS)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening and let the clients go."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [task for client in self.clients for task in client.tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for client in list(self.clients):
            client.channel.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108


def new_address() -> str:
    """A reply address; only a host makes them."""
    return f"reply-{uuid.uuid4()}"
