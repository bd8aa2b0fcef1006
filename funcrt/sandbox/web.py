"""HTTP in the sandbox: what a handler's Request is made of, and what becomes of a Response.

Both are ASGI (asgi.readthedocs.io, HTTP & WebSocket ASGI Message Format). Starlette is the author's
import: nothing here needs it.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from funcrt.paths import converted
from funcrt.sandbox.protocol import Aside, Call, Chunk, Http, Start
from mesh.event import Event

__all__ = [
    "REQUEST_TYPE",
    "answer_of",
    "is_request",
    "is_response",
    "receiver",
    "request_of",
    "scope_of",
    "sender",
]

REQUEST_TYPE = "funcrt.http.request"
"""The type of the event that a plain request is wrapped in."""
PIECE = 64 << 10
"""A larger chunk goes in pieces."""
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def is_request(hint: Any) -> bool:
    """Whether an annotation is Starlette's Request, or a class made of it."""
    return isinstance(hint, type) and _starlette(hint, "requests", "Request", "HTTPConnection")


def is_response(value: Any) -> bool:
    """Whether a value is one of Starlette's responses."""
    return _starlette(type(value), "responses", "Response")


def _starlette(kind: type, module: str, *names: str) -> bool:
    return any(
        base.__module__ == f"starlette.{module}" and base.__name__ in names for base in kind.__mro__
    )


def answer_of(error: BaseException) -> Any:
    """The response that a raised HTTPException stands for, as Starlette answers it (its
    ExceptionMiddleware, http_exception); None for any other exception."""
    exceptions = sys.modules.get("starlette.exceptions")
    if exceptions is None or not isinstance(error, exceptions.HTTPException):
        return None
    from starlette.responses import PlainTextResponse, Response

    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


def scope_of(call: Call, state: Mapping[str, Any]) -> dict[str, Any]:
    """The ASGI scope of a call's request. `state` is what `request.state` begins with."""
    http = call.http or request_of(call.events[0])
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": http.version,
        "method": http.method,
        "scheme": "http",
        "path": http.path,
        "raw_path": http.raw_path,
        "root_path": "",
        "query_string": http.query,
        "headers": http.headers,
        "client": http.client,
        "server": http.server,
        "path_params": converted(http.params),
        "state": dict(state),
    }


def request_of(event: Event) -> Http:
    """An event as the request that it came by, or in binary mode: of a sample, or of a test."""
    path = "/"
    plain = event.type == REQUEST_TYPE
    if plain and event.source.startswith("/http/"):
        path = event.source.removeprefix("/http")
    if plain:
        named = [("content-type", event.datacontenttype)] if event.datacontenttype else []
    else:
        from mesh.codec import encode_http

        named = list(encode_http(event, "binary")[0])
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in named]
    headers.append((b"content-length", b"%d" % len(event.data or b"")))
    method = str(event.extensions.get("httpmethod", "POST"))
    query = str(event.extensions.get("httpquery", "")) if plain else ""
    raw = quote(path, safe="/%:@!$&'()*+,;=-._~").encode()
    return Http(method, path, raw, query.encode("latin-1"), headers)


def receiver(body: bytes, gone: Callable[[], Awaitable[Any]]) -> Receive:
    """ASGI's `receive`: the body, whole, and once `gone` has returned that nobody listens."""
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone()
        return {"type": "http.disconnect"}

    return receive


def sender(call: int, put: Callable[[Aside], Awaitable[None]]) -> Send:
    """ASGI's `send`, as messages to the host."""

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            await put(Start(call, message["status"], headers))
        elif message["type"] == "http.response.body":
            body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
            for at in range(0, len(body) - PIECE, PIECE):
                await put(Chunk(call, body[at : at + PIECE], True))
            last = max(0, (len(body) - 1) // PIECE * PIECE)
            if body or not more:
                await put(Chunk(call, body[last:], more))

    return send
