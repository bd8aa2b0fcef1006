"""Functions together, as a host runs them, in memory and in fake time."""

import asyncio
import hashlib
import itertools
import random
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from funcrt.api import Reply
from funcrt.asked import requested
from funcrt.bundle import Bundle
from funcrt.errors import FuncrtError, FunctionsRefused
from funcrt.gathered import Collected, Response
from funcrt.host import Host, Prepared
from funcrt.manifest import Manifest
from funcrt.rollout import clashes, find_functions
from funcrt.sandbox.protocol import Log
from funcrt.sandbox.web import REQUEST_TYPE
from funcrt.testing.clock import FakeClock, FakeTimeLoop
from funcrt.testing.function import SOURCE, TYPE, Function, load
from funcrt.testing.inline import InlineSandbox, code_of, info_of
from mesh.embedded import open_transport
from mesh.event import Event

__all__ = ["App", "DeadEvent", "NotQuiet"]

T = TypeVar("T")
DAY_S = 86400.0
NO_CODE = Path(":memory:")
"""Where a host unpacks code: here none does."""


class NotQuiet(AssertionError):
    """Events were still on their way when the time given to `run` was over."""

    def __init__(self, seconds: float, waiting: dict[str, int]) -> None:
        self.waiting = waiting
        queues = ", ".join(f"{count} in {name}" for name, count in waiting.items())
        super().__init__(f"not quiet after {seconds:g} s of the app's time: {queues}")


class DeadEvent(msgspec.Struct, frozen=True):
    """An event that failed for good."""

    function: str
    trigger: str
    event: Event
    reason: str
    """`KeyError: 'total'`."""
    attempts: int


class App:
    """A host with the functions of these directories on a mesh in memory.

    The dispatcher, filters, batches, retries, dead letters and ids are the host's own; calls run
    here, one at a time and in order, and time passes only in `run` and `advance`. Close it, or use
    it in a `with`. Raises FunctionsRefused with every mistake of every function, RuntimeError
    within a test that is async: the app has an event loop of its own.
    """

    def __init__(self, *folders: str | Path, seed: int = 0) -> None:
        self.clock = FakeClock()
        self.logs: list[tuple[str, str, str]] = []
        """(function, level, text) of each line of `ctx.log`."""
        self.functions = _load([Path(folder) for folder in folders])
        self._given: set[tuple[str, str, str]] = set()
        self._numbers = itertools.count(1)
        self._failures: list[BaseException] = []
        self._closed = False
        self._loop = FakeTimeLoop(self.clock)
        try:
            self._do(self._start(random.Random(seed)))
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; twice is harmless."""
        if not self._closed:
            self._closed = True
            try:
                self._do(self._stop())
            finally:
                self._loop.close()
                for function in self.functions.values():
                    function.close()

    # What a test does

    def publish(self, topic: str, given: Any = None, type: str = TYPE, **attributes: Any) -> Event:
        """Publish an Event, or data for one (`type`, `subject`, ... as `Event.create` takes them);
        an id and a source are filled in. Functions may begin at once; `run` sees them to their
        end. What was published."""
        event = given if isinstance(given, Event) else Event.create(type, given, **attributes)
        event = msgspec.structs.replace(
            event, id=event.id or str(next(self._numbers)), source=event.source or SOURCE
        )
        (receipt,) = self._do(self._mesh.publish(topic, [event]))
        if receipt.status != "stored":
            raise ValueError(f"{topic} refused the event: {receipt.reason or receipt.status}")
        self._given.add((topic, event.source, event.id))
        return event

    def run(self, *, most_s: float = DAY_S) -> None:
        """Run until nothing is on its way, retries included, which wait in fake time only. Raises
        NotQuiet where that takes more than `most_s` seconds of the app's time."""
        self._do(self._until_quiet(most_s))

    def advance(self, seconds: float) -> None:
        """Let so much time pass; what becomes due runs."""
        self._do(asyncio.sleep(seconds))

    def call(self, function: str, given: Any = None, type: str = TYPE, **attributes: Any) -> Reply:
        """Call a function as an HTTP request would: `status`, `outputs`, `failure`. What it
        published waits for `run`. Raises FunctionUnknown."""
        event = given if isinstance(given, Event) else Event.create(type, given, **attributes)
        event = msgspec.structs.replace(
            event, id=event.id or str(next(self._numbers)), source=event.source or SOURCE
        )
        if self._host.kind(function) == "event":
            return self._do(self._host.call(function, event))
        kept = Collected()
        reply = self._do(self._host.call(function, event, answer=kept))
        return msgspec.structs.replace(reply, outputs=[*kept.events, *reply.outputs])

    def request(
        self,
        method: str,
        target: str,
        *,
        json: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
    ) -> Response:
        """Send a request to the function whose HTTP trigger has the target's path, and whose
        handler takes a Request; its response. Raises LookupError where there is none, RuntimeError
        where it fails before it answers."""
        head, data, route = requested(self._host._routes, method, target, json, body, headers)
        if route is None or self._host.kind(route.function) != "request":
            raise LookupError(f"no handler of Requests is at {head.path}")
        event = Event(
            str(next(self._numbers)),
            f"/http{head.path}",
            REQUEST_TYPE,
            extensions={"httpmethod": method},
            data=data or None,
        )
        kept = Collected()
        asked = self._host.call(
            route.function, event, trigger=route.trigger, http=head, answer=kept
        )
        reply = self._do(asked)
        if kept.response is None:
            failed = reply.failure
            raise RuntimeError(f"{reply.status}: {failed.traceback if failed else reply.outputs}")
        return kept.response

    # What a test looks at

    def outputs(self, topic: str) -> list[Event]:
        """The events of a topic in the order they were stored, without what the test published."""
        logged = self._do(self._mesh.read(topic, "earliest", 100_000))
        return [
            each.event
            for each in logged
            if (topic, each.event.source, each.event.id) not in self._given
        ]

    @property
    def dead(self) -> list[DeadEvent]:
        """What failed for good, the oldest first; not what `dlq = false` drops."""
        return self._do(self._dead())

    def redrive(self, function: str) -> int:
        """Queue a function's dead letters again, as `funcrt dlq replay --all`; how many."""
        return self._do(self._host.redrive(function, None))

    # How

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise RuntimeError("an App has an event loop of its own: use it in a plain `def test_`")
        done = self._loop.run_until_complete(work)
        if self._failures:
            raise self._failures[0]
        return done

    async def _start(self, chance: random.Random) -> None:
        self._mesh = await open_transport(
            "embedded::memory:", "test", clock=self.clock, host=True, inline=True,
            retention_s=10 * 365 * DAY_S,
        )  # fmt: skip
        self._mesh.on_fatal = self._failures.append
        sandbox = InlineSandbox(self.functions, self.clock, self._logged)
        self._host = Host(
            self._mesh, sandbox, self.clock, NO_CODE, namespace="test", host_id="h", chance=chance
        )
        self._host.on_failure = self._failures.append
        await self._host.start()
        for function in self.functions.values():
            await self._host.replace(_prepared(function))
        self._host.state = "ready"

    async def _stop(self) -> None:
        try:
            await self._host.drain(0.0)
        finally:
            await self._mesh.close()

    def _logged(self, function: str, log: Log) -> None:
        self.logs.append((function, log.level, log.text))

    async def _until_quiet(self, most_s: float) -> None:
        until = self.clock.monotonic() + most_s
        while True:
            waiting: dict[str, int] = {}
            soon = False
            for subscription in await self._mesh.subscriptions():
                depth = await self._mesh.depth(subscription.name)
                soon |= depth.ready + depth.leased > 0
                if count := depth.ready + depth.leased + depth.delayed:
                    waiting[subscription.name] = count
            if not waiting:
                return
            if self._failures:
                raise self._failures[0]
            if self.clock.monotonic() >= until:
                raise NotQuiet(most_s, waiting)
            await asyncio.sleep(0.01 if soon else 1.0)

    async def _dead(self) -> list[DeadEvent]:
        found = []
        for name in self.functions:
            for letter in await self._host.dead_letters(name, limit=10_000):
                function, _, trigger = letter.subscription.partition("/")
                found.append((letter.id, function, trigger, letter))
        found.sort(key=lambda each: each[0])
        return [
            DeadEvent(function, trigger, letter.event, letter.reason, letter.attempts)
            for _, function, trigger, letter in found
        ]


def _load(folders: Sequence[Path]) -> dict[str, Function]:
    """Every function of these folders, by name."""
    directories, _ = find_functions(folders)
    errors: list[FuncrtError] = []
    functions: dict[Path, Function] = {}
    for directory in directories:
        try:
            functions[directory] = load(directory)
        except FuncrtError as error:
            errors.append(error)
    errors += clashes({path: function.manifest for path, function in functions.items()})
    if errors:
        raise FunctionsRefused(errors)
    if not functions:
        where = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(f"no function in {where or 'no folder'}; expected NAME/main.py")
    return {function.name: function for function in functions.values()}


def _prepared(function: Function) -> Prepared:
    """One instance, so that calls come one at a time and in order."""
    manifest: Manifest = function.manifest
    manifest = msgspec.structs.replace(
        manifest, scale=msgspec.structs.replace(manifest.scale, min=0, max=1)
    )
    body = function.name.encode()
    bundle = Bundle(hashlib.sha256(body).hexdigest(), body)
    return Prepared(manifest, bundle, code_of(function), info_of(function))
