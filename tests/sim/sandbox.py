"""Simulated instances behind the sandbox's contract: they answer, fail, hang, die and lie as a
seeded plan says, in virtual time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from funcrt.errors import SandboxError
from funcrt.sandbox import Code, Exit, HandlerInfo, OnExit, OnMessages, Usage
from funcrt.sandbox.protocol import Call, Failure, Item, Log, Out, Recall, Result, ToInstance
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from mesh.event import Event

__all__ = ["Manner", "SimSandbox"]

LONG_S = 1.0

Called = Callable[[str, Call, Event, bool], None]
"""(function, call, event, whether it starts or ends): told to the world's record."""


@dataclass(frozen=True)
class Manner:
    """How likely a call ends each way; the rest succeed."""

    error: float = 0.0
    retry: float = 0.0
    reject: float = 0.0
    hang: float = 0.0
    die: float = 0.0
    lie: float = 0.0
    flood: float = 0.0
    item: float = 0.0
    """One event of a batch fails on its own."""
    long: float = 0.0
    """It takes LONG_S, whatever others take."""
    service_s: float = 0.02
    calm: bool = False
    """Faults are over."""


class SimSandbox:
    """One host's. `manners` by function; `batches` are those that take lists."""

    def __init__(
        self,
        chance: random.Random,
        manners: dict[str, Manner],
        batches: set[str],
        told: Called,
        hung: Callable[[str], None] = lambda function: None,
    ) -> None:
        self.chance = chance
        self.manners = manners
        self.batches = batches
        self.told = told
        self.instances: list[SimInstance] = []
        self.dead = False
        self.pids = 100
        self.hung = hung
        """Told of each function one of whose calls hangs."""
        self.recalled = 0
        """Calls that were taken back."""
        self.begun: set[tuple[str, str, int]] = set()
        """(function, version, number)."""
        self.twice: list[str] = []
        """Calls that began more than once, for people."""

    async def start(self) -> None:
        pass

    async def load(self, code: Code) -> "SimZygote":
        await asyncio.sleep(self.chance.uniform(0.001, 0.05))
        return SimZygote(self, code)

    async def close(self) -> None:
        self.kill_all()

    def kill_all(self) -> None:
        """The host is gone, and with it all that it started, in silence."""
        self.dead = True
        for instance in list(self.instances):
            instance.vanish()


class SimZygote:
    def __init__(self, sandbox: SimSandbox, code: Code) -> None:
        self.sandbox = sandbox
        self.code = code
        self.alive = True
        self.info = HandlerInfo(
            handler="main:handler",
            kind="sync",
            batch=code.name in sandbox.batches,
            signature="",
            concurrency=code.concurrency or 1,
            import_ms=1.0,
        )

    @property
    def busy(self) -> bool:
        return any(instance.zygote is self for instance in self.sandbox.instances)

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> "SimInstance":
        await asyncio.sleep(self.sandbox.chance.uniform(0.001, 0.01))
        if not self.alive or self.sandbox.dead or self.sandbox.chance.random() < 0.01:
            raise SandboxError(f"{self.code.name}: cannot fork")
        instance = SimInstance(self, on_messages, on_exit)
        self.sandbox.instances.append(instance)
        return instance

    async def stop(self) -> None:
        self.alive = False
        for instance in list(self.sandbox.instances):
            if instance.zygote is self:
                instance.kill("its function was stopped")


class SimInstance:
    """Runs up to `concurrency` calls at once, in the order they came."""

    def __init__(self, zygote: SimZygote, on_messages: OnMessages, on_exit: OnExit) -> None:
        sandbox = zygote.sandbox
        sandbox.pids += 1
        self.pid = sandbox.pids
        self.zygote = zygote
        self.sandbox = sandbox
        self.function = zygote.code.name
        self.over = False
        self.stopped = False
        self._on_messages = on_messages
        self._on_exit = on_exit
        self._inbox: list[ToInstance] = []
        self._queue: list[Call] = []
        self._count = self._seen = 0
        """Calls that have begun, and those that the host sees as that."""
        self._halt = self._lifted = 0
        self._running: dict[int, Call] = {}
        self._finishing = False

    def send(self, messages: Sequence[ToInstance]) -> None:
        self._inbox += messages
        for message in messages:
            self.sandbox.recalled += len(message.ids) if isinstance(message, Recall) else 0
        self._later(self.sandbox.chance.uniform(0.0001, 0.001), self._run)

    def begun(self) -> int | None:
        return self._seen

    def halt(self, number: int) -> None:
        self._halt = number

    def usage(self) -> Usage:
        return Usage()

    def _later(self, seconds: float, run: Callable[..., None], *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, run, *arguments)

    def _run(self) -> None:
        if self.over or self.stopped:
            return
        while len(self._running) < self.zygote.info.concurrency:
            if self._queue and self._halt == self._lifted:
                self._begin(self._queue.pop(0))
            elif self._inbox:
                self._read()
            else:
                break
        if self._finishing and not self._running:
            self._end(0, "exited 0")

    def _read(self) -> None:
        for message in self._inbox:
            if isinstance(message, Call):
                self._queue.append(message)
            elif isinstance(message, Recall):
                self._queue = [call for call in self._queue if call.id not in message.ids]
                self._lifted = message.halt
        self._inbox.clear()

    def _counted(self) -> None:
        self._seen += 1

    def _begin(self, call: Call) -> None:
        # It has looked for a halt, and counts: as late as a processor may have it.
        self._count += 1
        self._later(self.sandbox.chance.uniform(0.0, 0.001), self._counted)
        number = (self.function, self.zygote.code.version, call.id)
        if number in self.sandbox.begun:
            self.sandbox.twice.append(f"call {call.id} of {self.function} ran twice")
        self.sandbox.begun.add(number)
        self._running[call.id] = call
        for event in call.events:
            self.sandbox.told(self.function, call, event, True)
        chance, manner = self.sandbox.chance, self.sandbox.manners[self.function]
        took = chance.expovariate(1 / manner.service_s)
        faults = ("die", "hang", "lie", "flood", "error", "retry", "reject", "item", "long")
        odds = [0.0 if manner.calm else float(getattr(manner, fault)) for fault in faults]
        way = chance.choices((*faults, "ok"), (*odds, 1.0 - sum(odds)))[0]
        if way == "hang":
            self.sandbox.hung(self.function)
        else:
            self._later(LONG_S if way == "long" else took, self._finish_call, call, way)

    def _finish_call(self, call: Call, way: str) -> None:
        if self.over:
            return
        if self.stopped:  # SIGSTOP: its answer comes when it is let go on
            self._later(0.5, self._finish_call, call, way)
            return
        if way == "die":
            self._end(None, "ended by SIGKILL", 9)
            return
        if way == "lie":
            self._on_messages(self, [Result(call.id + 1_000_000, "ok")])
            return
        if way == "flood":
            self._on_messages(self, [Log(call.id, "stdout", "x")] * 50)
            way = "ok"
        self._running.pop(call.id, None)
        for event in call.events:
            self.sandbox.told(self.function, call, event, False)
        self._on_messages(self, [self._result(call, way)])
        self._run()

    def _result(self, call: Call, way: str) -> Result:
        chance = self.sandbox.chance
        if way == "retry":
            after = chance.choice((None, 0.0, 0.3))
            return Result(call.id, "retry", [], Failure("Retry", "later"), 10, after)
        if way in ("error", "reject"):
            return Result(call.id, way, [], Failure("ValueError", way), 10)
        made = [Out(Event("", "", "", data=event.data)) for event in call.events]
        if not self.zygote.info.batch:
            return Result(call.id, "ok", made, None, 10)
        items = [Item("ok", [out]) for out in made]
        if way == "item":
            items[chance.randrange(len(items))] = Item("error", [], Failure("Failed", "item"))
        return Result(call.id, "ok", [], None, 10, None, items)

    def finish(self) -> None:
        self._finishing = True
        self._later(0.001, self._run)

    def kill(self, reason: str) -> None:
        self._later(0.001, self._end, None, reason, 9)

    def _end(self, code: int | None, reason: str, signal: int | None = None) -> None:
        if not self.over:
            self.vanish()
            self._on_exit(self, Exit(code=code, signal=signal, reason=reason, begun=self._count))

    def vanish(self) -> None:
        """End without a word."""
        self.over = True
        if self in self.sandbox.instances:
            self.sandbox.instances.remove(self)
