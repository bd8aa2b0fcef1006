"""A deployed function in service: its triggers' pumps, its calls, its counters."""

import asyncio
import itertools
import json
import logging
from collections.abc import Coroutine, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import triggers
from funcrt.api import FunctionStatus, Kind, TriggerStatus
from funcrt.calls import TRIGGER
from funcrt.cron import Cron
from funcrt.diary import Diary
from funcrt.direct import Direct
from funcrt.errors import DeployError
from funcrt.idempotency import Gate
from funcrt.manifest import CronTrigger, HttpTrigger, Manifest, MeshTrigger, ScaleSpec
from funcrt.member import Pending
from funcrt.observation import refusal_of
from funcrt.observer import Sent
from funcrt.outcome import Origin, origin_of, settle
from funcrt.packages import Installed
from funcrt.pool import Pool
from funcrt.reach import filter_of
from funcrt.registry import Deployment
from funcrt.sandbox import Code, HandlerInfo
from funcrt.sandbox.protocol import Aside, Call, Made, Out, Result
from funcrt.schedule import Schedule
from funcrt.streams import Items, Stream
from funcrt.tasks import Tasks
from funcrt.verdict import brief, conditions
from mesh.errors import MeshClosed, MeshCorrupt, MeshError
from mesh.event import Event
from mesh.failpoint import point
from mesh.transport import (
    Dead,
    Delivery,
    Done,
    Feed,
    Filtered,
    Outcome,
    Released,
    Retry,
    Settled,
    Settlement,
    Subscription,
)

if TYPE_CHECKING:
    from funcrt.host import Host

__all__ = [
    "LEASE_S",
    "Function",
    "Served",
]

LEASE_S = 60.0
EXTEND_S = 20.0
SECRETS_S = 5.0
"""How often it is looked whether a secret has changed."""
STREAM_S = 5.0
"""What a stream has sent is published within this once its call has ended."""


def shown(spec: MeshTrigger) -> str:
    """A trigger's filters for people, e.g. `prefix type "order."`."""
    parts = [json.dumps(item, ensure_ascii=False) for item in spec.filters]
    for index, item in enumerate(spec.filters):
        ((dialect, value),) = item.items()
        if dialect in ("exact", "prefix", "suffix"):
            sign = "=" if dialect == "exact" else dialect
            parts[index] = ", ".join(f"{name} {sign} {wanted}" for name, wanted in value.items())
    more = triggers.parse({"pattern": spec.pattern, "jsonpath": spec.jsonpath})
    return ", ".join([*parts, *map(brief, conditions(more))])


class Served:
    """One mesh trigger of a function in service."""

    def __init__(self, spec: MeshTrigger, subscription: Subscription) -> None:
        self.spec = spec
        self.subscription = subscription
        self.name = subscription.name
        self.filter = filter_of(spec)
        self.matches = self.filter.matches
        self.missed: Event | None = None
        """The last that was pulled and that its filters did not match; and when."""
        self.missed_at = 0.0
        self.feed: Feed | None = None
        self.pulled = 0
        self.pulled_at = 0.0
        """Wall-clock seconds of the last pull that brought something; 0 for none."""
        self.refused = 0
        """Of what was pulled: what this version's filters did not match."""
        self.trouble = ""
        """Why the last pull failed."""
        self.gate: Gate | None = None
        """Of its idempotency keys, where it has any."""


class Function:
    """One version of a function in service."""

    def __init__(
        self,
        host: "Host",
        manifest: Manifest,
        code: Code,
        info: HandlerInfo,
        mesh_triggers: Sequence[Served],
        *,
        paused: bool = False,
    ) -> None:
        self.host = host
        self.paused = paused
        """It takes nothing from the mesh, and answers no call."""
        self.manifest = manifest
        self.version = code.version
        self.name = manifest.name
        self.pool = Pool(code, info, host.zygotes, manifest.scale, host.clock, failed=host.failed)
        self.pool.backlog = self._backlog
        self.pool.secrets = lambda: host.secrets.read(self.name, code.secrets)
        self.mesh_triggers = list(mesh_triggers)
        self.made: list[str] = []
        """Subscriptions that it was the first to have."""
        self.installed: Installed | None = None
        """What it needs, and where that is; None for nothing."""
        self.folder: Path | None = None
        """What it was packed from, where that is a directory."""
        self.deployment: Deployment | None = None
        """As it is recorded; None where nothing is, as in `funcrt dev`."""
        self.http_triggers = [t for t in manifest.triggers if isinstance(t, HttpTrigger)]
        self.kind: Kind = "request" if info.request else "event"
        if manifest.output.stream:
            self.kind = "stream"
        self.meter = host.meter(self.name)
        self.diary = Diary(host.logbook, self.name, self.version, host.clock)
        self.pool.line = self.diary.said
        self.pool.over, self.pool.used = self.meter.over, self.meter.used
        self.since = host.clock.time()
        """When it was made."""
        direct = Direct(self)
        self.call, self.respond = direct.call, direct.respond
        self.log = logging.getLogger(f"funcrt.function.{self.name}")
        self.numbers = itertools.count(1)
        self._tasks = Tasks(host.failed)
        self._keeping = Tasks(host.failed)
        """Of leases: goes on while what runs is drained."""
        self._streams = Tasks(host.failed)
        self._following = Tasks(host.failed)
        self._origins: dict[str, Origin] = {}
        self._gates: dict[str, Gate] = {}
        """By subscription: none, or one each."""

    # In service

    def start(self) -> None:
        """Begin to pull the feeds of `mesh_triggers`, unless it is paused."""
        for served in self.mesh_triggers:
            if served.feed is not None:
                self.serve(served, served.feed)
        if not self.paused:
            self._start_clocks()
        for _ in range(self.manifest.scale.min):
            self.pool.rescale()
        if self.pool.code.secrets and not self._following:
            self._following.start(self._follow_secrets(), f"secrets {self.name}")

    async def _follow_secrets(self) -> None:
        """Take up secrets that change."""
        told = ""
        while True:
            await asyncio.sleep(SECRETS_S)
            try:
                if count := self.pool.renew():
                    self.diary.noted("info", f"secrets changed: instances to replace: {count}")
                told = ""
            except DeployError as error:
                if str(error) != told:
                    told = str(error)
                    self.diary.noted("error", f"{error}; instances go on with what they have")

    def _start_clocks(self) -> None:
        host = self.host
        for trigger in self.manifest.triggers:
            if isinstance(trigger, CronTrigger):
                cron = Cron(host.mesh, host.clock, host.namespace, self.name, trigger)
                self._tasks.start(cron.run(), f"cron {self.name}/{trigger.name}")

    def serve(self, served: Served, feed: Feed) -> None:
        """Begin to pull one of `mesh_triggers`, unless it is paused."""
        if not self._keeping:
            self._keeping.start(self._keep_leases(), f"leases {self.name}")
        served.feed = feed
        if served.gate is None and self.manifest.idempotency is not None:
            served.gate = self._gates[served.name] = Gate(self, served, self.manifest.idempotency)
        if not self.paused:
            if served.gate is not None:
                served.gate.closed = False
            self.start_task(self._pump(served, feed), f"pump {served.name}")

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run what takes from the mesh, until it is to take no more."""
        self._tasks.start(work, name)

    async def pause(self) -> None:
        """Take no more, from the mesh or from callers. What runs finishes; what waits for an
        instance goes back to its queue. Ticks of a schedule are missed, as while no host runs."""
        self.paused = True
        await self.stop_pulling()
        self.pool.give_back()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.paused = False
        for served in self.mesh_triggers:
            if served.feed is not None:
                self.serve(served, served.feed)
        self._start_clocks()
        self.pool.rescale()

    def bound(self, spec: ScaleSpec) -> None:
        """Scale within these bounds from now on."""
        self.pool.bound(spec)

    def serves(self, manifest: Manifest, code: Code) -> bool:
        """Whether this is that version of it."""
        return manifest == self.manifest and code == self.pool.code

    @property
    def queues_calls(self) -> bool:
        """Whether it has the queue of asynchronous calls, which is made for the first of them."""
        return any(served.spec.name == TRIGGER for served in self.mesh_triggers)

    def _backlog(self) -> int | None:
        """What waits in the mesh and could run now; None where that is unknown."""
        return 0 if self.paused else self.host.ready_depth(self)

    async def _pump(self, served: Served, feed: Feed) -> None:
        """Pull what the instances can take, for as long as the function is in service."""
        pool, batch, room = self.pool, served.spec.batch, self.host.settler.room
        while True:
            await room.wait()
            credit = pool.credit() if self.manifest.scale.max else 0
            if credit <= 0:
                pool.room.clear()
                await pool.room.wait()
                continue
            try:
                if batch is None:
                    deliveries = await feed.pull(min(credit, 256), 60.0, pool.room_bytes())
                else:
                    deliveries = await self._gather(feed, batch.size, batch.wait_s)
                if deliveries:
                    point("pulled")
                    served.pulled += len(deliveries)
                    served.pulled_at, served.trouble = self.host.clock.time(), ""
                    await self._dispatch(served, deliveries)
            except MeshClosed:
                return
            except MeshCorrupt:
                raise  # it will not get better: the host ends
            except MeshError as error:
                served.trouble = str(error)
                self.log.error("%s: cannot pull: %s", served.spec.name, error)
                await asyncio.sleep(1.0)
                continue
            if deliveries:
                await asyncio.sleep(0)

    async def _gather(self, feed: Feed, size: int, wait_s: float) -> list[Delivery]:
        """A batch: up to `size`, waiting at most `wait_s` after the first."""
        loop = asyncio.get_running_loop()
        deliveries = await feed.pull(size, 60.0)
        until = loop.time() + wait_s
        try:
            while deliveries and len(deliveries) < size and (left := until - loop.time()) > 0:
                deliveries += await feed.pull(size - len(deliveries), left)
        except asyncio.CancelledError:
            for delivery in deliveries:
                self.settle_as(delivery, Released())
            raise
        return deliveries

    async def _dispatch(self, served: Served, deliveries: Sequence[Delivery]) -> None:
        matches = served.matches
        wanted = [delivery for delivery in deliveries if matches(delivery.event)]
        if len(wanted) < len(deliveries):
            kept = {delivery.fence for delivery in wanted}
            for delivery in deliveries:
                if delivery.fence not in kept:
                    served.refused += 1
                    served.missed, served.missed_at = delivery.event, self.host.clock.time()
                    self.settle_as(delivery, Filtered())
        if served.gate is not None:
            wanted = await served.gate.admit(wanted)
        self.submit(served, wanted)

    def submit(self, served: Served, wanted: Sequence[Delivery]) -> None:
        """Call for these, at once or in a batch."""
        if not wanted:
            return
        if served.spec.batch is not None:
            self.pool.submit([self._pending(served.spec.name, wanted)])
        else:
            name = served.spec.name
            self.pool.submit([self._pending(name, (delivery,)) for delivery in wanted])

    def _pending(self, trigger: str, deliveries: Sequence[Delivery]) -> Pending:
        first = deliveries[0]
        if len(deliveries) == 1:  # most are, and the general way takes twice as long
            events, replays = [first.event], [first.replay] if first.replay else []
        else:
            events = [delivery.event for delivery in deliveries]
            replays = [delivery.replay for delivery in deliveries]
        call = Call(
            next(self.numbers),
            trigger,
            events,
            first.attempt,
            self.manifest.retry.attempts,
            self.manifest.timeout_s,
            self.origin(trigger).scope,
            replays if any(replays) else [],
        )
        if self.kind == "stream":
            return self._streamed(call, deliveries[0])
        return Pending(call, deliveries, self._ended, self._released, len(deliveries))

    def _streamed(self, call: Call, delivery: Delivery) -> Pending:
        """A call whose outputs are published as they are made."""
        stream = Stream()
        pending = Pending(
            call,
            (delivery,),
            lambda _, result: stream.ended(result),
            lambda _: stream.abandon(),
            said=stream.said,
        )
        self._streams.start(self._follow(pending, stream, delivery), f"stream {self.name}")
        return pending

    async def _follow(self, pending: Pending, stream: Stream, delivery: Delivery) -> None:
        items = Items(self, delivery.event, pending.call.trigger, delivery.hops, delivery.replay)
        kept: list[Out] = []

        async def handle(messages: Sequence[Aside]) -> None:
            made = [message.out for message in messages if isinstance(message, Made)]
            if delivery.reply_to:
                kept.extend(made)  # who asked over the mesh gets them together
            else:
                await items.publish(made)

        result = await stream.run(handle)
        if result is None:
            self._released(pending)
            return
        if kept:
            result = msgspec.structs.replace(result, outputs=[*kept, *result.outputs])
        self._settle(pending, result, items.sent)

    def origin(self, trigger: str) -> Origin:
        """Where a trigger's outputs come from."""
        origin = self._origins.get(trigger)
        if origin is None:
            origin = origin_of(self.manifest, self.host.namespace, trigger, self.pool.hide)
            self._origins[trigger] = origin
        return origin

    def _ended(self, pending: Pending, result: Result) -> None:
        """A call of deliveries ended."""
        if result.status != "ok" and len(pending.deliveries) > 1 and result.status != "retry":
            # A batch that failed whole: halve it until the culprit stands alone. Only that one
            # uses up an attempt.
            middle = len(pending.deliveries) // 2
            trigger = pending.call.trigger
            self.pool.submit(
                [
                    self._pending(trigger, part)
                    for part in (pending.deliveries[:middle], pending.deliveries[middle:])
                ]
            )
            return
        self._settle(pending, result)

    def _settle(self, pending: Pending, result: Result, sent: Sent | None = None) -> None:
        now = self.host.clock.time()
        settlement = settle(
            self.manifest,
            self.origin(pending.call.trigger),
            pending.deliveries,
            result,
            now=now,
            jitter=self.host.chance.random(),
            first=sent.count if sent is not None else 0,
        )
        committed = None
        if self._gates:
            settlement, committed = self._gates[settlement.subscription].settling(settlement)
        meter, delivery = self.meter, pending.deliveries[0]
        meter.ran(self.pool.stamp, result.took_us)
        if delivery.attempt == 1 and not delivery.replay:
            meter.waited(int((now - delivery.published_at) * 1e6) - result.took_us)
        if self._count(settlement):
            self.diary.failed(self.manifest, result, settlement)
        if self.host.observer is not None:
            self.host.observer.settled(self, result, settlement, sent or Sent())
        self.host.settler.soon(settlement, committed)

    def deduplicated(self, delivery: Delivery) -> None:
        """A call has succeeded with its idempotency key: it ends as done, without a call."""
        self.meter.deduplicated += 1
        spec = self.manifest.idempotency
        if spec is not None:
            self.diary.deduplicated(delivery.event, spec)
        if self.host.observer is not None:
            self.host.observer.deduplicated(self, delivery.event)
        self.settle_as(delivery, Done())

    def _count(self, settlement: Settlement) -> int:
        """Count how its deliveries ended; how many of them failed."""
        meter, bad = self.meter, 0
        meter.outputs += len(settlement.outputs)
        for settled in settlement.settled:
            outcome, event = settled.outcome, settled.delivery.event
            if isinstance(outcome, Done):
                meter.done += 1
            elif isinstance(outcome, Retry):
                bad += 1
                if self.host.observer is not None:
                    continue
                attempt, most = settled.delivery.attempt, self.manifest.retry.attempts
                why = outcome.error
                self.log.warning("%s failed (attempt %d of %d): %s", event.id, attempt, most, why)
            elif isinstance(outcome, Dead):
                bad += 1
                meter.dead += 1
                if self.host.observer is None:
                    self.log.error("%s failed for good: %s", event.id, outcome.reason)
        meter.failed += bad
        return bad

    def _released(self, pending: Pending) -> None:
        for delivery in pending.deliveries:
            self.settle_as(delivery, Released())

    def settle_as(self, delivery: Delivery, outcome: Outcome) -> None:
        """End a delivery that was not called for, or give it back."""
        settlement = Settlement(delivery.subscription, (Settled(delivery, outcome),))
        committed = None
        if self._gates:
            settlement, committed = self._gates[settlement.subscription].settling(settlement)
        self.host.settler.soon(settlement, committed)

    async def _keep_leases(self) -> None:
        """Extend what instances hold, for as long as calls run."""
        while True:
            await asyncio.sleep(EXTEND_S)
            held: dict[str, list[Delivery]] = {}
            gates = self._gates.values()
            for delivery in chain(self.pool.outstanding(), *(gate.held() for gate in gates)):
                held.setdefault(delivery.subscription, []).append(delivery)
            for served in self.mesh_triggers:
                mine = held.get(served.name)
                if mine and served.feed is not None:
                    await served.feed.extend(mine, LEASE_S)

    # Looking

    def triggers(self) -> list[TriggerStatus]:
        """As `ls` shows them, without what waits."""
        rows = []
        for served in self.mesh_triggers:
            kind, target, which = self._shown(served.spec)
            name = served.spec.name
            refusal = refusal_of(served, self.host.router, self.since)
            rows.append(
                TriggerStatus(name=name, kind=kind, target=target, filter=which, refusal=refusal)
            )
        rows += [TriggerStatus(name=t.name, kind="http", target=t.path) for t in self.http_triggers]
        return rows

    def _shown(self, spec: MeshTrigger) -> tuple[str, str, str]:
        """A queued trigger's kind, where its events come from, and which of them."""
        for trigger in self.manifest.triggers:
            if isinstance(trigger, CronTrigger) and trigger.name == spec.name:
                schedule = Schedule(trigger.schedule, trigger.timezone)
                coming = schedule.shown(schedule.after(self.host.clock.time()))
                return "cron", f"{trigger.schedule} {trigger.timezone}", f"next {coming}"
        return "call" if spec.name == TRIGGER else "mesh", spec.topic, shown(spec)

    async def status(self) -> FunctionStatus:
        """As `ls` shows it."""
        rows, depth = self.triggers(), 0
        for at, served in enumerate(self.mesh_triggers):
            found = await self.host.mesh.depth(served.name)
            depth += found.ready + found.leased + found.delayed
            waiting = {"ready": found.ready, "leased": found.leased, "delayed": found.delayed}
            rows[at] = msgspec.structs.replace(rows[at], **waiting)
        pool, manifest = self.pool, self.manifest
        alive = len(pool.members)
        used = [member.instance.usage() for member in pool.members.values()]
        state = "ready" if alive else "warming" if pool.starting else "zero"
        state = "paused" if self.paused else "failing" if pool.trouble else state
        return FunctionStatus(
            name=self.name,
            version=self.version,
            state=state,  # type: ignore[arg-type]
            instances=alive,
            busy=pool.busy,
            wanted=pool.decision.wanted,
            reason=pool.decision.reason,
            depth=depth,
            done=self.meter.done,
            failed=self.meter.failed,
            dead=self.meter.dead,
            outputs=self.meter.outputs,
            deduplicated=self.meter.deduplicated,
            triggers=rows,
            output_topic=manifest.output.topic,
            dlq_topic=manifest.dlq.topic if manifest.dlq else None,
            isolation=pool.info.isolation,
            python=pool.info.python,
            limited=dict(self.meter.limited),
            cpu_s=round(self.meter.cpu_s + sum(each.cpu_s or 0.0 for each in used), 3),
            memory_bytes=sum(each.memory_bytes or 0 for each in used),
            peak_bytes=max([self.meter.peak_bytes, *(each.peak_bytes or 0 for each in used)]),
        )

    # The end

    async def stop_pulling(self) -> None:
        """Take no more from the mesh; what waits for its key goes back."""
        for gate in self._gates.values():
            gate.closed = True
        await self._tasks.cancel()
        for gate in self._gates.values():
            gate.give_back()

    async def drain(self, seconds: float) -> int:
        """Finish what runs, give back the rest; how many that ran were given back too."""
        await self.stop_pulling()
        cut = await self.pool.drain(seconds)
        await self._streams.finish(STREAM_S)
        await self._keeping.cancel()
        await self._following.cancel()
        return cut

    async def close_feeds(self) -> None:
        """What is still leased is ready for others at once."""
        for served in self.mesh_triggers:
            if served.feed is not None:
                await served.feed.close()
