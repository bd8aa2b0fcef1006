"""Replay: settled events once more, on purpose."""

from datetime import UTC, datetime

from mesh.conformance.check import check
from mesh.conformance.stage import MOMENTS, Stage, cut_off, event, ids, refused, same, settle, sub
from mesh.errors import SubscriptionUnknown
from mesh.transport import Retry


@check("replay")
async def a_replay_queues_a_range_again(s: Stage) -> None:
    """G2: the events from start to before end come again with the replay id, past deduplication,
    to that subscription alone; end may be a position, a time or now."""
    t = await s.open()
    feed = await t.subscribe(sub())
    other = await t.subscribe(sub(function="g"))
    positions = await s.publish(t, "in", *(event(n) for n in range(5)))
    await s.done(t, await s.take(feed, 5))
    await s.done(t, await s.take(other, 5))
    count = await t.replay("f/t", f"@{positions[1]}", f"@{positions[4]}", "again")
    same("how many", count, 3)
    got = await s.take(feed, 3)
    same("deliveries", [(d.event.id, d.replay, d.attempt) for d in got],
         [(str(n), "again", 1) for n in (1, 2, 3)])  # fmt: skip
    same("their positions", [d.position for d in got], positions[1:4])
    await s.nothing(feed, "the range ends there")
    await s.nothing(other, "it was not replayed")
    await s.done(t, got)
    await s.wait(2 * s.tick)
    late = datetime.fromtimestamp(s.now(), UTC).isoformat()
    await s.wait(s.tick)
    await s.publish(t, "in", event("late"))
    await s.done(t, await s.take(feed, 1))
    same("up to a time", await t.replay("f/t", "earliest", late, "r2"), 5)
    same("deliveries", ids(await s.take(feed, 5)), list("01234"))
    same("from a time to now", await t.replay("f/t", late, "now", "r3"), 1)
    same("deliveries", ids(await s.take(feed, 1)), ["late"])
    same("the topic", len(await s.logged(t, "in")), 6)
    await refused("a replay without an id", t.replay("f/t", "earliest", "now", ""))
    await refused("of no subscription", t.replay("x/t", "earliest", "now", "r"),
                  SubscriptionUnknown)  # fmt: skip


@check("replay", "dedupe")
async def a_replay_made_twice_counts_once(s: Stage) -> None:
    """G2, G4: the replay id is part of the deduplication key: the same range again under the same
    id queues nothing more, even after it was settled, and a longer one only what is new; another
    id queues all again. So a replay that was cut off can be made again."""
    t = await s.open()
    feed = await t.subscribe(sub())
    positions = await s.publish(t, "in", *(event(n) for n in range(4)))
    await s.done(t, await s.take(feed, 4))
    same("first", await t.replay("f/t", "earliest", f"@{positions[2]}", "r"), 2)
    same("again", await t.replay("f/t", "earliest", f"@{positions[2]}", "r"), 0)
    await s.done(t, await s.take(feed, 2))
    same("after the settle", await t.replay("f/t", "earliest", "now", "r"), 2)
    got = await s.take(feed, 2)
    same("what is new", ids(got), ["2", "3"])
    await s.done(t, got)
    await s.nothing(feed, "each was replayed once")
    for n, when in enumerate(MOMENTS):
        await cut_off(t.replay("f/t", "earliest", "now", f"r{n}"), when)
        await t.replay("f/t", "earliest", "now", f"r{n}")
        got = await s.take(feed, 4)
        same(f"cancelled after {when}, made again", ids(got), list("0123"))
        await s.done(t, got)
        await s.nothing(feed, "each came once")


@check("replay", "delayed_retry", can=("crash",))
async def a_replay_survives_a_crash(s: Stage) -> None:
    """G9: a replayed event keeps its replay id and its attempts over a kill, and made again under
    the same id it is not doubled."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1), event(2))
    await s.done(t, await s.take(feed, 2))
    await t.replay("f/t", "earliest", "now", "r")
    d, _ = await s.take(feed, 2)
    await s.settled(t, settle(d, Retry(0.0)))
    t = await s.crash(t)
    if s.features.dedupe:
        same("made again", await t.replay("f/t", "earliest", "now", "r"), 0)
    feed = await t.subscribe(sub())
    got = await s.take(feed, 2)
    same("deliveries", sorted((d.event.id, d.replay, d.attempt) for d in got),
         [("1", "r", 2), ("2", "r", 1)])  # fmt: skip
    await s.nothing(feed, "each came once")
