"""What a transport keeps for the host: records, blobs, its own description."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, change, event, refused, same, settle, sub
from mesh.errors import UnsupportedFeature
from mesh.transport import DoneKey, StateOp


@check()
async def records_are_an_ordered_log(s: Stage) -> None:
    """Records: of a kind, in the order appended, each with a number above the one before; kinds are
    apart; also with several that append at once."""
    t = await s.open()
    numbers = [await t.append_record("deploy", f"{n}".encode()) for n in range(3)]
    await t.append_record("other", b"x")
    numbers += await asyncio.gather(*(t.append_record("deploy", b"same") for _ in range(3)))
    same("numbers", len(set(numbers)), 6)
    same("they rise", numbers[:3], sorted(numbers[:3]))
    found = await t.records("deploy")
    same("bodies", [body for _, body in found], [b"0", b"1", b"2"] + [b"same"] * 3)
    same("sequence", [seq for seq, _ in found], sorted(numbers))
    same("from one on", await t.records("deploy", after=numbers[1]), found[2:])
    same("of no kind", await t.records("none"), [])


@check(can=("crash",))
async def records_and_blobs_survive_a_crash(s: Stage) -> None:
    """Records: durable when appended; a blob too, and putting it again is harmless."""
    t = await s.open()
    seq = await t.append_record("deploy", b"\x00\xff")
    t = await s.crash(t)
    await t.put_blob("digest", b"\x00" * 100_000)
    t = await s.crash(t)
    await t.put_blob("digest", b"\x00" * 100_000)
    same("records", await t.records("deploy"), [(seq, b"\x00\xff")])
    same("the blob", await t.get_blob("digest"), b"\x00" * 100_000)
    same("none", await t.get_blob("absent"), None)
    same("the next record", await t.append_record("deploy", b"") > seq, True)


@check()
async def it_says_what_stored_means(s: Stage) -> None:
    """G1: durability() is a sentence, and share() is above 0 and at most 1."""
    t = await s.open()
    await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    sentence = await t.durability()
    same("a sentence", len(sentence) > 20 and "stored" in sentence, True)
    same("the share of one host", await t.share("f/t"), 1.0)
    same("its features", t.features, s.features)


@check("lacks")
async def what_it_lacks_is_refused(s: Stage) -> None:
    """Features: what the record says is absent raises UnsupportedFeature; it is never ignored."""
    t = await s.open()
    has = s.features
    for present, asked in (
        (has.broadcast, sub(function="b", mode="broadcast", host="h")),
        (has.order_key, sub(function="o", order="key")),
        (has.queue_cap, sub(function="c", cap=1)),
    ):
        if not present:
            await refused(asked.name, t.subscribe(asked), UnsupportedFeature)
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    if not has.replay:
        await refused("replay", t.replay("f/t", "earliest", "now", "r"), UnsupportedFeature)
    if not has.request:
        await refused("request", t.request("in", event(2), 0.05), UnsupportedFeature)
    (d,) = await s.take(feed, 1)
    if not has.state:
        op = StateOp("c", "k", b"v")
        await refused("state", t.commit([settle(d, state=(op,))]), UnsupportedFeature)
    if not has.idempotency:
        keyed = change(settle(d), done_keys=(DoneKey(b"k", 60.0),))
        await refused("a key", t.commit([keyed]), UnsupportedFeature)
        await refused("keys", t.done_keys("f/t", [b"k"]), UnsupportedFeature)
    await s.done(t, [d])
