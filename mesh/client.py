"""A mesh file from a process that is not its host: through the host's socket while one lives,
else in the file itself."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

import mesh.errors
from mesh.codec import validate
from mesh.errors import EventError, MeshClosed, MeshError, MeshFull, TopicsFull
from mesh.event import Event
from mesh.failpoint import point
from mesh.ids import WINDOWS, IdWindow, digest
from mesh.records import Chunk, Record, decode_records, encode_records, event_bytes, parts
from mesh.store import Store
from mesh.topics import Topic
from mesh.transport import Logged, Receipt
from mesh.wire import (
    PAGE_BYTES,
    Ask,
    Channel,
    Failed,
    FromHost,
    Publish,
    Published,
    Said,
    Stop,
    Tail,
    short_path,
)

__all__ = ["FileClient", "SocketClient", "logged"]

AMBIGUOUS = Receipt("ambiguous", reason="the host went away before it answered")


CONNECT_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Pauses between attempts to connect."""


def logged(topic: str, chunk: Chunk, start: int) -> list[Logged]:
    """The events of a chunk from offset `start` on."""
    records = decode_records(chunk.body)
    skip = max(start - chunk.first, 0)
    return [
        Logged(record.event, topic, str(chunk.first + index), chunk.at, record.hops)
        for index, record in enumerate(records[skip:], skip)
    ]


class SocketClient:
    """A connection to the host of a mesh file."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._gone: MeshError = MeshClosed("the mesh's host went away")
        self.channel = Channel(FromHost, self._received, self._lost)
        self._ids = itertools.count(1)
        self._publishes: dict[int, tuple[asyncio.Future[list[Receipt]], int]] = {}
        self._asks: dict[int, asyncio.Future[Any]] = {}
        self._tails: dict[int, asyncio.Queue[Said | Failed | None]] = {}

    @classmethod
    async def connect(cls, path: str) -> "SocketClient | None":
        """Connect to the host that serves the socket at `path`; None where there is none. Raises
        MeshFull where it takes no more."""
        loop = asyncio.get_running_loop()
        client = cls(path)
        for pause_s in CONNECT_S:
            try:
                with short_path(path) as short:
                    await loop.create_unix_connection(lambda: client.channel, short)
            except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
                return None
            except BlockingIOError:  # more connect at once than the host's socket has room for
                await asyncio.sleep(pause_s)
            else:
                return client
        raise MeshFull(path, "its host does not answer")

    @property
    def alive(self) -> bool:
        """Whether the host is still there."""
        return not self.channel.closed

    def _received(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if type(message) is Published:
                future, _ = self._publishes.pop(message.id, (None, 0))
                if future is not None and not future.done():
                    future.set_result([Receipt(*_receipt(row)) for row in message.receipts])
            elif message.id in self._tails:
                self._tails[message.id].put_nowait(message)
            else:
                self._answered(message)

    def _answered(self, message: Any) -> None:
        if message.id == 0:  # of no question of ours: we are one too many
            self._gone = MeshFull(self.path, message.message)
        future = self._asks.pop(message.id, None)
        if future is None or future.done():
            return
        if type(message) is Failed:
            future.set_exception(_error(message))
        else:
            future.set_result(message.value)

    def _lost(self) -> None:
        for future, count in self._publishes.values():
            if not future.done():
                future.set_result([AMBIGUOUS] * count)
        for asked in self._asks.values():
            if not asked.done():
                asked.set_exception(self._gone)
        for tail in self._tails.values():
            tail.put_nowait(None)
        self._publishes.clear()

    async def publish(self, topic: str, events: Sequence[Event], hops: int) -> list[Receipt]:
        """Hand events to the host; its receipts, `ambiguous` where it went away. Many large ones
        go in parts, each once the last has its receipts."""
        size = sum(map(event_bytes, events))
        if size <= PAGE_BYTES:
            return await self._publish(topic, events, hops)
        receipts: list[Receipt] = []
        some: list[Event] = []
        size = 0
        for event in events:
            here = event_bytes(event)
            if some and size + here > PAGE_BYTES:
                receipts += await self._publish(topic, some, hops)
                some, size = [], 0
            if here > PAGE_BYTES:  # beyond every limit, and perhaps beyond a frame
                receipts.append(_too_large(event))
            else:
                some.append(event)
                size += here
        return receipts + (await self._publish(topic, some, hops) if some else [])

    async def _publish(self, topic: str, events: Sequence[Event], hops: int) -> list[Receipt]:
        key = next(self._ids)
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self._publishes[key] = (future, len(events))
        self.channel.send(Publish(key, topic, list(events), hops))
        if self.channel.closed:
            self._publishes.pop(key, None)
            return [AMBIGUOUS] * len(events)
        return await future

    async def ask(self, what: str, *arguments: Any) -> Any:
        """A rare question; msgpack in, msgpack out. Raises what the host raised."""
        if self.channel.closed:
            raise self._gone
        key = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asks[key] = future
        self.channel.send(Ask(key, what, list(arguments)))
        try:
            return await future
        finally:
            if self._asks.pop(key, None) is not None:
                self.channel.send(Stop(key))

    async def tail(self, topic: str, start: str) -> AsyncIterator[Logged]:
        """A topic from `start` on; ends when the host goes away."""
        key = next(self._ids)
        # Bounded by the host, which waits until the socket has taken what it sent; reading the
        # socket stops below while much is waiting here.
        waiting: asyncio.Queue[Said | Failed | None] = asyncio.Queue()
        self._tails[key] = waiting
        self.channel.send(Tail(key, topic, start))
        try:
            while (said := await waiting.get()) is not None:
                if isinstance(said, Failed):
                    raise _error(said)
                self._hold(waiting.qsize() > 16)
                start_at = said.start
                for row in said.chunks:
                    for item in logged(topic, Chunk(*row), start_at):
                        yield item
        finally:
            del self._tails[key]
            self._hold(False)
            self.channel.send(Stop(key))

    def _hold(self, hold: bool) -> None:
        transport = self.channel.transport
        if transport is not None and not self._publishes:
            if hold:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def close(self) -> None:
        """Close the connection. Twice is harmless."""
        self.channel.close()


def _too_large(event: Event) -> Receipt:
    try:
        validate(event)
    except EventError as error:
        return Receipt("refused", reason=str(error), error="invalid")
    raise AssertionError("an event of more than PAGE_BYTES is valid")


def _receipt(row: Sequence[Any]) -> tuple[Any, str, bool, str, str]:
    status, position, duplicate, reason, error = row
    return status, position, duplicate, reason, error


def _error(failed: Failed) -> Exception:
    if failed.kind == "TimeoutError":
        return TimeoutError(failed.message)
    kind = getattr(mesh.errors, failed.kind, MeshError)
    error = MeshError(failed.message)
    if kind is MeshClosed:
        return MeshClosed(failed.message)
    return error


class FileClient:
    """The file itself, while no host serves it. What it publishes the host routes when it comes."""

    def __init__(
        self, path: str, namespace: str, dedupe: tuple[float, int], most: int = sys.maxsize
    ) -> None:
        self.store = Store(path)
        self.prefix = f"{namespace}/"
        self.dedupe = dedupe
        self.most = most
        self.topics: dict[str, Topic] = {}

    def publish(self, name: str, events: Sequence[Event], hops: int, now: float) -> list[Receipt]:
        """Append events to a topic's log in one transaction. Blocks for its sync."""
        db = self.store.db
        db.execute("BEGIN IMMEDIATE")
        try:
            point("file.begun")
            topic = self._topic(name)
            now = max(now, self.store.newest(topic.row.id))  # the machine's clock may be behind
            topic.learn(self.store, now - WINDOWS * self.dedupe[0])
            receipts, records, keys = self._sort(topic, events, hops)
            start = 0
            for part in parts(records):
                body = encode_records(part)
                chunk = Chunk(topic.row.next, len(part), now, body)
                digests = b"".join(keys[start : start + len(part)])
                start += len(part)
                self.store.append(topic.row.id, chunk, digests)
                topic.row.next += len(part)
                topic.row.count += len(part)
                topic.row.bytes += len(body)
            self.store.save_topic(topic.row)
            point("file.before")
            db.execute("COMMIT")
            point("file.after")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self.topics.pop(name, None)
            raise
        topic.window.add(keys, now)
        topic.seen = topic.row.next
        return receipts

    def _topic(self, name: str) -> Topic:
        row = self.store.topic(self.prefix + name)
        if row is None:
            if self.store.count_topics(self.prefix) >= self.most:
                raise TopicsFull(self.store.path, self.most)
            row = self.store.add_topic(self.prefix + name)
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(row, name, IdWindow(*self.dedupe))
        topic.row = row
        return topic

    def _sort(
        self, topic: Topic, events: Sequence[Event], hops: int
    ) -> tuple[list[Receipt], list[Record], list[bytes]]:
        receipts: list[Receipt] = []
        records: list[Record] = []
        keys: dict[bytes, None] = {}
        for event in events:
            try:
                validate(event)
            except EventError as error:
                receipts.append(Receipt("refused", reason=str(error), error="invalid"))
                continue
            key = digest(event.source, event.id)
            again = key in keys or key in topic.window
            position = "" if again else str(topic.row.next + len(records))
            receipts.append(Receipt("stored", position, again))
            if not again:
                keys[key] = None
                records.append(Record(event, hops))
        return receipts, records, list(keys)

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        self.store.close()


decode_event = msgspec.msgpack.Decoder(Event).decode
