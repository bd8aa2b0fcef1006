"""Retries: when they are due, and what they count."""

import asyncio

from mesh.conformance.check import check
from mesh.conformance.stage import Stage, event, ids, same, settle, sub
from mesh.transport import Retry


@check("delayed_retry")
async def a_retry_waits_until_it_is_due(s: Stage) -> None:
    """G2, G9: a retried event comes again when it is due and not before, one attempt on; others
    come meanwhile."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    await s.settled(t, settle(d, Retry(3 * s.tick, "boom")))
    await s.publish(t, "in", event(2))
    same("meanwhile", ids(await s.take(feed, 1)), ["2"])
    await s.nothing(feed, "it is not due")
    await s.wait(4 * s.tick)
    (again,) = await s.take(feed, 1)
    same("the retry", (again.event.id, again.attempt), ("1", 2))
    same("the first delivery", await t.commit([settle(d)]), ["stale"])
    await s.settled(t, settle(again, Retry(0.0)))
    (third,) = await s.take(feed, 1)
    same("the second retry", (third.event.id, third.attempt), ("1", 3))


@check("delayed_retry")
async def a_retry_that_falls_due_wakes_a_waiting_pull(s: Stage) -> None:
    """G2: a pull that waits gets a retried event when it is due."""
    t = await s.open()
    feed, other = await t.subscribe(sub()), await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    (d,) = await s.take(feed, 1)
    waiting = s.go(other.pull(1, 60))
    await asyncio.sleep(0.01)
    await s.settled(t, settle(d, Retry(0.05)))
    await s.wait(0.06)
    got = await asyncio.wait_for(waiting, s.maker.patience_s)
    same("the waiting pull", ids(got), ["1"])


@check("delayed_retry")
async def an_uncharged_retry_costs_no_attempt(s: Stage) -> None:
    """G9: `charge=False` delivers again with the same attempt."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    seen = []
    for charge in (True, False, False, True, False):
        (d,) = await s.take(feed, 1)
        seen.append(d.attempt)
        await s.settled(t, settle(d, Retry(0.0, charge=charge)))
    same("attempts", seen, [1, 2, 2, 2, 3])


@check("delayed_retry", can=("crash",))
async def attempts_survive_a_crash(s: Stage) -> None:
    """G9: attempts and due times are durable when commit returns; a kill forgets neither."""
    t = await s.open()
    feed = await t.subscribe(sub())
    await s.publish(t, "in", event(1))
    for attempt in range(1, 4):
        (d,) = await s.take(feed, 1)
        same("the attempt", d.attempt, attempt)
        await s.settled(t, settle(d, Retry(3 * s.tick)))
        t = await s.crash(t)
        feed = await t.subscribe(sub())
        await s.nothing(feed, "it is not due")
        await s.wait(4 * s.tick)
    (d,) = await s.take(feed, 1)
    same("the attempt", (d.event.id, d.attempt), ("1", 4))
