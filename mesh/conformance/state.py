"""Keyed state, written with the settle."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, Unmet, event, moment, same, settle, sub
from mesh.transport import Done, Output, StateOp


@check("state")
async def state_is_written_with_the_settle(s: Stage) -> None:
    """Settle: values are there when commit returns, each with an etag; None deletes; scopes are
    apart; a value that expired is absent."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    same("absent", await t.state("cart", "k"), None)
    await s.settled(t, settle(one, state=(
        StateOp("cart", "k", b"1"), StateOp("cart", "gone", b"2"), StateOp("other", "k", b""),
        StateOp("cart", "short", b"3", expires_at=s.now() + 2 * s.tick))))  # fmt: skip
    found = [await t.state(*at) for at in (("cart", "k"), ("cart", "gone"), ("other", "k"))]
    same("values", [v and v[0] for v in found], [b"1", b"2", b""])
    same("expires later", (await t.state("cart", "short") or [None])[0], b"3")
    await s.wait(3 * s.tick)
    same("expired", await t.state("cart", "short"), None)
    await s.settled(t, settle(two, state=(StateOp("cart", "gone", None),)))
    same("deleted", await t.state("cart", "gone"), None)
    same("the other", (await t.state("cart", "k") or [None])[0], b"1")


@check("state")
async def a_conflict_leaves_the_lease(s: Stage) -> None:
    """Settle: where an etag does not hold, nothing of the settlement takes effect and its delivery
    stays leased, to be settled anew."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    create = StateOp("cart", "k", b"1", if_etag="")
    await s.settled(t, settle(one, state=(create,)))
    both = (StateOp("cart", "other", b"2"), create)
    gone = await t.commit([settle(two, Done(), Output("out", event("o")), state=both)])
    same("the commit", gone, ["conflict"])
    same("its output", await s.ids_in(t, "out"), [])
    same("its other value", await t.state("cart", "other"), None)
    await s.nothing(feed, "it is still leased")
    _, etag = await t.state("cart", "k") or (b"", "")
    update = StateOp("cart", "k", b"2", if_etag=etag)
    await s.settled(t, settle(two, Done(), Output("out", event("o")), state=(update,)))
    same("the value", (await t.state("cart", "k") or [None])[0], b"2")
    same("its output", await s.ids_in(t, "out"), ["o"])


@check("state")
async def one_of_two_writers_of_an_etag_wins(s: Stage) -> None:
    """Settle: of several settlements that expect one etag, in one commit or at once, one is
    settled; an etag never comes back, also after a delete."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(8)))
    got = await s.take(feed, 8)
    create = [settle(d, state=(StateOp("c", "k", d.event.id.encode(), if_etag=""),)) for d in got]
    gone = await t.commit(create[:3])
    same("in one commit", gone, ["settled", "conflict", "conflict"])
    _, first = await t.state("c", "k") or (b"", "")
    several = [
        settle(d, state=(StateOp("c", "k", d.event.id.encode(), if_etag=first),)) for d in got[1:5]
    ]
    outcomes = [g for (g,) in await asyncio.gather(*(t.commit([one]) for one in several))]
    same("at once", sorted(outcomes), ["conflict"] * 3 + ["settled"])
    await s.settled(t, settle(got[5], state=(StateOp("c", "k", None),)))
    await s.settled(t, settle(got[6], state=(StateOp("c", "k", b"new", if_etag=""),)))
    late = settle(got[7], state=(StateOp("c", "k", b"late", if_etag=first),))
    same("after it was deleted and made again", await t.commit([late]), ["conflict"])
    same("the value", (await t.state("c", "k") or [None])[0], b"new")


@check("state", "atomic_settle", can=("crash",))
async def state_and_settle_are_one_over_a_crash(s: Stage) -> None:
    """Settle: killed at any moment of a commit, the count kept in state is the number of events
    settled."""
    t = await s.open()
    await t.subscribe(sub())
    for n, when in enumerate(MOMENTS):
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.publish(t, "in", event(n))
        (d,) = await s.take(feed, 1)
        value, etag = await t.state("c", "count") or (b"0", "")
        same("the count", int(value), n)
        op = StateOp("c", "count", str(n + 1).encode(), if_etag=etag)
        work = s.go(t.commit([settle(d, state=(op,))]))
        await moment(when)
        t = await s.crash(t)
        work.cancel()
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.wait(2 * s.tick)
        again = await feed.pull(1, s.maker.quiet_s)
        value, _ = await t.state("c", "count") or (b"0", "")
        if bool(again) == (int(value) == n + 1):
            raise Unmet(f"killed after {when}: the event is settled: {not again}, count {value!r}")
        for delivery in again:
            await s.settled(t, settle(delivery, state=(op,)))
