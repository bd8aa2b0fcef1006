"""The instances of one deployed version: what each holds, whom to give a call, when to end one."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import Any

import msgspec

from funcrt.errors import DeployError, LoadError, SandboxError
from funcrt.manifest import ScaleSpec
from funcrt.member import Member, Pending
from funcrt.sandbox import Code, Exit, HandlerInfo, Instance, Usage
from funcrt.sandbox.lifespan import TEARDOWN_S
from funcrt.sandbox.protocol import (
    ENDS,
    Aside,
    Call,
    Cancel,
    Failure,
    FromInstance,
    Log,
    Result,
    Started,
)
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.scale import Decision, Observed, Scaler
from funcrt.tasks import OnFailure, Tasks
from funcrt.zygotes import Zygotes
from mesh.failpoint import point
from mesh.transport import Clock, Delivery

__all__ = ["GRACE_S", "Pool"]

GRACE_S = 2.0
"""What a call may take beyond its timeout before its instance is killed."""
AHEAD_S = 0.02
"""How much work an instance may hold ahead, by the function's own duration."""
LONG_S = 0.1
"""Behind a call that has run for longer than this, an instance is given none ahead: another may be
free before; and those that it has are taken back."""
HALT_S = 0.005
"""From a halt until it is looked what has begun: a thousand times what a store takes to be seen by
other processors."""
MOST_AHEAD = 256
MOST_BYTES = 16 << 20
"""Of data that a function's instances and what waits for them may hold; one event more at most."""
WAITING_UNSURE = 4
"""Deliveries taken for each instance whose call may be long, for whichever is free first."""
WAITING_UNSERVED = 16
"""Deliveries taken while there is no instance: enough to wake one."""


class Pool:
    """Holds calls that wait, gives them to instances, and keeps as many of these as the scaler
    wants."""

    def __init__(
        self,
        code: Code,
        info: HandlerInfo,
        zygotes: Zygotes,
        spec: ScaleSpec,
        clock: Clock,
        *,
        failed: OnFailure,
    ) -> None:
        self.code = code
        self.info = info
        self.zygotes = zygotes
        zygotes.use(code)
        self.clock = clock
        self.concurrency = info.concurrency
        self.scaler = Scaler(spec, self.concurrency)
        self.members: dict[Any, Member] = {}
        self.waiting: deque[Pending] = deque()
        self.waiting_events = 0
        self.bytes = 0
        """Of data, of all calls that are here."""
        self.starting = 0
        self.decision = Decision(wanted=0)
        self.stamp = 0.0
        """When an instance was heard of last, on the monotonic clock."""
        self.line: Callable[[Instance, Pending | None, Log], None] = lambda *_: None
        """Told of each line that is written, with the call that it came in."""
        self.over: Callable[[str], None] = lambda _: None
        """Told of each limit that a call was over."""
        self.used: Callable[[Usage], None] = lambda _: None
        """Told what each instance has used that has ended."""
        self.secrets: Callable[[], Secrets] = lambda: NO_SECRETS
        """What an instance that starts now is told. Raises DeployError where it cannot be had."""
        self.backlog: Callable[[], int | None] = lambda: 0
        """Events that wait in the mesh and are due; None where that is unknown."""
        self.room = asyncio.Event()
        self.log = logging.getLogger(f"funcrt.function.{code.name}")
        self.draining = False
        self.trouble = ""
        self.refusals = 0
        """Instances that could not be started, one after the other: each waits longer."""
        self._tasks = Tasks(failed)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """Of the timer, by the loop's time."""
        self._looking: asyncio.TimerHandle | None = None
        self._assigning = False

    # Credit and calls

    def credit(self) -> int:
        """How many more events the instances can take now."""
        if self.draining or self.bytes >= MOST_BYTES:
            return 0
        if not self.members:
            return WAITING_UNSERVED - self.waiting_events
        now = self.clock.monotonic()
        free = sum(self._free(member, now, WAITING_UNSURE) for member in self.members.values())
        return free - self.waiting_events

    def room_bytes(self) -> int:
        """How many more bytes of data may come in."""
        return max(MOST_BYTES - self.bytes, 1)

    def _free(self, member: Member, now: float, unsure: int = 0) -> int:
        """How many events it may be given. `unsure`: how many ahead of its call's end where that
        may be long, as the first of a function and one that has run for a while may."""
        if member.retiring or member.held:
            return 0
        if member.stuck:
            return unsure
        service = self.scaler.service_s
        oldest = next(iter(member.calls.values()), None)
        long = oldest is not None and now - oldest.started > LONG_S
        if not service or (long and service < AHEAD_S):
            ahead = unsure
        else:
            ahead = MOST_AHEAD if service * MOST_AHEAD < AHEAD_S else int(AHEAD_S / service)
        return max(self.concurrency + ahead - member.events, 0)

    def submit(self, pendings: Sequence[Pending]) -> None:
        """Take calls, and give them to instances where these have room."""
        count = sum([pending.size for pending in pendings])
        self.waiting.extend(pendings)
        self.waiting_events += count
        self.bytes += sum([pending.bytes for pending in pendings])
        self.scaler.arrived(self.clock.monotonic(), count)
        self._assign()

    def wake(self) -> bool:
        """Begin an instance where there is none, for events that will be there in a moment; whether
        one was begun. It ends as any other where they do not come."""
        if self.members or self.starting or self.draining or self.trouble:
            return False
        if not self.scaler.spec.max:
            return False
        self.scaler.arrived(self.clock.monotonic(), 0)  # or it were idle before they are there
        self._start()
        self.rescale()
        return True

    def give_back(self) -> None:
        """Release the deliveries that wait for an instance; calls that somebody waits for stay."""
        kept = [pending for pending in self.waiting if not pending.deliveries]
        freed = [pending for pending in self.waiting if pending.deliveries]
        self.waiting.clear()
        self.waiting.extend(kept)
        for pending in freed:
            self.waiting_events -= pending.size
            self.bytes -= pending.bytes
            pending.released(pending)

    def bound(self, spec: ScaleSpec) -> None:
        """Scale within other bounds from now on. Instances above the new most take no more calls,
        and end once they have none."""
        self.scaler.bound(spec)
        there = [member for member in self.members.values() if not member.retiring]
        there.sort(key=lambda member: len(member.calls))
        for member in there[: max(len(there) - spec.max, 0)]:
            member.retiring = True
            if not member.calls:
                member.instance.finish()
        self.rescale()
        self.room.set()

    def renew(self) -> int:
        """Have others take the place of instances whose secrets have changed, which take no more
        calls and end once they have none; how many. Raises DeployError."""
        now = self.secrets()
        there = [member for member in self.members.values() if not member.retiring]
        old = [member for member in there if member.secrets.values != now.values]
        for member in old:
            member.retiring = True
            if not member.calls:
                member.instance.finish()
        if old:
            self._assign()
            self.rescale()
        return len(old)

    def _soon(self) -> None:
        if not self._assigning:
            self._assigning = True
            asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        self._assigning = False
        now = self.clock.monotonic()
        batches: dict[Any, list[Call]] = {}
        members = [(m, free) for m in self.members.values() if (free := self._free(m, now)) > 0]
        order = [(member.events, at) for at, (member, _) in enumerate(members)]
        full = [member.events + free for member, free in members]
        heapify(order)
        while self.waiting and order:
            at = order[0][1]
            member = members[at][0]
            pending = self.waiting.popleft()
            self.waiting_events -= pending.size
            if len(member.calls) < self.concurrency:
                pending.started = now
                if not member.calls:
                    member.heard = now
            member.calls[pending.call.id] = pending
            member.events += pending.size
            batches.setdefault(member.instance, []).append(pending.call)
            if member.events >= full[at]:
                heappop(order)
            else:
                heapreplace(order, (member.events, at))
        for instance, calls in batches.items():
            instance.send(calls)
        if batches and self._looking is None and not self.draining:
            self._look_in(LONG_S)
        if self.waiting or not self.members:
            self.rescale()
        if self.credit() > 0:
            self.room.set()

    def cancel(self, pending: Pending) -> None:
        """Its caller left."""
        if pending in self.waiting:
            self.waiting.remove(pending)
            self.waiting_events -= pending.size
            self.bytes -= pending.bytes
            return
        for member in self.members.values():
            if pending.call.id in member.calls:
                pending.left = True
                member.instance.send([Cancel(pending.call.id)])

    # Calls that wait behind one that is long

    def _look_in(self, seconds: float) -> None:
        self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Halt the instances that have not answered for long and hold calls which they have not
        begun, where others could have these."""
        self._looking = None
        if self.draining:
            return
        now = self.clock.monotonic()
        there = sum(not member.retiring for member in self.members.values())
        soonest: list[float] = []
        for member in self.members.values():
            if len(member.calls) < 2:
                continue
            left = member.heard + LONG_S - now
            soonest.append(left if left > 0 else LONG_S)
            others = there > (not member.retiring) or self.scaler.spec.max > there
            may = others and not (left > 0 or member.halted or member.held)
            if may and member.ahead():
                member.halt()
                asyncio.get_running_loop().call_later(HALT_S, self._recall, member, now)
        if soonest:
            self._look_in(max(min(soonest), HALT_S))

    def _recall(self, member: Member, halted: float) -> None:
        """Take back what it has not begun, unless it has answered since it was halted."""
        if self.members.get(member.instance) is not member:
            return
        go_on = self.draining or member.held or member.heard > halted
        ahead = [] if go_on else member.ahead()
        member.recall(ahead)
        self.waiting_events += sum(pending.size for pending in ahead)
        self.waiting.extendleft(reversed(ahead))
        self._assign()

    # What instances say

    def _said(self, instance: Instance, messages: Sequence[FromInstance]) -> None:
        member = self.members.get(instance)
        if member is None:
            return
        point("result.received")
        now = self.stamp = self.clock.monotonic()
        took = count = 0
        for message in messages:
            if not isinstance(message, Result):
                if not self._aside(member, message):
                    return
                continue
            pending = member.calls.pop(message.id, None)
            if message.failure is not None and message.failure.limit:
                self.over(message.failure.limit)
            if pending is None:
                instance.kill("answered a call that it does not have")
                return
            member.events -= pending.size
            member.answered += 1
            self.bytes -= pending.bytes
            took += message.took_us
            count += pending.size
            pending.ended(pending, message)
        if count:
            point("result.taken")
            self.scaler.finished(now, max(took, 1) / count / 1e6, count)
            member.heard = now
            member.stuck = False
        for started, pending in enumerate(member.calls.values()):
            if started >= self.concurrency:
                break
            if not pending.started:
                pending.started = now
        if member.retiring and not member.calls:
            member.instance.finish()
        if self.waiting:
            self._soon()
        self.room.set()

    def _aside(self, member: Member, message: Log | Aside | Started) -> bool:
        """What is no result. False where it lies."""
        if isinstance(message, Log):
            self.log.info("%s: %s", message.level, message.text)
            self.line(member.instance, member.calls.get(message.id), message)
            return True
        pending = None if isinstance(message, Started) else member.calls.get(message.id)
        if pending is None or pending.said is None or isinstance(message, Started):
            member.instance.kill("sent what no call of it may")
            return False
        pending.said(member.instance, message)
        return True

    def _exited(self, instance: Instance, ended: Exit) -> None:
        """The calls that may have run are charged: the last `concurrency` of those begun. Those
        begun before them had ended, their results held back and lost, and go back free, as do those
        that had not begun. One is charged in any case: an instance that dies before it has begun
        anything would do so for ever. Of an innocent one no delivery is charged that was not over
        its time; a call that somebody waits for has failed all the same, and is not run twice."""
        member = self.members.pop(instance, None)
        if member is None:
            return
        self.stamp = self.clock.monotonic()
        self.used(ended.usage)
        calls = list(member.calls.values())
        if calls:
            self.log.warning("an instance %s with %d calls", ended.reason, len(calls))
        begun = self.concurrency if ended.begun is None else ended.begun - member.answered
        last = min(max(begun, 1), len(calls))
        timed_out = any(pending.timed_out for pending in calls)
        for index, pending in enumerate(calls):
            self.bytes -= pending.bytes
            charged = pending.timed_out if timed_out else last - self.concurrency <= index < last
            if ended.innocent and pending.deliveries:
                charged = pending.timed_out
            if not charged:
                pending.released(pending)
                continue
            status = "timeout" if pending.timed_out else "crash"
            error = ENDS.get(ended.limit, "InstanceDied")
            why = Failure("TimeoutError" if pending.timed_out else error, ended.reason)
            why = msgspec.structs.replace(why, limit="time" if pending.timed_out else ended.limit)
            self.over(why.limit)
            pending.ended(pending, Result(pending.call.id, status, [], why))
        self.room.set()
        self.rescale()

    # Scaling

    def rescale(self) -> None:
        """Ask the scaler, and do as it says."""
        if self.draining:
            self._check_in(None)  # calls go over their time all the same
            return
        now = self.clock.monotonic()
        members = [m for m in self.members.values() if not m.retiring]
        busy = [m for m in members if m.calls]
        ages = [
            now - pending.started
            for m in busy
            for pending in list(m.calls.values())[: self.concurrency]
            if pending.started
        ]
        held = sum(
            pending.size for m in busy for pending in list(m.calls.values())[self.concurrency :]
        )
        waiting = self.backlog()
        self.decision = self.scaler.decide(
            now,
            Observed(
                depth_known=waiting is not None,
                backlog=self.waiting_events + (waiting or 0) + held,
                instances=len(members),
                starting=self.starting,
                busy=len(busy),
                idle_s=sorted((now - m.heard for m in members if not m.calls), reverse=True),
                running_age_s=sum(ages) / len(ages) if ages else 0.0,
            ),
        )
        for _ in range(self.decision.wanted - len(members) - self.starting):
            self._start()
        if self.decision.retire:
            idle = sorted((m for m in members if not m.calls), key=lambda m: m.heard)
            for member in idle[: self.decision.retire]:
                member.retiring = True
                member.instance.finish()
        self._check_in(self.decision.check_after_s)

    def _check_in(self, seconds: float | None) -> None:
        """Be there again then, or sooner where that was said before: under load this is asked all
        the time, and calls go over their time meanwhile."""
        if seconds is None and not self.members and not self.starting:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + min(seconds or 1.0, 1.0)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._tick)
        self._due = due

    def _tick(self) -> None:
        """Overdue calls end with their instance; then the scaler is asked."""
        self._timer = None
        now = self.clock.monotonic()
        for member in list(self.members.values()):
            overdue = [
                pending
                for pending in member.calls.values()
                if pending.started
                and not (member.held or pending.untimed)
                and pending.call.timeout_s
                and now - pending.started > pending.call.timeout_s + GRACE_S
            ]
            for pending in overdue:
                pending.timed_out = True
            if overdue:
                member.instance.kill(self._why_late(member, overdue[0], now))
        self.rescale()

    def _why_late(self, member: Member, pending: Pending, now: float) -> str:
        """That it took too long, and how much of that it computed."""
        text = f"took longer than {pending.call.timeout_s:g} s"
        used = member.instance.usage()
        alone = sum(1 for each in member.calls.values() if each.started) == 1
        if alone and used.call_cpu_s is not None:
            took = now - pending.started
            text += f" (ended after {took:.1f} s, {min(used.call_cpu_s, took):.1f} of it on the CPU"
            if self.code.cpu and used.throttled_s:
                text += f"; limits.cpu = {self.code.cpu:g} kept it from more"
            text += ")"
        return text

    def _hold(self, member: Member, held: bool) -> None:
        """Its calls stand at a prompt, where time does not count, or go on."""
        member.held = held
        for pending in member.calls.values():
            pending.untimed = True
            pending.held()
        self._assign()

    def hide(self, text: str) -> str:
        """A text without the secrets of any instance there is."""
        for secrets in {member.secrets for member in self.members.values()}:
            text = secrets.text(text)
        return text

    def _start(self) -> None:
        self.starting += 1
        self._tasks.start(self._spawn(), f"spawn {self.code.name}")

    async def _spawn(self) -> None:
        try:
            zygote = await self.zygotes.get(self.code)
            secrets = self.secrets()
            instance = await zygote.spawn(self._said, self._exited, secrets)
            self.trouble = ""
            self.refusals = 0
        except (SandboxError, LoadError, DeployError) as error:
            self.trouble = str(error)
            self.log.error("%s", error)
            self.refusals += 1
            await asyncio.sleep(min(0.01 * 2**self.refusals, 1.0))
            return
        finally:
            self.starting -= 1
        member = Member(instance, secrets, heard=self.clock.monotonic())
        self.members[instance] = member
        instance.on_hold = partial(self._hold, member)
        self._assign()
        self.room.set()

    # The end

    @property
    def in_flight(self) -> int:
        """Calls that instances hold."""
        return sum(len(member.calls) for member in self.members.values())

    @property
    def busy(self) -> int:
        """Instances that hold calls."""
        return sum(1 for member in self.members.values() if member.calls)

    def outstanding(self) -> list[Delivery]:
        """Every delivery that instances hold or that waits for one."""
        held = [p for member in self.members.values() for p in member.calls.values()]
        return [d for pending in (*held, *self.waiting) for d in pending.deliveries]

    async def drain(self, seconds: float) -> int:
        """Take no more; let what runs finish for up to `seconds`; give the rest back. How many of
        the calls that instances held are among that."""
        self.draining = True
        if self._looking is not None:
            self._looking.cancel()
        cut = 0
        while self.waiting:
            pending = self.waiting.popleft()
            self.waiting_events -= pending.size
            self.bytes -= pending.bytes
            pending.released(pending)
        loop = asyncio.get_running_loop()
        await self._until(lambda: not self.in_flight, loop.time() + seconds)
        for member in list(self.members.values()):
            for pending in member.calls.values():
                cut += 1
                pending.released(pending)
            member.calls.clear()
            member.instance.finish()
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.cancel()
        if self.info.lifespan and seconds > 0:
            await self._until(lambda: not self.members, loop.time() + TEARDOWN_S)
        await self.zygotes.drop(self.code)
        return cut

    async def _until(self, done: Callable[[], bool], until: float) -> None:
        loop = asyncio.get_running_loop()
        while not done() and loop.time() < until:
            self.room.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self.room.wait()
            except TimeoutError:
                pass
