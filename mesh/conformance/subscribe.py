"""Subscriptions: where they start, what they keep, how they change and go."""

import asyncio
from datetime import UTC, datetime

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, cut_off, event, ids, refused, same, settle, sub
from mesh.errors import MeshError, SubscriptionBacklog, SubscriptionUnknown


@check()
async def start_decides_what_a_new_subscription_sees(s: Stage) -> None:
    """Start: `new`, `earliest`, a time and a position each begin where they say."""
    t = await s.open()
    positions = await s.publish(t, "in", *(event(n) for n in range(300)))
    await s.wait(3 * s.tick)
    late = datetime.fromtimestamp(s.now() - s.tick, UTC).isoformat()
    await s.publish(t, "in", event("late"))
    new = await t.subscribe(sub())
    await s.nothing(new, "all came before it")
    earliest = await t.subscribe(sub(function="e", start="earliest"))
    every = [*(str(n) for n in range(300)), "late"]
    same("from the earliest", ids(await s.take(earliest, 301)), every)
    there = await t.subscribe(sub(function="p", start=f"@{positions[298]}"))
    same("from a position", ids(await s.take(there, 3)), ["298", "299", "late"])
    timed = await t.subscribe(sub(function="w", start=late))
    same("from a time", ids(await s.take(timed, 1)), ["late"])
    await s.publish(t, "in", event("next"))
    for feed in (new, earliest, there, timed):
        same("then each new one", ids(await s.take(feed, 1)), ["next"])
    await refused("a start that is none", t.subscribe(sub(function="x", start="yesterday")))


@check()
async def earliest_misses_nothing_that_is_published_meanwhile(s: Stage) -> None:
    """Start, G2: a subscription from the earliest, made while others publish to a new topic, gets
    each event once."""
    t = await s.open()
    for turn in range(10):
        topic = f"in{turn}"
        work = [
            s.go(s.publish(t, topic, event(0), event(1))),
            s.go(t.subscribe(sub(function=f"f{turn}", topic=topic, start="earliest"))),
            s.go(s.publish(t, topic, event(2), event(3))),
        ]
        if turn % 2:
            work.reverse()
        await asyncio.gather(*work)
        feed = await t.subscribe(sub(function=f"f{turn}", topic=topic, start="earliest"))
        same("deliveries", sorted(ids(await s.take(feed, 4))), list("0123"))
        await s.nothing(feed, "each was delivered")


@check()
async def subscribing_again_takes_up_the_queue(s: Stage) -> None:
    """Subscribe: the same name again finds what was unsettled, in order, and does not start over;
    what was published meanwhile is there."""
    t = await s.open()
    feed = await t.subscribe(sub(start="earliest"))
    await s.publish(t, "in", *(event(n) for n in range(4)))
    await s.done(t, await s.take(feed, 2))
    await feed.close()
    await s.publish(t, "in", event("meanwhile"))
    feed = await t.subscribe(sub(start="earliest"))
    same("deliveries", ids(await s.take(feed, 3)), ["2", "3", "meanwhile"])
    await s.nothing(feed, "the rest is settled")


@check(can=("crash",))
async def subscriptions_are_kept(s: Stage) -> None:
    """Subscribe: all that a subscription says survives a kill, and events published before anyone
    serves it again reach it."""
    t = await s.open()
    kept = [
        sub(order="key" if s.features.order_key else "none", lease_s=17.0, dlq="dlq"),
        sub(function="g", topic="other", start="earliest"),
    ]
    for one in kept:
        await t.subscribe(one)
    t = await s.crash(t)
    same("subscriptions", sorted(await t.subscriptions(), key=lambda one: one.name), kept)
    await s.publish(t, "in", event(1))
    feed = await t.subscribe(kept[0])
    same("deliveries", ids(await s.take(feed, 1)), ["1"])


@check()
async def two_may_subscribe_at_once(s: Stage) -> None:
    """Subscribe: the same new name from several at once makes one subscription; cancelled at any
    moment, subscribing again works."""
    t = await s.open()
    await asyncio.gather(*(t.subscribe(sub()) for _ in range(5)))
    same("subscriptions", [one.name for one in await t.subscriptions()], ["f/t"])
    for n, when in enumerate(MOMENTS):
        one = sub(function=f"c{n}", topic=f"c{n}", start="earliest")
        await s.publish(t, f"c{n}", event(1))
        await cut_off(t.subscribe(one), when)
        await s.publish(t, f"c{n}", event(2))
        feed = await t.subscribe(one)
        same(f"cancelled after {when}", ids(await s.take(feed, 2)), ["1", "2"])
        await s.nothing(feed, "each was delivered")


@check()
async def a_changed_subscription_counts_at_once(s: Stage) -> None:
    """Subscribe: what has changed (a lease's length, say) counts for what is pulled then, and the
    queue stays."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=100 * s.tick))
    await s.publish(t, "in", event(1))
    changed = sub(lease_s=s.tick)
    feed = await t.subscribe(changed)
    same("subscriptions", await t.subscriptions(), [changed])
    same("deliveries", ids(await s.take(feed, 1)), ["1"])
    await s.wait(2 * s.tick)
    same("after the new lease", ids(await s.take(feed, 1)), ["1"])


@check()
async def a_changed_topic_needs_an_empty_queue(s: Stage) -> None:
    """Subscribe: another topic is refused while events of the old one wait, and taken after."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    moved = sub(topic="elsewhere")
    await refused("another topic with a backlog", t.subscribe(moved), SubscriptionBacklog)
    await s.done(t, await s.take(feed, 1))
    feed = await t.subscribe(moved)
    await s.publish(t, "in", event(2))
    await s.publish(t, "elsewhere", event(3))
    same("deliveries", ids(await s.take(feed, 1)), ["3"])
    await s.nothing(feed, "it left the old topic")


@check()
async def a_backlog_is_removed_only_on_purpose(s: Stage) -> None:
    """Remove: with events ready, out or not due it is refused, saying how many; purged, they are
    gone for good, and what was out is stale."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2), event(3))
    one, two = await s.take(feed, 2)
    await s.settled(t, settle(one))
    await refused("with a backlog", t.unsubscribe("f/t"), SubscriptionBacklog)
    await t.unsubscribe("f/t", purge=True)
    same("subscriptions", await t.subscriptions(), [])
    same("what was out", await t.commit([settle(two)]), ["stale"])
    await refused("pulling from what is gone", feed.pull(5, s.maker.quiet_s))
    await refused("depth of what is gone", t.depth("f/t"))
    await refused("removing it again", t.unsubscribe("f/t"), SubscriptionUnknown)
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(4))
    same("made again", ids(await s.take(feed, 1)), ["4"])
    await s.nothing(feed, "the rest was purged")
    await refused("while one is out", t.unsubscribe("f/t"), SubscriptionBacklog)


@check()
async def removing_and_publishing_at_once_ends_one_way(s: Stage) -> None:
    """Remove: beside a publish, a remove without purge either refuses, and the event is there, or
    came first; cancelled at any moment it happened or it did not, and no event is lost."""
    t = await s.open()
    for n, when in enumerate(MOMENTS):
        one = sub(function=f"f{n}", topic=f"in{n}")
        await t.subscribe(one)
        await cut_off(t.unsubscribe(one.name), when)
        there = one in await t.subscriptions()
        await s.publish(t, one.topic, event(1))
        feed = await t.subscribe(one)
        if there:
            same(f"cancelled after {when}", ids(await s.take(feed, 1)), ["1"])
        await s.nothing(feed, "each was delivered")
        await feed.close()
        first = s.go(s.publish(t, one.topic, event("a")))
        gone = s.go(t.unsubscribe(one.name, purge=there))
        await asyncio.gather(first, gone, return_exceptions=True)
        if one in await t.subscriptions():
            feed = await t.subscribe(one)
            same("refused, the event is there", ids(await s.take(feed, 1)), ["a"])


@check("broadcast")
async def broadcast_gives_each_host_every_event(s: Stage) -> None:
    """Broadcast: each host's copy of a queue gets every event, settled apart from the others'."""
    t = await s.open()
    copies = [sub(mode="broadcast", host=host) for host in ("h1", "h2")]
    h1, h2 = [await t.subscribe(copy) for copy in copies]
    await s.publish(t, "in", event(1), event(2))
    one = await s.take(h1, 2)
    same("the first host", ids(one), ["1", "2"])
    await s.done(t, one)
    two = await s.take(h2, 2)
    same("the second host", ids(two), ["1", "2"])
    same("their names", [one[0].subscription, two[0].subscription],
         [copy.name for copy in copies])  # fmt: skip
    await s.settled(t, settle(two[0]))
    await refused("a broadcast without a host", t.subscribe(sub(mode="broadcast")), MeshError)


@check("broadcast", can=("crash",))
async def broadcast_copies_outlive_their_hosts(s: Stage) -> None:
    """Broadcast: a host that comes back under its persisted id finds what its copy had not
    settled, and what was published while it was away."""
    t = await s.open()
    copies = [sub(mode="broadcast", host=host) for host in ("h1", "h2")]
    h1, _ = [await t.subscribe(copy) for copy in copies]
    await s.publish(t, "in", event(1), event(2))
    await s.done(t, await s.take(h1, 2))
    t = await s.crash(t)
    await s.publish(t, "in", event(3))
    h1, h2 = [await t.subscribe(copy) for copy in copies]
    same("the first host", ids(await s.take(h1, 1)), ["3"])
    same("the second host", ids(await s.take(h2, 3)), ["1", "2", "3"])
