"""What a call sends before its end, as an HTTP response that flows: a function's own response, or
the items of a streaming generator in the form that the caller asks for."""

import re
from collections.abc import Sequence

from funcrt.gateway.limits import Head, Scope, Send
from funcrt.sandbox.protocol import Failure
from funcrt.streams import StreamFailed
from mesh.errors import EventError
from mesh.event import Event
from mesh.validation import validate

__all__ = ["Flow"]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"date")
)  # fmt: skip
"""Of the connection, which is the gateway's (RFC 9110 §7.6.1); it writes the date as well."""
MOST_HEADERS = 32 << 10
"""Bytes of a response's headers."""

BATCH = b"application/cloudevents-batch+json"
EVENTS = b"text/event-stream"
LINES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")


class Flow:
    """The Answer of one request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.send = send
        head: Head = scope["funcrt.head"]
        self.accept = head.get(b"accept", b"").lower()
        self.begun = False
        self.media = b""
        """Of items, once there are any."""
        self._count = 0

    # A function's own response

    async def head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """As Answer says."""
        if self.begun or type(status) is not int or not 200 <= status <= 599:
            raise _invalid(f"its status is {status}, expected 200 to 599, once")
        kept = []
        size = 0
        for name, value in headers:
            size += len(name) + len(value)
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise _invalid(f"no valid header: {name[:100]!r}: {value[:100]!r}")
            if name.lower() == b"content-length" and not (value.isdigit() and len(value) < 19):
                raise _invalid(f"no valid length: {value[:100]!r}")
            if name.lower() not in HOP_BY_HOP:
                kept.append((name, value))
        if size > MOST_HEADERS:
            raise _invalid(f"its headers have {size} bytes; at most {MOST_HEADERS}")
        if not any(name.lower() == b"x-content-type-options" for name, _ in kept):
            kept.append((b"x-content-type-options", b"nosniff"))
        await self._start(status, kept)

    async def chunk(self, body: bytes, more: bool) -> None:
        """As Answer says."""
        if not self.begun or self.media:
            raise _invalid("a body without a head")
        await self._body(body, more)

    # A streaming generator's items

    async def items(self, events: Sequence[Event]) -> None:
        """As Answer says."""
        if not events:
            return
        try:
            for event in events:
                validate(event)
        except EventError as error:
            raise StreamFailed(Failure("EventError", f"an output is refused: {error}")) from None
        if not self.begun:
            self.media = self._media()
            await self._start(200, [
                (b"content-type", self.media),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ])  # fmt: skip
        await self._body(b"".join(map(self._item, events)), True)

    def _media(self) -> bytes:
        if EVENTS in self.accept:
            return EVENTS
        return next((media for media in LINES if media in self.accept), BATCH)

    def _item(self, event: Event) -> bytes:
        self._count += 1
        text = event.to_json()
        if self.media == EVENTS:
            return b"id: %b\ndata: %b\n\n" % (event.id.encode(), text)
        if self.media in LINES:
            return text + b"\n"
        return (b"[" if self._count == 1 else b",") + text

    async def end(self, events: Sequence[Event]) -> None:
        """The call ended well, with these outputs."""
        if self.media:
            await self.items(events)
            await self._body(b"]" if self.media == BATCH else b"", False)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, body: bytes, more: bool) -> None:
        try:
            await self.send({"type": "http.response.body", "body": body, "more_body": more})
        except RuntimeError as error:  # uvicorn's, e.g. a body that is not as long as it said
            raise _invalid(str(error)) from None


def _invalid(why: str) -> StreamFailed:
    return StreamFailed(Failure("ResponseInvalid", f"the response cannot be sent: {why}"))
