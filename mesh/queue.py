"""One subscription's queue as the engine holds it: a small window on what the file keeps.

Nothing here writes. What is in memory is at most a window of ready events and those that are
leased; the rest stays in the file until there is room for it.
"""

import asyncio
import heapq
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from mesh import integrity
from mesh.records import Record, decode_record, decode_records, event_bytes
from mesh.store import Store, SubRow, bits
from mesh.transport import Clock, Delivery, KeyOf, Subscription

__all__ = ["Entry", "Fences", "Part", "Queue"]

WINDOW = 1024
"""Ready events held in memory; a chunk more at the most."""
WINDOW_BYTES = 4 << 20


class Part(msgspec.Struct, eq=False, gc=False):
    """What a queue has not settled of one chunk: a bit an event."""

    first: int
    at: float
    mask: int
    settling: int = 0
    """Bits that the commit under way clears."""

    def settled(self) -> None:
        """The commit has cleared them."""
        self.mask &= ~self.settling
        self.settling = 0


class Entry(msgspec.Struct, eq=False, gc=False):
    """An event of the window, ready or leased."""

    record: Record
    offset: int
    at: float
    part: Part | None
    index: int
    size: int
    """About how many bytes it takes."""
    row: int = 0
    """The parked row's id, where it has one."""
    attempt: int = 1
    replay: str = ""
    key: str | None = None
    holder: bool = False
    """It was tried before and blocks its key."""
    fence: int = 0
    deadline: float = 0.0
    settling: bool = False
    feed: int = 0


class Queue:
    """The window of one subscription, its leases and its keys."""

    def __init__(
        self, row: SubRow, spec: Subscription, topic: str, reader: Store, clock: Clock
    ) -> None:
        self.row = row
        self.spec = spec
        self.topic = topic
        self.name = spec.name
        self.reader = reader
        self.clock = clock
        self.key_of: KeyOf | None = None
        self.ready: deque[Entry] = deque()
        self.bytes = 0
        self.leased: dict[int, Entry] = {}
        self.cursor = 0
        self.caught_up = False
        self.loaded: set[int] = set()
        self.next_due: float | None = None
        self.soonest = float("inf")
        self.feeds = 0
        self.gone = False
        """It was removed."""
        self.done_keys = 0
        """Idempotency keys that it has in the file, those that expired since among them."""
        self.served = False
        """Somebody has subscribed since the file was opened, and the router speaks for it."""
        # Ordered queues: key -> what waits for it in memory. A key is there while it is busy.
        self.keys: dict[str, deque[Entry]] = {}
        self.overflowed: set[str] = set()
        # Keys with parked events, of which an earlier one may still be in the log, unread: it was
        # out when its host died. Key -> the first parked offset, and the same as a heap.
        self.heads: dict[str, int] = {}
        self.unread: list[tuple[int, str]] = []
        self.opened = False
        self.waiters: list[asyncio.Future[None]] = []
        self.waiting_in_memory = 0

    # Filling the window

    def serve(self, key_of: KeyOf | None) -> None:
        """Somebody has subscribed."""
        self.key_of = key_of
        self.served = True
        if not self.opened:
            self.opened = True
            try:
                self.reorder()
            except sqlite3.DatabaseError as error:
                raise integrity.told(self.reader.path, error) from None

    def reorder(self) -> None:
        """Find what is parked, and sort what is in memory: at first, and when the order changed.

        What is out blocks its key from here on; two of one key that are out already both run on.
        """
        now = self.clock.time()
        due = self.reader.due(self.row.id, now, 1)
        self.next_due = due[0][1] if due else self.reader.next_due(self.row.id, now)
        held = [*self.ready, *(entry for waiting in self.keys.values() for entry in waiting)]
        self.ready.clear()
        self.keys.clear()
        self.overflowed.clear()
        self.heads.clear()
        self.unread.clear()
        self.waiting_in_memory = 0
        if self.spec.order == "key":
            self._find_keys()
        for entry in sorted(held, key=lambda entry: entry.offset):
            if self.spec.order == "key":
                self._admit(entry)
            else:
                entry.key, entry.holder = None, False
                self.ready.append(entry)
        self._read_past()
        self.wake()

    def _find_keys(self) -> None:
        for key, held, first in self.reader.blocked_keys(self.row.id):
            if not held and first is None:
                continue  # due, and taken as it comes
            self.keys[key] = deque()
            if first is not None:
                self.overflowed.add(key)
                if not held:
                    self.heads[key] = first
                    heapq.heappush(self.unread, (first, key))
        for entry in self.leased.values():
            if entry.key is None and self.key_of is not None:
                entry.key = self.key_of(entry.record.event)
            if entry.key is not None:
                self.keys.setdefault(entry.key, deque())
                self.heads.pop(entry.key, None)

    def _read_past(self) -> None:
        """Free the keys whose parked events are the first of them after all."""
        while self.unread and (self.caught_up or self.unread[0][0] < self.cursor):
            _, key = heapq.heappop(self.unread)
            if self.heads.pop(key, None) is not None:
                self._next_of(key)

    def offer(
        self, first: int, at: float, mask: int, records: Sequence[Record], sizes: Sequence[int]
    ) -> None:
        """A commit has queued these events of a chunk."""
        if first < self.cursor:
            return
        if self.caught_up and self._room():
            self._take_part(first, at, mask, records, sizes)
        else:
            self.caught_up = False
        self.wake()

    def _room(self) -> bool:
        held = len(self.ready) + self.waiting_in_memory
        return held < WINDOW and self.bytes < WINDOW_BYTES

    def _take_part(
        self, first: int, at: float, mask: int, records: Sequence[Record], sizes: Sequence[int]
    ) -> None:
        part = Part(first, at, mask)
        self.cursor = first + 1
        whole = mask == (1 << len(records)) - 1
        entries = [
            Entry(records[index], first + index, at, part, index, sizes[index])
            for index in (range(len(records)) if whole else bits(mask))
        ]
        self.bytes += sum([entry.size for entry in entries])
        if self.spec.order != "key":
            self.ready.extend(entries)
        else:
            for entry in entries:
                self._admit(entry)

    def _admit(self, entry: Entry) -> None:
        """Put an event of an ordered queue where its key allows. One that was parked keeps the key
        it had, whatever key function there is now."""
        key = entry.key
        if key is None and self.key_of is not None:
            key = entry.key = self.key_of(entry.record.event)
        if key is None or entry.holder:
            self.ready.append(entry)
        elif entry.offset < self.heads.get(key, 0):
            del self.heads[key]
            self.ready.append(entry)
        elif key in self.keys:
            self.keys[key].append(entry)
            self.waiting_in_memory += 1
        else:
            self.keys[key] = deque()
            self.ready.append(entry)

    def fill(self) -> None:
        """Read from the file until the window is full or there is no more. Raises MeshCorrupt."""
        try:
            self._fill()
        except sqlite3.DatabaseError as error:
            raise integrity.told(self.reader.path, error) from None

    def _fill(self) -> None:
        now = self.clock.time()
        if self.next_due is not None and self.next_due <= now:
            self._fill_due(now)
        while not self.caught_up and self._room():
            rows = self.reader.backlog(self.row.id, self.cursor, 8)
            for first, at, mask in rows:
                chunk = self.reader.chunk(self.row.topic, first)
                if chunk is None or mask.bit_length() > chunk.count:
                    found = f"table backlog, subscription {self.name}, offset {first}"
                    why = "what it has queued is not in the log"
                    raise integrity.damaged(self.reader.path, f"{found}: {why}")
                records = decode_records(chunk.body)
                sizes = [event_bytes(record.event) for record in records]
                self._take_part(first, at, mask, records, sizes)
                self._read_past()
                if not self._room():
                    break
            else:
                self.caught_up = len(rows) < 8
                self._read_past()

    def _fill_due(self, now: float) -> None:
        want = WINDOW + len(self.loaded)
        rows = self.reader.due(self.row.id, now, want)
        fresh = [row for row, _ in rows if row not in self.loaded]
        self._load(fresh)
        self.next_due = now if len(rows) == want else self.reader.next_due(self.row.id, now)

    def _load(self, ids: Iterable[int]) -> None:
        for row, key, holder, offset, attempt, at, replay, body in self.reader.parked(list(ids)):
            record = decode_record(body)
            entry = Entry(record, offset, at, None, 0, event_bytes(record.event))
            entry.row, entry.attempt, entry.replay = row, attempt, replay
            entry.holder = bool(holder)
            self.loaded.add(row)
            self.bytes += entry.size
            if self.spec.order == "key":
                entry.key = key
                self._admit(entry)
            else:
                self.ready.append(entry)

    def stuck(self) -> bool:
        """Those that wait for busy keys fill the window, and nothing is ready."""
        if self.spec.order != "key" or self.ready:
            return False
        return not self.caught_up and not self._room() and self.waiting_in_memory > 0

    def overflow(self) -> list[Entry]:
        """Events to park where the queue is stuck: without that, other keys behind them could
        not go on."""
        if not self.stuck():
            return []
        return [entry for waiting in self.keys.values() for entry in waiting]

    def overflowing(self, entry: Entry, row: int) -> None:
        """The entry was parked as `row`."""
        entry.settling = False
        self.loaded.discard(row)
        key = entry.key or ""
        self.keys[key].remove(entry)
        self.overflowed.add(key)
        self.waiting_in_memory -= 1
        self.bytes -= entry.size

    def _next_of(self, key: str) -> None:
        """A busy key is free: the next event of it, or none."""
        waiting = self.keys.get(key)
        if waiting is None:
            return
        if key in self.overflowed:
            self._load_key(key, waiting)
        if waiting:
            self.ready.append(waiting.popleft())
            self.waiting_in_memory -= 1
        else:
            del self.keys[key]

    def _load_key(self, key: str, waiting: deque[Entry]) -> None:
        """Read what was parked behind a key: it comes before what waits in memory unparked."""
        if waiting and waiting[0].row:
            return
        later = list(waiting)
        waiting.clear()
        self.waiting_in_memory -= len(later)
        ids = self.reader.parked_of_key(self.row.id, key, 64 + len(self.loaded))
        fresh = [row for row in ids if row not in self.loaded][:64]
        self._load(fresh)
        if len(fresh) < 64:
            self.overflowed.discard(key)
        waiting.extend(later)
        self.waiting_in_memory += len(later)

    # Leasing

    def take(self, most: int, most_bytes: int, feed: int, fences: "Fences") -> list[Delivery]:
        """Lease up to `most` ready events of up to `most_bytes`; one at least, if there is one."""
        now = self.clock.monotonic()
        if now >= self.soonest:
            self.expire(now)
        if len(self.ready) < most and (not self.caught_up or self.next_due is not None):
            self.fill()
        deadline = now + self.spec.lease_s
        self.soonest = min(self.soonest, deadline)
        taken: list[Delivery] = []
        size = 0
        while self.ready and len(taken) < most:
            entry = self.ready[0]
            size += entry.size
            if taken and size > most_bytes:
                break
            self.ready.popleft()
            self.bytes -= entry.size
            fence = entry.fence = fences.next()
            entry.deadline, entry.feed = deadline, feed
            self.leased[fence] = entry
            record = entry.record
            taken.append(
                Delivery(
                    record.event,
                    self.name,
                    self.topic,
                    str(entry.offset),
                    entry.at,
                    entry.attempt,
                    fence,
                    record.hops,
                    entry.replay,
                    record.reply_to,
                    entry.key,
                )
            )
        return taken

    def expire(self, now: float) -> None:
        """Take back leases that ran out."""
        gone = [e for e in self.leased.values() if e.deadline <= now and not e.settling]
        self.give_back(gone)
        self.soonest = min((e.deadline for e in self.leased.values()), default=float("inf"))

    def give_back(self, entries: Iterable[Entry]) -> None:
        """These are ready again, at once, in their old order and before the rest."""
        back = sorted(entries, key=lambda entry: entry.offset)
        for entry in back:
            del self.leased[entry.fence]
            entry.settling = False
            self.bytes += entry.size
        self.ready.extendleft(reversed(back))
        if back:
            self.wake()

    def ended(self, entry: Entry, *, gone: bool) -> None:
        """A commit settled this lease. `gone`: it left the queue; else it is to be retried."""
        self.leased.pop(entry.fence, None)
        if entry.row:
            self.loaded.discard(entry.row)
        if gone and self.spec.order == "key" and entry.key is not None:
            self._next_of(entry.key)
            self.wake()

    def parked(self, due: float | None) -> None:
        """A commit parked an event until `due`."""
        if due is not None and (self.next_due is None or due < self.next_due):
            self.next_due = due
            self.wake()

    # Waiting

    def wake(self) -> None:
        """Let those that wait look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    def wait_s(self) -> float:
        """Seconds after which looking again may find something without a wake."""
        wait = self.soonest - self.clock.monotonic()
        if self.next_due is not None:
            wait = min(wait, self.next_due - self.clock.time())
        return max(wait, 0.0)

    @property
    def total(self) -> int:
        """Everything unsettled."""
        return self.row.waiting + self.row.parked


class Fences:
    """Numbers for leases and etags, never the same twice in the life of a mesh file."""

    __slots__ = ("last",)

    def __init__(self, epoch: int) -> None:
        self.last = epoch << 32

    def next(self) -> int:
        """A new one."""
        self.last += 1
        return self.last
