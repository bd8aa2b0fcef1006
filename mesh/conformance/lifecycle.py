"""Opening, closing, and what does not cross between namespaces."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, event, ids, moment, refused, same, settle, sub
from mesh.errors import MeshClosed
from mesh.transport import Done, Output, Receipt, StateOp, Transport


@check()
async def a_closed_transport_says_so(s: Stage) -> None:
    """Close: twice is harmless; then publish, subscribe, pull, commit and what reads raise
    MeshClosed."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    await t.close()
    await t.close()
    await refused("publish", t.publish("in", [event(2)]), MeshClosed)
    await refused("subscribe", t.subscribe(sub()), MeshClosed)
    await refused("pull", feed.pull(1, 0.0), MeshClosed)
    await refused("commit", t.commit([settle(d)]), MeshClosed)
    await refused("depth", t.depth("f/t"), MeshClosed)
    await refused("read", t.read("in", "earliest", 1), MeshClosed)
    await refused("topics", t.topics(), MeshClosed)
    await refused("dead letters", t.dead_letters("f/t"), MeshClosed)
    await feed.close()


@check()
async def closing_ends_what_waits(s: Stage) -> None:
    """Close: a pull, a tail and a request that wait end at once, the pull with MeshClosed; a closed
    feed ends its own pulls alone."""
    t = await s.open()
    feed, other = await t.subscribe(sub()), await t.subscribe(sub())
    waits = [s.go(feed.pull(1, 600)) for _ in range(3)]
    still = s.go(other.pull(1, 600))
    await asyncio.sleep(0.01)
    await feed.close()
    for waiting in waits:
        await refused("a pull of a closed feed",
                      asyncio.wait_for(waiting, s.maker.patience_s), MeshClosed)  # fmt: skip
    same("the other feed's pull waits", still.done(), False)

    async def tail() -> list[str]:
        return [item.event.id async for item in t.tail("in", "earliest")]

    tailing = s.go(tail())
    await asyncio.sleep(0.01)
    await t.close()
    await refused("a pull", asyncio.wait_for(still, s.maker.patience_s), MeshClosed)
    done, _ = await asyncio.wait([tailing], timeout=s.maker.patience_s)
    same("the tail ended", len(done), 1)


@check("survives_restart", "dedupe")
async def closing_amid_work_loses_nothing(s: Stage) -> None:
    """Close, G1: at whatever moment it is closed, every publish and commit under way gets its
    answer, and what it said holds when the store is opened again."""
    t = await s.open()
    for n, when in enumerate(MOMENTS):
        feed = await t.subscribe(sub())
        await s.publish(t, "in", event(f"{n}-first"))
        (d,) = await s.take(feed, 1)
        publish = s.go(t.publish("in", [event(f"{n}-{m}") for m in range(3)]))
        commit = s.go(t.commit([settle(d, Done(), Output("out", event(f"o{n}")))]))
        await moment(when)
        await asyncio.wait_for(t.close(), s.maker.patience_s)
        work = [publish, commit]
        done, _ = await asyncio.wait(work, timeout=s.maker.patience_s)
        same("answers", len(done), 2)
        t = await s.open()
        stored = not publish.exception() and all(r.status == "stored" for r in publish.result())
        settled = not commit.exception() and commit.result() == ["settled"]
        there = await s.ids_in(t, "in")
        if stored:
            same("stored", [i for i in there if i.startswith(f"{n}-")][1:],
                 [f"{n}-{m}" for m in range(3)])  # fmt: skip
        if settled:
            same("settled with its output", f"o{n}" in await s.ids_in(t, "out"), True)
        feed = await t.subscribe(sub())
        left = [i for i in there if i.startswith(f"{n}-") and not (settled and i.endswith("first"))]
        if not settled and f"o{n}" in await s.ids_in(t, "out"):
            left.remove(f"{n}-first")
        got = await s.take(feed, len(left))
        same("deliveries", ids(got), left)
        await s.done(t, got)


@check(can=("connect",))
async def namespaces_do_not_cross(s: Stage) -> None:
    """Namespace: topics, queues, state, records and blobs of one are not in another, though they
    have the same names and are open at the same time."""
    a = await s.open(namespace="a")
    feed = await a.subscribe(sub())
    b = await s.connect(namespace="b")
    await s.publish(a, "in", event("a"))
    (receipt,) = await b.publish("in", [event("b")])
    same("the other's receipt", receipt, Receipt("stored", receipt.position))
    (receipt,) = await b.publish("only-b", [event(1)])
    same("deliveries", ids(await s.take(feed, 1)), ["a"])
    await s.nothing(feed, "the other is of another namespace")
    same("topics", await a.topics(), {"in": 1})
    same("the other's topics", await b.topics(), {"in": 1, "only-b": 1})
    same("the other's events", await s.ids_in(b, "in"), ["b"])
    op = StateOp("c", "k", b"a")
    await s.publish(a, "in", event("a2"))
    (d,) = await s.take(feed, 1)
    await s.settled(a, settle(d, state=(op,) if s.features.state else ()))
    await a.append_record("deploy", b"a")
    await a.put_blob("digest", b"a")
    await b.close()
    await a.close()
    b = await s.open(namespace="b")
    await _is_apart(s, b)
    feed = await b.subscribe(sub(start="earliest"))
    same("its deliveries", ids(await s.take(feed, 1)), ["b"])
    await s.nothing(feed, "the other is of another namespace")


async def _is_apart(s: Stage, b: Transport) -> None:
    same("subscriptions", await b.subscriptions(), [])
    same("records", await b.records("deploy"), [])
    same("blobs", await b.get_blob("digest"), None)
    if s.features.state:
        same("state", await b.state("c", "k"), None)
