"""Depth: what the scaler goes by. Read, never guessed."""

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, refused, same, settle, sub
from mesh.errors import DepthUnknown, MeshError
from mesh.transport import Dead, Depth, Filtered, Output, Released, Retry, Transport


async def _depth(s: Stage, t: Transport, wanted: tuple[int, int, int], what: str) -> None:
    """(ready, leased, delayed), as exact as the features say."""
    depth = await t.depth("f/t")
    same("its kind", depth.kind, s.features.depth)
    seen = (depth.ready, depth.leased, depth.delayed)
    if s.features.depth == "exact":
        same(f"(ready, leased, delayed) {what}", seen, wanted)
    else:
        same(f"an upper bound {what}", sum(seen) >= sum(wanted), True)


@check("depth")
async def depth_counts_what_is_unsettled(s: Stage) -> None:
    """G10: after every step, depth is what is ready, out, and not due."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await _depth(s, t, (0, 0, 0), "at first")
    await s.publish(t, "in", *(event(n) for n in range(7)))
    await _depth(s, t, (7, 0, 0), "after 7 were published")
    await t.publish("in", [event(0)])
    if s.features.dedupe:
        await _depth(s, t, (7, 0, 0), "after a duplicate")
    a, b, c, d, e = await s.take(feed, 5)
    await _depth(s, t, (2, 5, 0), "after 5 were pulled")
    await s.done(t, [a])
    await _depth(s, t, (2, 4, 0), "after one was done")
    await s.settled(t, settle(b, Retry(3 * s.tick)))
    await _depth(s, t, (2, 3, 1), "after one failed")
    await s.settled(t, settle(c, Released()))
    await _depth(s, t, (3, 2, 1), "after one was released")
    letter = Output("dlq", event("letter"))
    await s.settled(t, settle(d, Dead("bad", letter)), settle(e, Filtered()))
    await _depth(s, t, (3, 0, 1), "after one died and one was filtered")
    await s.wait(4 * s.tick)
    await _depth(s, t, (4, 0, 0), "after the retry fell due")
    await s.take(feed, 4)
    await _depth(s, t, (0, 4, 0), "after the rest was pulled")
    await feed.close()
    await _depth(s, t, (4, 0, 0), "after the feed closed")


@check("depth")
async def depth_counts_a_lost_lease_as_ready(s: Stage) -> None:
    """G10: a lease that ran out is no longer out, though nobody pulled since."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", event(1))
    await s.take(feed, 1)
    await s.wait(2 * s.tick)
    await _depth(s, t, (1, 0, 0), "after the lease ran out")


@check("depth", can=("crash",))
async def depth_survives_a_crash(s: Stage) -> None:
    """G10: after a kill depth counts the same events, before anyone subscribes."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", *(event(n) for n in range(5)))
    a, b, _ = await s.take(feed, 3)
    await s.settled(t, settle(a), settle(b, Retry(100 * s.tick)))
    t = await s.crash(t)
    await s.wait(2 * s.tick)
    await _depth(s, t, (3, 0, 1), "after a kill with one done, one failed and one out")


@check("depth")
async def depth_knows_the_age_of_the_oldest(s: Stage) -> None:
    """G10: oldest_age_s is the age of the oldest unsettled event, 0 for none."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=100 * s.tick))
    same("of an empty queue", (await t.depth("f/t")).oldest_age_s, 0.0)
    await s.publish(t, "in", event(1))
    await s.wait(2 * s.tick)
    await s.publish(t, "in", event(2))
    age = (await t.depth("f/t")).oldest_age_s
    same("about two ticks", 1.9 * s.tick <= age <= 2.1 * s.tick + 5, True)
    await s.done(t, await s.take(feed, 1))
    same("younger", (await t.depth("f/t")).oldest_age_s < age, True)


@check()
async def depth_is_never_made_up(s: Stage) -> None:
    """G10: of a subscription that does not exist depth raises; where depth is unknown it says so
    by its kind or raises DepthUnknown."""
    t = await s.open()
    await refused("the depth of no subscription", t.depth("nobody/t"))
    if s.features.depth == "unknown":
        await t.subscribe(sub())
        try:
            depth: Depth = await t.depth("f/t")
        except DepthUnknown:
            return
        same("its kind", depth.kind, "unknown")


@check(can=("crash",))
async def depth_of_a_lost_transport_raises(s: Stage) -> None:
    """G10: a transport that lost its mesh raises; it does not answer from memory."""
    t = await s.open()
    await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    assert s.maker.crash is not None
    await s.maker.crash(t)
    await refused("depth", t.depth("f/t"), MeshError)
