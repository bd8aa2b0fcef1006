"""What crosses the host's Unix socket: how other processes publish, read and tail a mesh file
while a host serves it.

A frame is a 4-byte little-endian length and that many bytes of msgpack: an array of messages,
coalesced once per turn of the sender's loop. Events are checked by the host, as from anyone. No
frame is larger than MAX_FRAME: what may be, goes in parts of PAGE_BYTES.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from mesh.event import Event
from mesh.records import Chunk
from mesh.transport import Receipt

__all__ = [
    "MAX_FRAME",
    "PAGE_BYTES",
    "TAIL_BYTES",
    "Ask",
    "Channel",
    "Failed",
    "FromClient",
    "FromHost",
    "Publish",
    "Published",
    "Said",
    "Stop",
    "Tail",
    "Told",
    "chunk_row",
    "receipt_row",
    "short_path",
]

_HEADER = struct.Struct("<I")
MAX_FRAME = 64 << 20
PAGE_BYTES = 8 << 20
"""Of events in a publish or an answer, one more at the most: the rest is asked for, or sent, when
the other side has that."""
TAIL_BYTES = 1 << 20
"""Of events that a tail says at once, one more at the most."""


class Publish(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Client: store these."""

    id: int
    topic: str
    events: list[Event]
    hops: int = 0


class Ask(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Client: a rare question, by name, with msgpack arguments."""

    id: int
    what: str
    arguments: list[Any]


class Tail(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Client: send a topic's chunks from `start` on."""

    id: int
    topic: str
    start: str


class Stop(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Client: no more of that tail, or of that question."""

    id: int


class Published(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Host: the receipts of a publish: (status, position, duplicate, reason, error) each."""

    id: int
    receipts: list[tuple[str, str, bool, str, str]]


class Told(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Host: an answer."""

    id: int
    value: Any


class Failed(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Host: a question that failed; `kind` is the error's class."""

    id: int
    kind: str
    message: str


class Said(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Host: chunks of a tail: (first, count, at, body) each, from offset `start` on."""

    id: int
    start: int
    chunks: list[tuple[int, int, float, bytes]]


FromClient = Publish | Ask | Tail | Stop
FromHost = Published | Told | Failed | Said


def receipt_row(receipt: Receipt) -> tuple[str, str, bool, str, str]:
    """A receipt as it crosses."""
    return (
        receipt.status, receipt.position, receipt.duplicate, receipt.reason, receipt.error
    )  # fmt: skip


def chunk_row(chunk: Chunk) -> tuple[int, int, float, bytes]:
    """A chunk as it crosses."""
    return (chunk.first, chunk.count, chunk.at, chunk.body)


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name for a socket path that fits in sun_path's 108 bytes, whatever its length."""
    where = Path(path)
    fd = os.open(where.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{where.name}"
    finally:
        os.close(fd)


class Channel(asyncio.Protocol):
    """Either end: whole frames in, coalesced frames out.

    `received` gets the messages of a frame; `lost` is called once, however it ends. `drained()`
    waits while the other side does not keep up.
    """

    def __init__(
        self,
        kind: Any,
        received: Callable[[Sequence[Any]], None],
        lost: Callable[[], None],
    ) -> None:
        self._decode = msgspec.msgpack.Decoder(list[kind]).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._received = received
        self._lost = lost
        self._in = bytearray()
        self._out: list[Any] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's own."""
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's own."""
        buffer = self._in
        buffer += data
        start, size = 0, len(buffer)
        while size - start >= 4:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > MAX_FRAME:
                return self.close()
            if size - start - 4 < length:
                break
            try:
                messages = self._decode(memoryview(buffer)[start + 4 : start + 4 + length])
            except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
                return self.close()
            start += 4 + length
            self._received(messages)
        if start:
            del buffer[:start]

    def send(self, message: Any) -> None:
        """Send a message at the end of this turn of the loop."""
        if self.closed:
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(message)

    def flush(self) -> None:
        """Send what waits for the end of the turn now."""
        out, self._out = self._out, []
        if out and self.transport is not None and not self.closed:
            self._send(out)

    def _send(self, messages: list[Any]) -> None:
        """In as few frames as they fit in."""
        assert self.transport is not None
        body = self._encode(messages)
        if len(body) <= MAX_FRAME:
            self.transport.writelines((_HEADER.pack(len(body)), body))
        elif len(messages) > 1:
            middle = len(messages) // 2
            self._send(messages[:middle])
            self._send(messages[middle:])
        elif type(messages[0]) is Told:  # else who asked waits, and what else is sent now fails
            why = f"the answer is {len(body)} bytes; at most {MAX_FRAME} cross to another process"
            self._send([Failed(messages[0].id, "MeshError", why)])
        else:
            raise ValueError(f"{type(messages[0]).__name__} of {len(body)} bytes: not in pages")

    async def drained(self) -> None:
        """Wait until the other side has taken most of what was sent."""
        await self._flowing.wait()

    def pause_writing(self) -> None:
        """asyncio's own."""
        self._flowing.clear()

    def resume_writing(self) -> None:
        """asyncio's own."""
        self._flowing.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's own."""
        if not self.closed or self.transport is not None:
            self.closed = True
            self.transport = None
            self._flowing.set()
            self._lost()

    def close(self) -> None:
        """Flush and close. Twice is harmless."""
        if not self.closed:
            self.flush()
            self.closed = True
            if self.transport is not None:
                self.transport.close()
