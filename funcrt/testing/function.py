"""A function loaded into the test's own process, called by the code that its instances run."""

import asyncio
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import msgspec

from funcrt.errors import LoadError, Problem
from funcrt.manifest import FILE, Manifest, load_manifest
from funcrt.outcome import origin_of
from funcrt.reach import Reach
from funcrt.rollout import placed
from funcrt.sandbox.handler import bind_handler, import_handler
from funcrt.sandbox.protocol import Call, Failure, Log, Result
from funcrt.sandbox.worker import Worker
from funcrt.testing.clock import FakeClock
from funcrt.testing.modules import OwnModules
from funcrt.testing.outcome import Outcome, judged
from mesh.event import Event
from mesh.transport import Clock

__all__ = ["SOURCE", "TYPE", "Function", "call", "load"]

T = TypeVar("T")
NAMESPACE = "test"
SOURCE = "/test"
TYPE = "funcrt.test"


class Function:
    """A function's manifest and its handler. Made by `load`."""

    def __init__(self, path: Path, manifest: Manifest, *, module: ModuleType | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.name = manifest.name
        self.env: dict[str, str] = dict(manifest.env)
        """`ctx.env`, and in `os.environ` while it runs: `[env]` of the manifest."""
        self._modules = OwnModules(path)
        with self.active():
            if module is None:
                bound = import_handler(path, manifest.handler)
                module = sys.modules[bound.name.partition(":")[0]]
            else:
                bound = bind_handler(module, Path(str(module.__file__)).name)
        self._check_batch(bound.batch)
        self.bound = bound
        self.module = module
        """The handler's module, e.g. to monkeypatch what it uses."""
        self._reach = Reach(manifest)
        # The worker as an instance has it. Its channel is for calls from a host: there is none.
        most = manifest.limits.payload_bytes
        self._worker = Worker(cast(Any, None), bound, path, 1, most)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_batch(self, takes_list: bool) -> None:
        if self.manifest.batches and not takes_list:
            message = "a trigger has batch, but the handler takes one event; annotate it list[...]"
            raise LoadError(Problem(file=FILE, message=message))

    def __repr__(self) -> str:
        return f"<Function {self.name} of {self.path}: {self.bound.signature}>"

    @contextmanager
    def active(self) -> Iterator[None]:
        """`import main` finds this function's modules, and `os.environ` has its `[env]`."""
        with self._modules.visible(self.env):
            yield

    def matches(self, event: Event, topic: str = "") -> list[str]:
        """The names of the triggers that would hand it the event: of any topic, unless one is
        given. An HTTP trigger takes a request of its methods."""
        return self._reach.matches(event, topic)

    # Calling it

    def event(self, data: Any = None, type: str = TYPE, **attributes: Any) -> Event:
        """An event for this function: as `Event.create`, with an id and a source."""
        return Event.create(type, data, **{"id": "1", "source": SOURCE, **attributes})

    def call(
        self,
        given: Any = None,
        *,
        trigger: str = "",
        attempt: int = 1,
        clock: Clock | None = None,
    ) -> Outcome:
        """Call the handler once, whatever its filters say; never raises what the handler raises.

        `given`: an Event, or data for one; for a handler of batches a list of these. `trigger`: by
        default the first that matches. `clock`: what `ctx.remaining()` goes by; one that stands
        still by default.
        """
        events = self._events(given)
        time = clock or FakeClock()
        name = trigger or next(iter(self.matches(events[0])), "") or self._first_trigger()
        result, logs = self.answer(self._call(events, name, attempt), time)
        return judged(
            self.manifest, NAMESPACE, name, events, result,
            now=time.time(), attempt=attempt, logs=logs,
        )  # fmt: skip

    def _events(self, given: Any) -> list[Event]:
        if not self.bound.batch:
            return [given if isinstance(given, Event) else self.event(given)]
        items = list(given) if isinstance(given, list | tuple) else [given]
        if not items:
            raise ValueError("a batch has at least one event")
        return [
            item if isinstance(item, Event) else self.event(item, id=str(at))
            for at, item in enumerate(items, 1)
        ]

    def _first_trigger(self) -> str:
        return self.manifest.triggers[0].name if self.manifest.triggers else "http"

    def _call(self, events: list[Event], trigger: str, attempt: int) -> Call:
        manifest = self.manifest
        scope = origin_of(manifest, NAMESPACE, trigger).scope
        most = manifest.retry.attempts
        return Call(1, trigger, events, attempt, most, manifest.timeout_s, scope)

    def answer(self, call: Call, clock: Clock) -> tuple[Result, list[Log]]:
        """What an instance would answer to a call, and the lines it would log."""
        worker = self._worker
        worker.now, worker.env = clock.monotonic, dict(self.env)
        started = clock.monotonic()
        with self.active():
            if self.bound.kind.startswith("async"):
                result = _beside(
                    lambda: self._own_loop().run_until_complete(worker.call_async(call))
                )
            else:
                result = _beside(lambda: worker.call(call))
        logs = [message for message in worker.out if isinstance(message, Log)]
        worker.out = []
        if result.failure is not None and result.failure.error == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if call.timeout_s and clock.monotonic() - started > call.timeout_s:
            why = Failure("TimeoutError", f"took longer than {call.timeout_s:g} s")
            result = Result(call.id, "timeout", [], why, result.took_us)
        return result, logs

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """One for all calls, as in an instance: what a handler keeps open stays usable."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            weakref.finalize(self, self._loop.close)
        return self._loop


def _beside(run: Callable[[], T]) -> T:
    """Run it here; in a thread where an event loop runs here already, as a handler has none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    done: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(body,))
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def load(
    function: str | Path | ModuleType | Function,
    *,
    env: Mapping[str, str] = {},
    profile: str = "",
) -> Function:
    """Load a function: from its directory, or from a module of it that is imported already.

    `env` goes over the manifest's `[env]`; `profile` is one of the manifest's. Raises
    ManifestError, LoadError.
    """
    if isinstance(function, Function):
        return function
    module = function if isinstance(function, ModuleType) else None
    path = Path(str(module.__file__)).parent if module else Path(cast("str | Path", function))
    manifest = load_manifest(path, profile)
    if env:
        manifest = msgspec.structs.replace(manifest, env={**manifest.env, **env})
    try:
        return Function(path.resolve(), manifest, module=module)
    except LoadError as error:
        raise placed(error, path) from None


def call(function: str | Path | ModuleType | Function, given: Any = None, **how: Any) -> Outcome:
    """Load a function and call it once: `load(function).call(given, ...)`."""
    return load(function).call(given, **how)
