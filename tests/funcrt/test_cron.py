"""Cron triggers: ticks as events, whatever happens to the hosts that make them."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from funcrt.cron import TYPE, Cron, cron_topic
from funcrt.manifest import CronTrigger
from mesh.embedded import Embedded, open_transport
from mesh.errors import MeshFull
from tests.serving import Serving, rows, until
from tests.sim.loop import VirtualClock, run

HOUR = 3600.0


class Stage:
    """Hosts' cron triggers on one mesh in memory, in virtual time from a quarter past one on."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        clock.skew = -(clock.time() % HOUR) + 900.0
        self.mesh: Embedded
        self.running: list[asyncio.Task[None]] = []

    def start(self, schedule: str = "*/5 * * * *", missed: Any = "latest") -> Cron:
        trigger = CronTrigger(name="often", schedule=schedule, missed=missed)
        cron = Cron(self.mesh, self.clock, "default", "clean", trigger)
        self.running.append(asyncio.ensure_future(cron.run()))
        return cron

    async def stop(self) -> None:
        for task in self.running:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.running.clear()

    async def ticks(self) -> list[str]:
        """The scheduled minutes that are in the topic, in its order."""
        found = await self.mesh.read(cron_topic("clean"), "earliest", 10_000)
        assert all(item.event.subject == "often" and item.event.type == TYPE for item in found)
        return [str(item.event.time)[11:16] for item in found]


def on_stage(body: Callable[[Stage], Awaitable[None]]) -> None:
    clock = VirtualClock()

    async def live() -> None:
        stage = Stage(clock)
        stage.mesh = await open_transport("embedded::memory:", "default", clock=clock, host=True)
        await body(stage)
        await stage.stop()
        await stage.mesh.close()

    run(clock, live())


def minutes(first: int, last: int, hour: int) -> list[str]:
    return [f"{(hour + m // 60) % 24:02}:{m % 60:02}" for m in range(first, last + 1, 5)]


def test_each_tick_is_one_event_however_many_hosts_make_it() -> None:
    async def body(stage: Stage) -> None:
        hour = int(stage.clock.time() // HOUR % 24)
        stage.start()
        stage.start()
        await asyncio.sleep(HOUR + 60)
        assert await stage.ticks() == minutes(20, 75, hour)

    on_stage(body)


def test_the_event_says_when_it_was_to_come_and_is_derived_from_that() -> None:
    async def body(stage: Stage) -> None:
        made = [stage.start().event(tick) for tick in (1_700_000_100.0, 1_700_000_100.0, 1.7e9)]
        assert made[0] == made[1]
        assert made[0].id != made[2].id
        assert made[0].time == "2023-11-14T22:15:00+00:00"
        scheduled = {"schedule": "*/5 * * * *", "scheduled": "2023-11-14T22:15:00+00:00"}
        assert made[0].json() == scheduled

    on_stage(body)


@pytest.mark.parametrize(
    ("missed", "made_up"), [("latest", [60]), ("all", [*range(20, 61, 5)]), ("skip", [])]
)
def test_ticks_that_no_host_was_there_for(missed: str, made_up: list[int]) -> None:
    async def body(stage: Stage) -> None:
        hour = int(stage.clock.time() // HOUR % 24)
        stage.start(missed=missed)
        await asyncio.sleep(60)
        await stage.stop()
        await asyncio.sleep(46 * 60)  # to two minutes past the hour
        stage.start(missed=missed)
        await asyncio.sleep(60)
        assert await stage.ticks() == [each for m in made_up for each in minutes(m, m, hour)]
        await asyncio.sleep(200)
        assert (await stage.ticks())[len(made_up) :] == minutes(65, 65, hour)

    on_stage(body)


def test_a_host_that_died_before_it_noted_a_tick_makes_no_second_one() -> None:
    async def body(stage: Stage) -> None:
        cron = stage.start()
        await asyncio.sleep(60)

        async def dies(last: float) -> None:
            raise asyncio.CancelledError

        cron._note = dies  # type: ignore[method-assign]
        await asyncio.sleep(300)
        assert len(await stage.ticks()) == 1
        await stage.stop()
        stage.start()
        await asyncio.sleep(60)
        assert len(await stage.ticks()) == 1

    on_stage(body)


def test_another_schedule_begins_anew() -> None:
    async def body(stage: Stage) -> None:
        hour = int(stage.clock.time() // HOUR % 24)
        stage.start()
        await asyncio.sleep(60)
        await stage.stop()
        await asyncio.sleep(1000)
        stage.start("*/7 * * * *", missed="all")
        await asyncio.sleep(600)
        assert await stage.ticks() == [*minutes(35, 35, hour), *minutes(42, 42, hour)]

    on_stage(body)


def test_a_clock_that_is_set_makes_no_tick_twice() -> None:
    async def body(stage: Stage) -> None:
        hour = int(stage.clock.time() // HOUR % 24)
        stage.start()
        await asyncio.sleep(660)
        stage.clock.skew -= HOUR
        await asyncio.sleep(HOUR)
        assert await stage.ticks() == minutes(20, 25, hour)
        stage.clock.skew += HOUR
        await asyncio.sleep(200)
        assert await stage.ticks() == [*minutes(20, 25, hour), *minutes(85, 85, hour)]

    on_stage(body)


def test_a_tick_waits_for_a_mesh_that_is_full() -> None:
    async def body(stage: Stage) -> None:
        hour = int(stage.clock.time() // HOUR % 24)
        publish, stage.mesh.publish = stage.mesh.publish, refuses  # type: ignore[method-assign]
        stage.start()
        await asyncio.sleep(500)
        stage.mesh.publish = publish  # type: ignore[method-assign]
        await asyncio.sleep(2)
        assert await stage.ticks() == minutes(20, 20, hour)

    async def refuses(*arguments: Any, **more: Any) -> Any:
        raise MeshFull("mesh.db", "the disk is full")

    on_stage(body)


TICKS = """
def handler(event, ctx):
    return {"trigger": ctx.trigger, "type": event.type, **event.json()}
---
[[trigger]]
kind = "cron"
schedule = "* * * * * *"
timezone = "Asia/Kathmandu"
[output]
topic = "out"
"""


def test_a_function_runs_every_second(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "data", ticks=TICKS)
    try:
        tail = ["tail", "out", "--from", "earliest", "--limit", "2", "--json"]
        made = [row["event"]["data"] for row in rows(serving.run(*tail))]
        assert [each["trigger"] for each in made] == ["cron", "cron"]
        assert made[0]["type"] == TYPE
        assert made[0]["scheduled"].endswith("+05:45")
        assert made[0]["scheduled"] < made[1]["scheduled"]
        (function,) = until(lambda: rows(serving.run("ls", "--json")))
        (trigger,) = function["triggers"]
        assert (trigger["kind"], trigger["target"]) == ("cron", "* * * * * * Asia/Kathmandu")
        assert trigger["filter"].startswith("next 2")
    finally:
        serving.stop(signal.SIGKILL)
