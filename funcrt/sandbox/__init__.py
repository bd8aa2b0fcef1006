"""Where functions run. The host sees this contract, never a process.

`Sandbox` makes one `Zygote` for each deployed version (its code imported once), and a zygote
makes `Instance`s. An instance takes calls without waiting and answers through callbacks on the
host's event loop.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.levels import Level
from funcrt.sandbox.protocol import FromInstance, ToInstance
from funcrt.sandbox.secrets import NO_SECRETS, Secrets

__all__ = [
    "Code",
    "Exit",
    "HandlerInfo",
    "Instance",
    "OnExit",
    "OnMessages",
    "Sandbox",
    "Usage",
    "Zygote",
]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """What a zygote needs to load one version of a function."""

    name: str
    version: str
    path: Path
    """The unpacked directory; its root is put on sys.path."""
    handler: str = ""
    """`module:attribute`, or empty for the conventional names of `main.py`."""
    concurrency: int | None = None
    """Calls at once in one instance; None for the handler's default (1 sync, 32 async)."""
    env: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    """By name, where the host finds each; instances are given the values."""
    isolation: Level = "sandbox"
    image: str = ""
    """What a container is made of; empty for the project's own."""
    network: tuple[str, ...] = ()
    """Each `host:port` that it may connect to, `outbound` for any public one; empty for none."""
    files: tuple[str, ...] = ()
    """Paths of the host, absolute, that it may read."""
    tmp_bytes: int = 64 << 20
    memory_bytes: int | None = None
    cpu: float | None = None
    """CPU seconds a second that one instance may use; None for no limit."""
    max_output_bytes: int = 1 << 20
    batch: bool = False
    """A trigger asks for batches: the handler must take a list."""
    stream: bool = False
    """What a generator makes is sent as it is made: the handler must be one."""
    source: Path | None = None
    """What `path` is a copy of, and what its code is to name as its place; None for `path`."""
    packages: Path | None = None
    """Where what it needs is installed; None for nothing of its own."""
    python: Interpreter | None = None
    """What it runs in; None for the host's own Python, or its image's."""
    queued: bool = False
    """A trigger hands over events of the mesh: the handler may not take a Request."""


class HandlerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the zygote found after the import."""

    handler: str
    """As resolved, e.g. `main:handler`."""
    kind: str
    """`sync`, `async`, `generator` or `async generator`."""
    batch: bool
    """The handler takes `list[...]`."""
    request: bool = False
    """It takes a Request."""
    lifespan: bool = False
    """Its module has one; each instance enters it as it starts."""
    signature: str
    """For people: `async (order: Order, ctx) -> Receipt`."""
    concurrency: int
    """Calls at once in one instance, as resolved."""
    import_ms: float
    threads: int = 1
    """Threads alive after the import; more than one forbids forking."""
    python: str = ""
    """The version of Python that it runs in, in its own words."""
    isolation: Level = "none"
    """The level that it runs at."""
    lacking: str = ""
    """Why this machine does not give the level that its manifest asks for."""
    grouped: tuple[str, ...] | None = None
    """What control groups bound of its instances: `memory`, `cpu`, ...; None where something else
    does."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance has used; None where nobody counts."""

    cpu_s: float | None = None
    """With its processes that have ended, where a control group counts."""
    call_cpu_s: float | None = None
    """Of its last call, if that runs yet."""
    memory_bytes: int | None = None
    peak_bytes: int | None = None
    throttled_s: float = 0.0
    """How long `limits.cpu` kept it from the CPU."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance ended."""

    code: int | None
    """Exit code; None where a signal ended it."""
    signal: int | None
    reason: str
    """For people: `exited 3`, `segmentation fault`, `killed: over its timeout`, ..."""
    begun: int | None = None
    """Calls that it had begun in all, in the order sent; None where nobody knows."""
    limit: str = ""
    """Which limit it was ended for, of `protocol.LIMITS`."""
    usage: Usage = Usage()
    innocent: bool = False
    """It ended with what all functions' processes are below, and for nothing that it ran."""


OnMessages = Callable[["Instance", Sequence[FromInstance]], None]
OnExit = Callable[["Instance", Exit], None]


class Instance(Protocol):
    """One running copy of a function."""

    pid: int
    on_hold: Callable[[bool], None]
    """Told that its calls stand at a debugger's prompt, and that they go on."""

    def send(self, messages: Sequence[ToInstance]) -> None:
        """Hand over messages; they leave together at the end of this turn of the loop."""

    def begun(self) -> int | None:
        """Calls that it has begun so far, in the order sent; None where nobody knows, or it has
        ended. As it counts them: code that lies may say anything."""

    def halt(self, number: int) -> None:
        """Have it begin no call until it is sent `Recall(number, ...)`. `number` is one more than
        the last. What goes on regardless is in `begun` a millisecond later."""

    def usage(self) -> Usage:
        """What it has used so far."""

    def finish(self) -> None:
        """Let it end what it holds and exit. No more calls may be sent."""

    def kill(self, reason: str) -> None:
        """End it now (SIGKILL); `on_exit` follows with `reason`. Again is harmless."""


class Zygote(Protocol):
    """A function's code, loaded; the process its instances are forked from."""

    info: HandlerInfo
    alive: bool

    @property
    def busy(self) -> bool:
        """It has instances, or is about to."""

    async def spawn(
        self, on_messages: OnMessages, on_exit: OnExit, secrets: Secrets = NO_SECRETS
    ) -> Instance:
        """Fork an instance. It alone is told `secrets`, before anything else, and none of them is
        in what it says through the callbacks or a LoadError. Raises SandboxError if the zygote is
        gone, cannot fork, or the instance ended before it could be handed out; LoadError where the
        code's `lifespan` failed."""

    async def stop(self) -> None:
        """End it, and with it all its instances. Twice is harmless."""


class Sandbox(Protocol):
    """The maker of zygotes; one a host."""

    async def start(self) -> None:
        """Make ready. Called before the host starts threads."""

    async def load(self, code: Code) -> Zygote:
        """Start a zygote and import the code. Raises LoadError with the author's frames."""

    async def close(self) -> None:
        """End everything it started. Twice is harmless."""
