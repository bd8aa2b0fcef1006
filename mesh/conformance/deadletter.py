"""Dead letters: kept before the source goes, listed, redriven."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, ids, same, settle, sub
from mesh.transport import Dead, Output, Retry


def _dead(name: str) -> Dead:
    return Dead("bad", Output("dlq", event(name)))


@check()
async def a_dead_letter_is_kept_and_listed(s: Stage) -> None:
    """G5: the letter is in its topic and the original in the list, with the reason; without a
    letter the event is dropped, and neither comes again."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1, b"one"), event(2))
    one, two = await s.take(feed, 2)
    await s.settled(t, settle(one, _dead("letter")), settle(two, Dead("dropped", None)))
    (letter,) = await s.logged(t, "dlq")
    (dead,) = await t.dead_letters("f/t")
    same("the list", (dead.event, dead.reason, dead.subscription, dead.attempts),
         (event(1, b"one"), "bad", "f/t", 1))  # fmt: skip
    same("where the letter is", (dead.letter_topic, dead.letter_position),
         ("dlq", letter.position))  # fmt: skip
    await s.nothing(feed, "both are dead")


@check(can=("crash",))
async def a_dead_letter_survives_a_crash(s: Stage) -> None:
    """G5: killed right after commit returned, the letter and the list are there; redriven, the
    event is in the queue after one more kill."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    await s.settled(t, settle(d, _dead("letter")))
    t = await s.crash(t)
    same("the topic", await s.ids_in(t, "dlq"), ["letter"])
    (dead,) = await t.dead_letters("f/t")
    feed = await t.subscribe(sub())
    await s.nothing(feed, "it is dead")
    same("redriven", await t.redrive("f/t", [dead.id], "r"), 1)
    t = await s.crash(t)
    same("the list", await t.dead_letters("f/t"), [])
    feed = await t.subscribe(sub())
    (d,) = await s.take(feed, 1)
    same("the event", (d.event.id, d.replay), ("1", "r"))


@check()
async def a_redriven_event_passes_deduplication(s: Stage) -> None:
    """G2: a redriven event comes again with its replay id, from its first attempt; each dead
    letter once, also when two redrive at once."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", *(event(n) for n in range(4)))
    for d in await s.take(feed, 4):
        await s.settled(t, settle(d, _dead(f"letter{d.event.id}")))
    first = await t.dead_letters("f/t", limit=3)
    rest = await t.dead_letters("f/t", after=first[-1].id)
    chosen = [dead.id for dead in first]
    same("pages", [d.event.id for d in first + rest], list("0123"))
    counts = await asyncio.gather(
        t.redrive("f/t", chosen, "r1"), t.redrive("f/t", [*chosen, 10**9], "r2")
    )
    same("redriven in all", sum(counts), 3)
    got = await s.take(feed, 3)
    same("events", sorted(ids(got)), list("012"))
    same("attempts", {(d.attempt, d.replay in {"r1", "r2"}) for d in got}, {(1, True)})
    await s.nothing(feed, "each came once")
    same("discarded", await t.discard("f/t", [rest[0].id, 10**9]), 1)
    same("the list", await t.dead_letters("f/t"), [])


@check("delayed_retry")
async def a_redriven_event_may_die_again(s: Stage) -> None:
    """G5: a redriven event keeps its replay id through retries, and dies into the list again."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    await s.settled(t, settle(d, _dead("letter")))
    for turn in ("r1", "r2"):
        (dead,) = await t.dead_letters("f/t")
        await t.redrive("f/t", [dead.id], turn)
        (d,) = await s.take(feed, 1)
        await s.settled(t, settle(d, Retry(0.0)))
        (d,) = await s.take(feed, 1)
        same("the retry", (d.attempt, d.replay), (2, turn))
        await s.settled(t, settle(d, _dead("letter")))
    (dead,) = await t.dead_letters("f/t")
    same("the list", (dead.event.id, dead.attempts), ("1", 2))
