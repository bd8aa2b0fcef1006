"""The frames between host and instance, and the limits both sides hold.

The channel is a Unix stream socketpair. A frame is a 4-byte little-endian length and that many
bytes of msgpack: an array of messages. Many messages share a frame, coalesced once per turn of
the sender's loop and never by a timer. The host trusts nothing in a frame that an instance sends.
"""

import struct

import msgspec

from mesh.event import Event

__all__ = [
    "ENDS",
    "HEADER",
    "LIMITS",
    "LINED",
    "MAX_FRAME",
    "SHARED",
    "WINDOW",
    "Aside",
    "Call",
    "Cancel",
    "Chunk",
    "Failure",
    "FromChannel",
    "FromInstance",
    "Given",
    "Http",
    "Item",
    "Log",
    "Made",
    "Out",
    "Recall",
    "Result",
    "Start",
    "Started",
    "Taken",
    "ToInstance",
    "encode",
    "late",
    "read_from_instance",
    "read_to_instance",
    "weight",
]

HEADER = struct.Struct("<I")
MAX_FRAME = 16 << 20
"""A longer frame from an instance ends it: its output is too large, or it lies."""
LINED = 1 << 31
"""Added to the length of a frame before which an instance wrote lines to the pipes: these are to be
read first."""

SHARED = struct.Struct("=QQQ")
"""The memory that an instance shares with the host. The instance's to write: how many calls it has
begun, in the order they were sent, and its CPU time in nanoseconds before the last of them. The
host's: the number of the last halt (Recall)."""

WINDOW = 256 << 10
"""What one call may have sent of its stream that the host has not taken yet, by `weight`; more only
as one message."""
_OWN_WEIGHT = 512


class Http(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The head of an HTTP request. Its body is the data of the call's event."""

    method: str
    path: str
    """Percent-decoded."""
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    params: list[tuple[str, str, str]] = []
    """Of the trigger's path: (name, convertor, text) each."""
    version: str = "1.1"
    client: tuple[str, int] | None = None
    server: tuple[str, int | None] | None = None


class Call(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Run the handler once: on one event, or on a batch where the handler takes a list."""

    id: int
    trigger: str
    events: list[Event]
    attempt: int
    max_attempts: int
    timeout_s: float
    """From the start of the call; 0 for none."""
    scope: str = ""
    """Of the idempotency keys, which the worker derives where they are asked for."""
    replays: list[str] = []
    """The events' replay ids; empty where none has one."""
    http: Http | None = None
    """Where the handler takes a Request, or the trigger's path has parameters."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The call's time is over, or its caller left: cancel it if it is async."""

    id: int


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """So much of a call's stream, by `weight`, has gone its way: as much more may be sent."""

    id: int
    weight: int


class Recall(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The end of a halt: calls may begin again, but for these, which others have now.

    A halt is a number in SHARED that is not that of the last Recall. Whoever begins a call counts
    it first, and then looks: the host, which halts first and then looks at the count, does not find
    one uncounted that goes on.
    """

    halt: int
    ids: list[int]


class Given(msgspec.Struct, frozen=True, array_like=True):
    """The secrets of an instance that has any: all of the first frame to it."""

    secrets: dict[str, str]

    def __repr__(self) -> str:
        return f"Given({', '.join(self.secrets)})"


ToInstance = Call | Cancel | Taken | Recall


class Out(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event the handler made. Its empty `id`, `source` and `type` are the host's to fill."""

    event: Event
    topic: str = ""
    """Where `ctx.emit(topic=...)` sent it; empty for the manifest's `[output] topic`."""


LIMITS = ("memory", "time", "processes", "tmp", "files", "output")
"""What a call can be over."""


ENDS = {"memory": "OutOfMemory"}
"""What a call's failure is named, whose instance was ended for a limit."""


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why a call, or one item of a batch, failed."""

    error: str
    """The exception's class name, e.g. `IndexError`."""
    message: str
    where: str = ""
    """`main.py:14 in handler`: the innermost of the author's frames."""
    traceback: str = ""
    """Cut to the author's frames."""
    limit: str = ""
    """Which of LIMITS it was over."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one event of a batch ended. `status` as in Result."""

    status: str
    outputs: list[Out] = []
    failure: Failure | None = None
    retry_after_s: float | None = None


class Result(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """How a call ended.

    `status`: `ok`, `error` (the retry policy decides), `retry` (the author asked, after
    `retry_after_s` where given), `reject` (a dead letter now), `timeout`.
    """

    id: int
    status: str
    outputs: list[Out] = []
    failure: Failure | None = None
    took_us: int = 0
    retry_after_s: float | None = None
    items: list[Item] | None = None
    """Per-item outcomes of a batch, as many as it had events; `outputs` is then the batch's own."""


class Log(msgspec.Struct, frozen=True, gc=False):
    """A line that came through the pipes. `id` is the call's, or 0."""

    id: int
    level: str
    text: str


class Start(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The head of the response to a call's HTTP request."""

    id: int
    status: int
    headers: list[tuple[bytes, bytes]]


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A piece of its body, after Start."""

    id: int
    body: bytes
    more: bool


class Made(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """An item of a streaming generator, to be published now. The call's Result counts on."""

    id: int
    out: Out


class Started(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The first message of an instance whose code has a `lifespan`: it was entered, or failed."""

    failure: Failure | None = None


Aside = Start | Chunk | Made
"""What a call says before its Result."""
FromChannel = Result | Start | Chunk | Made | Started
FromInstance = FromChannel | Log

encode = msgspec.msgpack.Encoder().encode
read_to_instance = msgspec.msgpack.Decoder(list[ToInstance]).decode
read_from_instance = msgspec.msgpack.Decoder(list[FromChannel]).decode
"""Made as this is imported, and so before instances are forked: it takes a millisecond."""


def late(call: Call) -> str:
    """That its time is over."""
    return f"took longer than {call.timeout_s:g} s"


def weight(message: Aside) -> int:
    """What a message counts for in the window, in bytes."""
    if isinstance(message, Chunk):
        return len(message.body) + _OWN_WEIGHT
    if isinstance(message, Made):
        return len(message.out.event.data or b"") + _OWN_WEIGHT
    return sum(len(name) + len(value) for name, value in message.headers) + _OWN_WEIGHT
