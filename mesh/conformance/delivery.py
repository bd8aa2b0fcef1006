"""Pulling: no more than asked, nothing twice, nothing left waiting."""

import asyncio
from collections import Counter

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, cut_off, event, ids, same, settle, sub
from mesh.transport import Feed, Released


@check()
async def a_pull_returns_no_more_than_asked(s: Stage) -> None:
    """G8: at most max_n, in order; the rest stays in the queue."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(50)))
    first = await feed.pull(7, s.maker.patience_s)
    same("at most seven", len(first) <= 7 and bool(first), True)
    got = first + await s.take(feed, 50 - len(first))
    same("deliveries", ids(got), [str(n) for n in range(50)])
    await s.nothing(feed, "all are out")


@check()
async def a_pull_stays_within_max_bytes(s: Stage) -> None:
    """G8: the data of what a pull returns is within max_bytes; a larger event comes alone."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n, b"x" * 1000) for n in range(10)))
    seen: list[str] = []
    while len(seen) < 9:
        got = await feed.pull(50, s.maker.patience_s, max_bytes=4000)
        same("within 4000 bytes", 0 < len(got) <= 4, True)
        seen += ids(got)
    await s.publish(t, "in", event("large", b"x" * 10_000), event("last", b"x" * 1000))
    while "last" not in seen:
        got = await feed.pull(50, s.maker.patience_s, max_bytes=1)
        same("one at a time where each is too large", len(got), 1)
        seen += ids(got)
    same("deliveries", seen, [*(str(n) for n in range(10)), "large", "last"])


@check()
async def a_waiting_pull_gets_the_next_event(s: Stage) -> None:
    """G2: a pull that waits returns with the first event; without one, empty after its wait."""
    t = await s.open()
    feed = await t.subscribe(sub())
    loop = asyncio.get_running_loop()
    began = loop.time()
    same("a pull without events", await feed.pull(5, 0.1), [])
    same("it waited", loop.time() - began >= 0.09, True)
    for n in range(5):
        waiting = s.go(feed.pull(5, 60))
        await asyncio.sleep(0.01 * (n % 2))
        await s.publish(t, "in", event(n))
        got = await asyncio.wait_for(waiting, s.maker.patience_s)
        same("the waiting pull", ids(got), [str(n)])


@check()
async def a_delivery_says_where_it_is_from(s: Stage) -> None:
    """G2: subscription, topic, position and time of publishing are the topic's own."""
    t = await s.open()
    feed = await t.subscribe(sub())
    before = s.now()
    (position,) = await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    same("the delivery", (d.subscription, d.topic, d.position, d.attempt, d.replay),
         ("f/t", "in", position, 1, ""))  # fmt: skip
    (item,) = await s.logged(t, "in")
    same("published_at", d.published_at, item.published_at)
    same("published_at is wall-clock time", before - 1 <= d.published_at <= s.now() + 1, True)


@check()
async def each_subscription_gets_its_own_copy(s: Stage) -> None:
    """G2: every subscription of a topic gets every event; one's settling leaves the others'."""
    t = await s.open()
    feeds = [await t.subscribe(sub(function=name)) for name in ("f", "g", "h")]
    await s.publish(t, "in", *(event(n) for n in range(5)))
    for feed in feeds:
        got = await s.take(feed, 5)
        same("deliveries", ids(got), list("01234"))
        await s.done(t, got)
        await s.nothing(feed, "all are settled")


@check()
async def feeds_of_one_subscription_share_its_queue(s: Stage) -> None:
    """G2: several feeds that pull at once, some closing as they do, get each event once."""
    t = await s.open()
    seen: Counter[str] = Counter()

    async def consume(feed: Feed, most: int) -> None:
        while sum(seen.values()) < 300 and most > 0:
            got = await feed.pull(3, 0.01)
            most -= len(got)
            seen.update(ids(got))
            await s.done(t, got)

    async def short_lived() -> None:
        for _ in range(10):
            feed = await t.subscribe(sub())
            waiting = s.go(feed.pull(2, 60))
            await asyncio.sleep(0)
            await feed.close()
            await asyncio.gather(waiting, return_exceptions=True)

    feeds = [await t.subscribe(sub()) for _ in range(3)]
    work = [s.go(consume(feed, 1000)) for feed in feeds]
    work.append(s.go(short_lived()))
    for n in range(0, 300, 10):
        await s.publish(t, "in", *(event(m) for m in range(n, n + 10)))
    await asyncio.gather(*work)
    same("deliveries of each event", set(seen.values()), {1})
    same("events", len(seen), 300)


@check()
async def a_cancelled_pull_loses_nothing(s: Stage) -> None:
    """G2, G8: an event that a cancelled pull may have taken is either returned or still there."""
    t = await s.open()
    feed = await t.subscribe(sub())
    for n, when in enumerate(MOMENTS):
        for early in (True, False):
            name = f"{n}{early}"
            if early:
                await s.publish(t, "in", event(name))
                got = await cut_off(feed.pull(1, 5), when)
            else:
                pull = s.go(cut_off(feed.pull(1, 5), when))
                await s.publish(t, "in", event(name))
                got = await pull
            same(f"cancelled after {when}", ids(got or await s.take(feed, 1)), [name])
    await s.nothing(feed, "each was delivered")


@check()
async def released_events_are_back_at_once(s: Stage) -> None:
    """G11: released, an event is ready at once, before later ones and uncharged; a pull that
    waits gets it."""
    t = await s.open()
    feed, other = await t.subscribe(sub()), await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(3)))
    first, second = await s.take(feed, 2)
    await s.settled(t, settle(second, Released()), settle(first, Released()))
    got = await s.take(feed, 3)
    same("deliveries", [(d.event.id, d.attempt) for d in got], [("0", 1), ("1", 1), ("2", 1)])
    waiting = s.go(other.pull(1, 60))
    await asyncio.sleep(0.01)
    await s.settled(t, settle(got[1], Released()))
    back = await asyncio.wait_for(waiting, s.maker.patience_s)
    same("the waiting pull", [(d.event.id, d.attempt) for d in back], [("1", 1)])
    same("a released delivery settles", await t.commit([settle(got[1])]), ["stale"])


@check()
async def a_closed_feed_gives_its_events_back(s: Stage) -> None:
    """G11: closing a feed makes what it held ready at once, uncharged; a pull of another gets it,
    what was settled stays settled, and closing twice is harmless."""
    t = await s.open()
    feed, other = await t.subscribe(sub()), await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(3)))
    held = await s.take(feed, 3)
    await s.done(t, held[:1])
    waiting = s.go(other.pull(2, 60))
    await asyncio.sleep(0.01)
    await feed.close()
    await feed.close()
    back = await asyncio.wait_for(waiting, s.maker.patience_s)
    back += await s.take(other, 2 - len(back))
    same("the other feed", [(d.event.id, d.attempt) for d in back], [("1", 1), ("2", 1)])
    same("what the closed feed held", await t.commit([settle(held[1])]), ["stale"])
    await s.done(t, back)


@check("routed")
async def the_router_decides_and_can_be_swapped(s: Stage) -> None:
    """G2: an event goes to the subscriptions that the router names, and to no others; a name that
    is none is no harm; the swap counts for the next publish."""
    t = await s.open()
    feed, other = await t.subscribe(sub()), await t.subscribe(sub(function="g", topic="other"))
    t.set_router(lambda topic, e: ["f/t"] if e.id == "yes" else [])
    await s.publish(t, "in", event("no"), event("yes"))
    t.set_router(lambda topic, e: ["f/t", "gone/t", "g/t"])
    await s.publish(t, "in", event("now"))
    same("deliveries", ids(await s.take(feed, 2)), ["yes", "now"])
    await s.nothing(feed, "the router left it out")
    await s.nothing(other, "it is subscribed to another topic")


@check("routed", can=("crash",))
async def what_nobody_serves_yet_misses_nothing(s: Stage) -> None:
    """G2: after a start the router does not speak for a subscription until it is subscribed to."""
    t = await s.open()
    await t.subscribe(sub())
    t = await s.crash(t)
    t.set_router(lambda topic, e: [])
    await s.publish(t, "in", event(1))
    feed = await t.subscribe(sub())
    same("deliveries", ids(await s.take(feed, 1)), ["1"])
    await s.publish(t, "in", event(2))
    await s.nothing(feed, "it is served, and the router leaves it out")
