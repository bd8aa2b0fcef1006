"""What an operator asks of a host about its functions' events: why, how fast, and once more."""

import asyncio
import sys
import uuid
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from funcrt.api import Refusal
from funcrt.diary import Diary
from funcrt.errors import ReplayRefused, TriggerUnknown
from funcrt.logbook import Logbook
from funcrt.meter import WINDOWS_S, Window
from funcrt.router import Router
from funcrt.sandbox import Code
from funcrt.verdict import FunctionVerdict, TriggerVerdict, refused_by, verdict
from mesh.errors import EventError, MeshError
from mesh.event import Event
from mesh.transport import DeadLetter, Logged

if TYPE_CHECKING:
    from funcrt.function import Function, Served
    from funcrt.host import Host

__all__ = ["Found", "FunctionStats", "Observation", "Replayed", "after", "refusal_of"]

PAGE = 256
DROPPED = 256
"""Dead letters forgotten in one transaction."""
DIGITS = 18
FOUND_BYTES = 8 << 20
"""Of events in one answer."""


class FunctionStats(msgspec.Struct, frozen=True, kw_only=True):
    """What `funcrt stats` shows of a function."""

    name: str
    version: str
    state: str
    instances: int
    busy: int
    depth: int
    oldest_s: float
    """Age of the oldest event that waits or runs; 0 where none does."""
    done: int
    """This and the next four since the host started."""
    failed: int
    dead: int
    outputs: int
    deduplicated: int
    limited: dict[str, int]
    cpu_s: float
    memory_bytes: int
    peak_bytes: int
    """These as of FunctionStatus."""
    windows: list[Window]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a trigger of a function took."""

    trigger: str
    logged: Logged


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A replay: how many events were queued, and the id that they carry."""

    replayed: int
    replay_id: str


class Observation:
    """Of a host."""

    def __init__(self, host: "Host") -> None:
        self.host = host

    @property
    def logbook(self) -> Logbook:
        """What functions said."""
        return self.host.logbook

    def said(self, name: str) -> str:
        """A function's name, where it is deployed or left lines. Raises FunctionUnknown."""
        return name if name in self.logbook else self.host.function(name).name

    def imported(self, code: Code, level: str, text: str) -> None:
        """A line that an import wrote."""
        Diary(self.logbook, code.name, code.version, self.host.clock).noted(level, text)

    # Figures

    async def stats(self, name: str = "") -> list[FunctionStats]:
        """Of one function, or of all by name. Raises FunctionUnknown."""
        names = [name] if name else sorted(self.host.deployed)
        return [await self._stats(self.host.function(each)) for each in names]

    async def _stats(self, function: "Function") -> FunctionStats:
        status = await function.status()
        oldest = 0.0
        for served in function.mesh_triggers:
            oldest = max(oldest, (await self.host.mesh.depth(served.name)).oldest_age_s)
        now = self.host.clock.monotonic()
        return FunctionStats(
            name=status.name,
            version=status.version,
            state=status.state,
            instances=status.instances,
            busy=status.busy,
            depth=status.depth,
            oldest_s=round(oldest, 3),
            done=status.done,
            failed=status.failed,
            dead=status.dead,
            outputs=status.outputs,
            deduplicated=status.deduplicated,
            limited=status.limited,
            cpu_s=status.cpu_s,
            memory_bytes=status.memory_bytes,
            peak_bytes=status.peak_bytes,
            windows=[function.meter.window(now, seconds) for seconds in WINDOWS_S],
        )

    # Why

    def explain(
        self, event: Event | None, *, name: str = "", topic: str = ""
    ) -> list[FunctionVerdict]:
        """What each function's triggers say of an event, of one function or of all; published to
        `topic` where one is named. Without an event, only how their filters are come to. Raises
        FunctionUnknown."""
        names = [name] if name else sorted(self.host.deployed)
        return [self._verdict(self.host.function(each), event, topic) for each in names]

    def _verdict(self, function: "Function", event: Event | None, topic: str) -> FunctionVerdict:
        plan = self.host.router.plan
        triggers: list[TriggerVerdict] = [
            verdict(one.spec, one.filter, event, topic, plan(one.spec.topic, one.filter))
            for one in function.mesh_triggers
        ]
        return FunctionVerdict(name=function.name, version=function.version, triggers=triggers)

    # Once more

    async def replay(
        self,
        name: str,
        *,
        last: int = 0,
        event: str = "",
        start: str = "",
        end: str = "now",
        trigger: str = "",
    ) -> Replayed:
        """Queue events of a function's topics once more, for that function alone: the `last` ones
        that it took, those with an `event` id, or all from `start` to before `end`.

        Raises FunctionUnknown, TriggerUnknown, ReplayRefused, MeshError.
        """
        replay_id = str(uuid.UUID(int=self.host.chance.getrandbits(128), version=4))
        count = 0
        if start:
            for served in self._range(name, trigger, start, end):
                count += await self.host.mesh.replay(served.name, start, end, replay_id)
            return Replayed(replayed=count, replay_id=replay_id)
        for served, logged in await self._chosen(name, trigger, last, event):
            here, behind = f"@{logged.position}", after(logged.position)
            count += await self.host.mesh.replay(served.name, here, behind, replay_id)
        return Replayed(replayed=count, replay_id=replay_id)

    async def find(
        self,
        name: str,
        *,
        last: int = 0,
        event: str = "",
        start: str = "",
        end: str = "now",
        trigger: str = "",
    ) -> tuple[list[Found], bool]:
        """What `replay` would queue, as many as an answer holds; and whether there is more."""
        found: list[Found] = []
        size = 0
        if start:
            for served in self._range(name, trigger, start, end):
                stop = await self._position(served, end)
                async for logged in self._events(served, start):
                    if _reached(logged, stop):
                        break
                    size += len(logged.event.data or b"")
                    if size > FOUND_BYTES:
                        return found, True
                    found.append(Found(trigger=served.spec.name, logged=logged))
            return found, False
        for served, logged in await self._chosen(name, trigger, last, event):
            size += len(logged.event.data or b"")
            if size > FOUND_BYTES:
                return found, True
            found.append(Found(trigger=served.spec.name, logged=logged))
        return found, False

    def _served(self, name: str, trigger: str) -> "list[Served]":
        function = self.host.function(name)
        if not trigger:
            return function.mesh_triggers
        some = [served for served in function.mesh_triggers if served.spec.name == trigger]
        if not some:
            known = [served.spec.name for served in function.mesh_triggers]
            raise TriggerUnknown(name, trigger, known)
        return some

    def _range(self, name: str, trigger: str, start: str, end: str) -> "list[Served]":
        some = self._served(name, trigger)
        topics = {served.spec.topic for served in some}
        if len(topics) > 1 and (start.startswith("@") or end.startswith("@")):
            names = ", ".join(served.spec.name for served in some)
            raise ReplayRefused(
                f"a position is one topic's, and {name} reads {len(topics)};"
                f" name one of its triggers: {names}"
            )
        return some

    async def _chosen(
        self, name: str, trigger: str, last: int, event: str
    ) -> "list[tuple[Served, Logged]]":
        """Events by id, or the last ones, oldest first. Raises ReplayRefused where the id is of
        none that the function took."""
        found: list[tuple[Served, Logged]] = []
        refused: list[str] = []
        some = self._served(name, trigger)
        for served in some:
            if not event:
                found += [(served, each) for each in await self._last(served, last)]
                continue
            async for logged in self._events(served, "earliest", filtered=False):
                if logged.event.id != event:
                    continue
                if served.matches(logged.event):
                    found.append((served, logged))
                else:
                    why = refused_by(served.filter, logged.event)
                    refused.append(f"{served.spec.name} refuses it: {why}")
        if event and not found:
            topics = ", ".join(sorted({served.spec.topic for served in some})) or "none"
            why = "; ".join(refused) or f"there is none in its topics ({topics})"
            raise ReplayRefused(f"no event {event!r} that {name} took: {why}")
        found.sort(key=lambda each: each[1].published_at)
        return found[-last:] if last else found

    async def _last(self, served: "Served", last: int) -> list[Logged]:
        """The last events of its topic that a trigger takes: looked for further and further back,
        as topics are read forwards."""
        back = 60.0
        now = self.host.clock.time()
        while True:
            start = "earliest"
            if back < now:
                start = datetime.fromtimestamp(now - back, UTC).isoformat()
            found: deque[Logged] = deque(maxlen=last)
            async for logged in self._events(served, start):
                found.append(logged)
            if len(found) == last or start == "earliest":
                return list(found)
            back *= 10

    async def _events(
        self, served: "Served", start: str, *, filtered: bool = True
    ) -> AsyncIterator[Logged]:
        """A topic's events from `start` to what is there now, by default those that the trigger
        takes."""
        mesh, topic = self.host.mesh, served.spec.topic
        while page := await mesh.read(topic, start, PAGE):
            for logged in page:
                if not filtered or served.matches(logged.event):
                    yield logged
            start = after(page[-1].position)
            if len(page) < PAGE:
                return
            await asyncio.sleep(0)

    async def _position(self, served: "Served", end: str) -> int:
        """The position that a range ends before."""
        if end == "now":
            return sys.maxsize
        page = await self.host.mesh.read(served.spec.topic, end, 1)
        return int(page[0].position) if page and page[0].position.isdigit() else sys.maxsize

    # Dead letters

    async def causes(self, found: Sequence[DeadLetter]) -> list[tuple[str, str]]:
        """The exception's class and the author's line of each dead letter, as the letter itself
        tells; where that is not kept any more, the class alone."""
        mesh = self.host.mesh
        told: dict[tuple[str, str], tuple[str, str]] = {}
        causes = []
        for letter in found:
            place = letter.letter_topic, letter.letter_position
            if place not in told and letter.letter_topic and letter.letter_position:
                # Letters of one function mostly follow each other: a page holds many.
                page = await mesh.read(place[0], f"@{place[1].removeprefix('@')}", PAGE)
                told |= {(place[0], each.position): _cause(each.event) for each in page}
            causes.append(told.get(place) or (letter.reason.partition(":")[0][:200], ""))
        return causes

    async def drop(self, name: str, ids: Sequence[int] | None) -> int:
        """Forget dead letters of a function (None: all of them); how many. Raises
        FunctionUnknown."""
        count = 0
        for served in self.host.function(name).mesh_triggers:
            chosen = list(ids) if ids is not None else await self.host.all_dead(served.name)
            for first in range(0, len(chosen), DROPPED):
                count += await self.host.mesh.discard(served.name, chosen[first : first + DROPPED])
        return count


def refusal_of(served: "Served", router: Router, since: float) -> Refusal | None:
    """The last event that a trigger's filters are known to have refused since then, and why."""
    at, event = next(router.missed(served.spec.topic, served.filter, since), (0.0, None))
    if served.missed is not None and served.missed_at > at:
        at, event = served.missed_at, served.missed
    if event is None:
        return None
    clause = refused_by(served.filter, event)
    return Refusal(at=at, id=event.id, type=event.type, clause=clause)


def _cause(letter: Event) -> tuple[str, str]:
    try:
        body = letter.json()
        return str(body["error"]), str(body["where"])
    except (EventError, KeyError, TypeError):
        return "", ""


def after(position: str) -> str:
    """The start just after a position, where positions are numbers (the embedded mesh's are).
    Raises MeshError."""
    text = position.removeprefix("@")
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise MeshError(
            f"position {position[:40]!r} is no number of at most {DIGITS} digits, such as @12, so"
            " that what comes after it is not known"
        )
    return f"@{int(text) + 1}"


def _reached(logged: Logged, stop: int) -> bool:
    return logged.position.isdigit() and int(logged.position) >= stop
