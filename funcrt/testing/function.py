"""A function loaded into the test's own process, called by the code that its instances run."""

import asyncio
import contextvars
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import msgspec

from funcrt.asked import asked_by, requested, routes
from funcrt.errors import LoadError, Problem, SecretUnknown
from funcrt.gathered import Gathered
from funcrt.host import code_of
from funcrt.manifest import FILE, Manifest, load_manifest
from funcrt.outcome import origin_of
from funcrt.pythons import is_own
from funcrt.reach import Reach
from funcrt.rollout import placed
from funcrt.sandbox import HandlerInfo
from funcrt.sandbox.fit import file_of, unfit
from funcrt.sandbox.handler import Bound, bind_handler, failure, import_handler
from funcrt.sandbox.lifespan import beside
from funcrt.sandbox.protocol import Aside, Call, Failure, Log, Result, weight
from funcrt.sandbox.streaming import Outlet, StreamWorker
from funcrt.sandbox.web import REQUEST_TYPE
from funcrt.sandbox.worker import STARTING, Worker
from funcrt.testing.clock import FakeClock
from funcrt.testing.modules import OwnModules
from funcrt.testing.outcome import Outcome, judged
from funcrt.testing.secrets import Given, given_secrets
from mesh.event import Event
from mesh.transport import Clock

__all__ = ["SOURCE", "TYPE", "Function", "call", "load"]

T = TypeVar("T")
NAMESPACE = "test"
MOST_SENT = 100_000
"""Messages of one call's stream that a test may gather: an endless one is ended there."""
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
        self.secrets: dict[str, str] = given_secrets(path, manifest.secrets)
        """What `ctx.secret` gives: of those of the manifest, what `tests/secrets.env` has."""
        self._modules = OwnModules(path)
        with self.active():
            if module is None:
                bound = import_handler(path, manifest.handler)
                module = sys.modules[bound.name.partition(":")[0]]
            else:
                bound = bind_handler(module, Path(str(module.__file__)).name)
        self._check(bound)
        self.bound = bound
        self.module = module
        """The handler's module, e.g. to monkeypatch what it uses."""
        self._reach = Reach(manifest, requests=bound.request)
        # The worker as an instance has it. Its channel is for calls from a host: there is none.
        most = manifest.limits.payload_bytes
        self.streams = bound.request or manifest.output.stream
        """Whether a call may send something before its result."""
        kind = StreamWorker if self.streams else Worker
        self._worker = kind(cast(Any, None), bound, path, 1, most)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: ExitStack | None = None

    def _check(self, bound: Bound) -> None:
        """As a zygote does. Raises LoadError."""
        code = code_of(self.manifest, "test", self.path, {})
        info = HandlerInfo(
            handler=bound.name, kind=bound.kind, batch=bound.batch, request=bound.request,
            signature="", concurrency=1, import_ms=0.0,
        )  # fmt: skip
        if wrong := unfit(code, info):
            raise LoadError(Problem(file=file_of(code), message=wrong))

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
        name, http = trigger, None
        if asked := asked_by(self.manifest, events[0]):
            name, http = trigger or asked[0], asked[1]
        name = name or next(iter(self.matches(events[0])), "") or self._first_trigger()
        call = msgspec.structs.replace(self._call(events, name, attempt), http=http)
        return self._outcome(call, time)

    def request(
        self,
        method: str,
        target: str,
        *,
        json: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
        clock: Clock | None = None,
    ) -> Outcome:
        """Call a handler that takes a Request: `function.request("GET", "/orders/17?full=1")`. The
        target's path goes by the function's own HTTP triggers. `json` is sent as such in the place
        of `body`. What it answers is the outcome's `response`."""
        head, data, route = requested(routes(self.manifest), method, target, json, body, headers)
        event = Event(
            "1", f"/http{head.path}", REQUEST_TYPE, extensions={"httpmethod": method},
            datacontenttype=dict(head.headers).get(b"content-type", b"").decode() or None,
            data=data or None,
        )  # fmt: skip
        call = self._call([event], route or self._first_trigger(), 1)
        return self._outcome(msgspec.structs.replace(call, http=head), clock or FakeClock())

    def _outcome(self, call: Call, time: Clock) -> Outcome:
        gathered, result, logs = self.answer(call, time)
        return judged(
            self.manifest, NAMESPACE, call.trigger, call.events, gathered.result(result),
            now=time.time(), attempt=call.attempt, logs=logs, response=gathered.response,
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

    def answer(self, call: Call, clock: Clock) -> tuple[Gathered, Result, list[Log]]:
        """What an instance would answer to a call: before its result, and as that; and the lines
        it would log. Raises LoadError where its `lifespan` fails."""
        worker = self._worker
        worker.now, worker.env = clock.monotonic, dict(self.env)
        worker.secrets = Given(self.manifest.secrets, self.secrets)
        started = clock.monotonic()
        gathered = Gathered()
        with self.active():
            result = _beside(lambda: self._run(call, gathered))
        logs = [message for message in worker.out if isinstance(message, Log)]
        worker.out = []
        if result.failure is not None and result.failure.error == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if call.timeout_s and clock.monotonic() - started > call.timeout_s:
            why = Failure("TimeoutError", f"took longer than {call.timeout_s:g} s")
            result = Result(call.id, "timeout", [], why, result.took_us)
        return gathered, result, logs

    def _run(self, call: Call, gathered: Gathered) -> Result:
        worker = self._worker
        self._enter()
        if isinstance(worker, StreamWorker):
            return self._own_loop().run_until_complete(_streamed(worker, call, gathered))
        if self.bound.kind.startswith("async"):
            return self._own_loop().run_until_complete(worker.call_async(call))
        return worker.call(call)

    # Its lifespan

    def _enter(self) -> None:
        """As an instance does as it starts; here before the first call."""
        if self._open is not None or self.bound.lifespan is None:
            return
        worker = self._worker
        stack = ExitStack()
        try:
            made: Any = self.bound.lifespan(worker.context(STARTING))
            if not hasattr(made, "__aenter__"):
                value = stack.enter_context(made)
            elif self.bound.kind.startswith("async"):
                value = self._hold(made, stack)
            else:
                value = stack.enter_context(beside(made))
        except Exception as error:
            why = failure(error, self.path)
            message = f"lifespan failed: {why.error}: {why.message}"
            raise LoadError(
                Problem(file=why.where or FILE, message=message), why.traceback
            ) from error
        worker.entered(value)
        worker.out = [message for message in worker.out if isinstance(message, Log)]
        self._open = stack

    def _hold(self, made: AbstractAsyncContextManager[Any], stack: ExitStack) -> Any:
        """Enter it on the loop of the calls, in a task that leaves it too."""
        loop = self._own_loop()
        entered: asyncio.Future[Any] = loop.create_future()
        leaving = asyncio.Event()

        async def hold() -> None:
            async with made as value:
                entered.set_result(value)
                await leaving.wait()

        holding = loop.create_task(hold())

        def leave() -> None:
            leaving.set()
            loop.run_until_complete(holding)

        async def begun() -> None:
            await asyncio.wait([holding, entered], return_when=asyncio.FIRST_COMPLETED)
            if not entered.done():
                await holding  # raises

        loop.run_until_complete(begun())
        stack.callback(leave)
        return entered.result()

    def close(self) -> None:
        """Leave its lifespan, if it has one that was entered. Again is harmless."""
        stack, self._open = self._open, None
        if stack is not None:
            with self.active():
                _beside(stack.close)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """One for all calls, as in an instance: what a handler keeps open stays usable."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            weakref.finalize(self, self._loop.close)
        return self._loop


async def _streamed(worker: StreamWorker, call: Call, gathered: Gathered) -> Result:
    """Run the call where whoever takes what it sends is never slow."""

    def say(message: Aside) -> None:
        gathered.add(message)
        if len(gathered.messages) > MOST_SENT:
            outlet.stop()
        outlet.taken(weight(message))

    outlet = Outlet(say)
    return await worker.streamed(call, outlet)


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
    secrets: Mapping[str, str] = {},
    profile: str = "",
) -> Function:
    """Load a function: from its directory, or from a module of it that is imported already.

    `env` goes over the manifest's `[env]`, `secrets` over `tests/secrets.env`; `profile` is one of
    the manifest's. Raises ManifestError, LoadError, SecretUnknown, EnvFileInvalid.
    """
    if isinstance(function, Function):
        return function
    module = function if isinstance(function, ModuleType) else None
    path = Path(str(module.__file__)).parent if module else Path(cast("str | Path", function))
    manifest = load_manifest(path, profile)
    if manifest.python and not is_own(manifest.python):
        raise placed(LoadError(Problem(file=FILE, path="python", message=_other(manifest))), path)
    if env:
        manifest = msgspec.structs.replace(manifest, env={**manifest.env, **env})
    for name in secrets:
        if name not in manifest.secrets:
            raise SecretUnknown(name, list(manifest.secrets))
    try:
        loaded = Function(path.resolve(), manifest, module=module)
    except LoadError as error:
        raise placed(error, path) from None
    loaded.secrets.update(secrets)
    return loaded


def _other(manifest: Manifest) -> str:
    asked, own = manifest.python, platform.python_version()
    return (
        f"it runs in Python {asked}, and a test calls it in its own, {own}; run tests in that"
        f" Python (uv venv --python {asked}, with funcrt[test] in it), or call it in the real"
        " sandbox: funcrt invoke --local"
    )


def call(function: str | Path | ModuleType | Function, given: Any = None, **how: Any) -> Outcome:
    """Load a function and call it once: `load(function).call(given, ...)`."""
    return load(function).call(given, **how)
