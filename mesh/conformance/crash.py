"""A whole life under kills: whatever happens between two steps, each event has one end."""

import random
from collections import Counter
from typing import Any

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, Unmet, event, same, settle, sub
from mesh.transport import Dead, Delivery, Done, Feed, Outcome, Output, Released, Retry, Transport


@check("dedupe", "delayed_retry")
async def each_event_has_exactly_one_end(s: Stage) -> None:
    """G2, G9: over random publishes, pulls, settles, closed feeds and lost leases each event ends
    exactly once, in an output or a dead letter, and no attempt goes backwards."""
    await _Life(s, random.Random(11), crashes=False).play(300)


@check("dedupe", "delayed_retry", can=("crash",))
async def each_event_has_exactly_one_end_over_crashes(s: Stage) -> None:
    """G2, G3, G5, G9: the same, with the host killed between any two steps and amid commits."""
    await _Life(s, random.Random(12), crashes=True).play(300)


class _Life:
    """Random steps on one queue, and a ledger of what must come of them."""

    def __init__(self, s: Stage, chance: random.Random, *, crashes: bool) -> None:
        self.s, self.chance, self.crashes = s, chance, crashes
        self.t: Transport
        self.feed: Feed
        self.published = 0
        self.held: list[Delivery] = []
        self.attempts: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.unsure: set[str] = set()

    async def play(self, steps: int) -> None:
        self.t = await self.s.open()
        await self.subscribe()
        moves = [self.publish] * 3 + [self.pull] * 4 + [self.settle] * 6
        moves += [self.close_feed, self.lose_leases]
        if self.crashes:
            moves += [self.crash, self.crash_amid_commit]
        for _ in range(steps):
            await self.chance.choice(moves)()
        await self.finish()

    async def subscribe(self) -> None:
        self.feed = await self.t.subscribe(sub(lease_s=self.s.tick))

    async def publish(self) -> None:
        count = self.chance.randint(1, 5)
        events = [event(n) for n in range(self.published, self.published + count)]
        await self.s.publish(self.t, "in", *events)
        self.published += count

    async def pull(self) -> None:
        for d in await self.feed.pull(self.chance.randint(1, 6), 0.0):
            if d.event.id in self.ended:
                raise Unmet(f"{d.event.id} came again after its end")
            if d.attempt < self.attempts[d.event.id] and d.event.id not in self.unsure:
                was = self.attempts[d.event.id]
                raise Unmet(f"{d.event.id} went back from attempt {was} to {d.attempt}")
            self.attempts[d.event.id] = d.attempt
            self.held.append(d)

    def choose(self, d: Delivery) -> tuple[Outcome, list[Output]]:
        name = d.event.id
        dead = Dead("bad", Output("dlq", event(f"l{name}")))
        options: list[Outcome] = [
            Done(),
            Done(),
            dead,
            Retry(0.0),
            Retry(0.0),
            Released(),
        ]
        outcome = self.chance.choice(options)
        outputs = [Output("out", event(f"o{name}"))] if isinstance(outcome, Done) else []
        return outcome, outputs

    async def settle(self) -> None:
        while self.held:
            d = self.held.pop(self.chance.randrange(len(self.held)))
            outcome, outputs = self.choose(d)
            (gone,) = await self.t.commit([settle(d, outcome, *outputs)])
            if gone == "settled":
                if isinstance(outcome, Done | Dead):
                    self.ended.add(d.event.id)
                elif isinstance(outcome, Retry):
                    self.attempts[d.event.id] += 1
            if self.chance.random() < 0.5:
                return

    async def close_feed(self) -> None:
        await self.feed.close()
        await self.subscribe()

    async def lose_leases(self) -> None:
        await self.s.wait(1.5 * self.s.tick)

    async def crash(self) -> None:
        self.t = await self.s.crash(self.t)
        await self.subscribe()

    async def crash_amid_commit(self) -> None:
        settlements = [settle(d, *_flat(self.choose(d))) for d in self.held]
        self.unsure |= {d.event.id for d in self.held}
        work = self.s.go(self.t.commit(settlements))
        await self.s.maker.wait(0)
        self.t = await self.s.crash(self.t)
        work.cancel()
        self.held = []
        await self.subscribe()

    async def outstanding(self) -> bool:
        """Whether anything comes once all leases have run out."""
        await self.s.wait(2 * self.s.tick)
        left = await self.feed.pull(1, self.s.maker.quiet_s)
        await self.s.settled(self.t, *(settle(d, Released()) for d in left))
        return bool(left)

    async def finish(self) -> None:
        # A lease may run out before its turn comes: what is stale then is delivered again.
        while (got := await self.feed.pull(10, 0.0)) or await self.outstanding():
            for d in got:
                if d.event.id in self.ended:
                    raise Unmet(f"{d.event.id} came again after its end")
                out = Output("out", event(f"o{d.event.id}"))
                (gone,) = await self.t.commit([settle(d, Done(), out)])
                if gone == "settled":
                    self.ended.add(d.event.id)
        made = Counter(i[1:] for i in await self.s.ids_in(self.t, "out"))
        made += Counter(i[1:] for i in await self.s.ids_in(self.t, "dlq"))
        wrong = {str(n): made[str(n)] for n in range(self.published) if made[str(n)] != 1}
        same("events with no end, or with two", wrong, {})
        listed = sorted(d.event.id for d in await self.t.dead_letters("f/t", limit=10_000))
        same("dead letters listed", listed,
             sorted(i[1:] for i in await self.s.ids_in(self.t, "dlq")))  # fmt: skip


def _flat(pair: tuple[Outcome, list[Output]]) -> tuple[Any, ...]:
    return (pair[0], *pair[1])
