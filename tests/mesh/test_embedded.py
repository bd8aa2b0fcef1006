"""What the embedded mesh promises, guarantee by guarantee (mesh/transport.py names them)."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import mesh
from mesh import Event
from mesh.client import FileClient
from mesh.errors import MeshBusy, MeshClosed, SubscriptionBacklog
from mesh.transport import (
    Dead,
    Delivery,
    Done,
    Filtered,
    Output,
    Released,
    Retry,
    Settled,
    Settlement,
    StateOp,
    Subscription,
)


class FakeClock:
    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.mono = 100.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def event(n: object, data: bytes = b"{}", source: str = "/s") -> Event:
    return Event(str(n), source, "t", data=data)


def settle(delivery: Delivery, outcome: Any, *outputs: Output, **more: Any) -> Settlement:
    return Settlement(delivery.subscription, (Settled(delivery, outcome),), outputs, **more)


def sub(**more: Any) -> Subscription:
    return Subscription(**{"function": "f", "trigger": "t", "topic": "in", **more})


Body = Callable[[Any, FakeClock], Awaitable[None]]


def on_mesh(where: str, tmp_path: Any, body: Callable[..., Awaitable[None]]) -> None:
    """Run `body(open, clock)`: `open()` opens the same mesh, again after a close or crash."""

    async def main() -> None:
        clock = FakeClock()
        opened = []

        async def open_(**options: Any) -> Any:
            url = "embedded::memory:" if where == "memory" else f"embedded://{tmp_path}/mesh.db"
            transport = await mesh.connect(url, clock=clock, host=True, **options)
            opened.append(transport)
            return transport

        try:
            await body(open_, clock)
        finally:
            for transport in opened:
                await transport.close()

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.fixture(params=["memory", "file"])
def run(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[Any], None]:
    return lambda body: on_mesh(request.param, tmp_path, body)


@pytest.fixture
def run_file(tmp_path: Any) -> Callable[[Any], None]:
    return lambda body: on_mesh("file", tmp_path, body)


def test_an_event_goes_in_and_its_output_comes_out_with_the_settle(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        other = await t.subscribe(sub(function="g", topic="out"))
        data = b"\r\n\x00\xff windows and worse"
        (receipt,) = await t.publish("in", [event(1, data)])
        assert receipt.status == "stored"
        (d,) = await feed.pull(10, 1)
        assert d.event.data == data
        assert d.attempt == 1
        out = Output("out", event("o1", source="/f"), hops=3)
        assert await t.commit([settle(d, Done(), out)]) == ["settled"]
        (o,) = await other.pull(10, 1)
        assert (o.event.id, o.hops) == ("o1", 3)
        assert (await t.depth("f/t")).ready == 0
        assert await feed.pull(1, 0) == []

    run(body)


def test_a_duplicate_is_stored_once_and_another_source_is_no_duplicate(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        first, again, other = await t.publish("in", [event(1), event(1), event(1, source="/x")])
        assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, False)
        (later,) = await t.publish("in", [event(1)])
        assert later.duplicate
        assert later.status == "stored"
        assert len(await feed.pull(10, 0)) == 2

    run(body)


def test_duplicates_are_known_after_a_crash(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.publish("in", [event(n) for n in range(300)])
        await t.crash()
        t = await open_()
        receipts = await t.publish("in", [event(n) for n in range(301)])
        assert [r.duplicate for r in receipts] == [True] * 300 + [False]

    run_file(body)


def test_pull_never_returns_more_than_asked(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(n, b"x" * 1000) for n in range(50)])
        assert [d.event.id for d in await feed.pull(7, 0)] == [str(n) for n in range(7)]
        assert len(await feed.pull(50, 0, max_bytes=4000)) < 5
        assert len(await feed.pull(50, 0, max_bytes=1)) == 1

    run(body)


def test_a_lost_lease_cannot_settle_and_its_outputs_are_not_written(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub(lease_s=10))
        await t.publish("in", [event(1)])
        (old,) = await feed.pull(1, 0)
        clock.wall += 3600
        assert await feed.pull(1, 0) == [], "a lease ended by the wall clock"
        clock.mono += 11
        (new,) = await feed.pull(1, 0)
        assert new.attempt == 1
        assert await t.commit([settle(old, Done(), Output("out", event("o")))]) == ["stale"]
        assert "out" not in await t.topics()
        assert await t.commit([settle(new, Done())]) == ["settled"]
        assert await t.commit([settle(new, Done())]) == ["stale"]

    run(body)


def test_extend_keeps_a_lease(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub(lease_s=10))
        await t.publish("in", [event(1)])
        (d,) = await feed.pull(1, 0)
        await feed.extend([d], 100)
        clock.advance(50)
        assert await feed.pull(1, 0) == []
        assert await t.commit([settle(d, Done())]) == ["settled"]

    run(body)


def test_retries_wait_and_their_attempts_survive_a_crash(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        (d,) = await feed.pull(1, 0)
        await t.commit([settle(d, Retry(clock.time() + 5, "boom"))])
        assert await feed.pull(1, 0) == []
        assert (await t.depth("f/t")).delayed == 1
        await t.crash()
        t = await open_()
        feed = await t.subscribe(sub())
        assert await feed.pull(1, 0) == []
        clock.advance(6)
        (d,) = await feed.pull(1, 0)
        assert d.attempt == 2
        await t.commit([settle(d, Retry(clock.time(), charge=False))])
        (d,) = await feed.pull(1, 0)
        assert d.attempt == 2

    run_file(body)


def test_released_is_back_at_once_uncharged_and_first(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(n) for n in range(3)])
        first, *_ = await feed.pull(2, 0)
        await t.commit([settle(first, Released())])
        (d,) = await feed.pull(1, 0)
        assert (d.event.id, d.attempt) == ("0", 1)

    run(body)


def test_a_dead_letter_is_kept_listed_and_redriven_past_deduplication(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1), event(2)])
        one, two = await feed.pull(2, 0)
        letter = Output("f.dlq", event("letter", source="/funcrt"))
        await t.commit([settle(one, Dead("bad", letter)), settle(two, Dead("dropped", None))])
        (dead,) = await t.dead_letters("f/t")
        assert (dead.event.id, dead.reason, dead.letter_topic) == ("1", "bad", "f.dlq")
        assert (await t.topics())["f.dlq"] == 1
        assert await t.redrive("f/t", [dead.id], "r1") == 1
        assert await t.dead_letters("f/t") == []
        (d,) = await feed.pull(5, 0)
        assert (d.event.id, d.replay, d.attempt) == ("1", "r1", 1)

    run(body)


def test_replay_queues_settled_events_again(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(n) for n in range(5)])
        await t.commit([settle(d, Done()) for d in await feed.pull(5, 0)])
        assert await t.replay("f/t", "@1", "@4", "again") == 3
        got = await feed.pull(5, 0)
        assert [(d.event.id, d.replay) for d in got] == [(str(n), "again") for n in (1, 2, 3)]

    run(body)


def test_the_router_decides_and_can_be_swapped(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        t.set_router(lambda topic, e: ["f/t"] if e.id == "yes" else [])
        await t.publish("in", [event("no"), event("yes")])
        t.set_router(lambda topic, e: ["f/t", "gone/t"])
        await t.publish("in", [event("now")])
        assert [d.event.id for d in await feed.pull(5, 0)] == ["yes", "now"]
        d = await t.depth("f/t")
        assert (d.ready, d.leased, d.kind) == (0, 2, "exact")

    run(body)


def test_start_decides_what_a_new_subscription_sees(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.publish("in", [event(n) for n in range(600)])
        clock.advance(10)
        await t.publish("in", [event("late")])
        new = await t.subscribe(sub())
        assert await new.pull(5, 0) == []
        everything = await t.subscribe(sub(function="e", start="earliest"))
        seen = [d.event.id for _ in range(3) for d in await everything.pull(1000, 0)]
        assert seen == [*(str(n) for n in range(600)), "late"]
        some = await t.subscribe(sub(function="p", start="@598"))
        assert [d.event.id for d in await some.pull(9, 0)] == ["598", "599", "late"]
        timed = await t.subscribe(sub(function="w", start="2023-11-14T22:13:25Z"))
        assert [d.event.id for d in await timed.pull(9, 0)] == ["late"]

    run(body)


def test_ordered_keys_run_one_at_a_time_and_a_failure_blocks_only_its_key(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(
            sub(order="key"), key_of=lambda e: e.data.decode() if e.data else None
        )
        names = ["a1", "a2", "b1", "a3", "b2"]
        await t.publish("in", [event(name, name[:1].encode()) for name in names])
        a1, b1 = await feed.pull(10, 0)
        assert (a1.event.id, b1.event.id) == ("a1", "b1")
        await t.commit([settle(a1, Retry(clock.time() + 5)), settle(b1, Done())])
        (b2,) = await feed.pull(10, 0)
        assert b2.event.id == "b2"
        clock.advance(6)
        (a1,) = await feed.pull(10, 0)
        assert (a1.event.id, a1.attempt) == ("a1", 2)
        order = ["a1"]
        while True:
            await t.commit([settle(a1, Done())])
            more = await feed.pull(10, 0)
            if not more:
                break
            (a1,) = more
            order.append(a1.event.id)
        assert order == ["a1", "a2", "a3"]

    run(body)


def test_a_hot_key_does_not_stop_the_others(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(
            sub(order="key"), key_of=lambda e: e.data.decode() if e.data else None
        )
        await t.publish("in", [event(f"hot{n}", b"hot") for n in range(2000)])
        await t.publish("in", [event("cold", b"cold")])
        (hot,) = await feed.pull(10, 0)
        await t.commit([settle(hot, Retry(clock.time() + 1000))])
        for _ in range(20):
            got = await feed.pull(10, 0.05)
            if got:
                break
            await t.publish("other", [event(object())])
        assert [d.event.id for d in got] == ["cold"]
        clock.advance(1001)
        order = []
        while got := await feed.pull(10, 0):
            order += [d.event.id for d in got if d.event.id != "cold"]
            await t.commit([settle(d, Done()) for d in got])
        assert order == [f"hot{n}" for n in range(2000)]

    run_file(body)


def test_a_full_queue_refuses_or_dead_letters_its_oldest(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.subscribe(sub(cap=2))
        receipts = await t.publish("in", [event(n) for n in range(3)])
        assert [r.status for r in receipts] == ["stored", "stored", "refused"]
        assert receipts[2].error == "queue_full"
        feed = await t.subscribe(
            sub(function="g", topic="g", cap=2, overflow="dead-letter", dlq="g.dlq")
        )
        for n in range(3):
            await t.publish("g", [event(n)])
        assert [d.event.id for d in await feed.pull(5, 0)] == ["1", "2"]
        (dead,) = await t.dead_letters("g/t")
        assert dead.event.id == "0"

    run(body)


def test_state_is_written_with_the_settle_or_not_at_all(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1), event(2)])
        one, two = await feed.pull(2, 0)
        op = StateOp("cart", "k", b"1", if_etag="")
        assert await t.commit([settle(one, Done(), state=(op,))]) == ["settled"]
        assert ((await t.state("cart", "k")) or [None])[0] == b"1"
        out = Output("out", event("o"))
        assert await t.commit([settle(two, Done(), out, state=(op,))]) == ["conflict"]
        assert "out" not in await t.topics()
        assert await t.commit([settle(two, Filtered())]) == ["settled"]

    run(body)


def test_a_subscription_with_a_backlog_is_removed_only_on_purpose(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.subscribe(sub())
        await t.publish("in", [event(1)])
        with pytest.raises(SubscriptionBacklog, match="1 events waiting"):
            await t.unsubscribe("f/t")
        await t.unsubscribe("f/t", purge=True)
        assert await t.subscriptions() == []

    run(body)


def test_retention_keeps_what_is_unsettled(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_(retention_s=60)
        feed = await t.subscribe(sub(lease_s=1000))
        await t.publish("in", [event(1)])
        await t.publish("in", [event(2)])
        await t.publish("in", [event(3)])
        one, two, _ = await feed.pull(3, 0)
        await t.commit([settle(one, Done())])
        clock.advance(120)
        await t.publish("other", [event(4)])
        await t.publish("other", [event(5)])
        assert (await t.topics())["in"] == 2, "the settled one goes, the others stay"
        await t.commit([settle(two, Released())])
        assert [d.event.id for d in await feed.pull(5, 0)] == ["2"]

    run(body)


def test_request_gets_what_the_call_returned(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())

        async def serve() -> None:
            (d,) = await feed.pull(1, 5)
            reply = Output("", event("answer"), reply_to=d.reply_to)
            await t.commit([settle(d, Done(), reply)])

        server = asyncio.ensure_future(serve())
        (answer,) = await t.request("in", event("question"), 5)
        assert answer.id == "answer"
        await server
        with pytest.raises(TimeoutError):
            await t.request("in", event("unanswered"), 0.05)

    run(body)


def test_a_cancelled_pull_loses_nothing(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        for n in range(30):
            pull = asyncio.ensure_future(feed.pull(1, 5))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            publish = asyncio.ensure_future(t.publish("in", [event(n)]))
            for _ in range(n % 7):
                await asyncio.sleep(0)
            got = pull.done()
            pull.cancel()
            await publish
            if not got:
                assert len(await feed.pull(1, 1)) == 1
        assert (await t.depth("f/t")).leased == 30

    run(body)


def test_a_closed_transport_says_so_and_closes_twice(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.close()
        await t.close()
        with pytest.raises(MeshClosed):
            await t.publish("in", [event(1)])
        with pytest.raises(MeshClosed):
            await feed.pull(1, 0)

    run(body)


def test_other_processes_write_the_file_while_no_host_lives(run_file: Any, tmp_path: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.subscribe(sub())
        await t.close()
        client = await mesh.connect(f"embedded://{tmp_path}/mesh.db", clock=clock)
        receipts = await client.publish("in", [event(1), event(2), event(1)])
        assert [r.duplicate for r in receipts] == [False, False, True]
        t = await open_()
        feed = await t.subscribe(sub())
        assert [d.event.id for d in await feed.pull(5, 1)] == ["1", "2"]
        (receipt,) = await client.publish("in", [event(2)])
        assert receipt.duplicate, "the host knows what the file's writer stored"
        seen = []
        async for item in client.tail("in", "earliest"):
            seen.append(item.event.id)
            if len(seen) == 2:
                await client.publish("in", [event(3)])
            if len(seen) == 3:
                break
        assert seen == ["1", "2", "3"]
        await client.close()

    run_file(body)


def test_a_second_host_is_refused_by_the_pid_of_the_first(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        await open_()
        with pytest.raises(MeshBusy, match=f"process {os.getpid()} already serves"):
            await open_()

    run_file(body)


HOST = """
import asyncio, sys, mesh
from mesh import Event
from mesh.transport import *
async def main():
    t = await mesh.connect(sys.argv[1], host=True)
    feed = await t.subscribe(Subscription(function="f", trigger="t", topic="in"))
    print("ready", flush=True)
    while True:
        got = await feed.pull(100, 10)
        await t.commit([Settlement("f/t", (Settled(d, Done()),),
            (Output("out", Event("o" + d.event.id, "/f", "r")),)) for d in got])
asyncio.run(main())
"""


def test_sigkill_of_the_host_loses_nothing_and_doubles_nothing(tmp_path: Any) -> None:
    url = f"embedded://{tmp_path}/mesh.db"

    def start() -> "subprocess.Popen[bytes]":
        host = subprocess.Popen([sys.executable, "-c", HOST, url], stdout=subprocess.PIPE)
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        return host

    async def main() -> None:
        client = await mesh.connect(url)
        total, host = 3000, start()
        stored = 0
        for kill in range(10):
            batch = [event(n) for n in range(stored, stored + total // 10)]
            publishing = asyncio.ensure_future(publish(client, batch))
            await asyncio.sleep(0.002 * kill)
            host.send_signal(signal.SIGKILL)
            host.wait()
            assert host.stdout is not None
            host.stdout.close()
            host = await asyncio.to_thread(start)
            await publishing
            stored += len(batch)
        seen = []
        async for item in client.tail("out", "earliest"):
            seen.append(item.event.id)
            if len(seen) == total:
                break
        assert sorted(seen) == sorted(f"o{n}" for n in range(total))
        await asyncio.sleep(0.1)
        assert (await client.topics())["out"] == total
        await client.close()
        host.kill()
        host.wait()
        assert host.stdout is not None
        host.stdout.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def publish(client: Any, events: list[Event]) -> None:
    """Publish one at a time, again with the same id wherever the outcome is unknown."""
    for one in events:
        while True:
            (receipt,) = await client.publish("in", [one])
            if receipt.status == "stored":
                break
            await asyncio.sleep(0.005)


def test_of_two_settles_of_one_delivery_at_once_one_is_stale(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        (d,) = await feed.pull(1, 0)
        both = await asyncio.gather(
            t.commit([settle(d, Done(), Output("out", event("a")))]),
            t.commit([settle(d, Done(), Output("out", event("b")))]),
        )
        assert sorted(both) == [["settled"], ["stale"]]
        assert (await t.topics())["out"] == 1
        assert (await t.depth("f/t")).ready == 0

    run(body)


def test_a_subscription_that_nobody_serves_yet_misses_nothing(run_file: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        await t.subscribe(sub())
        await t.close()
        t = await open_()
        t.set_router(lambda topic, e: [])
        await t.publish("in", [event(1)])
        feed = await t.subscribe(sub())
        assert [d.event.id for d in await feed.pull(5, 0)] == ["1"]
        await t.publish("in", [event(2)])
        assert await feed.pull(5, 0) == [], "served, and the router leaves it out"

    run_file(body)


def test_the_file_takes_many_publishes_at_once_without_a_host(tmp_path: Any) -> None:
    async def main() -> None:
        client = await mesh.connect(f"embedded://{tmp_path}/mesh.db")
        got = await asyncio.gather(*(client.publish("in", [event(n)]) for n in range(50)))
        assert {receipt.status for (receipt,) in got} == {"stored"}
        assert (await client.topics()) == {"in": 50}
        await client.close()

    asyncio.run(main())


def test_the_file_stays_bounded_by_its_retention(run_file: Any, tmp_path: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_(retention_bytes=1_000_000, retention_s=600, dedupe_s=60)
        feed = await t.subscribe(sub())
        sizes = []
        for minute in range(60):
            events = [event(f"{minute}-{n}", b"x" * 1000) for n in range(500)]
            await t.publish("in", events)
            while got := await feed.pull(500, 0):
                await t.commit([settle(d, Done()) for d in got])
            clock.advance(60)
            sizes.append(os.stat(tmp_path / "mesh.db").st_size)
        assert (await t.topics())["in"] < 2_000
        assert sizes[-1] < 8_000_000, "thirty megabytes went through"
        assert sizes[-1] == sizes[-20]

    run_file(body)


def test_retention_keeps_up_with_many_small_commits(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_(retention_bytes=100_000, dedupe_ids=500)
        for second in range(11):
            for n in range(400):
                await t.publish("in", [event(f"{second}-{n}", b"x" * 1000)])
            clock.advance(1)
        for n in range(20):
            await t.publish("in", [event(n, b"x" * 1000)])
        assert (await t.topics())["in"] < 600, "100 kB, and what came since the last sweep"
        (ids,) = t.engine.store.one("SELECT count(*) FROM ids")
        assert ids < 1500, "two generations of 500, and what came since"

    run(body)


def full(t: Any, *, yes: bool) -> None:
    """Let the file grow no further, or again."""
    (pages,) = t.engine.store.one("PRAGMA page_count")
    t.engine.store.one(f"PRAGMA max_page_count = {pages if yes else 1 << 30}")


def test_what_others_wrote_is_routed_after_a_full_disk_too(run_file: Any, tmp_path: Any) -> None:
    """The transaction that first saw it was rolled back."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        other = FileClient(t.path, "default", (3600.0, 1_000_000))
        other.publish("in", [event(2), event(3)], 0, clock.time())
        full(t, yes=True)
        (receipt,) = await t.publish("in", [event(4, b"x" * 500_000)])
        assert (receipt.status, receipt.error) == ("refused", "full")
        full(t, yes=False)
        await t.publish("in", [event(5)])
        other.close()
        assert [d.event.id for d in await feed.pull(9, 0)] == ["1", "2", "3", "5"]
        assert (await t.depth("f/t")).leased == 4

    run_file(body)


def test_what_others_wrote_is_not_passed_over_by_what_comes_in_with_it(run_file: Any) -> None:
    """A pull while the commit is being synced finds nothing yet, and must look again."""

    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        other = FileClient(t.path, "default", (3600.0, 1_000_000))
        other.publish("in", [event(1)], 0, clock.time())
        t.engine._sync_s = 1.0  # commit in the thread
        held, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        run_in_executor = loop.run_in_executor

        async def slow(*arguments: Any) -> None:
            held.set()
            await go.wait()
            await run_in_executor(*arguments)

        loop.run_in_executor = slow  # type: ignore[assignment,method-assign]
        publishing = asyncio.ensure_future(t.publish("in", [event(2)]))
        await held.wait()
        assert await feed.pull(9, 0) == []
        go.set()
        await publishing
        other.close()
        assert [d.event.id for d in await feed.pull(9, 0)] == ["1", "2"]

    run_file(body)


def test_a_failure_of_the_writer_itself_is_told_and_nothing_waits_for_ever(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        feed = await t.subscribe(sub())
        await t.publish("in", [event(1)])
        (delivery,) = await feed.pull(1, 0)
        told: list[BaseException] = []
        t.on_fatal = told.append

        def bug(topic: str, e: Event) -> list[str]:
            raise ZeroDivisionError

        t.set_router(bug)
        settling = asyncio.ensure_future(t.commit([settle(delivery, Done())]))
        (receipt,) = await t.publish("in", [event(2)])
        assert (receipt.status, receipt.error) == ("refused", "closed")
        with pytest.raises(MeshClosed):
            await settling
        assert isinstance(told[0], ZeroDivisionError)
        assert (await t.publish("in", [event(3)]))[0].status == "refused"

    run(body)


def test_what_waits_for_a_commit_is_bounded_in_bytes(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        body = b"x" * 1_000_000
        got = await asyncio.gather(*(t.publish("in", [event(n, body)]) for n in range(100)))
        kinds = {(receipt.status, receipt.error) for (receipt,) in got}
        assert kinds == {("stored", ""), ("refused", "full")}
        assert 60 <= sum(receipt.status == "stored" for (receipt,) in got) <= 67

    run(body)


def test_what_does_not_pass_the_check_is_refused(run: Any) -> None:
    async def body(open_: Any, clock: FakeClock) -> None:
        t = await open_()
        t.set_check(lambda topic, e: "too small" if topic == "in" and e.id == "1" else "")
        receipts = await t.publish("in", [event(1), event(2)])
        assert [(r.status, r.error) for r in receipts] == [("refused", "invalid"), ("stored", "")]
        assert "too small" in receipts[0].reason
        assert (await t.publish("other", [event(1)]))[0].status == "stored"

    run(body)
