"""Reading and asking: tails, reads that leave no trace, request and reply."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, ids, refused, same, settle, sub
from mesh.transport import Dead, Done, Logged, Output, Retry, Transport


async def _tail(t: Transport, topic: str, start: str, count: int) -> list[str]:
    """The ids of the first `count` events of a tail."""
    seen: list[str] = []
    tail = cast("Any", t.tail(topic, start))
    async with aclosing(tail):
        async for item in cast("AsyncIterator[Logged]", tail):
            seen.append(item.event.id)
            if len(seen) == count:
                break
    return seen


@check()
async def a_tail_sees_everything_in_order(s: Stage) -> None:
    """Tail: several tails from the earliest or a position see every event once, in order, those
    stored before and those that come, with several publishers; nothing is settled by it."""
    t = await s.open()
    feed = await t.subscribe(sub())
    positions = await s.publish(t, "in", *(event(n) for n in range(20)))
    tails = [s.go(_tail(t, "in", "earliest", 100)) for _ in range(3)]
    tails.append(s.go(_tail(t, "in", f"@{positions[10]}", 90)))
    await asyncio.sleep(0.01)

    async def publisher(name: int) -> None:
        for n in range(20):
            await s.publish(t, "in", event(f"{name}-{n}"))

    await asyncio.gather(*(publisher(name) for name in range(4)))
    seen = await asyncio.wait_for(asyncio.gather(*tails), s.maker.patience_s)
    every = await s.ids_in(t, "in")
    same("the topic", len(every), 100)
    for one, first in zip(seen, (0, 0, 0, 10), strict=True):
        same("a tail", one, every[first:])
    same("deliveries", ids(await s.take(feed, 100)), every)


@check()
async def a_new_tail_sees_what_comes(s: Stage) -> None:
    """Tail: from `new`, it sees what is stored after it began, and of its topic alone."""
    t = await s.open()
    await s.publish(t, "in", event("old"))
    tail = s.go(_tail(t, "in", "new", 2))
    await asyncio.sleep(s.maker.quiet_s + 0.01)
    await s.publish(t, "other", event("elsewhere"))
    await s.publish(t, "in", event("a"), event("b"))
    same("the tail", await asyncio.wait_for(tail, s.maker.patience_s), ["a", "b"])


@check(can=("connect",))
async def others_publish_and_tail_beside_the_host(s: Stage) -> None:
    """Tail, G2: further connections publish, read and tail the same mesh at once; each event is
    delivered once and seen once by each tail; duplicates are known across them."""
    t = await s.open()
    feed = await t.subscribe(sub())
    clients = [await s.connect() for _ in range(3)]
    tails = [s.go(_tail(one, "in", "earliest", 60)) for one in [t, *clients]]

    async def publisher(one: Transport, name: int) -> None:
        for n in range(20):
            receipts = await one.publish("in", [event(f"{name}-{n}")])
            same("the receipt", receipts[0].status, "stored")

    await asyncio.gather(*(publisher(one, n) for n, one in enumerate(clients)))
    got = await s.take(feed, 60)
    await s.nothing(feed, "each was delivered")
    for seen in await asyncio.wait_for(asyncio.gather(*tails), s.maker.patience_s):
        same("a tail", seen, ids(got))
    for one in clients:
        same("topics", await one.topics(), {"in": 60})
        if s.features.dedupe:
            (receipt,) = await one.publish("in", [event("0-0")])
            same("a duplicate", receipt.duplicate, True)


@check()
async def reading_leaves_no_trace(s: Stage) -> None:
    """Read: up to `limit` events from a start on; of a topic that is none, nothing, and it is not
    made; queues and depth stay."""
    t = await s.open()
    feed = await t.subscribe(sub())
    positions = await s.publish(t, "in", *(event(n) for n in range(5)))
    for start, limit, wanted in (
        ("earliest", 3, "012"),
        (f"@{positions[3]}", 10, "34"),
        ("new", 10, ""),
    ):
        found = await t.read("in", start, limit)
        same(f"from {start}", [item.event.id for item in found], list(wanted))
    same("of no topic", await t.read("nowhere", "earliest", 10), [])
    same("topics", await t.topics(), {"in": 5})
    await refused("a start that is none", t.read("in", "yesterday", 1))
    same("deliveries", ids(await s.take(feed, 5)), list("01234"))


@check("request")
async def a_request_gets_what_the_call_returned(s: Stage) -> None:
    """Request: the reply goes to the one that asked, also after a retry, and to no topic; several
    at once each get their own."""
    t = await s.open()
    feed = await t.subscribe(sub())

    async def serve() -> None:
        for _ in range(12):
            (d,) = await s.take(feed, 1)
            if d.event.id.startswith("odd") and d.attempt == 1:
                await s.settled(t, settle(d, Retry(0.0)))
                continue
            answer = event(f"to-{d.event.id}")
            await s.settled(t, settle(d, Done(), Output("", answer, reply_to=d.reply_to)))

    server = s.go(serve())
    names = [f"{'odd' if n % 2 else 'even'}{n}" for n in range(8)]
    answers = await asyncio.gather(*(t.request("in", event(name), 10) for name in names))
    same("answers", [[e.id for e in found] for found in answers], [[f"to-{n}"] for n in names])
    await server
    same("topics", await t.topics(), {"in": 8})


@check("request")
async def a_request_that_nobody_answers_ends(s: Stage) -> None:
    """Request: TimeoutError after its time, and the event still has its end; one that died for good
    is refused, and one that is there already, at once; a reply to an address that is gone is no
    harm."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await refused("nobody answers", t.request("in", event(1), 0.05), TimeoutError)
    (d,) = await s.take(feed, 1)
    reply = Output("", event("late"), reply_to=d.reply_to)
    await s.settled(t, settle(d, Done(), reply))
    asked = s.go(t.request("in", event(2), 10))
    (d,) = await s.take(feed, 1)
    await s.settled(t, settle(d, Dead("bad", Output("dlq", event("letter")))))
    await refused("it died", asked)
    await refused("it is there already", t.request("in", event(2), 10))
    await s.nothing(feed, "both have their end")
