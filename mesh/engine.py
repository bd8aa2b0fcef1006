"""The embedded mesh's engine: one host's hold on the file.

Everything that writes goes through one loop that gathers what has come in since its last commit
and makes one transaction of it: publishes, routing, settlements, outputs, retries, dead letters.
Statements run on the event loop: they are few and touch no disk (`commit.py` says where the commit
does).
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from mesh import integrity
from mesh.batch import Batch
from mesh.checkpoint import FULL, Checkpoints
from mesh.clock import SteadyClock
from mesh.codec import validate
from mesh.commit import Committer
from mesh.errors import (
    EventError,
    MeshClosed,
    MeshCorrupt,
    MeshError,
    MeshFull,
    QueueFull,
    SubscriptionUnknown,
    TopicsFull,
)
from mesh.event import Event
from mesh.failpoint import point
from mesh.ids import WINDOWS, IdWindow
from mesh.options import Options
from mesh.queue import Entry, Fences, Queue
from mesh.recent import Recent
from mesh.records import Chunk, Record, decode_records, event_bytes
from mesh.retention import Retention
from mesh.settle import Settler
from mesh.store import Store, SubRow, TopicRow
from mesh.topics import Topic, load
from mesh.transport import (
    Check,
    Clock,
    Coming,
    Delivery,
    Gone,
    Receipt,
    Router,
    Settlement,
    Subscription,
)

__all__ = ["Engine"]

T = TypeVar("T")

BATCH_EVENTS = 2048
"""Events a transaction takes at the most; the rest waits for the next."""
BATCH_BYTES = 16 << 20
PENDING_EVENTS = 20_000
"""Publishes that may wait for a commit; beyond it a publish is refused as busy."""
PENDING_BYTES = 64 << 20
BUSY = 4
"""Publishes in a commit that make the next one wait for more, at most `TURNS` turns of the loop."""
TURNS = 16

CLOSED = Receipt("refused", reason="the mesh is closed", error="closed")
FAILED = Receipt("ambiguous", reason="the mesh's writer failed")


class _Publish(msgspec.Struct, gc=False):
    topic: str
    events: Sequence[Event]
    hops: int
    done: Callable[[list[Receipt]], None]
    size: int
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
        self.options = options
        self.store = Store(path, synchronous=options.synchronous)
        self.clock = SteadyClock(clock, self.store.latest())
        self.memory = self.store.memory
        self.reader = self.store if self.memory else Store(path)
        self.inline = options.inline or self.memory
        self.fences = Fences(self.store.next_epoch())
        self.router: Router | None = None
        self.check: Check | None = None
        self.coming: Coming | None = None
        self.topics: dict[str, Topic] = {}
        self.queues: dict[str, Queue] = {}
        self._recent = Recent()
        self.replies: dict[str, Callable[[list[Event] | None], None]] = {}
        self.fatal: BaseException | None = None
        self.on_fatal: Callable[[BaseException], None] | None = None
        self.on_confirmed: Callable[[], None] = lambda: None
        """Called when all receipts of a transaction were given."""
        self.settler = Settler(self)
        self._publishes: deque[_Publish] = deque()
        self._work: deque[_Work] = deque()
        self._pending = 0
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._tails: dict[str, list[asyncio.Future[None]]] = {}
        self._busy = False
        self._writer: asyncio.Task[None] | None = None
        self.committer = Committer(self.store.db, inline=self.inline)
        self._version = self.store.version()
        self._last_topic = 0
        self._made: list[str] = []  # topics, by the transaction under way
        self._looked_at: set[Queue] = set()  # for one that is stuck
        self.closing = False
        self._retention = Retention(self)
        self._checkpoints = Checkpoints(
            path, self.store.db, self.write, self._stop, inline=self.inline
        )
        try:
            integrity.check_ends(self.store)
            load(self)
            self._load_queues()
        except (sqlite3.Error, MeshCorrupt) as error:
            self.reader.close()
            self.store.close()
            raise integrity.told(path, error) from None

    def _load_queues(self) -> None:
        keys = self.store.count_keys()
        for sub in self.store.subs():
            if sub.name.startswith(self.prefix):
                self._hold_queue(sub).done_keys = keys.get(sub.id, 0)

    def hold(self, row: TopicRow) -> Topic | None:
        """Hold a topic of the file, if it is of this namespace."""
        self._last_topic = max(self._last_topic, row.id)
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
        if spec.topic not in self.topics:
            raise integrity.damaged(self.path, f"table topic: that of {row.name} is not there")
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
        """Store events; `done` gets their receipts after the commit. What it does at once may not
        count on what memory has of them: that follows in the same turn of the loop."""
        if self.closing or self.fatal:
            done([CLOSED] * len(events))
            return
        size = event_bytes(events[0]) if len(events) == 1 else sum(map(event_bytes, events))
        if self._pending and (
            self._pending + len(events) > PENDING_EVENTS
            or self._pending_bytes + size > PENDING_BYTES
        ):
            reason = (
                f"{self._pending} events of {self._pending_bytes} bytes wait to be stored already"
            )
            done([Receipt("refused", reason=reason, error="busy")] * len(events))
            return
        self._pending += len(events)
        self._pending_bytes += size
        self._publishes.append(_Publish(topic, events, hops, done, size, reply_to))
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
        told = False
        while not self.fatal:
            if not self._publishes and not self._work:
                if self.closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                told = False
                continue
            if self._busy:
                await self._wait_for_more()
            elif told:
                await asyncio.sleep(0)  # who was told may have more, which goes with what waits
            publishes, work = self._gather()
            point("transaction.received")
            self._busy = len(publishes) >= BUSY
            told = bool(work)
            try:
                await self._transaction(publishes, work)
            except (sqlite3.Error, MeshCorrupt) as error:
                self._failed(integrity.told(self.path, error), publishes, work)
            except Exception as error:
                # A bug of ours: what memory holds may not be what the file holds any more.
                closed = MeshClosed(f"the mesh's writer failed: {error!r}")
                self._refuse(FAILED, closed, publishes, work)
                self._stop(error)
            else:
                self._housekeeping()
        self._refuse(CLOSED, MeshClosed(), list(self._publishes), list(self._work))
        self._publishes.clear()
        self._work.clear()

    async def _wait_for_more(self) -> None:
        """Under load, let in what the loop has at hand: larger commits cost less an event."""
        for _ in range(TURNS):
            waiting = len(self._publishes) + len(self._work)
            await asyncio.sleep(0)
            if len(self._publishes) + len(self._work) == waiting:
                return

    def _gather(self) -> tuple[list[_Publish], list[_Work]]:
        work = list(self._work)
        self._work.clear()
        publishes = []
        events, size = BATCH_EVENTS, BATCH_BYTES
        while self._publishes and events > 0 and size > 0:
            publish = self._publishes.popleft()
            events -= len(publish.events)
            size -= publish.size
            publishes.append(publish)
        return publishes, work

    async def _transaction(self, publishes: list[_Publish], work: list[_Work]) -> None:
        store, batch = self.store, Batch(self, self.clock.time())
        store.db.execute("BEGIN IMMEDIATE")
        try:
            point("transaction.begun")
            if not self.memory and store.version() != self._version:
                self.refresh(batch)
            receipts = [self._publish(batch, publish) for publish in publishes]
            if publishes:
                point("transaction.published")
            results = [self._run(batch, item) for item in work]
            point("transaction.worked")
            self._retention.sweep(batch)
            batch.write()
            if self.coming is not None and not self.memory and batch.announced(self.coming):
                await asyncio.sleep(0)  # what was begun gets a turn before the disk has the loop
            await self.committer.commit()
        except BaseException:
            batch.undone()
            if store.db.in_transaction:
                store.db.execute("ROLLBACK")
            for name in self._made:
                self.topics.pop(name, None)
            self._made.clear()
            self._version = -1  # what others wrote is not routed yet: look again
            raise
        self._made.clear()
        # First: who publishes has the next ready while memory follows here, in this turn.
        for publish, given in zip(publishes, receipts, strict=True):
            self._told(publish, given)
        publishes.clear()  # whatever happens now, they are stored
        self.on_confirmed()
        point("transaction.confirmed")
        batch.applied()
        self._looked_at.update(batch.counts)
        point("transaction.applied")
        for item, (result, error) in zip(work, results, strict=True):
            if item.future.done():
                continue
            if error is not None:
                item.future.set_exception(error)
            else:
                item.future.set_result(result)
        point("transaction.told")

    def _run(self, batch: Batch, item: _Work) -> tuple[Any, Exception | None]:
        if item.future.cancelled():
            return None, None
        try:
            return item.run(batch), None
        except MeshCorrupt:
            raise  # what it has done so far is to be undone
        except MeshError as error:
            return None, error

    def _publish(self, batch: Batch, publish: _Publish) -> list[Receipt]:
        try:
            topic = self.topic(publish.topic, self.options.topics)
        except TopicsFull as error:
            refused = Receipt("refused", reason=str(error), error="full")
            return [refused] * len(publish.events)
        receipts = []
        size = publish.size if len(publish.events) == 1 else 0
        for event in publish.events:
            try:
                validate(event)
                if self.check is not None and (why := self.check(publish.topic, event)):
                    raise EventError(why)
                if topic.queues:
                    self.settler.admit(batch, topic, event)
                record = Record(event, publish.hops, publish.reply_to)
                offset, again = batch.append(topic, record, size)
            except EventError as error:
                receipts.append(Receipt("refused", reason=str(error), error="invalid"))
            except QueueFull as error:
                receipts.append(Receipt("refused", reason=str(error), error="queue_full"))
            else:
                receipts.append(Receipt("stored", "" if offset < 0 else str(offset), again))
        return receipts

    def _told(self, publish: _Publish, receipts: list[Receipt]) -> None:
        self._pending -= len(publish.events)
        self._pending_bytes -= publish.size
        try:
            publish.done(receipts)
        except Exception as error:  # a bug of ours: the others are told all the same, and once
            self._stop(error)

    def _failed(self, error: Exception, publishes: list[_Publish], work: list[_Work]) -> None:
        """Nothing of the batch was stored. A sync that failed ends the process: what the file
        holds is then unknown, and trying again would hide it (a failed fsync forgets). So does
        what is damaged; that may have been found once the batch was durable."""
        if isinstance(error, MeshCorrupt):
            self._refuse(FAILED, error, publishes, work)
            self._stop(error)
            return
        name = getattr(error, "sqlite_errorname", "")
        full = name in FULL
        reason = "the disk is full" if full else f"the mesh file cannot be written ({error})"
        receipt = Receipt("refused", reason=reason, error="full")
        self._refuse(receipt, MeshFull(self.path, reason), publishes, work)
        if not full and name != "SQLITE_BUSY":
            self._stop(error)

    def _refuse(
        self,
        receipt: Receipt,
        error: MeshError,
        publishes: Sequence[_Publish],
        work: Sequence[_Work],
    ) -> None:
        for publish in publishes:
            self._told(publish, [receipt] * len(publish.events))
        for item in work:
            if not item.future.done():
                item.future.set_exception(error)

    def _stop(self, error: BaseException) -> None:
        """Write nothing more; whoever runs the host ends it."""
        self.fatal = error
        if self.on_fatal:
            self.on_fatal(error)

    # Names and routes

    def topic(self, name: str, most: int | None = None) -> Topic:
        """The topic of that name; made where it is new, inside a transaction. Raises TopicsFull
        where there are `most`."""
        topic = self.topics.get(name)
        if topic is None:
            if most is not None and len(self.topics) >= most:
                raise TopicsFull(self.path, most)
            topic = self.hold(self.store.add_topic(self.prefix + name))
            assert topic is not None
            self._made.append(name)
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
        if len(queues) == 1 and queues[0].served:
            return queues if queues[0].name in names else ()
        found = [queue for queue in queues if not queue.served]
        for name in names:
            queue = self.queues.get(name)
            if queue is not None and queue.served and queue.spec.topic == topic.name:
                found.append(queue)
        return found

    def refresh(self, batch: Batch) -> None:
        """Another process wrote the file: learn its topics and ids, route its events."""
        since = self.clock.time() - WINDOWS * self.options.dedupe_s
        for row in self.store.fresh_topics(self._last_topic):
            topic = self.topics.get(row.name.removeprefix(self.prefix))
            if topic is None or topic.row.id != row.id:
                topic = self.hold(row)
                if topic is None:
                    continue
            elif topic.row.next != row.next:
                topic.row = row
            topic.learn(self.store, since)
            topic.due = 0.0
            if row.routed < row.next:
                topic.recent_from = row.next
                self._route_unrouted(batch, topic)
                point("transaction.refreshed")
        self._version = self.store.version()

    def _route_unrouted(self, batch: Batch, topic: Topic) -> None:
        row = topic.row
        routed = row.routed
        while routed < row.next:
            for chunk in self.store.chunks(row.id, routed, 16):
                records = decode_records(chunk.body)
                for queue, mask in self.masks(topic, chunk, records, routed).items():
                    self.store.queue(queue.row.id, chunk.first, chunk.at, mask)
                    batch.count(queue)[0] += mask.bit_count()
                    batch.behind.add(queue)
                routed = chunk.first + chunk.count
        self.store.save_topic(msgspec.structs.replace(row, routed=routed))

        def after() -> None:
            row.routed = max(row.routed, routed)
            self._wake_tails(topic.name)

        batch.after.append(after)

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
        name = topic.name
        self._recent.add(name, chunk)
        self._wake_tails(name)

    def read(self, name: str, offset: int, limit: int = 16) -> list[Chunk]:
        """Up to `limit` chunks of a topic from the one that holds `offset` on."""
        topic = self.topics.get(name)
        if topic is None or offset >= topic.row.next:
            return []
        if offset >= topic.recent_from:
            found = self._recent.read(name, offset, limit)
            if found is not None:
                return found
        try:
            return self.reader.chunks(topic.row.id, offset, limit)
        except sqlite3.DatabaseError as error:
            raise integrity.told(self.path, error) from None

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

    def tailed(self, name: str) -> bool:
        """Whether somebody waits for a topic's next chunk."""
        return name in self._tails

    def _wake_tails(self, name: str) -> None:
        for future in self._tails.pop(name, ()):
            if not future.done():
                future.set_result(None)

    # Leases

    def leased(self, delivery: Delivery, now: float) -> tuple[Queue, Entry] | None:
        """The lease a delivery stands for, if it still holds, on the monotonic clock."""
        queue = self.queues.get(delivery.subscription)
        if queue is None:
            return None
        entry = queue.leased.get(delivery.fence)
        if entry is None or entry.settling:
            return None
        if entry.deadline <= now:
            queue.expire(now)
            return None
        return queue, entry

    # Housekeeping

    def _housekeeping(self) -> None:
        looked_at, self._looked_at = self._looked_at, set()
        for queue in looked_at:
            if queue.keys and not queue.gone and (entries := queue.overflow()):
                self._soon(partial(Batch.overflow, queue=queue, entries=entries))
        if not self.memory:
            self._checkpoints.committed()

    def nudge(self, queue: Queue) -> None:
        """Look at once whether a queue is stuck."""
        self._looked_at.add(queue)
        self._soon(lambda batch: None)
        self._wake.set()

    def _soon(self, run: Callable[[Batch], Any]) -> None:
        """Work that nobody waits for."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._work.append(_Work(run, future))

    async def close(self) -> None:
        """Write what has come in, then let go of the file."""
        if self.closing:
            return
        self.closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer
        await self._checkpoints.wait()
        for queue in self.queues.values():
            queue.wake()
        for name in list(self._tails):
            self._wake_tails(name)
        self.committer.close()
        if self.reader is not self.store:
            self.reader.close()
        self.store.close()

    def abandon(self) -> None:
        """Let go as a crash would: nothing more is written. For tests of what survives."""
        self.closing = True
        if self._writer is not None:
            self._writer.cancel()
        self.committer.close()
        if self.store.db.in_transaction:
            self.store.db.execute("ROLLBACK")
        if self.reader is not self.store:
            self.reader.close()
        self.store.close()
