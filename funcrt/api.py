"""What the gateway, the admin API and the CLI see of a host: plain data and one protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from funcrt.sandbox.protocol import Failure, Http
from mesh.event import Event
from mesh.transport import DeadLetter, Receipt, Transport

if TYPE_CHECKING:
    from funcrt.deployments import DeploymentsApi
    from funcrt.observation import Observation

__all__ = [
    "Answer",
    "FunctionStatus",
    "HostApi",
    "HostState",
    "Kind",
    "Refusal",
    "Reply",
    "Route",
    "TriggerStatus",
]

HostState = Literal["starting", "ready", "draining", "stopped"]
Kind = Literal["event", "request", "stream"]
"""What a function's handler takes and makes: an event and outputs, an HTTP request and its
response, or an event and outputs that are published as it makes them."""


class Reply(msgspec.Struct, frozen=True):
    """How a synchronous call ended.

    `status`: `ok`, `error` (the handler failed), `reject` (it refused the event), `retry` (it asks
    to be called again, after `retry_after_s` where it says), `timeout`, `crash` (its instance
    died), `closing` (the host stopped before the call began).
    """

    status: Literal["ok", "error", "reject", "retry", "timeout", "crash", "closing"]
    outputs: Sequence[Event] = ()
    failure: Failure | None = None
    retry_after_s: float | None = None


class Route(msgspec.Struct, frozen=True):
    """An HTTP trigger of a deployed function."""

    function: str
    trigger: str
    methods: tuple[str, ...]
    """None for any."""
    strict: bool
    params: list[tuple[str, str, str]] = []
    """Of a path with parameters: (name, convertor, text) each."""


class Answer(Protocol):
    """Where what a call sends before its end goes, as it comes: a slow reader slows the call down.
    Each raises `funcrt.streams.StreamFailed` for what cannot be sent."""

    async def head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A response begins."""

    async def chunk(self, body: bytes, more: bool) -> None:
        """A piece of its body."""

    async def items(self, events: Sequence[Event]) -> None:
        """What a streaming generator has made; it is durable."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The last event that a trigger's filters are known to have refused: of the last eight, with up
    to 16 KiB of data, that any trigger of the topic refused."""

    at: float
    """Wall-clock seconds."""
    id: str
    type: str
    clause: str
    """The condition that it failed on, e.g. `type = "order.placed", found "order.paid"`."""


class TriggerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger, as `ls` shows it."""

    name: str
    kind: str
    target: str
    """The topic, or the path."""
    filter: str = ""
    """The filter for people, e.g. `type = image.uploaded`; empty where there is none."""
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    refusal: Refusal | None = None
    """None where nothing is known to have been since the version came into service."""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" [{self.filter}]" if self.filter else "")


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One function, as `ls` and the API show it. Counters since the host started."""

    name: str
    version: str
    state: Literal["zero", "warming", "ready", "failing", "paused"]
    instances: int
    busy: int
    wanted: int
    reason: str
    """Why the scaler wants that many."""
    depth: int
    done: int
    failed: int
    """Attempts that failed."""
    dead: int
    outputs: int
    deduplicated: int = 0
    """Events that ended without a call, as one had succeeded with their idempotency key."""
    triggers: list[TriggerStatus]
    output_topic: str | None = None
    dlq_topic: str | None = None
    limited: dict[str, int] = {}
    """Calls that were over a limit: `memory`, `time`, `processes`, `tmp`, `files`, `output`."""
    cpu_s: float = 0.0
    """Of all its instances since the host started."""
    memory_bytes: int = 0
    """Of the instances there are."""
    peak_bytes: int = 0
    """The most that one instance has had."""
    isolation: str = "sandbox"
    python: str = ""
    """The version of Python that it runs in, in its own words."""
    """The level that it runs at, which may be lower than its manifest asks for."""


class HostApi(Protocol):
    """A running host. All names are of its namespace."""

    mesh: Transport
    state: HostState
    recovering: bool
    """Functions cannot run just now; what is published waits."""

    @property
    def observation(self) -> "Observation":
        """What functions said and did, and why."""

    @property
    def operations(self) -> "DeploymentsApi":
        """What changes which functions are in service."""

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        """Store events that came from outside; receipts as `Transport.publish`."""

    async def call(
        self,
        function: str,
        event: Event,
        *,
        trigger: str = "http",
        timeout_s: float | None = None,
        http: Http | None = None,
        answer: Answer | None = None,
    ) -> Reply:
        """Call a function now and wait. Bypasses the queue: no retry, no dead letter; its outputs
        are durable before this returns. `timeout_s` can only shorten the manifest's. One of a kind
        other than `event` needs an `answer`; `http` is for a handler that takes a Request, or has
        path parameters.

        Raises FunctionUnknown, or Overloaded where admission is full. Cancelling it cancels the
        call.
        """

    async def call_async(self, function: str, event: Event) -> Receipt:
        """Queue a call of a function: durable, retried, dead-lettered as its manifest says.

        Raises FunctionUnknown, MeshError.
        """

    def kind(self, function: str) -> Kind:
        """What kind a function is; `event` for one that there is not."""

    def route(self, path: str) -> Route | None:
        """The HTTP trigger that a deployed function has for this path."""

    def names(self) -> tuple[list[str], list[str]]:
        """The deployed functions, and the paths of their HTTP triggers, for messages."""

    def letters_of(self, topic: str) -> str | None:
        """The function whose dead letters a topic takes; None where it takes none."""

    async def functions(self) -> list[FunctionStatus]:
        """Every deployed function, by name."""

    async def dead_letters(
        self, function: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """A page of a function's dead letters over all its triggers, oldest first: at most
        `limit`, and fewer where they are large. Only an empty page is the last. Raises
        FunctionUnknown."""

    async def redrive(self, function: str, ids: Sequence[int] | None) -> int:
        """Queue dead letters again (None: all of them); how many. Raises FunctionUnknown."""
