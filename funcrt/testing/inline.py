"""The sandbox's contract without processes: instances that run the loaded function here."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from funcrt.errors import SandboxError
from funcrt.sandbox import Code, Exit, HandlerInfo, OnExit, OnMessages, Usage
from funcrt.sandbox.protocol import (
    WINDOW,
    Call,
    FromInstance,
    Log,
    Result,
    Started,
    Taken,
    ToInstance,
    weight,
)
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.testing.function import Function
from mesh.transport import Clock

__all__ = ["InlineSandbox", "Logged", "code_of", "info_of"]

Logged = Callable[[str, Log], None]
"""(function, line): told of each line of `ctx.log`."""


def code_of(function: Function) -> Code:
    """What names a loaded function to the host; nothing is loaded by it again."""
    return Code(name=function.name, version="test", path=function.path, env=function.env)


def info_of(function: Function) -> HandlerInfo:
    """What its zygote would have told: one call at a time, so that outputs come in order."""
    bound = function.bound
    return HandlerInfo(
        handler=bound.name,
        kind=bound.kind,
        batch=bound.batch,
        request=bound.request,
        signature=bound.signature,
        concurrency=1,
        import_ms=0.0,
    )


class InlineSandbox:
    """Of functions that are loaded already, by name."""

    def __init__(self, functions: Mapping[str, Function], clock: Clock, logged: Logged) -> None:
        self.functions = functions
        self.clock = clock
        self.logged = logged

    async def start(self) -> None:
        """As Sandbox says."""

    async def load(self, code: Code) -> "InlineZygote":
        """As Sandbox says."""
        return InlineZygote(self, self.functions[code.name])

    async def close(self) -> None:
        """As Sandbox says."""


class InlineZygote:
    """One function's."""

    def __init__(self, sandbox: InlineSandbox, function: Function) -> None:
        self.sandbox = sandbox
        self.function = function
        self.info = info_of(function)
        self.alive = True
        self.instances: set[InlineInstance] = set()

    @property
    def busy(self) -> bool:
        """As Zygote says."""
        return bool(self.instances)

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> "InlineInstance":
        """As Zygote says; the secrets are those that the function was loaded with."""
        if not self.alive:
            raise SandboxError(f"{self.function.name}: it was stopped")
        instance = InlineInstance(self, on_messages, on_exit)
        self.instances.add(instance)
        return instance

    async def stop(self) -> None:
        """As Zygote says."""
        self.alive = False
        for instance in list(self.instances):
            instance.kill("its function was stopped")


class InlineInstance:
    """Runs its calls one after the other, each in a turn of the loop."""

    pid = 0

    def __init__(self, zygote: InlineZygote, on_messages: OnMessages, on_exit: OnExit) -> None:
        self.on_hold: Callable[[bool], None] = lambda held: None
        self.zygote = zygote
        self._on_messages = on_messages
        self._on_exit = on_exit
        self._calls: list[Call] = []
        self._sending: list[FromInstance] = []
        """What the last call has to say yet: no more at once than a host takes."""
        self._ahead = 0
        self._over = self._finishing = False

    def send(self, messages: Sequence[ToInstance]) -> None:
        """As Instance says. A call that runs cannot be cancelled: nothing else runs meanwhile."""
        for message in messages:
            if isinstance(message, Call):
                self._calls.append(message)
                asyncio.get_running_loop().call_soon(self._next)
            elif isinstance(message, Taken):
                self._ahead -= message.weight
                asyncio.get_running_loop().call_soon(self._say)

    def begun(self) -> int | None:
        """As Instance says: no time passes while a call runs, so none need be taken back."""
        return None

    def halt(self, number: int) -> None:
        """As Instance says."""

    def usage(self) -> Usage:
        """As Instance says: it has no process of its own."""
        return Usage()

    def _next(self) -> None:
        if self._over or not self._calls or self._sending:
            return
        call = self._calls.pop(0)
        sandbox, function = self.zygote.sandbox, self.zygote.function
        gathered, result, logs = function.answer(call, sandbox.clock)
        hidden = Secrets(function.secrets)
        lines = [line for line in hidden.clean(logs) if isinstance(line, Log)]
        for line in lines:
            sandbox.logged(function.name, line)
        self._sending = [*lines, *gathered.messages, *hidden.clean([result])]
        self._say()

    def _say(self) -> None:
        while self._sending and not self._over:
            message = self._sending[0]
            if not isinstance(message, Log | Result | Started):
                size = weight(message)
                if self._ahead and self._ahead + size > WINDOW:
                    return
                self._ahead += size
            del self._sending[0]
            if isinstance(message, Result):
                self._ahead = 0
            self._on_messages(self, [message])
        asyncio.get_running_loop().call_soon(self._next)
        if self._finishing and not self._calls and not self._sending:
            self._end(Exit(code=0, signal=None, reason="exited 0"))

    def finish(self) -> None:
        """As Instance says."""
        self._finishing = True
        if not self._calls and not self._sending:
            asyncio.get_running_loop().call_soon(
                self._end, Exit(code=0, signal=None, reason="exited 0")
            )

    def kill(self, reason: str) -> None:
        """As Instance says."""
        asyncio.get_running_loop().call_soon(self._end, Exit(code=None, signal=9, reason=reason))

    def _end(self, ended: Exit) -> None:
        if not self._over:
            self._over = True
            self.zygote.instances.discard(self)
            self._on_exit(self, ended)
