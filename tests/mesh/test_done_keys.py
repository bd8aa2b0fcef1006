"""Idempotency keys in the mesh's file, against a table of what should be remembered."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.event import Event
from mesh.transport import Done, DoneKey, Settled, Settlement, Subscription
from tests.mesh.conforming import FakeClock

MOST = 12
KEYS = [b"%d" % n for n in range(20)]
SUB = Subscription(function="f", trigger="t", topic="in", lease_s=1e6)


class Kept:
    """A mesh file, and a table beside it."""

    def __init__(self, path: Path) -> None:
        self.url = f"embedded://{path}?idempotency_keys={MOST}"
        self.clock = FakeClock()
        self.table: dict[bytes, float] = {}
        self.count = 0

    async def open(self) -> None:
        self.mesh: Any = await mesh.connect(self.url, clock=self.clock, host=True)
        self.feed = await self.mesh.subscribe(SUB)

    async def leave(self, keys: list[bytes], ttl_s: float) -> None:
        """Settle an event with these keys."""
        self.count += 1
        await self.mesh.publish("in", [Event(str(self.count), "/s", "t")])
        (delivery,) = await self.feed.pull(1, 5.0)
        done = tuple(DoneKey(key, ttl_s) for key in keys)
        await self.mesh.commit([
            Settlement(SUB.name, (Settled(delivery, Done()),), done_keys=done)
        ])  # fmt: skip
        now = self.clock.time()
        self.table |= dict.fromkeys(keys, now + ttl_s)
        self.table = {key: until for key, until in self.table.items() if until > now}
        for key in sorted(self.table, key=lambda key: self.table[key])[: -MOST or None]:
            del self.table[key]

    async def check(self) -> None:
        """It remembers what the table does."""
        now = self.clock.time()
        found = await self.mesh.done_keys(SUB.name, KEYS)
        assert found == [self.table.get(key, 0.0) > now for key in KEYS]
        queue = self.mesh.engine.queues[SUB.name]
        (rows,) = self.mesh.engine.store.one("SELECT count(*) FROM done_key")
        assert rows == queue.done_keys <= MOST


async def live(path: Path, seed: int) -> None:
    chance, kept = random.Random(seed), Kept(path)
    await kept.open()
    for _ in range(60):
        # No two expire at once: which of them goes first is not said.
        kept.clock.advance(chance.choice([0.001, 0.5, 3.0, 20.0]))
        match chance.choice(["leave"] * 6 + ["close", "crash"]):
            case "leave":
                for key in chance.sample(KEYS, chance.randint(1, 4)):
                    await kept.leave([key], chance.choice([1.0, 10.0, 100.0]) + kept.count / 1000)
            case "close":
                await kept.mesh.close()
                await kept.open()
            case "crash":
                await kept.mesh.crash()
                await kept.open()
        await kept.check()
    await kept.mesh.close()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_remembered_is_what_a_table_says(tmp_path: Path, seed: int) -> None:
    asyncio.run(live(tmp_path / "mesh.db", seed))


def test_what_expired_goes_also_where_no_more_keys_come(tmp_path: Path) -> None:
    async def run() -> None:
        kept = Kept(tmp_path / "mesh.db")
        await kept.open()
        await kept.leave(KEYS[:10], 5.0)
        await kept.leave(KEYS[10:12], 5000.0)
        kept.clock.advance(60.0)
        await kept.mesh.publish("other", [Event("x", "/s", "t")])
        assert kept.mesh.engine.queues[SUB.name].done_keys == 2
        await kept.check()
        await kept.mesh.close()

    asyncio.run(run())


def test_many_of_one_settlement_are_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        kept = Kept(tmp_path / "mesh.db")
        await kept.open()
        await kept.leave(KEYS, 100.0)
        found = await kept.mesh.done_keys(SUB.name, KEYS)
        assert sum(found) == kept.mesh.engine.queues[SUB.name].done_keys == MOST
        await kept.mesh.close()

    asyncio.run(run())
