"""A whole host in simulation: the host's own code over a simulated disk, instances and publishers,
in virtual time, under faults that a seed decides. One seed is one history.
"""

import asyncio
import hashlib
import logging
import random
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mesh.store
from funcrt.bundle import Bundle
from funcrt.host import Host, Prepared
from funcrt.manifest import (
    BatchSpec,
    DlqSpec,
    Manifest,
    MeshTrigger,
    OutputSpec,
    RetrySpec,
    ScaleSpec,
)
from funcrt.sandbox import Code
from funcrt.sandbox.protocol import Call
from mesh import Event
from mesh.embedded import Embedded, open_transport
from mesh.errors import MeshCorrupt, MeshError
from tests.sim.disk import Disk
from tests.sim.loop import VirtualClock, run
from tests.sim.plan import Fault, Plan
from tests.sim.sandbox import Manner, SimSandbox, SimZygote
from tests.sim.verdict import History, judge

__all__ = ["World", "simulate"]

LONG_S = 100_000.0
"""Virtual seconds, frozen ones included, in which all must be published."""
QUIET_S = 400.0
"""Virtual seconds after the last fault in which every queue must have run empty (I8)."""


def manifest(name: str, topic: str, out: str, **more: Any) -> Manifest:
    """One mesh trigger, one output topic, quick retries."""
    retry = RetrySpec(attempts=more.pop("attempts", 3), base_s=0.1, max_s=2.0)
    scale = ScaleSpec(max=more.pop("most", 3), idle_s=5.0)
    timeout = more.pop("timeout_s", 3.0)
    concurrency = more.pop("concurrency", 1)
    return Manifest(
        name=name,
        concurrency=concurrency,
        timeout_s=timeout,
        triggers=[MeshTrigger(name=topic, topic=topic, **more)],
        output=OutputSpec(topic=out),
        retry=retry,
        dlq=DlqSpec(topic=f"{name}.dlq"),
        scale=scale,
    )


FUNCTIONS = (
    manifest("plain", "in", "out", concurrency=2, filters=[{"prefix": {"type": "a."}}]),
    manifest("chain", "out", "end"),
    manifest("ordered", "in", "ord", order="key", attempts=4, concurrency=2),
    manifest("batch", "in", "bat", batch=BatchSpec(size=5, wait_s=0.05), attempts=4),
)


class World:
    """One run of one plan."""

    def __init__(self, plan: Plan, directory: Path, disk: Disk) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.disk = disk
        self.clock = VirtualClock()
        self.url = f"embedded://{directory}/mesh.db"
        self.code_root = directory / "code"
        self.history = History()
        self.mesh: Embedded | None = None
        self.host: Host | None = None
        self.sandbox: SimSandbox | None = None
        self.sandboxes: list[SimSandbox] = []
        """All that there were, one a host."""
        self.calm = False
        self.version = 0
        self.own: set[asyncio.Task[Any]] = set()
        self.up = asyncio.Event()
        self.restarting = False
        self.ruined = asyncio.Event()
        """No host can be started on what the disk holds."""

    # The host's life

    async def boot(self) -> None:
        """Start a host on what the disk holds; again after a power cut on the way. Raises
        MeshCorrupt, which no fault here may lead to."""
        while True:
            booting = asyncio.ensure_future(self._boot())
            while not booting.done() and not self.disk.off:
                await asyncio.wait([booting], timeout=0.01)
            if self.disk.off:  # what it waited for may never come
                booting.cancel()
                await asyncio.wait([booting])
                self._fell(power=True)
                continue
            try:
                return booting.result()
            except MeshCorrupt as error:
                self.history.failed(error)
                self.ruined.set()
                raise
            except (sqlite3.Error, MeshError):  # a full disk: the host says so and ends
                self._fell(power=False)
                await asyncio.sleep(0.5)

    async def _boot(self) -> None:
        self.mesh = await open_transport(
            self.url, "default", clock=self.clock, host=True, inline=True,
            synchronous=self.plan.synchronous,
        )  # fmt: skip
        manners = {
            spec.name: Manner(calm=True) if self.calm else self.plan.manner for spec in FUNCTIONS
        }
        chance = random.Random(self.chance.random())
        self.sandbox = SimSandbox(chance, manners, {"batch"}, self._told, self.history.hung)
        self.sandboxes.append(self.sandbox)
        self.host = Host(
            self.mesh, self.sandbox, self.clock, self.code_root, host_id="h", chance=chance
        )
        self.host.on_failure = self.history.failed
        self.mesh.on_fatal = self.history.failed
        await self.host.start()
        for spec in FUNCTIONS:
            await self.deploy(spec)
        self.up.set()

    async def deploy(self, spec: Manifest) -> None:
        """Put a version into service."""
        assert self.host is not None
        assert self.sandbox is not None
        body = f"{spec.name} {self.version}".encode()
        digest = hashlib.sha256(body).hexdigest()
        batch = spec.name == "batch"
        code = Code(
            name=spec.name, version=digest[:12], path=self.code_root,
            concurrency=spec.concurrency, batch=batch,
        )  # fmt: skip
        info = SimZygote(self.sandbox, code).info
        await self.host.replace(Prepared(spec, Bundle(digest, body), code, info))

    def _fell(self, *, power: bool) -> None:
        """The process is gone. Nothing of it runs or writes any more."""
        self.disk.off = True
        self.up.clear()
        if self.sandbox is not None:
            self.sandbox.kill_all()
        if self.host is not None:
            self.host.on_failure = _unheard
            for function in self.host.deployed.values():
                function.pool.draining = True
                if function.pool._timer is not None:
                    function.pool._timer.cancel()
        for task in asyncio.all_tasks():
            if task not in self.own:
                task.cancel()
        if self.mesh is not None:
            self.mesh.on_fatal = _unheard
            self.mesh.closed = True
            if self.mesh.engine is not None:
                self.mesh.engine.abandon()
            self.mesh._drop_lock()
        self.history.fell(self.clock.now)
        if power:
            self.history.torn += self.disk.power_loss(self.chance)
        self.disk.unsynced.clear()
        self.disk.cut_in = None
        self.disk.off = False
        self.mesh = self.host = self.sandbox = None

    def _told(self, function: str, call: Call, event: Event, starts: bool) -> None:
        self.history.called(function, event, starts, self.clock.now)

    # Publishers

    async def publisher(self, number: int) -> None:
        """Publishes in order, each event again until it is known to be stored."""
        chance = random.Random(f"{self.plan.seed} {number}")
        for n in range(self.plan.events):
            await asyncio.sleep(chance.expovariate(1 / self.plan.gap_s))
            event = Event(
                f"{number}-{n}", f"/p{number}", chance.choice(("a.x", "b.x")),
                extensions={"partitionkey": f"{number}{chance.choice('xy')}"},
                data=b"%d" % n + b"." * chance.choice((0, 10, 3000)),
            )  # fmt: skip
            for _ in range(chance.choice((1, 1, 1, 2))):  # some repeat themselves
                await self._publish(event, chance)

    async def _publish(self, event: Event, chance: random.Random) -> None:
        while True:
            await self.up.wait()
            transport = self.mesh
            status = "unknown"
            if transport is not None:
                try:
                    async with asyncio.timeout(2.0):
                        (receipt,) = await transport.publish("in", [event])
                        status = receipt.status
                except (TimeoutError, MeshError):
                    pass
            self.history.published(event, status, self.clock.now)
            if status == "stored":
                return
            await asyncio.sleep(chance.uniform(0.05, 0.3))

    # Faults

    async def faults(self) -> None:
        """Strike as planned."""
        for fault in self.plan.faults:
            await asyncio.sleep(max(fault.at - self.clock.now, 0.0))
            await self.strike(fault)

    async def strike(self, fault: Fault) -> None:
        """One fault, and what follows from it."""
        self.history.faults.append(fault)
        match fault.kind:
            case "kill":
                await self._restart(power=False)
            case "power":
                await self._restart(power=True)
            case "cut":
                self.disk.cut_in = fault.amount
            case "full":
                self.disk.full = True
                await asyncio.sleep(fault.amount / 10)
                self.disk.full = False
            case "freeze":
                self.clock.now += fault.amount
            case "jump":
                self.clock.skew += fault.amount
            case "instance" if self.sandbox and self.sandbox.instances:
                self.chance.choice(self.sandbox.instances)._end(None, "ended by SIGKILL", 9)
            case "stop" if self.sandbox and self.sandbox.instances:
                chosen = self.chance.choice(self.sandbox.instances)
                chosen.stopped = True
                await asyncio.sleep(fault.amount / 10)
                chosen.stopped = False
                chosen._run()
            case "deploy" if self.up.is_set():
                self.version += 1
                spec = self.chance.choice(FUNCTIONS)
                deploying = asyncio.ensure_future(self.deploy(spec))
                await asyncio.wait([deploying])
                if not deploying.cancelled() and (error := deploying.exception()):
                    self.history.failed(error)

    async def watch_power(self) -> None:
        """Notice a cut in the middle of a write."""
        while True:
            await asyncio.sleep(0.01)
            if self.disk.off:
                await self._restart(power=True)

    async def _restart(self, *, power: bool) -> None:
        if self.restarting or (not self.up.is_set() and not self.disk.off):
            return
        self.restarting = True
        self._fell(power=power)
        await asyncio.sleep(self.chance.uniform(0.01, 1.0))
        await self.boot()
        self.restarting = False

    # The run

    async def live(self) -> None:
        """Publish under faults, then let everything come to rest, then look."""
        self._mine(asyncio.current_task())
        booting = self._mine(asyncio.ensure_future(self.boot()))
        await booting
        watching = self._mine(asyncio.ensure_future(self.watch_power()))
        publishing = [
            self._mine(asyncio.ensure_future(self.publisher(n)))
            for n in range(self.plan.publishers)
        ]
        striking = self._mine(asyncio.ensure_future(self.faults()))
        work = asyncio.gather(striking, *publishing)
        ruined = self._mine(asyncio.ensure_future(self.ruined.wait()))
        await asyncio.wait([work, ruined], timeout=LONG_S, return_when="FIRST_COMPLETED")
        if self.ruined.is_set():
            return
        if not work.done():
            self.history.violations.append("publishers never got through")
            return
        work.result()
        await self._rest()
        watching.cancel()
        await asyncio.wait([watching])
        if self.mesh is not None:
            await self.history.read(self.mesh, FUNCTIONS)
            await asyncio.wait_for(self._stop(), 60)

    def _mine(self, task: Any) -> Any:
        self.own.add(task)
        return task

    async def _rest(self) -> None:
        """Faults are over: every queue must run empty in bounded time."""
        self.calm = True
        self.disk.cut_in = None
        while not self.up.is_set():
            await asyncio.sleep(0.1)
        if self.sandbox is not None:
            calm = Manner(calm=True)
            self.sandbox.manners = dict.fromkeys(self.sandbox.manners, calm)
        until = self.clock.now + QUIET_S
        while self.clock.now < until:
            await asyncio.sleep(0.5)
            if self.mesh is None:
                continue
            depths = [
                await self.mesh.depth(f"{spec.name}/{spec.triggers[0].name}") for spec in FUNCTIONS
            ]
            if not any(d.ready + d.leased + d.delayed for d in depths):
                return
        self.history.violations.append(
            f"I8: after {QUIET_S:g} s of calm there is a backlog: {depths}"
        )

    async def _stop(self) -> None:
        assert self.host is not None
        assert self.mesh is not None
        await self.host.drain(5.0)
        await self.mesh.close()


def _unheard(error: BaseException) -> None:
    """What a host that is gone would say."""


@contextmanager
def simulated_disk() -> Iterator[Disk]:
    """The mesh's files on a simulated disk."""
    disk, real, hook = Disk(), mesh.store.open_database, sys.unraisablehook
    sys.unraisablehook = lambda told: None  # apsw tells here what the disk raises on purpose
    mesh.store.open_database = disk.connect  # type: ignore[assignment]
    try:
        yield disk
    finally:
        mesh.store.open_database = real
        sys.unraisablehook = hook
        disk.close()


def simulate(plan: Plan, world_of: Callable[[Plan, Path, Disk], World] = World) -> History:
    """Run a plan; its history, judged."""
    logging.getLogger("funcrt").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory(prefix="funcrt-sim-") as directory, simulated_disk() as disk:
        world = world_of(plan, Path(directory), disk)
        run(world.clock, world.live())
        for sandbox in world.sandboxes:
            world.history.recalled += sandbox.recalled
            world.history.violations += sandbox.twice
        judge(world.history, FUNCTIONS)
        world.history.ended_at = world.clock.now
        return world.history
