"""`order = "key"`: one call in flight a key, in order, whatever fails, changes or dies."""

import asyncio
import random

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, Unmet, event, ids, same, settle, sub
from mesh.event import Event
from mesh.transport import (
    Dead,
    Delivery,
    Done,
    Feed,
    Outcome,
    Output,
    Released,
    Retry,
    Settled,
    Settlement,
    Subscription,
    Transport,
)

MANY = 1500
"""More than a host holds of one queue in memory, and than a broker's usual window of 1000."""


def key_of(e: Event) -> str | None:
    """The data is the key."""
    return e.data.decode() if e.data else None


def keyed(name: str, key: str | None = None) -> Event:
    """An event whose key is its name's first letter, unless `key` says otherwise."""
    return event(name, (name[0] if key is None else key).encode())


def ordered(**more: object) -> Subscription:
    """An ordered subscription."""
    return sub(order="key", **more)


@check("order_key")
async def one_of_a_key_is_out_in_order(s: Stage) -> None:
    """G7: of each key one delivery is out at a time, in order; a retried one blocks its key until
    it is done, and no other."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", *(keyed(n) for n in ("a1", "a2", "b1", "a3", "b2")))
    a1, b1 = await s.take(feed, 2)
    same("the heads", (ids([a1, b1]), a1.key, b1.key), (["a1", "b1"], "a", "b"))
    await s.nothing(feed, "a key's head is out")
    await s.settled(t, settle(a1, Retry(3 * s.tick)), settle(b1, Done()))
    (b2,) = await s.take(feed, 1)
    same("the other key", b2.event.id, "b2")
    await s.nothing(feed, "the key's head is not due")
    await s.wait(4 * s.tick)
    order = []
    for attempt in (2, 1, 1):
        (d,) = await s.take(feed, 1)
        order.append((d.event.id, d.attempt == attempt))
        await s.nothing(feed, "the key's head is out")
        await s.done(t, [d])
    same("the blocked key", order, [("a1", True), ("a2", True), ("a3", True)])


@check("order_key")
async def events_without_a_key_are_ordered_with_nothing(s: Stage) -> None:
    """G7: events whose key is None neither block nor wait; nor do those of other keys."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", keyed("a1"), *(event(n, None) for n in range(5)), keyed("a2"))
    got = await s.take(feed, 6)
    same("deliveries", ids(got), ["a1", "0", "1", "2", "3", "4"])
    await s.settled(t, *(settle(d, Retry(0.0)) for d in got[1:3]))
    same("retried", sorted(ids(await s.take(feed, 2))), ["0", "1"])
    await s.nothing(feed, "the key's head is out")


@check("order_key")
async def a_head_that_ends_otherwise_frees_its_key(s: Stage) -> None:
    """G7: released or given back, the head comes first again; dead or lost, the next is ready."""
    t = await s.open()
    feed = await t.subscribe(ordered(lease_s=2 * s.tick), key_of=key_of)
    await s.publish(t, "in", *(keyed(f"a{n}") for n in range(4)))
    (d,) = await s.take(feed, 1)
    await s.nothing(feed, "the key's head is out")
    await s.settled(t, settle(d, Released()))
    (d,) = await s.take(feed, 1)
    same("released", d.event.id, "a0")
    await s.nothing(feed, "the key's head is out")
    await s.settled(t, settle(d, Dead("bad", Output("dlq", event("letter")))))
    (d,) = await s.take(feed, 1)
    same("after a dead one", d.event.id, "a1")
    await s.wait(3 * s.tick)
    (d,) = await s.take(feed, 1)
    same("its lease lost", d.event.id, "a1")
    await feed.close()
    feed = await t.subscribe(ordered(lease_s=2 * s.tick), key_of=key_of)
    got = await s.take(feed, 1)
    same("given back", ids(got), ["a1"])
    await s.done(t, got)
    same("the rest", await s.drain(t, feed), ["a2", "a3"])


@check("order_key")
async def a_failed_batch_releases_its_successors(s: Stage) -> None:
    """G7: a pull may return several events of a key only in order; where one of a batch fails and
    the rest are released, the failed one comes first, then they, and their attempts are free."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    names = [f"{key}{n}" for n in range(4) for key in "ab"]
    await s.publish(t, "in", *(keyed(n) for n in names))
    failed: set[str] = set()
    seen: list[tuple[str, int]] = []
    while len(seen) < len(names):
        got = await feed.pull(100, s.maker.patience_s)
        if not got:
            raise Unmet(f"after {seen} nothing more came")
        outcomes: list[Settled] = []
        blocked: set[str | None] = set()
        for d in got:
            if d.key in blocked:
                outcomes.append(Settled(d, Released()))
            elif d.event.id not in failed:
                failed.add(d.event.id)
                blocked.add(d.key)
                outcomes.append(Settled(d, Retry(0.0)))
            else:
                seen.append((d.event.id, d.attempt))
                outcomes.append(Settled(d, Done()))
        await s.settled(t, Settlement("f/t", tuple(outcomes)))
    for key in "ab":
        mine = [pair for pair in seen if pair[0].startswith(key)]
        same(f"key {key}", mine, [(f"{key}{n}", 2) for n in range(4)])


@check("order_key", can=("crash",))
async def a_blocked_key_stays_blocked_over_a_crash(s: Stage) -> None:
    """G7, G9: after a kill the retried head still blocks its key, and comes first when due."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", *(keyed(n) for n in ("a1", "a2", "b1", "a3")))
    a1, _ = await s.take(feed, 2)
    await s.settled(t, settle(a1, Retry(3 * s.tick)))
    t = await s.crash(t)
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", keyed("a4"))
    same("the other key", ids(await s.take(feed, 1)), ["b1"])
    await s.nothing(feed, "the key's head is not due")
    await s.wait(4 * s.tick)
    (a1,) = await s.take(feed, 1)
    same("the head", (a1.event.id, a1.attempt), ("a1", 2))
    await s.done(t, [a1])
    same("the rest", await s.drain(t, feed), ["a2", "a3", "a4"])


@check("order_key")
async def a_hot_key_does_not_stop_the_others(s: Stage) -> None:
    """G7: behind a blocked key with many events waiting, another key's event comes, also where
    nothing else happens in the mesh; then the blocked key's come in order."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", *(keyed(f"hot{n}", "hot") for n in range(MANY)))
    await s.publish(t, "in", keyed("cold"))
    got = await s.take(feed, 1)
    same("the head", ids(got), ["hot0"])
    same("the other key", ids(await s.take(feed, 1)), ["cold"])
    await s.settled(t, settle(got[0], Retry(3 * s.tick)))
    await s.nothing(feed, "the key's head is not due")
    await s.wait(4 * s.tick)
    await _all_hot(s, t, feed, 0)


@check("order_key", "delayed_retry")
async def many_blocked_keys_do_not_stop_the_others(s: Stage) -> None:
    """G7: the same where many keys are blocked, each with events waiting that were read before."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    keys = [f"k{n}" for n in range(30)]
    for turn in range(60):
        await s.publish(t, "in", *(keyed(f"{key}-{turn}", key) for key in keys))
    heads = await s.take(feed, 30)
    await s.done(t, heads)
    heads = await s.take(feed, 30)
    same("the second of each", sorted(ids(heads)), sorted(f"{key}-1" for key in keys))
    await s.settled(t, *(settle(d, Retry(3 * s.tick)) for d in heads))
    await s.publish(t, "in", *(keyed(f"cold{n}", "cold") for n in range(2)))
    for n in range(2):
        got = await s.take(feed, 1)
        same("the other key", ids(got), [f"cold{n}"])
        await s.done(t, got)
    await s.wait(4 * s.tick)
    seen = await s.drain(t, feed)
    for key in keys:
        mine = [name for name in seen if name.startswith(f"{key}-")]
        same(f"key {key}", mine, [f"{key}-{n}" for n in range(1, 60)])


@check("order_key", can=("crash",))
async def a_hot_key_keeps_its_order_over_a_crash(s: Stage) -> None:
    """G7: killed while the head of a key is out and many of it wait, the head comes first."""
    t = await s.open()
    feed = await t.subscribe(ordered(lease_s=s.tick), key_of=key_of)
    await s.publish(t, "in", *(keyed(f"hot{n}", "hot") for n in range(MANY)))
    await s.publish(t, "in", keyed("cold"))
    same("while the key is busy", ids(await s.take(feed, 2)), ["hot0", "cold"])
    t = await s.crash(t)
    feed = await t.subscribe(ordered(lease_s=s.tick), key_of=key_of)
    await s.wait(2 * s.tick)
    head, cold = await s.take(feed, 2)
    same("the heads", ids([head, cold]), ["hot0", "cold"])
    await s.done(t, [head, cold])
    await _all_hot(s, t, feed, 1)


async def _all_hot(s: Stage, t: Transport, feed: Feed, first: int) -> None:
    """The hot key's events from `first` on: a hundred in order, then the rest at a stroke."""
    seen = await s.drain(t, feed, 100)
    same("the hot key", seen, [f"hot{n}" for n in range(first, first + 100)])
    plain = await t.subscribe(sub())
    rest = sorted(await s.drain(t, plain))
    same("the rest of it", rest, sorted(f"hot{n}" for n in range(first + 100, MANY)))


@check("order_key")
async def subscribing_again_keeps_keys_and_order(s: Stage) -> None:
    """G7: a feed closed and opened again, or a second one beside it, finds blocked keys blocked,
    nothing of them lost and nothing out twice."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", *(keyed(n) for n in ("a1", "a2", "b1", "a3", "b2", "c1", "c2")))
    a1, b1, c1 = await s.take(feed, 3)
    await s.settled(t, settle(a1, Retry(3 * s.tick)), settle(c1, Retry(0.0)))
    await feed.close()
    feed = await t.subscribe(ordered(), key_of=key_of)
    other = await t.subscribe(ordered(), key_of=key_of)
    b1, c1 = sorted(await s.take(other, 2), key=lambda d: d.event.id)
    same("the heads", ids([b1, c1]), ["b1", "c1"])
    await s.nothing(feed, "each key's head is out or not due")
    await s.done(t, [b1, c1])
    same("those behind them", sorted(ids(await s.take(feed, 2))), ["b2", "c2"])
    await s.wait(4 * s.tick)
    order = []
    for _ in range(3):
        got = await s.take(other, 1)
        order += ids(got)
        await s.done(t, got)
    same("the blocked key", order, ["a1", "a2", "a3"])


@check("order_key", can=("crash",))
async def a_changed_key_loses_nothing(s: Stage) -> None:
    """G7: a version with another key function finds what waits under the old keys; a blocked one
    does not stay blocked for good."""
    t = await s.open()
    feed = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", *(keyed(f"hot{n}", "hot") for n in range(MANY)))
    await s.publish(t, "in", keyed("cold"))
    (head,) = await s.take(feed, 1)
    await s.settled(t, settle(head, Retry(0.0)))
    same("the heads", sorted(ids(await s.take(feed, 2))), ["cold", "hot0"])
    t = await s.crash(t)
    feed = await t.subscribe(ordered(), key_of=lambda e: e.id[-1])
    seen = await s.drain(t, feed, 200)
    old = [name for name in seen if name in ("hot0", "hot1", "hot2")]
    same("the old key goes on", old, ["hot0", "hot1", "hot2"])
    plain = await t.subscribe(sub())
    seen += await s.drain(t, plain)
    same("events, each once", sorted(seen), sorted(["cold", *(f"hot{n}" for n in range(MANY))]))


@check("order_key")
async def a_changed_order_loses_nothing(s: Stage) -> None:
    """G7: a subscription that becomes ordered, or no longer is, while a feed is open keeps its
    events, and what is pulled from then on goes by the new order."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(keyed(n) for n in ("a1", "a2", "a3", "b1", "b2")))
    (a1,) = await s.take(feed, 1)
    new = await t.subscribe(ordered(), key_of=key_of)
    (b1,) = await s.take(new, 1)
    same("a key is out already", b1.event.id, "b1")
    await s.nothing(new, "each key's head is out")
    await s.done(t, [a1, b1])
    same("the next", sorted(ids(await s.take(new, 2))), ["a2", "b2"])
    plain = await t.subscribe(sub())
    got = await s.take(plain, 1)
    same("no longer ordered", ids(got), ["a3"])
    await s.publish(t, "in", *(keyed(f"hot{n}", "hot") for n in range(MANY)))
    await s.done(t, got)
    await plain.close()
    new = await t.subscribe(ordered(), key_of=key_of)
    await s.publish(t, "in", keyed("cold"))
    head, cold = await s.take(new, 2)
    same("ordered again", ids([head, cold]), ["hot0", "cold"])
    await s.done(t, [head, cold])
    plain = await t.subscribe(sub())
    rest = sorted(await s.drain(t, plain))
    same("and no longer", rest, sorted(f"hot{n}" for n in range(1, MANY)))


@check("order_key", "delayed_retry")
async def keys_keep_order_whatever_happens(s: Stage) -> None:
    """G7: with several feeds that succeed, fail, release and close at random, no two calls of a key
    overlap and each key's events are done in order."""
    t = await s.open()
    await t.subscribe(ordered(), key_of=key_of)
    run = _Random(s, t, random.Random(7))
    await asyncio.gather(run.publish(), *(s.go(run.work()) for _ in range(3)))
    for key in "abcde":
        mine = [name for name in run.done if name.startswith(key)]
        same(f"key {key}", mine, [f"{key}{n}" for n in range(run.EACH)])


class _Random:
    """Workers on one ordered queue."""

    EACH = 20

    def __init__(self, s: Stage, t: Transport, random_: random.Random) -> None:
        self.s, self.t, self.random = s, t, random_
        self.done: list[str] = []
        self.out: set[str | None] = set()

    async def publish(self) -> None:
        for n in range(self.EACH):
            await self.s.publish(self.t, "in", *(keyed(f"{key}{n}") for key in "abcde"))
            await asyncio.sleep(0)

    async def work(self) -> None:
        feed: Feed = await self.t.subscribe(ordered(), key_of=key_of)
        while len(self.done) < self.EACH * 5:
            got = await feed.pull(self.random.randint(1, 4), 0.02)
            for key in {d.key for d in got}:
                if key in self.out:
                    raise Unmet(f"two feeds have deliveries of key {key} at once")
            self.out |= {d.key for d in got}
            await asyncio.sleep(0)
            if self.random.random() < 0.1:
                self.out -= {d.key for d in got}
                await feed.close()
                feed = await self.t.subscribe(ordered(), key_of=key_of)
                continue
            await self.settle(got)

    async def settle(self, got: list[Delivery]) -> None:
        settled, done = [], []
        blocked: set[str | None] = set()
        for d in got:
            outcome: Outcome = self.random.choice((Done(), Done(), Retry(0.0), Released()))
            if d.key in blocked:
                outcome = Released()
            if isinstance(outcome, Done):
                done.append(d.event.id)
            else:
                blocked.add(d.key)
            settled.append(Settled(d, outcome))
        # Settled and noted before anyone may pull the next of a key.
        self.done += done
        self.out -= {d.key for d in got}
        if settled:
            await self.s.settled(self.t, Settlement("f/t", tuple(settled)))
