"""Cron triggers: ticks are events of a topic of the host's own, queued as all others are.

Retries, dead letters, scaling and replay need nothing new. A tick's id is derived from the trigger
and the time, so that several hosts that make it make one event (deduplication), and a host that
died between the tick and its note of it makes no second one.
"""

import asyncio
import logging

import msgspec

from funcrt.ids import derived_id
from funcrt.manifest import CronTrigger, MeshTrigger
from funcrt.manifest_kinds import OWN_NAMES
from funcrt.schedule import Schedule
from mesh.errors import MeshClosed, MeshError
from mesh.event import Event
from mesh.transport import Clock, Settlement, StateOp, Transport

__all__ = ["TYPE", "Cron", "cron_topic", "cron_trigger"]

TYPE = "funcrt.cron.tick"
"""Of the events."""
SLEEP_MOST_S = 30.0
"""The wall clock may be set meanwhile."""
RETRY_S = 1.0
"""Between tries, while the mesh takes nothing."""

log = logging.getLogger("funcrt.cron")


def cron_topic(function: str) -> str:
    """The topic that keeps a function's ticks."""
    return f"{OWN_NAMES}cron.{function}"


def cron_trigger(function: str, trigger: CronTrigger) -> MeshTrigger:
    """The mesh trigger that takes a cron trigger's ticks."""
    mine = {"exact": {"subject": trigger.name}}
    return MeshTrigger(name=trigger.name, topic=cron_topic(function), filters=[mine])


class _Note(msgspec.Struct, frozen=True):
    """What state keeps of a trigger. Another expression or time zone begins anew."""

    schedule: str
    timezone: str
    last: float


class Cron:
    """One cron trigger of a function in service."""

    def __init__(
        self, mesh: Transport, clock: Clock, namespace: str, function: str, trigger: CronTrigger
    ) -> None:
        self.mesh = mesh
        self.clock = clock
        self.trigger = trigger
        self.function = function
        self.scope = f"{OWN_NAMES}cron/{function}"
        self.schedule = Schedule(trigger.schedule, trigger.timezone)
        self._name = f"{namespace}\0{function}\0{trigger.name}"

    async def run(self) -> None:
        """Tick until cancelled or the mesh is closed."""
        try:
            last = await self._last()
            while True:
                now = self.clock.time()
                for tick in self.schedule.due(last, now, self.trigger.missed):
                    await self._tick(tick)
                last = max(last, now)
                wait = self.schedule.after(last) - self.clock.time()
                await asyncio.sleep(min(max(wait, 0.0), SLEEP_MOST_S))
        except MeshClosed:
            return

    async def _last(self) -> float:
        """The wall-clock second up to which all is done: of the last tick, or since the trigger is
        there."""
        if self.mesh.features.state:
            found = await self.mesh.state(self.scope, self.trigger.name)
            if found is not None:
                note = msgspec.json.decode(found[0], type=_Note)
                if (note.schedule, note.timezone) == self._written():
                    return note.last
        now = self.clock.time()
        await self._note(now)
        return now

    def _written(self) -> tuple[str, str]:
        return self.trigger.schedule, self.trigger.timezone

    async def _tick(self, tick: float) -> None:
        event = self.event(tick)
        while True:
            try:
                (receipt,) = await self.mesh.publish(cron_topic(self.function), [event])
                if receipt.status == "stored":
                    break
                why = receipt.reason or receipt.status
            except MeshClosed:
                raise
            except MeshError as error:
                why = str(error)
            log.error("%s: the tick of %s waits: %s", self.function, event.time, why)
            await asyncio.sleep(RETRY_S)
        await self._note(tick)

    def event(self, tick: float) -> Event:
        """The event of a tick."""
        local = self.schedule.shown(tick)
        return Event(
            derived_id(f"{self._name}\0{tick:.0f}"),
            f"/funcrt/{self.function}",
            TYPE,
            self.trigger.name,
            local,
            "application/json",
            data=msgspec.json.encode({"schedule": self.trigger.schedule, "scheduled": local}),
        )

    async def _note(self, last: float) -> None:
        if not self.mesh.features.state:
            return
        value = msgspec.json.encode(_Note(*self._written(), last))
        op = StateOp(self.scope, self.trigger.name, value)
        try:
            await self.mesh.commit([Settlement("", (), state=(op,))])
        except MeshClosed:
            raise
        except MeshError as error:
            # The tick's id keeps it from being made twice.
            log.warning("%s: cannot note the last tick: %s", self.function, error)
