"""What the embedded transport offers beside the way of an event: looking, replaying, keeping."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from mesh import integrity
from mesh.batch import Batch
from mesh.engine import Engine
from mesh.errors import MeshClosed, MeshError
from mesh.records import decode_record
from mesh.transport import DeadLetter, Depth, Subscription
from mesh.wire import PAGE_BYTES

__all__ = ["Admin"]


class Admin:
    """Mixed into the transport, which has the engine and the roles."""

    engine: Engine | None
    _host: Callable[[], Any]
    _check_open: Callable[[], None]
    engine_or_raise: Callable[[], Engine]
    _client: Callable[[], Any]
    _open_file: Callable[[], Any]
    resolve: Callable[[str, str], int]

    async def subscriptions(self) -> list[Subscription]:
        """As the contract says."""
        engine = await self._host()
        return [queue.spec for queue in engine.queues.values()]

    async def done_keys(self, name: str, keys: Sequence[bytes]) -> list[bool]:
        """As the contract says."""
        engine = await self._host()
        queue = engine.queue(name)
        if not queue.done_keys:
            return [False] * len(keys)
        try:
            found: list[bool] = engine.reader.has_keys(queue.row.id, keys, engine.clock.time())
        except sqlite3.DatabaseError as error:
            raise integrity.told(engine.path, error) from None
        return found

    def ready_now(self, name: str) -> int:
        """What is in the queue and not leased, the delayed left out: from memory alone."""
        engine = self.engine_or_raise()
        queue = engine.queue(name)
        delayed = max(queue.row.parked - len(queue.loaded), 0)
        return max(queue.total - len(queue.leased) - delayed, 0)

    def depth_now(self, name: str) -> Depth:
        """The depth, without waiting: it is in memory, but for the delayed."""
        engine = self.engine_or_raise()
        queue = engine.queue(name)
        now = engine.clock.time()
        if queue.soonest <= engine.clock.monotonic():
            queue.expire(engine.clock.monotonic())
        delayed = 0
        if queue.row.parked > len(queue.loaded):
            delayed = engine.reader.delayed(queue.row.id, now)
        leased = len(queue.leased)
        total = queue.total
        age = 0.0
        if total:
            oldest = engine.reader.oldest(queue.row.id)
            age = max(now - oldest, 0.0) if oldest is not None else 0.0
        return Depth(max(total - leased - delayed, 0), leased, delayed, age, "exact")

    async def replay(self, name: str, start: str, end: str, replay_id: str) -> int:
        """As the contract says."""
        if not replay_id:
            raise MeshError("a replay needs an id of its own")
        engine = await self._host()
        queue = engine.queue(name)
        topic = engine.topics[queue.spec.topic]
        offset, stop = self.resolve(topic.name, start), self.resolve(topic.name, end)
        total = 0

        def some(batch: Batch, first: int) -> tuple[int, int]:
            engine.queue(name)  # it may have been removed meanwhile
            chunks = batch.store.chunks(topic.row.id, first, 8)
            count, reached = 0, stop
            for chunk in chunks:
                reached = chunk.first + chunk.count
                before = batch.store.replayed(queue.row.id, replay_id, chunk.first)
                mask = before
                for index, record in enumerate(engine.records(chunk)):
                    at = chunk.first + index
                    if not first <= at < stop or mask >> index & 1:
                        continue
                    if queue in engine.route(topic, record.event):
                        batch.again(queue, record, at, chunk.at, replay_id)
                        mask |= 1 << index
                        count += 1
                if mask != before:
                    batch.store.note_replayed(queue.row.id, replay_id, chunk.first, batch.now, mask)
            return count, reached if chunks else stop

        while offset < stop:
            count, offset = await engine.write(partial(some, first=offset))
            total += count
        return total

    async def topics(self) -> dict[str, int]:
        """As the contract says."""
        self._check_open()
        if self.engine is not None:
            return {name: topic.row.count for name, topic in self.engine.topics.items()}
        client = await self._client()
        if client is not None:
            found: dict[str, int] = {}
            while page := await client.ask("topics", next(reversed(found), "")):
                found.update(page)
            return found
        file = self._open_file()
        prefix = file.prefix
        return {
            row.name[len(prefix) :]: row.count
            for row in file.store.topics()
            if row.name.startswith(prefix)
        }

    def some_topics(self, after: str, limit: int) -> dict[str, int]:
        """Up to `limit` of a host's topics by name, from just after one on, and their events."""
        engine = self.engine_or_raise()
        prefix = engine.prefix
        rows: list[Any] = engine.reader.all(
            "SELECT name, count FROM topic WHERE name > ? AND name < ? ORDER BY name LIMIT ?",
            prefix + after, f"{prefix[:-1]}0", limit,
        )  # fmt: skip
        return {name[len(prefix) :]: count for name, count in rows}

    async def dead_letters(self, name: str, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """As the contract says."""
        self._check_open()
        if self.engine is None:
            client = await self._client()
            if client is None:
                raise MeshClosed("no host serves this mesh")
            rows = await client.ask("dead_letters", name, after, limit)
            return msgspec.convert(rows, list[DeadLetter])
        engine = self.engine
        queue = engine.queue(name)
        return [
            DeadLetter(
                row, name, decode_record(record).event, reason, attempts, at, topic, str(offset)
            )
            for row, at, attempts, reason, _, _, record, topic, offset in engine.reader.dead(
                queue.row.id, after, limit, PAGE_BYTES
            )
        ]

    async def redrive(self, name: str, ids: Sequence[int], replay_id: str) -> int:
        """As the contract says."""
        if not replay_id:
            raise MeshError("a redrive needs an id of its own")
        engine = await self._host()

        def redrive(batch: Batch) -> int:
            count, queue = 0, engine.queue(name)
            for row in ids:
                taken = batch.store.take_dead(queue.row.id, row)
                if taken is not None:
                    offset, at, record = taken
                    batch.again(queue, decode_record(record), offset, at, replay_id)
                    count += 1
            return count

        count: int = await engine.write(redrive)
        return count

    async def discard(self, name: str, ids: Sequence[int]) -> int:
        """As the contract says."""
        engine = await self._host()

        def discard(batch: Batch) -> int:
            queue = engine.queue(name)
            return sum(batch.store.drop_dead(queue.row.id, row) for row in ids)

        count: int = await engine.write(discard)
        return count

    async def state(self, scope: str, key: str) -> tuple[bytes, str] | None:
        """As the contract says."""
        engine = await self._host()
        row = engine.reader.one(
            "SELECT value, etag FROM state WHERE scope = ? AND key = ?"
            " AND (expires IS NULL OR expires > ?)",
            engine.prefix + scope, key, engine.clock.time(),
        )  # fmt: skip
        return (bytes(row[0]), str(row[1])) if row else None

    async def append_record(self, kind: str, body: bytes) -> int:
        """As the contract says."""
        engine = await self._host()

        def append(batch: Batch) -> int:
            name = engine.prefix + kind
            return batch.store.run("INSERT INTO record (kind, body) VALUES (?, ?)", name, body)

        seq: int = await engine.write(append)
        return seq

    async def records(self, kind: str, after: int = 0) -> list[tuple[int, bytes]]:
        """As the contract says."""
        engine = await self._host()
        query = "SELECT seq, body FROM record WHERE kind = ? AND seq > ? ORDER BY seq"
        rows: list[Any] = engine.reader.all(query, engine.prefix + kind, after)
        return [(seq, body) for seq, body in rows]

    async def put_blob(self, digest: str, body: bytes) -> None:
        """As the contract says."""
        engine = await self._host()

        def put(batch: Batch) -> None:
            query = "INSERT OR IGNORE INTO blob (digest, body, crc) VALUES (?, ?, ?)"
            name = engine.prefix + digest
            batch.store.run(query, name, body, integrity.blob_crc(body, name))

        await engine.write(put)

    async def get_blob(self, digest: str) -> bytes | None:
        """As the contract says."""
        engine = await self._host()
        name = engine.prefix + digest
        rows: list[Any] = engine.reader.all("SELECT body, crc FROM blob WHERE digest = ?", name)
        for body, crc in rows:
            if crc is not None and crc != integrity.blob_crc(body, name):
                raise integrity.damaged(engine.path, f"table blob, {name}: its checksum is not"
                                        " that of what it holds")  # fmt: skip
            return bytes(body)
        return None
