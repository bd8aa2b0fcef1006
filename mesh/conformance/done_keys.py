"""Idempotency keys, remembered with the settle."""

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, Unmet, change, event, moment, same, settle, sub
from mesh.transport import Delivery, Done, DoneKey, Output, Settlement, StateOp, Transport

LONG_S = 1e6


def keyed(delivery: Delivery, *keys: bytes, ttl_s: float = LONG_S) -> Settlement:
    """Done, with its keys."""
    return change(settle(delivery), done_keys=tuple(DoneKey(key, ttl_s) for key in keys))


async def known(t: Transport, *keys: bytes, name: str = "f/t") -> list[bytes]:
    """Those that the subscription remembers."""
    found = await t.done_keys(name, keys)
    return [key for key, there in zip(keys, found, strict=True) if there]


@check("idempotency")
async def a_done_key_is_remembered_for_its_time(s: Stage) -> None:
    """Keys: known when commit returns, to their subscription alone, for as long as they were to be
    and no longer; left again, they last anew."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await t.subscribe(sub(function="g"))
    await s.publish(t, "in", *(event(n) for n in range(3)))
    one, two, three = await s.take(feed, 3)
    same("before", await known(t, b"a", b"b"), [])
    await s.settled(t, keyed(one, b"a", b"\0\xff" * 32, ttl_s=4 * s.tick), keyed(two, b"b"))
    asked = b"a", b"a ", b"", b"\0\xff" * 32, b"b"
    same("after", await known(t, *asked), [b"a", b"\0\xff" * 32, b"b"])
    same("another's", await known(t, *asked, name="g/t"), [])
    await s.wait(3 * s.tick)
    same("in its time", await known(t, b"a"), [b"a"])
    await s.settled(t, keyed(three, b"a", ttl_s=4 * s.tick))
    await s.wait(2 * s.tick)
    same("once it was left again", await known(t, *asked), [b"a", b"b"])
    await s.wait(3 * s.tick)
    same("after its time", await known(t, *asked), [b"b"])


@check("idempotency")
async def a_settle_without_effect_leaves_no_key(s: Stage) -> None:
    """G6, keys: what is stale, or in conflict, leaves none; nor does a key keep another settle of
    its subscription from taking effect."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(3)))
    one, two, three = await s.take(feed, 3)
    await s.done(t, [one])
    same("a lost lease", await t.commit([keyed(one, b"stale")]), ["stale"])
    if s.features.state:
        absent = StateOp("c", "k", b"v", if_etag="x")
        conflict = change(keyed(two, b"conflict"), state=(absent,))
        same("an etag that does not hold", await t.commit([conflict]), ["conflict"])
    same("known", await known(t, b"stale", b"conflict"), [])
    await s.settled(t, keyed(two, b"a"))
    await s.settled(t, keyed(three, b"a"))
    same("known", await known(t, b"a"), [b"a"])


@check("idempotency")
async def a_removed_subscription_forgets_its_keys(s: Stage) -> None:
    """Keys: one of the same name that comes later knows none."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    await s.settled(t, keyed((await s.take(feed, 1))[0], b"a"))
    await t.unsubscribe("f/t")
    await t.subscribe(sub())
    same("known", await known(t, b"a"), [])


@check("idempotency", "atomic_settle", can=("crash",))
async def a_done_key_and_its_settle_are_one_over_a_crash(s: Stage) -> None:
    """Keys: killed at any moment of a commit, a key is known exactly where its event is settled,
    with its output; and from then on over every start."""
    t = await s.open()
    await t.subscribe(sub())
    for n, when in enumerate(MOMENTS):
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.publish(t, "in", event(n))
        (d,) = await s.take(feed, 1)
        settlement = change(keyed(d, b"%d" % n), outputs=(Output("out", event(f"o{n}")),))
        work = s.go(t.commit([settlement]))
        await moment(when)
        t = await s.crash(t)
        work.cancel()
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.wait(2 * s.tick)
        again = await feed.pull(1, s.maker.quiet_s)
        there = bool(await known(t, b"%d" % n))
        if bool(again) == there or (f"o{n}" in await s.ids_in(t, "out")) != there:
            raise Unmet(f"killed after {when}: settled {not again}, its key is known: {there}")
        for delivery in again:
            await s.settled(t, change(settlement, settled=settle(delivery, Done()).settled))
    every = [b"%d" % n for n in range(len(MOMENTS))]
    same("known", await known(t, *every), every)
