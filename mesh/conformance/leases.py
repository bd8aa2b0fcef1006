"""Leases: how long a delivery is its holder's alone."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, ids, same, settle, sub
from mesh.transport import Delivery


@check()
async def a_lost_lease_is_delivered_again(s: Stage) -> None:
    """G2, G6: when a lease runs out the event is ready again, uncharged, under a new fence."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=2 * s.tick))
    await s.publish(t, "in", event(1))
    (old,) = await s.take(feed, 1)
    await s.nothing(feed, "it is leased")
    await s.wait(3 * s.tick)
    (new,) = await s.take(feed, 1)
    same("the event", (new.event.id, new.attempt), ("1", 1))
    same("a new fence", new.fence != old.fence, True)


@check()
async def a_lease_that_runs_out_wakes_a_waiting_pull(s: Stage) -> None:
    """G2: a pull that waits gets the event of a lease that runs out, also of one cut short by
    extend after the pull began."""
    t = await s.open()
    feed, other = await t.subscribe(sub(lease_s=s.tick)), await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    waiting = s.go(other.pull(1, 60))
    await asyncio.sleep(0.01)
    await s.wait(2 * s.tick)
    await feed.extend([], 1.0)
    await s.publish(t, "elsewhere", event("x"))
    (d,) = await asyncio.wait_for(waiting, s.maker.patience_s + 2 * s.tick)
    await other.extend([d], 100 * s.tick)
    waiting = s.go(feed.pull(1, 60))
    await asyncio.sleep(0.01)
    await other.extend([d], 0.05)
    await s.wait(0.06)
    got = await asyncio.wait_for(waiting, s.maker.patience_s)
    same("after the lease was cut short", ids(got), ["1"])


@check()
async def an_extended_lease_lasts(s: Stage) -> None:
    """G6: extend makes a lease last that long from now, and no longer."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=2 * s.tick))
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    await feed.extend([one, two], 6 * s.tick)
    await s.wait(4 * s.tick)
    await s.nothing(feed, "both were extended")
    await s.done(t, [one])
    await s.wait(3 * s.tick)
    same("after the extension", ids(await s.take(feed, 1)), ["2"])
    same("the old lease", await t.commit([settle(two)]), ["stale"])


@check()
async def extend_does_not_bring_a_lost_lease_back(s: Stage) -> None:
    """G6: a lease that ran out, or was settled, is not extended: the event is another's, once."""
    t = await s.open()
    feed, other = await t.subscribe(sub(lease_s=s.tick)), await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", *(event(n) for n in range(10)))
    old = await s.take(feed, 10)
    await s.done(t, old[:1])
    await feed.extend(old[:1], 100 * s.tick)
    await s.wait(2 * s.tick)

    async def extend() -> None:
        for delivery in old:
            await feed.extend([delivery], 100 * s.tick)

    async def pull() -> list[Delivery]:
        return await other.pull(10, s.maker.patience_s)

    _, got = await asyncio.gather(s.go(extend()), s.go(pull()))
    while more := await other.pull(10, s.maker.quiet_s):
        got += more
    same("events that came again", sorted(ids(got)), [str(n) for n in range(1, 10)])
    gone = [(await t.commit([settle(d)]))[0] for d in old]
    same("what the old leases settle", gone, ["stale"] * 10)


@check(can=("step_wall",))
async def a_step_of_the_wall_clock_ends_no_lease(s: Stage) -> None:
    """G12: leases run on monotonic time; the wall clock's jumps neither end nor prolong one."""
    assert s.maker.step_wall is not None
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=2 * s.tick))
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    await feed.extend([two], 2 * s.tick)
    s.maker.step_wall(3600)
    await s.nothing(feed, "the wall clock went forward")
    await s.done(t, [one])
    s.maker.step_wall(-7200)
    await s.wait(3 * s.tick)
    same("after its time", ids(await s.take(feed, 1)), ["2"])
