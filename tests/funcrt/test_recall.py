"""Calls that wait behind a long one are taken back, and run elsewhere: each once."""

import asyncio
import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcrt.manifest import ScaleSpec
from funcrt.member import Pending
from funcrt.pool import HALT_S, LONG_S, Pool
from funcrt.sandbox import Code
from funcrt.sandbox.protocol import Call, Cancel, Http, Recall, Result
from funcrt.zygotes import Zygotes
from mesh import Event
from tests.faults.run import instances
from tests.funcrt.test_sandbox import Running, run
from tests.serving import Serving, rows, two, until
from tests.sim.loop import VirtualClock
from tests.sim.loop import run as simulated
from tests.sim.sandbox import Manner, SimSandbox, SimZygote

COUNTED = "import asyncio, itertools, time\ncount = itertools.count(1)\n"
TIME = (
    "def handler(event):\n    if event.json() == 'long': time.sleep(0.6)\n    return next(count)\n"
)
WAYS: dict[str, tuple[str, int, int]] = {
    "plain": (TIME, 1, 1),
    "threads": (TIME, 2, 2),
    "tasks": (f"async {TIME}".replace("time.sleep", "await asyncio.sleep"), 2, 2),
    "a blocked loop": (f"async {TIME}", 32, 1),
    "requests": (
        "from starlette.requests import Request\n"
        "from starlette.responses import JSONResponse\n"
        "def handler(request: Request):\n"
        "    if request.headers.get('how') == 'long': time.sleep(0.6)\n"
        "    return next(count)\n",
        2,
        2,
    ),
}
"""Source, concurrency, and how many long calls it takes until nothing begins."""


def call_of(way: str, number: int, what: str) -> Call:
    http = Http("POST", "/", b"/", b"", [(b"how", what.encode())]) if way == "requests" else None
    event = Event(str(number), "/s", "t", data=json.dumps(what).encode())
    return Call(number, "t", [event], 1, 5, 0.0, "scope", [], http)


@pytest.mark.parametrize("way", WAYS)
def test_what_an_instance_has_not_begun_can_be_taken_back_and_given_again(
    tmp_path: Path, way: str
) -> None:
    source, concurrency, longs = WAYS[way]

    async def body(running: Running) -> None:
        instance = running.instance
        instance.send([call_of(way, n, "long") for n in range(longs)])
        instance.send([call_of(way, n, "quick") for n in range(longs, 40)])
        async with asyncio.timeout(5):
            while instance.begun() != longs:
                await asyncio.sleep(0.005)
        instance.halt(1)
        await asyncio.sleep(HALT_S)
        assert instance.begun() == longs
        gone = list(range(longs, 40, 2))
        instance.send([Recall(1, gone)])
        await running.until(lambda: len(running.results) == 40 - len(gone))
        assert not set(gone) & set(running.results)
        assert instance.begun() == 40 - len(gone)
        # Nothing is known of them: they may come again, and end as any.
        instance.send([call_of(way, n, "quick") for n in gone])
        await running.until(lambda: len(running.results) == 40)
        found = sorted(int(result.outputs[0].event.data or b"") for result in ends(running))
        assert found == list(range(1, 41))
        assert instance.begun() == 40

    run(tmp_path, COUNTED + source, body, concurrency=concurrency)


def ends(running: Running) -> list[Result]:
    assert all(result.status == "ok" for result in running.results.values()), running.results
    return list(running.results.values())


@pytest.mark.parametrize("way", ["plain", "threads", "tasks"])
def test_nothing_begins_during_a_halt_and_all_of_it_after(tmp_path: Path, way: str) -> None:
    source, concurrency, _ = WAYS[way]

    async def body(running: Running) -> None:
        instance = running.instance
        instance.send([call_of(way, 0, "quick")])
        await running.result(0)
        for halt in range(1, 300):  # more than fit a byte
            instance.halt(halt)
            instance.send([call_of(way, halt, "quick"), call_of(way, -halt, "quick")])
            if halt == 299:
                await asyncio.sleep(0.2)
                assert instance.begun() == halt
                assert halt not in running.results
            instance.send([Recall(halt, [-halt])])
            assert (await running.result(halt)).status == "ok"
        assert len(running.results) == 300

    run(tmp_path, COUNTED + source, body, concurrency=concurrency)


def test_a_call_whose_caller_left_before_it_began_is_answered_once(tmp_path: Path) -> None:
    source, _, _ = WAYS["tasks"]

    async def body(running: Running) -> None:
        instance = running.instance
        instance.send([call_of("tasks", n, "long" if n < 2 else "quick") for n in range(6)])
        instance.send([Cancel(4)])
        failure = (await running.result(4)).failure
        assert failure is not None
        assert failure.error == "Cancelled"
        assert instance.begun() == 3  # as it is answered
        await running.until(lambda: len(running.results) == 6)
        assert instance.begun() == 6

    run(tmp_path, COUNTED + source, body, concurrency=2)


# The pool


class Given:
    """A pool of simulated instances, the calls that it is given, and how each ended."""

    def __init__(self, clock: VirtualClock, seed: int, most: int, concurrency: int = 1) -> None:
        self.clock = clock
        self.manner = {"f": Manner(service_s=0.001)}
        self.started: Counter[int] = Counter()
        self.sandbox = SimSandbox(random.Random(seed), self.manner, set(), self.told)
        self.code = Code(name="f", version="1", path=Path("/"), concurrency=concurrency)
        info = SimZygote(self.sandbox, self.code).info
        self.failures: list[BaseException] = []
        self.pool = Pool(
            self.code, info, Zygotes(self.sandbox), ScaleSpec(max=most), clock,
            failed=self.failures.append,
        )  # fmt: skip
        self.pool.scaler.finished(0.0, 0.0001)
        self.ends: Counter[int] = Counter()
        self.statuses: Counter[str] = Counter()
        self.took: dict[int, float] = {}
        self.count = 0

    def told(self, function: str, call: Call, event: Event, starts: bool) -> None:
        self.started[call.id] += starts

    def _ended(self, pending: Pending, result: Result) -> None:
        self.ends[pending.call.id] += 1
        self.statuses[result.status] += 1
        self.took[pending.call.id] = self.clock.monotonic() - self.took[pending.call.id]

    def submit(self, count: int, *, timeout_s: float = 0.0) -> list[Pending]:
        made = []
        for n in range(self.count, self.count + count):
            call = Call(n, "t", [Event(str(n), "/s", "t", data=b"x")], 1, 3, timeout_s)
            made.append(Pending(call, (), self._ended, lambda pending: None))
            self.took[n] = self.clock.monotonic()
        self.count += count
        self.pool.submit(made)
        return made

    async def served(self) -> None:
        for _ in range(10_000):
            if self.ends.total() == self.count:
                break
            await asyncio.sleep(0.1)
        assert self.ends == dict.fromkeys(range(self.count), 1)
        assert self.pool.bytes == self.pool.waiting_events == 0
        assert all(member.events == 0 for member in self.pool.members.values())

    async def two(self) -> None:
        """There are two instances, and both are idle."""
        self.pool.bound(ScaleSpec(min=2, max=2))
        while len(self.pool.members) < 2:
            await asyncio.sleep(0.01)

    async def halted(self) -> None:
        """What waits behind long calls is about to be taken back."""
        async with asyncio.timeout(LONG_S + 2 * HALT_S):
            while not any(member.halted for member in self.pool.members.values()):
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.pool.drain(0.0)
        assert not self.failures
        assert not self.sandbox.twice


def one_long(given: Given) -> None:
    """Have the next call that begins take a second, and those after it a millisecond."""
    usual = given.manner["f"]
    given.manner["f"] = Manner(long=1.0)
    count = given.started.total() + 1

    def told(function: str, call: Call, event: Event, starts: bool) -> None:
        given.told(function, call, event, starts)
        if given.started.total() > count:
            given.manner["f"] = usual

    given.sandbox.told = told


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_waits_behind_a_long_call_runs_elsewhere_as_soon_as_that_is_seen(
    concurrency: int,
) -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 1, concurrency)
        given.submit(1)
        await given.served()
        given.manner["f"] = Manner(long=1.0)
        given.submit(concurrency)  # of the one instance, all that it runs at once
        await asyncio.sleep(0.003)
        given.manner["f"] = Manner(service_s=0.001)
        await given.two()
        given.submit(200)
        assert min(len(member.calls) for member in given.pool.members.values()) > 50
        await given.served()
        quick = sorted(given.took.values())[: -concurrency or None]
        assert len(quick) == 201
        assert max(quick) < LONG_S + 2 * HALT_S + 0.2  # 200 calls, each of about a millisecond
        assert given.sandbox.recalled > 50
        assert given.statuses == {"ok": given.count}
        await given.close()

    simulated(clock, main())


def test_without_another_instance_nothing_is_taken_back() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 1)
        one_long(given)
        given.submit(100)
        await given.served()
        assert given.sandbox.recalled == 0
        await given.close()

    simulated(clock, main())


def test_where_there_could_be_another_instance_one_is_started_for_them() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 3)
        given.submit(1)
        await given.served()
        one_long(given)
        given.submit(100)
        await given.served()
        assert given.sandbox.recalled > 50
        assert len(given.pool.members) > 1
        assert sum(took < 0.6 for took in given.took.values()) == 100  # all but one
        await given.close()

    simulated(clock, main())


def test_an_instance_that_answers_as_it_is_halted_goes_on_with_what_it_has() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 2)
        await given.two()
        given.manner["f"] = Manner(hang=1.0)
        given.submit(50)
        (member, _) = given.pool.members.values()
        await given.halted()
        assert member.halted
        first = next(iter(member.calls))
        before = len(member.calls)
        given.manner["f"] = Manner(service_s=0.001)
        member.instance._finish_call(member.calls[first].call, "ok")  # type: ignore[attr-defined]
        assert len(member.calls) == before - 1
        await asyncio.sleep(HALT_S)
        assert not member.halted
        await asyncio.sleep(0.5)
        assert not member.calls
        await given.close()

    simulated(clock, main())


def test_what_a_caller_left_stays_where_it_is_and_is_answered_there() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 2)
        await given.two()
        one_long(given)
        made = given.submit(60)
        given.pool.cancel(made[-1])
        given.pool.cancel(made[-2])
        await given.halted()
        await asyncio.sleep(2 * HALT_S)
        assert given.sandbox.recalled > 20
        left = [p for m in given.pool.members.values() for p in m.calls.values() if p.left]
        assert left
        assert set(left) <= {made[-1], made[-2]}
        await given.served()
        await given.close()

    simulated(clock, main())


def test_nothing_is_taken_back_while_the_pool_drains_and_the_halted_go_on() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 2)
        await given.two()
        one_long(given)
        given.submit(50)
        await given.halted()
        assert await given.pool.drain(5.0) == 0
        assert given.ends == dict.fromkeys(range(50), 1)
        assert given.sandbox.recalled == 0
        await given.close()

    simulated(clock, main())


def test_the_dead_are_not_asked_and_those_that_end_meanwhile_lose_nothing() -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, 1, 2)
        await given.two()
        given.manner["f"] = Manner(hang=1.0)
        freed: list[int] = []
        for pending in given.submit(50):
            pending.released = lambda pending: freed.append(pending.call.id)
        await given.halted()
        halted = [member for member in given.pool.members.values() if member.halted]
        for member in halted:
            member.instance._end(None, "ended by SIGKILL", 9)  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert len(halted) == 2
        assert given.statuses == {"crash": 2}
        assert len(freed) == 48
        await given.close()

    simulated(clock, main())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    concurrency=st.sampled_from([1, 2, 5]),
    most=st.integers(2, 4),
    long=st.sampled_from([0.005, 0.02, 0.1]),
    bursts=st.lists(
        st.tuples(st.integers(1, 100), st.sampled_from([0.0, 0.002, 0.103, 0.4])), max_size=5
    ),
)
def test_each_call_runs_once_whatever_is_long(
    seed: int, concurrency: int, most: int, long: float, bursts: list[tuple[int, float]]
) -> None:
    clock = VirtualClock()

    async def main() -> None:
        given = Given(clock, seed, most, concurrency)
        given.manner["f"] = Manner(service_s=0.001, long=long)
        for count, gap in bursts:
            given.submit(count)
            await asyncio.sleep(gap)
        await given.served()
        assert given.started == given.ends
        await given.close()

    simulated(clock, main())


# A whole host

SOME_LONG = """
import time

def handler(event):
    n = event.json()["n"]
    time.sleep(3 if n == 120 else 0.001)
    return {"n": n}
---
[[trigger]]
topic = "in"
[output]
topic = "out"
[scale]
min = 2
max = 2
"""


def all_ended(one: Serving) -> list[Any]:
    """Publish what makes it known for quick, and 100 more; their outputs once all have ended."""

    def publish(some: range) -> None:
        event = {"specversion": "1.0", "source": "/t", "type": "t"}
        batch = [{**event, "id": str(n), "data": {"n": n}} for n in some]
        headers = {"content-type": "application/cloudevents-batch+json"}
        url = f"{one.url}/topics/in/events"
        assert httpx.post(url, json=batch, headers=headers).status_code == 202

    def state() -> Any:
        (row,) = rows(one.run("ls", "--json"))
        return row

    until(lambda: state()["instances"] == 2)
    publish(range(100))
    until(lambda: state()["done"] == 100)
    publish(range(100, 200))
    until(lambda: state()["done"] == 200 and state()["depth"] == 0)
    return rows(one.run("tail", "out", "--from", "earliest", "--limit", "200", "--json"))


def test_one_long_call_holds_up_none_but_itself(tmp_path: Path) -> None:
    one = Serving(tmp_path / "data", f=SOME_LONG)
    try:
        told = all_ended(one)
        assert sorted(row["event"]["data"]["n"] for row in told) == list(range(200))
        ended = {row["event"]["data"]["n"]: row["published_at"] for row in told}
        began = min(ended[n] for n in range(100, 200))
        assert ended.pop(120) - began > 2.9
        assert max(ended.values()) - began < 0.6  # 0.1 of it they take, 0.1 until it is seen
    finally:
        assert one.stop(signal.SIGTERM) == 0


def test_a_function_that_begins_what_was_taken_from_it_harms_itself_alone(tmp_path: Path) -> None:
    """It answers what is others' by then, and is ended."""
    lying = SOME_LONG.replace("    time.sleep(3 ", "    lie()\n    time.sleep(0.5 ").replace(
        "def handler",
        "import functools, gc\n\n"
        "@functools.cache\n"
        "def lie():\n"
        "    for each in gc.get_objects():\n"
        "        if type(each).__name__ == 'Worker':\n"
        "            each.begin = lambda: True\n\n"
        "def handler",
    )
    one = Serving(tmp_path / "data", f=lying + '[retry]\nbase = "10ms"\n')
    try:
        before = until(lambda: two(instances(one.process.pid)))
        told = all_ended(one)
        assert sorted(row["event"]["data"]["n"] for row in told) == list(range(200))
        after = until(lambda: two(instances(one.process.pid)))
        assert len(set(after) & set(before)) == 1
    finally:
        assert one.stop(signal.SIGTERM) == 0
