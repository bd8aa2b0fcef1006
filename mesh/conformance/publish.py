"""Publishing: receipts, durability, duplicates, what comes out is what went in."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, cut_off, event, ids, moment, refused, same, sub
from mesh.event import Event
from mesh.transport import Transport


@check()
async def a_publish_gives_each_event_its_receipt(s: Stage) -> None:
    """G1: each event has a receipt, in order; positions lead back to the events."""
    t = await s.open()
    same("receipts of no events", await t.publish("in", []), [])
    positions = await s.publish(t, "in", *(event(n) for n in range(5)))
    same("different positions", len(set(positions)), 5)
    logged = await s.logged(t, "in")
    same("the topic", [(i.event.id, i.position) for i in logged],
         [(str(n), position) for n, position in enumerate(positions)])  # fmt: skip
    (third,) = await t.read("in", f"@{positions[2]}", 1)
    same("what a position leads to", third.event.id, "2")
    same("topics", await t.topics(), {"in": 5})


@check(can=("crash",))
async def what_is_stored_survives_a_crash(s: Stage) -> None:
    """G1: an event whose receipt says stored is in its topic and queues after a kill."""
    t = await s.open()
    await t.subscribe(sub())
    for n in range(5):
        await s.publish(t, "in", event(n))
        t = await s.crash(t)
        same("the topic", await s.ids_in(t, "in"), [str(m) for m in range(n + 1)])
    feed = await t.subscribe(sub())
    same("the queue", [d.event.id for d in await s.take(feed, 5)], list("01234"))


@check()
async def an_event_comes_out_as_it_went_in(s: Stage) -> None:
    """G2: attributes, extensions, data and hops are the same in the topic and in a delivery."""
    t = await s.open()
    feed = await t.subscribe(sub())
    events = [
        Event("1", "/s?q=%20", "t", "subject", "2024-02-29T23:59:59.1234500Z", "text/plain",
              "urn:schema", {"flag": True, "count": -2147483648, "word": "ü\U0001f600"},
              b"\r\n\x00\xff windows and worse"),
        Event("2", "/s", "t", data=None),
        Event("3", "/s", "t", data=b""),
        Event("4", "/s", "t", datacontenttype="application/json", data=b'{"a": 1 }\n'),
    ]  # fmt: skip
    receipts = await t.publish("in", events, hops=3)
    same("receipts", [r.status for r in receipts], ["stored"] * 4)
    got = await s.take(feed, 4)
    same("deliveries", [d.event for d in got], events)
    same("types of data", [type(d.event.data) for d in got],
         [bytes, type(None), bytes, bytes])  # fmt: skip
    same("types of extensions", [type(v) for v in got[0].event.extensions.values()],
         [bool, int, str])  # fmt: skip
    same("hops", [d.hops for d in got], [3] * 4)
    logged = await s.logged(t, "in")
    same("the topic", [(i.event, i.hops) for i in logged], [(e, 3) for e in events])


@check()
async def one_bad_event_spoils_no_other(s: Stage) -> None:
    """G1: an invalid event gets a receipt that refuses it and says why; the others are stored."""
    t = await s.open()
    receipts = await t.publish("in", [event(1), Event("", "/s", "t"), event(3)])
    same("receipts", [r.status for r in receipts], ["stored", "refused", "stored"])
    same("the error", receipts[1].error, "invalid")
    same("a reason is given", bool(receipts[1].reason), True)
    same("the topic", await s.ids_in(t, "in"), ["1", "3"])
    await refused("a topic name with a slash", t.publish("a/b", [event(1)]))


@check()
async def several_publishers_lose_and_double_nothing(s: Stage) -> None:
    """G2: with several publishers at once every event is delivered once, each one's in order."""
    t = await s.open()
    feed = await t.subscribe(sub())

    async def publisher(name: int) -> None:
        for n in range(25):
            await s.publish(t, "in", event(f"{name}-{n}"))

    work = [s.go(publisher(name)) for name in range(8)]
    got = await s.take(feed, 200)
    await asyncio.gather(*work)
    for name in range(8):
        mine = [d.event.id for d in got if d.event.id.startswith(f"{name}-")]
        same(f"publisher {name}'s events", mine, [f"{name}-{n}" for n in range(25)])
    await s.nothing(feed, "all were delivered")
    same("the topic", await s.ids_in(t, "in"), [d.event.id for d in got])


@check("dedupe")
async def a_duplicate_is_stored_once(s: Stage) -> None:
    """G2: within the window the same (source, id) is stored once, however it comes again; another
    source or another topic is no duplicate."""
    t = await s.open()
    feed = await t.subscribe(sub())
    first, again, other = await t.publish("in", [event(1), event(1), event(1, source="/x")])
    same("duplicates within a publish", [first.duplicate, again.duplicate, other.duplicate],
         [False, True, False])  # fmt: skip
    (later,) = await t.publish("in", [event(1, b"other data")])
    same("a later one", (later.status, later.duplicate), ("stored", True))
    many = await asyncio.gather(*(t.publish("in", [event("same")]) for _ in range(10)))
    same("stored of ten at once", sum(not r.duplicate for (r,) in many), 1)
    (elsewhere,) = await t.publish("elsewhere", [event(1)])
    same("in another topic", elsewhere.duplicate, False)
    got = await s.take(feed, 3)
    same("deliveries", [(d.event.source, d.event.id) for d in got],
         [("/conformance", "1"), ("/x", "1"), ("/conformance", "same")])  # fmt: skip
    await s.nothing(feed, "the rest were duplicates")


@check("dedupe", can=("crash",))
async def a_duplicate_is_known_after_a_crash(s: Stage) -> None:
    """G2: the deduplication window outlives the host."""
    t = await s.open()
    await s.publish(t, "in", *(event(n) for n in range(300)))
    t = await s.crash(t)
    receipts = await t.publish("in", [event(n) for n in range(301)])
    same("new ones", [n for n, r in enumerate(receipts) if not r.duplicate], [300])


@check("dedupe")
async def a_cancelled_publish_may_be_tried_again(s: Stage) -> None:
    """G1: cancelled at any moment, a publish is stored or not; again with the same ids, once."""
    t = await s.open()
    feed = await t.subscribe(sub())
    for n, when in enumerate(MOMENTS):
        await cut_off(t.publish("in", [event(f"{n}a"), event(f"{n}b")]), when)
        await s.publish(t, "in", event(f"{n}a"), event(f"{n}b"))
    wanted = [f"{n}{x}" for n in range(len(MOMENTS)) for x in "ab"]
    got = await s.take(feed, len(wanted))
    same("deliveries", [d.event.id for d in got], wanted)
    await s.nothing(feed, "each was delivered")


@check("dedupe", can=("crash",))
async def a_publish_that_a_crash_cut_off_may_be_tried_again(s: Stage) -> None:
    """G1, G2: killed at any moment of a publish, the store holds each event once or not at all;
    published again with the same ids, each is delivered once."""
    t = await s.open()
    for n, when in enumerate(MOMENTS):
        feed = await t.subscribe(sub())
        work = s.go(_publish_all(t, n))
        await moment(when)
        t = await s.crash(t)
        work.cancel()
        feed = await t.subscribe(sub())
        await _publish_all(t, n)
        got = await s.take(feed, 6)
        same(f"killed after {when}", [d.event.id for d in got], [f"{n}-{m}" for m in range(6)])
        await s.done(t, got)
        await s.nothing(feed, "each was delivered")


async def _publish_all(t: Transport, n: int) -> None:
    for m in range(0, 6, 2):
        await t.publish("in", [event(f"{n}-{m}"), event(f"{n}-{m + 1}")])


@check(can=("full",))
async def a_full_store_refuses_and_recovers(s: Stage) -> None:
    """G1: with no room a publish is refused with a reason, nothing of it is stored, what was
    stored stays, and with room again it goes on."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event("before"))
    large = [event(n, b"x" * 60_000) for n in range(20)]
    async with s.full(t):
        receipts = await t.publish("in", large)
        full = [receipt for receipt in receipts if receipt.status == "refused"]
        same("some are refused as full", {r.error for r in full}, {"full"})
        same("with a reason", all(r.reason for r in full), True)
    stored = [r.position for r in receipts if r.status == "stored"]
    same("the topic", len(await s.logged(t, "in")), 1 + len(stored))
    await s.publish(t, "in", event("after"), *large)
    names = {"before", "after", *(str(n) for n in range(20))}
    same("deliveries", set(ids(await s.take(feed, 22))), names)
    await s.nothing(feed, "each was delivered")
