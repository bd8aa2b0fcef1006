"""What a call sends before its result, gathered: for tests and trials, where nobody waits for it
piece by piece."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from funcrt.sandbox.protocol import Aside, Chunk, Made, Out, Result, Start
from mesh.event import Event, parse_json

__all__ = ["Collected", "Gathered", "Response", "decoded"]


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler of Requests answered."""

    status: int
    headers: list[tuple[str, str]]
    """Names in lower case, in order; some may come several times."""
    body: bytes = b""
    whole: bool = True
    """False where it was cut off."""

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """The body as its Content-Type says: decoded JSON, text, bytes, or None."""
        return decoded(self.header("content-type"), self.body or None)


def decoded(media: str | None, data: bytes | None) -> Any:
    """Data as a test reads it: decoded JSON, text, bytes, or None."""
    kind = (media or "").partition(";")[0].strip()
    if data is None:
        return None
    if kind.endswith("json"):
        return parse_json(data)
    if kind.startswith("text/") or kind.endswith("xml"):
        return data.decode(errors="replace")
    return data


class Gathered:
    """One call's."""

    def __init__(self) -> None:
        self.messages: list[Aside] = []

    def add(self, message: Aside) -> None:
        """The call sent this."""
        self.messages.append(message)

    def result(self, result: Result) -> Result:
        """The result with what was made before it among its outputs."""
        made: list[Out] = [each.out for each in self.messages if isinstance(each, Made)]
        if not made:
            return result
        return msgspec.structs.replace(result, outputs=[*made, *result.outputs])

    @property
    def response(self) -> Response | None:
        """What was answered; None where nothing was begun."""
        start = next((each for each in self.messages if isinstance(each, Start)), None)
        if start is None:
            return None
        chunks = [each for each in self.messages if isinstance(each, Chunk)]
        return response_of(
            start.status,
            start.headers,
            b"".join(chunk.body for chunk in chunks),
            whole=bool(chunks) and not chunks[-1].more,
        )


class Collected:
    """An Answer (funcrt.api) that keeps everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._head: tuple[int, Sequence[tuple[bytes, bytes]]] | None = None
        self._body = bytearray()
        self._whole = False

    async def head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """As Answer says."""
        self._head = status, headers

    async def chunk(self, body: bytes, more: bool) -> None:
        """As Answer says."""
        self._body += body
        self._whole = not more

    async def items(self, events: Sequence[Event]) -> None:
        """As Answer says."""
        self.events += events

    @property
    def response(self) -> Response | None:
        """What was answered; None where nothing was begun."""
        if self._head is None:
            return None
        return response_of(*self._head, bytes(self._body), whole=self._whole)


def response_of(
    status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, *, whole: bool
) -> Response:
    """Of what went over the channel."""
    named = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    return Response(status=status, headers=named, body=body, whole=whole)
