"""The default mesh: one SQLite file, no server.

One process is its *host*: it holds the lock, writes the file, routes, and serves a Unix socket
beside it. Any other process publishes, reads and tails through that socket, or in the file itself
while there is no host. A transport becomes the host when it first subscribes, or at once with
`host=True`; MeshBusy names the process that is.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mesh import integrity, subscriptions
from mesh.admin import Admin
from mesh.client import FileClient, SocketClient, logged
from mesh.clock import SystemClock
from mesh.engine import Engine
from mesh.errors import (
    MeshBusy,
    MeshClosed,
    MeshCorrupt,
    MeshError,
    TopicsFull,
    UrlInvalid,
)
from mesh.event import Event
from mesh.feed import QueueFeed
from mesh.options import Options
from mesh.records import event_bytes
from mesh.server import Server, new_address
from mesh.transport import (
    Check,
    Clock,
    Coming,
    Dead,
    Depth,
    Features,
    Gone,
    KeyOf,
    Logged,
    Receipt,
    Router,
    Settlement,
    Subscription,
    check_name,
)
from mesh.validation import validate

__all__ = [
    "FEATURES",
    "Embedded",
    "file_of",
    "open_transport",
    "take_lock",
]

TAILED_BYTES = 256 << 10
"""Of events that a tail reads at once, in whole chunks."""

FEATURES = Features(
    name="embedded",
    atomic_settle=True,
    atomic_batch=True,
    routed=True,
    order_key=True,
    replay=True,
    broadcast=True,
    delayed_retry=True,
    dedupe=True,
    depth="exact",
    state=True,
    idempotency=True,
    request=True,
    queue_cap=True,
    shared=False,
    survives_restart=True,
)


async def open_transport(
    url: str, namespace: str, *, clock: Clock | None = None, host: bool = False, **options: Any
) -> "Embedded":
    """Open the mesh file that `url` names (see `mesh.connect`), made where it is new.

    Options, here or in the URL's query: those of `mesh.options.Options`. Raises UrlInvalid,
    MeshBusy (with `host=True`), MeshCorrupt, MeshError.
    """
    path, asked = _parse(url)
    try:
        parsed = msgspec.convert({**asked, **options}, Options, strict=False)
    except msgspec.ValidationError as error:
        raise UrlInvalid(url, str(error)) from None
    unknown = sorted({*asked, *options} - set(Options.__struct_fields__))
    if unknown:
        known = ", ".join(Options.__struct_fields__)
        raise UrlInvalid(url, f"unknown option {unknown[0]!r}; there are: {known}")
    mesh = Embedded(path, namespace, clock or SystemClock(), parsed)
    if host or path == ":memory:":
        await mesh.serve()
    return mesh


def file_of(url: str) -> str:
    """The path of the mesh file that `url` names. Raises UrlInvalid."""
    return _parse(url)[0]


def _parse(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    where = unquote(parts.netloc + parts.path)
    if where in (":memory:", ""):
        if where == "":
            raise UrlInvalid(url, "no path; use embedded:///path/to/mesh.db or embedded::memory:")
        return ":memory:", asked
    path = str(Path(where).absolute())
    # SQLite has its log beside the file that a link leads to; there the lock and the socket are.
    return os.path.realpath(path) if os.path.islink(path) else path, asked  # noqa: PTH114


def take_lock(path: str) -> int:
    """Become the one process that may serve, or mend, the mesh file at `path`: the lock's open
    file, to be closed at the end. Raises MeshBusy."""
    file = Path(path + ".lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise MeshBusy(path, int(text) if text.isdigit() else None) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


class Embedded(Admin):
    """The embedded transport."""

    def __init__(self, path: str, namespace: str, clock: Clock, options: Options) -> None:
        self.path = path
        self.namespace = namespace
        self.clock = clock
        self.options = options
        self.memory = path == ":memory:"
        self.features = (
            msgspec.structs.replace(FEATURES, survives_restart=False) if self.memory else FEATURES
        )
        self.engine: Engine | None = None
        self.closed = False
        self.on_fatal: Callable[[BaseException], None] | None = None
        self._server: Server | None = None
        self._lock: int | None = None
        self._socket: SocketClient | None = None
        self._ours = False
        self._file: FileClient | None = None
        self._becoming = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._feeds: list[QueueFeed] = []

    # Being the host

    async def serve(self) -> None:
        """Become the file's host. Raises MeshBusy where another process is."""
        async with self._becoming:
            if self.engine is not None:
                return
            self._check_open()
            if not self.memory:
                self._lock = take_lock(self.path)
            try:
                await self._start()
            except BaseException:
                await self._stop()
                self._drop_lock()
                raise

    async def _start(self) -> None:
        self._let_go_of_file()
        try:
            engine = Engine(self.path, self.namespace, self.clock, self.options)
        except sqlite3.DatabaseError as error:
            raise integrity.told(self.path, error) from None
        engine.on_fatal = self._fatal
        engine.start()
        self.engine = engine
        await engine.write(engine.refresh)
        if not engine.inline:
            self._server = Server(self, self.path + ".sock")
            engine.on_confirmed = self._server.flush
            await self._server.start()
            await engine.doorbell()

    async def _stop(self) -> None:
        engine, self.engine = self.engine, None
        server, self._server = self._server, None
        if engine is not None:
            engine.abandon()
        if server is not None:
            await server.close()

    def _fatal(self, error: BaseException) -> None:
        if self.on_fatal is not None:
            self.on_fatal(error)

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def engine_or_raise(self) -> Engine:
        """The engine of a host. Raises MeshClosed where this is none."""
        if self.engine is None or self.closed:
            raise MeshClosed
        return self.engine

    async def _host(self) -> Engine:
        if self.engine is None:
            await self.serve()
        self._check_open()
        return self.engine_or_raise()

    def _check_open(self) -> None:
        if self.closed:
            raise MeshClosed

    # Being a client

    async def _client(self) -> SocketClient | None:
        """The host's socket; None where no host of this namespace lives. The host of another
        leaves ours to the file: nothing of it may cross."""
        self._check_open()
        async with self._connecting:
            if self._socket is None or not self._socket.alive:
                self._socket = None
                socket = await SocketClient.connect(self.path + ".sock")
                if socket is None:
                    return None
                try:
                    self._ours = await socket.ask("namespace") == self.namespace
                except BaseException as error:
                    socket.close()
                    if isinstance(error, MeshClosed):
                        return None
                    raise
                self._socket = socket
            return self._socket if self._ours else None

    def _open_file(self) -> FileClient:
        if self._file is None:
            dedupe = (self.options.dedupe_s, self.options.dedupe_ids)
            self._file = FileClient(self.path, self.namespace, dedupe, self.options.topics)
        return self._file

    def _let_go_of_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _write_file(
        self, topic: str, events: Sequence[Event], hops: int, now: float
    ) -> list[Receipt]:
        async with self._writing:
            return await asyncio.to_thread(self._open_file().publish, topic, events, hops, now)

    async def _publish_file(self, topic: str, events: Sequence[Event], hops: int) -> list[Receipt]:
        now = self.clock.time()
        try:
            # One connection, one transaction at a time; shielded, for a thread cannot be stopped.
            receipts = await asyncio.shield(self._write_file(topic, events, hops, now))
        except TopicsFull as error:
            return [Receipt("refused", reason=str(error), error="full")] * len(events)
        except sqlite3.Error as error:
            if isinstance(told := integrity.told(self.path, error), MeshCorrupt):
                raise told from None
            full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            reason = "the disk is full" if full else str(error)
            return [Receipt("refused", reason=reason, error="full")] * len(events)
        # A host that has come meanwhile may have looked before this was there.
        host = await self._client()
        if host is not None:
            with contextlib.suppress(MeshError):
                await host.ask("doorbell")
        return receipts

    # Publishing and reading

    async def publish(self, topic: str, events: Sequence[Event], *, hops: int = 0) -> list[Receipt]:
        """As the contract says."""
        self._check_open()
        check_name("topic", topic)
        if not events:
            return []
        if self.engine is None:
            client = await self._client()
            if client is None:
                return await self._publish_file(topic, events, hops)
            return await client.publish(topic, events, hops)
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self.engine.publish(topic, events, hops, partial(_resolve, future))
        return await future

    def publish_soon(
        self,
        topic: str,
        events: Sequence[Event],
        hops: int,
        done: Callable[[list[Receipt]], None],
    ) -> None:
        """`publish` for a host's own use, without a future: `done` gets the receipts."""
        try:
            check_name("topic", topic)
        except MeshError as error:
            done([Receipt("refused", reason=str(error), error="invalid")] * len(events))
            return
        self.engine_or_raise().publish(topic, events, hops, done)

    async def read(self, topic: str, start: str, limit: int) -> list[Logged]:
        """As the contract says."""
        self._check_open()
        client = None if self.engine is not None else await self._client()
        if client is None:
            return self.page(topic, start, limit, sys.maxsize)[0]
        found: list[Logged] = []
        more = True
        while more:
            rows, more = await client.ask("read", topic, start, limit - len(found))
            found += msgspec.convert(rows, list[Logged])
            start = f"@{int(found[-1].position) + 1}" if found else start
        return found

    def page(self, topic: str, start: str, limit: int, most: int) -> tuple[list[Logged], bool]:
        """Up to `limit` events of a topic, or until they are of `most` bytes; and whether that is
        why they are not more."""
        offset = self.resolve(topic, start)
        found: list[Logged] = []
        size = 0
        while len(found) < limit:
            # A chunk holds an event at least, and often hundreds.
            chunks = self._chunks(topic, offset, min(16, limit - len(found)))
            if not chunks:
                break
            for chunk in chunks:
                for item in logged(topic, chunk, offset):
                    found.append(item)
                    size += event_bytes(item.event)
                    if len(found) == limit:
                        return found, False
                    if size >= most:
                        return found, True
            offset = chunks[-1].first + chunks[-1].count
        return found, False

    def _chunks(self, topic: str, offset: int, limit: int = 16) -> list[Any]:
        if self.engine is not None:
            return self.engine.read(topic, offset, limit)
        file = self._open_file()
        row = file.store.topic(file.prefix + topic)
        if row is None or offset >= row.next:
            return []
        return file.store.chunks(row.id, offset, limit)

    async def tail(self, topic: str, start: str = "new") -> AsyncIterator[Logged]:
        """As the contract says. Without a host, the file is looked at ten times a second."""
        self._check_open()
        check_name("topic", topic)
        offset: int | None = None
        limit = 1
        while not self.closed:
            client = None if self.engine is not None else await self._client()
            if client is not None:
                begin = start if offset is None else f"@{offset}"
                async for item in client.tail(topic, begin):
                    offset = int(item.position) + 1
                    yield item
                continue
            if offset is None:
                offset = self.resolve(topic, start)
            chunks = self._chunks(topic, offset, limit)
            # Whoever is slow to take them holds few bytes meanwhile, large events or small.
            small = sum(len(chunk.body) for chunk in chunks) < TAILED_BYTES
            limit = min(limit * 2, 16) if chunks and small else 1
            for chunk in chunks:
                for item in logged(topic, chunk, offset):
                    yield item
            if chunks:
                offset = chunks[-1].first + chunks[-1].count
            elif self.engine is not None:
                await self.engine.changed(topic)
            else:
                await asyncio.sleep(0.1)

    def resolve(self, topic: str, start: str) -> int:
        """The offset that `new`, `earliest`, a time or `@` and a position stands for."""
        if start == "earliest":
            return 0
        if start.startswith("@"):
            if not start[1:].isdigit():
                raise MeshError(f"{start!r} is no position")
            return int(start[1:])
        if self.engine is not None:
            held = self.engine.topics.get(topic)
            row, store = (held.row if held else None), self.engine.reader
        else:
            file = self._open_file()
            row = file.store.topic(file.prefix + topic)
            store = file.store
        if row is None:
            return 0
        if start in ("new", "now"):
            return row.next
        try:
            moment = datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp()
        except ValueError:
            raise MeshError(
                f"{start!r} is no start: use new, earliest, an RFC 3339 time, or @ and a position"
            ) from None
        found = store.offset_at(row.id, moment)
        return row.next if found is None else found

    # Subscribing and settling

    def set_router(self, router: Router) -> None:
        """As the contract says."""
        self.engine_or_raise().router = router

    def set_check(self, check: Check) -> None:
        """As the contract says."""
        self.engine_or_raise().check = check

    def set_coming(self, coming: Coming) -> None:
        """As the contract says."""
        self.engine_or_raise().coming = coming

    async def subscribe(
        self, subscription: Subscription, *, key_of: KeyOf | None = None
    ) -> QueueFeed:
        """As the contract says."""
        subscriptions.check(subscription)
        engine = await self._host()
        queue = await engine.write(partial(subscriptions.take_up, self, subscription, key_of))
        await subscriptions.backfill(engine, queue)
        queue.serve(key_of)
        feed = QueueFeed(engine, queue)
        self._feeds.append(feed)
        return feed

    async def unsubscribe(self, name: str, *, purge: bool = False) -> None:
        """As the contract says."""
        engine = await self._host()
        await engine.write(partial(subscriptions.remove, engine, name, purge))

    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        """As the contract says."""
        self._check_open()
        for settlement in settlements:
            for output in settlement.outputs:
                if output.topic:
                    check_name("topic", output.topic)
            for each in settlement.settled:
                if isinstance(each.outcome, Dead) and each.outcome.letter is not None:
                    check_name("topic", each.outcome.letter.topic)
            for timer in settlement.timers:
                check_name("topic", timer.output.topic)
        return await self.engine_or_raise().commit(settlements)

    async def depth(self, name: str) -> Depth:
        """As the contract says."""
        self._check_open()
        if self.engine is None:
            client = await self._client()
            if client is None:
                raise MeshClosed("no host serves this mesh")
            return msgspec.convert(await client.ask("depth", name), Depth)
        return self.depth_now(name)

    async def request(self, topic: str, event: Event, timeout_s: float) -> list[Event]:
        """As the contract says. From another process it needs a host."""
        self._check_open()
        if self.engine is None:
            client = await self._client()
            if client is None:
                raise MeshClosed("no host serves this mesh")
            validate(event)
            async with asyncio.timeout(timeout_s):
                rows = await client.ask("request", topic, event, timeout_s)
            return msgspec.convert(rows, list[Event])
        engine, address = self.engine, new_address()
        check_name("topic", topic)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Event] | None] = loop.create_future()
        stored: asyncio.Future[list[Receipt]] = loop.create_future()
        engine.replies[address] = partial(_resolve, answer)
        try:
            async with asyncio.timeout(timeout_s):
                engine.publish(topic, [event], 0, partial(_resolve, stored), address)
                (receipt,) = await stored
                if receipt.status != "stored":
                    raise MeshError(f"the request was not stored: {receipt.reason}")
                if receipt.duplicate:
                    raise MeshError(
                        f"topic {topic!r} has event {event.id!r} of {event.source!r} already, and"
                        " its reply is another's: ask with a new id"
                    )
                events = await answer
        finally:
            del engine.replies[address]
        if events is None:
            raise MeshError("the request failed for good; see the dead letters")
        return events

    async def share(self, name: str) -> float:
        """As the contract says: one host has it all."""
        self._check_open()
        return 1.0

    async def durability(self) -> str:
        """As the contract says."""
        self._check_open()
        if self.memory:
            return "stored means in this process's memory: nothing survives its end"
        ids, span = self.options.dedupe_ids, self.options.dedupe_s
        return (
            f"stored means synced to {self.path} (SQLite WAL, synchronous="
            f"{self.options.synchronous}); duplicates are found within {span:.0f} s or {ids} ids"
            " a topic"
        )

    # The end

    async def close(self) -> None:
        """As the contract says."""
        if self.closed:
            return
        for feed in self._feeds:
            await feed.close()
        self.closed = True
        if self._server is not None:
            await self._server.close()
        if self.engine is not None:
            await self.engine.close()
        if self._socket is not None:
            self._socket.close()
        self._let_go_of_file()
        self._drop_lock()

    async def crash(self) -> None:
        """End as a killed process would, leaving the file as it is. For tests."""
        self.closed = True
        if self.engine is not None:
            self.engine.abandon()
        if self._server is not None:
            await self._server.close()
        self._let_go_of_file()
        self._drop_lock()


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
