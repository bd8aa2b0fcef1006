"""Settling: exactly one end, with its outputs, and only by the one that holds the lease."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import (
    MOMENTS,
    Stage,
    Unmet,
    cut_off,
    event,
    ids,
    moment,
    refused,
    same,
    settle,
    sub,
)
from mesh.errors import MeshFull, NameInvalid
from mesh.transport import (
    Dead,
    Done,
    Filtered,
    Outcome,
    Output,
    Released,
    Retry,
    Settled,
    Settlement,
)


@check()
async def an_output_is_durable_with_its_settle(s: Stage) -> None:
    """G3: when commit returns, outputs are in their topics and queues with their hops, and the
    source is gone; filtered ends a delivery too."""
    t = await s.open()
    feed = await t.subscribe(sub())
    after = await t.subscribe(sub(function="g", topic="out"))
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    out = Output("out", event("o1"), hops=3)
    await s.settled(t, settle(one, Done(), out), settle(two, Filtered()))
    same("the topic", [(i.event, i.hops) for i in await s.logged(t, "out")], [(out.event, 3)])
    (o,) = await s.take(after, 1)
    same("the delivery", (o.event, o.hops), (out.event, 3))
    await s.nothing(feed, "both are settled")


@check(can=("crash",))
async def a_settle_survives_a_crash_with_its_outputs(s: Stage) -> None:
    """G2, G3: killed right after commit returned, the output is there and the source is gone; what
    was out and not settled comes again."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", event(1), event(2))
    one, _ = await s.take(feed, 2)
    await s.settled(t, settle(one, Done(), Output("out", event("o1"))))
    t = await s.crash(t)
    same("the topic", await s.ids_in(t, "out"), ["o1"])
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.wait(2 * s.tick)
    same("deliveries", ids(await s.take(feed, 1)), ["2"])
    await s.nothing(feed, "the other is settled")


@check()
async def a_delivery_is_settled_once(s: Stage) -> None:
    """G6: of two settles of one delivery, at once or one after the other or within one
    settlement, one takes effect, with its outputs alone."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    both = await asyncio.gather(
        t.commit([settle(one, Done(), Output("out", event("a")))]),
        t.commit([settle(one, Done(), Output("out", event("b")))]),
    )
    same("both at once", sorted(both), [["settled"], ["stale"]])
    same("a third", await t.commit([settle(one, Done(), Output("out", event("c")))]), ["stale"])
    same("outputs", len(await s.ids_in(t, "out")), 1)
    same("two in one commit", await t.commit([settle(two), settle(two, Retry(0.0))]),
         ["settled", "stale"])  # fmt: skip
    await s.nothing(feed, "both are settled")


@check()
async def a_stale_delivery_settles_nothing(s: Stage) -> None:
    """G6: a delivery whose lease was lost cannot settle, whatever the outcome; its outputs are not
    written, and the one that holds the lease now can."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=2 * s.tick))
    await s.publish(t, "in", event(1))
    (old,) = await s.take(feed, 1)
    await s.wait(3 * s.tick)
    (new,) = await s.take(feed, 1)
    letter = Output("dlq", event("letter"))
    for outcome in (Done(), Retry(0.0), Dead("bad", letter), Released(), Filtered()):
        gone = await t.commit([settle(old, outcome, Output("out", event("o")))])
        same(f"the lost lease's {type(outcome).__name__}", gone, ["stale"])
    same("its outputs", await s.ids_in(t, "out") + await s.ids_in(t, "dlq"), [])
    await s.settled(t, settle(new, Done(), Output("out", event("o"))))
    same("the holder's output", await s.ids_in(t, "out"), ["o"])


@check(can=("crash",))
async def a_delivery_from_before_a_crash_is_stale(s: Stage) -> None:
    """G6: what a killed host held cannot settle what its successor holds."""
    t = await s.open()
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.publish(t, "in", *(event(n) for n in range(4)))
    old = await s.take(feed, 4)
    await s.done(t, old[:2])
    t = await s.crash(t)
    feed = await t.subscribe(sub(lease_s=s.tick))
    await s.wait(2 * s.tick)
    new = await s.take(feed, 2)
    for delivery in old:
        same(f"the old delivery of {delivery.event.id}",
             await t.commit([settle(delivery, Done(), Output("out", event("o")))]),
             ["stale"])  # fmt: skip
    same("its outputs", await s.ids_in(t, "out"), [])
    same("the new ones", ids(new), ["2", "3"])
    await s.done(t, new)


@check()
async def a_bad_name_settles_nothing(s: Stage) -> None:
    """G2: an output or a dead letter for a topic that can be none is refused with NameInvalid,
    nothing of the commit takes effect, and its deliveries stay leased."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    for bad in (
        settle(two, Done(), Output("a/b", event("o"))),
        settle(two, Dead("bad", Output("a/b", event("l")))),
    ):
        await refused("a topic with a slash", t.commit([settle(one), bad]), NameInvalid)
    same("topics", await t.topics(), {"in": 2})
    await s.nothing(feed, "both are leased")
    await s.done(t, [one, two])


@check("atomic_batch")
async def a_settlement_is_one_unit(s: Stage) -> None:
    """G6: one lost lease in a settlement keeps all of it from taking effect."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(3)))
    one, two, three = await s.take(feed, 3)
    await s.done(t, [two])
    outputs = (Output("out", event("o")),)
    every = tuple(Settled(d, Done()) for d in (one, two, three))
    same("with one lost", await t.commit([Settlement("f/t", every, outputs)]), ["stale"])
    same("outputs", await s.ids_in(t, "out"), [])
    rest = tuple(Settled(d, Done()) for d in (one, three))
    await s.settled(t, Settlement("f/t", rest, outputs))
    same("outputs", await s.ids_in(t, "out"), ["o"])
    await s.nothing(feed, "all are settled")


@check("delayed_retry")
async def items_of_a_batch_end_each_their_own_way(s: Stage) -> None:
    """G2: of one settlement each delivery has its own outcome, and exactly one."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(6)))
    got = await s.take(feed, 6)
    letter = Output("dlq", event("letter"))
    outcomes: tuple[Outcome, ...] = (
        Done(), Retry(0.0, "now"), Dead("bad", letter),
        Released(), Filtered(), Dead("dropped", None),
    )  # fmt: skip
    pairs = tuple(Settled(d, outcome) for d, outcome in zip(got, outcomes, strict=True))
    await s.settled(t, Settlement("f/t", pairs, (Output("out", event("o")),)))
    back = await s.take(feed, 2)
    same("what comes again", sorted((d.event.id, d.attempt) for d in back), [("1", 2), ("3", 1)])
    await s.done(t, back)
    await s.nothing(feed, "each has its end")
    same("letters", await s.ids_in(t, "dlq"), ["letter"])
    same("listed", [d.event.id for d in await t.dead_letters("f/t")], ["2"])


@check("dedupe")
async def a_repeated_output_is_stored_once(s: Stage) -> None:
    """G4: an output of the same derived id, from a call that ran again, is not doubled."""
    t = await s.open()
    feed = await t.subscribe(sub())
    after = await t.subscribe(sub(function="g", topic="out"))
    await s.publish(t, "in", event(1), event(2))
    for d in await s.take(feed, 2):
        out = Output("out", event("derived"))
        await s.settled(t, settle(d, Done(), out, out))
    same("the topic", await s.ids_in(t, "out"), ["derived"])
    same("deliveries", ids(await s.take(after, 1)), ["derived"])
    await s.nothing(after, "it came once")


@check(can=("full",))
async def a_full_store_keeps_the_leases(s: Stage) -> None:
    """G3, G5: where an output or a dead letter cannot be stored, commit raises MeshFull, the
    source stays unsettled and leased, and the same commit works once there is room."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    one, two = await s.take(feed, 2)
    large = b"x" * 60_000
    outputs = [Output("out", event(f"o{n}", large)) for n in range(20)]
    settlements = [
        settle(one, Done(), *outputs),
        settle(two, Dead("bad", Output("dlq", event("letter", large)))),
    ]
    async with s.full(t):
        await refused("a commit without room", t.commit(settlements), MeshFull)
        await s.nothing(feed, "both are still leased")
    if s.features.atomic_settle:
        same("outputs", await s.ids_in(t, "out") + await s.ids_in(t, "dlq"), [])
        same("dead letters", await t.dead_letters("f/t"), [])
    await s.settled(t, *settlements)
    same("outputs", await s.ids_in(t, "out"), [f"o{n}" for n in range(20)])
    same("letters", await s.ids_in(t, "dlq"), ["letter"])
    await s.nothing(feed, "both are settled")


@check("dedupe")
async def a_cancelled_commit_can_be_made_again(s: Stage) -> None:
    """G2, G6: cancelled at any moment, a commit took effect whole or not at all; again, it is
    settled or stale, and its output is there once."""
    t = await s.open()
    feed = await t.subscribe(sub())
    for n, when in enumerate(MOMENTS):
        await s.publish(t, "in", event(n))
        (d,) = await s.take(feed, 1)
        settlement = settle(d, Done(), Output("out", event(f"o{n}")))
        await cut_off(t.commit([settlement]), when)
        (gone,) = await t.commit([settlement])
        if gone == "conflict":
            raise Unmet(f"cancelled after {when}, the commit made again is a conflict")
    same("outputs", await s.ids_in(t, "out"), [f"o{n}" for n in range(len(MOMENTS))])
    await s.nothing(feed, "each is settled")


@check("dedupe", can=("crash",))
async def a_commit_that_a_crash_cut_off_is_whole_or_nothing(s: Stage) -> None:
    """G3, G5: killed at any moment of a commit, an event is unsettled, or settled with its output
    or dead letter there; run again, nothing is doubled."""
    t = await s.open()
    for n, when in enumerate(MOMENTS):
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.publish(t, "in", event(f"{n}a"), event(f"{n}b"))
        out, letter = Output("out", event(f"o{n}")), Output("dlq", event(f"l{n}"))
        a, b = await s.take(feed, 2)
        work = s.go(t.commit([settle(a, Done(), out), settle(b, Dead("bad", letter))]))
        await moment(when)
        t = await s.crash(t)
        work.cancel()
        feed = await t.subscribe(sub(lease_s=s.tick))
        await s.wait(2 * s.tick)
        again = await feed.pull(2, s.maker.quiet_s)
        for made, source in ((f"o{n}", f"{n}a"), (f"l{n}", f"{n}b")):
            there = made in await s.ids_in(t, "out") + await s.ids_in(t, "dlq")
            open_ = source in ids(again)
            if not there and not open_:
                raise Unmet(f"killed after {when}: {source} is settled without {made}")
            if there and open_ and s.features.atomic_settle:
                raise Unmet(f"killed after {when}: {made} is there and {source} is not settled")
        for d in again:
            ended = Done() if d.event.id.endswith("a") else Dead("bad", letter)
            await s.settled(t, settle(d, ended, *([out] if isinstance(ended, Done) else [])))
    every = range(len(MOMENTS))
    same("outputs", await s.ids_in(t, "out"), [f"o{n}" for n in every])
    same("letters", await s.ids_in(t, "dlq"), [f"l{n}" for n in every])
    same("listed", [d.event.id for d in await t.dead_letters("f/t")], [f"{n}b" for n in every])
