"""Bounds: retention, and a queue at its cap."""

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, ids, same, settle, sub
from mesh.letters import DEAD_LETTER
from mesh.transport import Done, Output, Released, Retry


@check(can=("retention_s",))
async def retention_keeps_what_is_unsettled(s: Stage) -> None:
    """Retention: what is settled goes after its time; what any subscription has ready, out or not
    due stays and is delivered."""
    t = await s.open(retention_s=10 * s.tick)
    feed = await t.subscribe(sub(lease_s=1000 * s.tick))
    slow = await t.subscribe(sub(function="slow"))
    for n in range(5):
        await s.publish(t, "in", event(n))
    zero, one, two, three = await s.take(feed, 4)
    await s.settled(t, settle(zero), settle(one), settle(two, Retry(15 * s.tick)))
    await s.done(t, await s.take(slow, 1))
    left = ["0"]
    for n in range(20):
        await s.wait(10 * s.tick)
        await s.publish(t, "elsewhere", event(f"x{n}"), event(f"y{n}"))
        left = await s.ids_in(t, "in")
        if "0" not in left:
            break
    same("what is settled by all is gone", "0" in left, False)
    if s.features.survives_restart:  # what is delivered is then read from the store
        await t.close()
        t = await s.open(retention_s=10 * s.tick)
        feed = await t.subscribe(sub())
        slow = await t.subscribe(sub(function="slow"))
    else:
        await s.settled(t, settle(three, Released()))
    same("deliveries", sorted(ids(await s.take(feed, 3))), ["2", "3", "4"])
    same("the slow one's", ids(await s.take(slow, 4)), ["1", "2", "3", "4"])


@check("queue_cap")
async def a_full_queue_refuses(s: Stage) -> None:
    """Cap, refuse: a publish that would pass the cap is refused as queue_full and reaches nobody;
    what is out counts; a settle makes room."""
    t = await s.open()
    feed = await t.subscribe(sub(cap=2))
    other = await t.subscribe(sub(function="g"))
    receipts = await t.publish("in", [event(n) for n in range(3)])
    same("receipts", [(r.status, r.error) for r in receipts],
         [("stored", ""), ("stored", ""), ("refused", "queue_full")])  # fmt: skip
    same("the reason names the queue", "f/t" in receipts[2].reason, True)
    same("the topic", await s.ids_in(t, "in"), ["0", "1"])
    same("the other queue", ids(await s.take(other, 2)), ["0", "1"])
    await s.nothing(other, "the third was refused")
    got = await s.take(feed, 2)
    (receipt,) = await t.publish("in", [event("more")])
    same("while both are out", receipt.error, "queue_full")
    await s.done(t, got[:1])
    await s.publish(t, "in", event("more"))
    same("with room", ids(await s.take(feed, 1)), ["more"])


@check("queue_cap")
async def a_full_queue_sheds_its_oldest(s: Stage) -> None:
    """Cap, dead-letter: the oldest event that is not out becomes a dead letter with the reason,
    and the new one is stored; where all are out the publish is refused."""
    t = await s.open()
    capped = sub(cap=2, overflow="dead-letter", dlq="dlq")
    feed = await t.subscribe(capped)
    for n in range(4):
        await s.publish(t, "in", event(n))
    same("deliveries", ids(await s.take(feed, 2)), ["2", "3"])
    dead = await t.dead_letters("f/t")
    same("dead letters", [d.event.id for d in dead], ["0", "1"])
    same("the reason says why", "cap" in dead[0].reason, True)
    same("attempts, none of which was made", [d.attempts for d in dead], [0, 0])
    letters = await s.logged(t, "dlq")
    same("letters", [item.event.type for item in letters], [DEAD_LETTER] * 2)
    (receipt,) = await t.publish("in", [event("more")])
    same("while all are out", receipt.error, "queue_full")
    same("dead letters", len(await t.dead_letters("f/t")), 2)


@check("queue_cap", "dedupe")
async def a_duplicate_takes_no_room(s: Stage) -> None:
    """Cap: a duplicate of what is stored is a duplicate, also at the cap: it is neither refused
    nor does it shed anything."""
    t = await s.open()
    await t.subscribe(sub(cap=2))
    await t.subscribe(sub(function="g", topic="g", cap=2, overflow="dead-letter", dlq="dlq"))
    for topic in ("in", "g"):
        await s.publish(t, topic, event(1), event(2))
        (receipt,) = await t.publish(topic, [event(1)])
        same(f"a duplicate in {topic}", (receipt.status, receipt.duplicate), ("stored", True))
    same("dead letters", await t.dead_letters("g/t"), [])


@check("queue_cap")
async def a_refused_event_sheds_nothing(s: Stage) -> None:
    """Cap: where one queue refuses, another queue of the topic sheds nothing for it."""
    t = await s.open()
    await t.subscribe(sub(function="a", cap=1, overflow="dead-letter", dlq="dlq"))
    await t.subscribe(sub(function="b", cap=1))
    await s.publish(t, "in", event(1))
    (receipt,) = await t.publish("in", [event(2)])
    same("the receipt", receipt.error, "queue_full")
    same("dead letters", await t.dead_letters("a/t"), [])


@check("queue_cap")
async def an_output_passes_the_cap(s: Stage) -> None:
    """Cap: an output goes into a full queue, since refusing it would stop its source's settle."""
    t = await s.open()
    feed = await t.subscribe(sub())
    after = await t.subscribe(sub(function="g", topic="out", cap=1))
    await s.publish(t, "in", event(1))
    await s.publish(t, "out", event("full"))
    (d,) = await s.take(feed, 1)
    await s.settled(t, settle(d, Done(), Output("out", event("o"))))
    same("deliveries", ids(await s.take(after, 2)), ["full", "o"])
