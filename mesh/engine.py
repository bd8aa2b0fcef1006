"""The embedded mesh's engine: one host's hold on the file.

Everything that writes goes through one loop that gathers what has come in since its last commit
and makes one transaction of it: publishes, routing, settlements, outputs, retries, dead letters.
Statements run on the event loop (they are few and touch no disk); the commit's sync runs in a
thread, so the loop goes on meanwhile.
"""

import asyncio
import math
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from mesh.batch import Batch, Topic
from mesh.codec import validate
from mesh.errors import EventError, MeshClosed, MeshError, MeshFull, QueueFull, SubscriptionUnknown
from mesh.event import Event
from mesh.ids import IdWindow
from mesh.queue import Entry, Fences, Queue
from mesh.settle import Settler
from mesh.store import Chunk, Record, Store, SubRow, decode_records
from mesh.transport import Clock, Delivery, Gone, Receipt, Router, Settlement, Subscription

__all__ = ["Engine", "Options"]

T = TypeVar("T")

BATCH_EVENTS = 2048
"""Events a transaction takes at the most; the rest waits for the next."""
PENDING_EVENTS = 20_000
"""Publishes that may wait for a commit; beyond it a publish is refused as full."""
QUICK_SYNC_S = 0.0005
"""A disk that syncs faster is not worth a thread: handing over takes as long, and the
interpreter's lock more where the loop is busy."""
CHECKPOINT_PAGES = 16_384
"""64 MB: a checkpoint's sync delays the commits beside it, so they are made seldom."""
RECENT_BYTES = 8 << 20
SWEEP_EVERY_S = 5.0
SWEEP_ROWS = 512
SWEEP_BYTES = 2 << 20
"""What one commit drops of a topic at the most, so that none is long. While there is more, every
commit drops some: publishing may take many small chunks a second, and a sweep each five would
never catch up with them."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an embedded mesh is opened with."""

    retention_s: float = 24 * 3600.0
    """A topic's events are kept this long, and longer while any is unsettled."""
    retention_bytes: int = 1 << 30
    """A topic keeps at most about this much, and more while any is unsettled."""
    dedupe_s: float = 3600.0
    dedupe_ids: int = 1_000_000
    synchronous: str = "FULL"
    inline: bool = False
    """Commit on the event loop: for `:memory:` and for simulation."""


class _Publish(msgspec.Struct, gc=False):
    topic: str
    events: Sequence[Event]
    hops: int
    done: Callable[[list[Receipt]], None]
    trusted: bool = False
    reply_to: str = ""


class _Work(msgspec.Struct, gc=False):
    """Anything else that writes: `run` in the transaction, its result to the future after it."""

    run: Callable[[Batch], Any]
    future: "asyncio.Future[Any]"


class Engine:
    """The one writer of an open mesh file."""

    def __init__(self, path: str, namespace: str, clock: Clock, options: Options) -> None:
        self.path = path
        self.prefix = f"{namespace}/"
        self.clock = clock
        self.options = options
        self.store = Store(path, synchronous=options.synchronous)
        self.memory = self.store.memory
        self.reader = self.store if self.memory else Store(path)
        self.inline = options.inline or self.memory
        self.fences = Fences()
        self.router: Router | None = None
        self.topics: dict[str, Topic] = {}
        self.queues: dict[str, Queue] = {}
        self.recent: dict[int, deque[Chunk]] = {}
        self.recent_bytes = 0
        self.replies: dict[str, Callable[[list[Event] | None], None]] = {}
        self.fatal: BaseException | None = None
        self.on_fatal: Callable[[BaseException], None] | None = None
        self.settler = Settler(self)
        self._publishes: deque[_Publish] = deque()
        self._work: deque[_Work] = deque()
        self._pending = 0
        self._sync_s = QUICK_SYNC_S
        """How long commits take lately."""
        self._wake = asyncio.Event()
        self._tails: dict[str, list[asyncio.Future[None]]] = {}
        self._writer: asyncio.Task[None] | None = None
        self._thread = None if self.inline else ThreadPoolExecutor(1, "mesh-commit")
        self._version = self.store.version()
        self.closing = False
        self._swept = self.clock.monotonic()
        self._checkpoint: asyncio.Task[None] | None = None
        self._load()

    def _load(self) -> None:
        since = self.clock.time() - self.options.dedupe_s
        for row in self.store.topics():
            topic = self._hold(row)
            if topic is not None:
                topic.learn(self.store, since)
        for sub in self.store.subs():
            if sub.name.startswith(self.prefix):
                self._hold_queue(sub)

    def _hold(self, row: Any) -> Topic | None:
        if not row.name.startswith(self.prefix):
            return None
        name = row.name[len(self.prefix) :]
        window = IdWindow(self.options.dedupe_s, self.options.dedupe_ids)
        topic = self.topics[name] = Topic(row, name, window)
        return topic

    def _hold_queue(self, row: SubRow) -> Queue:
        spec = msgspec.msgpack.decode(row.spec, type=Subscription)
        queue = Queue(row, spec, spec.topic, self.reader, self.clock)
        self.queues[queue.name] = queue
        self.topics[spec.topic].queues.append(queue)
        queue.caught_up = False
        return queue

    def start(self) -> None:
        """Begin to write. The engine's one task lives until `close`."""
        self._writer = asyncio.get_running_loop().create_task(self._write(), name="mesh-writer")

    # What comes in

    def publish(
        self,
        topic: str,
        events: Sequence[Event],
        hops: int,
        done: Callable[[list[Receipt]], None],
        reply_to: str = "",
    ) -> None:
        """Store events; `done` gets their receipts after the commit."""
        if self.closing or self.fatal:
            done([Receipt("refused", reason="the mesh is closed", error="closed")] * len(events))
        elif self._pending + len(events) > PENDING_EVENTS and self._pending:
            reason = f"{self._pending} events wait to be stored already"
            done([Receipt("refused", reason=reason, error="full")] * len(events))
        else:
            self._pending += len(events)
            self._publishes.append(_Publish(topic, events, hops, done, False, reply_to))
            self._wake.set()

    async def write(self, run: Callable[[Batch], T]) -> T:
        """Run something in the next transaction; its result, once that is durable."""
        if self.closing or self.fatal:
            raise MeshClosed
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.append(_Work(run, future))
        self._wake.set()
        return await future

    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        """Settle; what became of each."""
        return await self.write(lambda batch: self.settler.settle(batch, settlements))

    # The one writer

    async def _write(self) -> None:
        while True:
            if not self._publishes and not self._work:
                if self.closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            publishes, work = self._gather()
            try:
                await self._transaction(publishes, work)
            except sqlite3.Error as error:
                self._failed(error, publishes, work)
            self._housekeeping()

    def _gather(self) -> tuple[list[_Publish], list[_Work]]:
        work = list(self._work)
        self._work.clear()
        publishes = []
        room = BATCH_EVENTS
        while self._publishes and room > 0:
            publish = self._publishes.popleft()
            room -= len(publish.events)
            publishes.append(publish)
        return publishes, work

    async def _transaction(self, publishes: list[_Publish], work: list[_Work]) -> None:
        store, batch = self.store, Batch(self, self.clock.time())
        store.db.execute("BEGIN IMMEDIATE")
        try:
            if not self.memory and store.version() != self._version:
                self.refresh()
            receipts = [self._publish(batch, publish) for publish in publishes]
            results = [self._run(batch, item) for item in work]
            batch.write()
            started = perf_counter()
            if self.inline or self._thread is None or self._sync_s < QUICK_SYNC_S:
                store.db.execute("COMMIT")
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._thread, store.db.execute, "COMMIT")
            self._sync_s += 0.1 * (perf_counter() - started - self._sync_s)
        except BaseException:
            batch.undone()
            if store.db.in_transaction:
                store.db.execute("ROLLBACK")
            self._forget_new_topics()
            raise
        batch.applied()
        for publish, given in zip(publishes, receipts, strict=True):
            self._pending -= len(publish.events)
            publish.done(given)
        for item, (result, error) in zip(work, results, strict=True):
            if item.future.done():
                continue
            if error is not None:
                item.future.set_exception(error)
            else:
                item.future.set_result(result)

    def _run(self, batch: Batch, item: _Work) -> tuple[Any, Exception | None]:
        if item.future.cancelled():
            return None, None
        try:
            return item.run(batch), None
        except MeshError as error:
            return None, error

    def _publish(self, batch: Batch, publish: _Publish) -> list[Receipt]:
        topic = self.topic(publish.topic)
        receipts = []
        for event in publish.events:
            try:
                validate(event)
                self.settler.admit(batch, topic, event)
                record = Record(event, publish.hops, publish.reply_to)
                offset, again = batch.append(topic, record)
            except EventError as error:
                receipts.append(Receipt("refused", reason=str(error), error="invalid"))
            except QueueFull as error:
                receipts.append(Receipt("refused", reason=str(error), error="queue_full"))
            else:
                receipts.append(Receipt("stored", "" if offset < 0 else str(offset), again))
        return receipts

    def _failed(self, error: sqlite3.Error, publishes: list[_Publish], work: list[_Work]) -> None:
        """Nothing of the batch was stored. A sync that failed ends the process: what the file
        holds is then unknown, and trying again would hide it (a failed fsync forgets)."""
        name = getattr(error, "sqlite_errorname", "")
        full = name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
        reason = "the disk is full" if full else f"the mesh file cannot be written ({error})"
        for publish in publishes:
            self._pending -= len(publish.events)
            refused = Receipt("refused", reason=reason, error="full")
            publish.done([refused] * len(publish.events))
        for item in work:
            if not item.future.done():
                item.future.set_exception(MeshFull(self.path, reason))
        if not full and name != "SQLITE_BUSY":
            self.fatal = error
            if self.on_fatal:
                self.on_fatal(error)

    def _forget_new_topics(self) -> None:
        known = {row.name for row in self.store.topics()}
        for name, topic in list(self.topics.items()):
            if topic.row.name not in known:
                del self.topics[name]

    # Names and routes

    def topic(self, name: str) -> Topic:
        """The topic of that name; made where it is new, inside a transaction."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self._hold(self.store.add_topic(self.prefix + name))
            assert topic is not None
        return topic

    def queue(self, name: str) -> Queue:
        """The queue of a subscription. Raises SubscriptionUnknown."""
        queue = self.queues.get(name)
        if queue is None:
            raise SubscriptionUnknown(name)
        return queue

    def route(self, topic: Topic, event: Event) -> Sequence[Queue]:
        """The queues that an event of a topic goes to.

        The router speaks for those that are served. The others get everything: their filters are
        not known yet (a host that has just started), and what is missed cannot be had again.
        """
        queues = topic.queues
        if not queues or self.router is None:
            return queues
        names = self.router(topic.name, event)
        found = [queue for queue in queues if not queue.served]
        for name in names:
            queue = self.queues.get(name)
            if queue is not None and queue.served and queue.spec.topic == topic.name:
                found.append(queue)
        return found

    def refresh(self) -> None:
        """Another process wrote the file: learn its topics and ids, route its events."""
        self._version = self.store.version()
        since = self.clock.time() - self.options.dedupe_s
        for row in self.store.topics():
            if not row.name.startswith(self.prefix):
                continue
            topic = self.topics.get(row.name[len(self.prefix) :])
            if topic is None:
                topic = self._hold(row)
                assert topic is not None
            elif topic.row.next != row.next:
                topic.row = row
            topic.learn(self.store, since)
            self._route_unrouted(topic)

    def _route_unrouted(self, topic: Topic) -> None:
        row = topic.row
        while row.routed < row.next:
            for chunk in self.store.chunks(row.id, row.routed, 16):
                records = decode_records(chunk.body)
                for queue, mask in self.masks(topic, chunk, records, row.routed).items():
                    self.store.queue(queue.row.id, chunk.first, chunk.at, mask)
                    count = mask.bit_count()
                    self.store.run(
                        "UPDATE sub SET waiting = waiting + ? WHERE id = ?", count, queue.row.id
                    )
                    queue.row.waiting += count
                    queue.caught_up = False
                    queue.wake()
                row.routed = chunk.first + chunk.count
        self.store.save_topic(row)
        self._wake_tails(topic.name)

    def masks(
        self, topic: Topic, chunk: Chunk, records: Sequence[Record], start: int
    ) -> dict[Queue, int]:
        """Which events of a chunk, from offset `start` on, go to which queues."""
        masks: dict[Queue, int] = {}
        for index, record in enumerate(records):
            if chunk.first + index >= start:
                for queue in self.route(topic, record.event):
                    masks[queue] = masks.get(queue, 0) | 1 << index
        return masks

    def records(self, chunk: Chunk) -> list[Record]:
        """What a chunk holds."""
        return decode_records(chunk.body)

    async def doorbell(self) -> None:
        """Look for what other processes wrote."""
        await self.write(lambda batch: None)

    # Reading

    def published(self, topic: Topic, chunk: Chunk) -> None:
        """A chunk is durable: keep it at hand, and wake those that tail its topic."""
        recent = self.recent.get(topic.row.id)
        if recent is None:
            recent = self.recent[topic.row.id] = deque()
        recent.append(chunk)
        self.recent_bytes += len(chunk.body)
        while self.recent_bytes > RECENT_BYTES and recent:
            self.recent_bytes -= len(recent.popleft().body)
        self._wake_tails(topic.name)

    def read(self, name: str, offset: int, limit: int = 16) -> list[Chunk]:
        """Up to `limit` chunks of a topic from the one that holds `offset` on."""
        topic = self.topics.get(name)
        if topic is None or offset >= topic.row.next:
            return []
        recent = self.recent.get(topic.row.id)
        if recent and recent[0].first <= offset:
            found: list[Chunk] = []
            for chunk in reversed(recent):
                found.append(chunk)
                if chunk.first <= offset:
                    break
            found.reverse()
            return found[:limit]
        return self.reader.chunks(topic.row.id, offset, limit)

    async def changed(self, name: str) -> None:
        """Wait for the next chunk of a topic."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._tails.setdefault(name, [])
        waiting.append(future)
        try:
            await future
        finally:
            if future in waiting:
                waiting.remove(future)

    def _wake_tails(self, name: str) -> None:
        for future in self._tails.pop(name, ()):
            if not future.done():
                future.set_result(None)

    # Leases

    def leased(self, delivery: Delivery) -> tuple[Queue, Entry] | None:
        """The lease a delivery stands for, if it still holds."""
        queue = self.queues.get(delivery.subscription)
        if queue is None:
            return None
        entry = queue.leased.get(delivery.fence)
        if entry is None or entry.settling:
            return None
        if entry.deadline <= self.clock.monotonic():
            queue.expire(self.clock.monotonic())
            return None
        return queue, entry

    # Housekeeping

    def _housekeeping(self) -> None:
        now = self.clock.monotonic()
        for queue in self.queues.values():
            if queue.keys and (entries := queue.overflow()):
                self._soon(partial(Batch.overflow, queue=queue, entries=entries))
        if now - self._swept >= SWEEP_EVERY_S:
            self._swept = now
            self._soon(self._sweep)
        self._uncounted += 1
        if self.memory or self._checkpoint is not None or self._uncounted < 32:
            return
        self._uncounted = 0
        try:
            size = Path(self.path + "-wal").stat().st_size
        except OSError:
            return
        if size > CHECKPOINT_PAGES * 4096 and size != self._wal_done:
            self._checkpoint = asyncio.get_running_loop().create_task(self._run_checkpoint())

    _wal_done = 0
    _uncounted = 0

    def _soon(self, run: Callable[[Batch], Any]) -> None:
        """Work that nobody waits for."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._work.append(_Work(run, future))

    def _sweep(self, batch: Batch) -> None:
        """Drop what retention and the deduplication window allow, a little at a time."""
        store, now = self.store, self.clock.time()
        for topic in self.topics.values():
            row = topic.row
            excess = row.bytes - self.options.retention_bytes
            before = store.pinned([queue.row.id for queue in topic.queues])
            unfilled = [q.row.filled for q in topic.queues if q.row.filled is not None]
            floor = min(
                [offset for offset in (before, *unfilled) if offset is not None], default=None
            )
            events, size, more = store.trim(
                row.id, floor, now - self.options.retention_s, max(excess, 0),
                limit=SWEEP_ROWS, most=SWEEP_BYTES,
            )  # fmt: skip
            if events:
                batch.after.append(partial(_trimmed, row, events, size))
                store.run(
                    "UPDATE topic SET count = count - ?, bytes = bytes - ? WHERE id = ?",
                    events, size, row.id,
                )  # fmt: skip
            forgotten = max(topic.window.forgotten_before(), 0.0)
            if store.forget_ids(row.id, forgotten, SWEEP_ROWS) or more:
                self._swept = -math.inf  # again with the next commit

    def _checkpointer(self) -> None:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            db.close()

    async def _run_checkpoint(self) -> None:
        """Copy the log into the file beside the writer, then the little that is left between two
        commits: after that SQLite begins its log anew instead of growing it."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._checkpointer)
            if not self.closing:
                await self.write(self._finish_checkpoint)
        except (sqlite3.Error, MeshError):
            pass
        finally:
            self._checkpoint = None

    def _finish_checkpoint(self, batch: Batch) -> None:
        def after() -> None:
            self.store.db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            try:
                self._wal_done = Path(self.path + "-wal").stat().st_size
            except OSError:
                self._wal_done = 0

        batch.after.append(after)

    async def close(self) -> None:
        """Write what has come in, then let go of the file."""
        if self.closing:
            return
        self.closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        for queue in self.queues.values():
            queue.wake()
        for name in list(self._tails):
            self._wake_tails(name)
        if self._thread is not None:
            self._thread.shutdown()
        if self.reader is not self.store:
            self.reader.close()
        self.store.close()

    def abandon(self) -> None:
        """Let go as a crash would: nothing more is written. For tests of what survives."""
        self.closing = True
        if self._writer is not None:
            self._writer.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if self.store.db.in_transaction:
            self.store.db.execute("ROLLBACK")
        if self.reader is not self.store:
            self.reader.close()
        self.store.close()


def _trimmed(row: Any, events: int, size: int) -> None:
    row.count -= events
    row.bytes -= size
