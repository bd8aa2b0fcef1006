"""What the gateway allows, and reading a body within it."""

from typing import Any

import msgspec

from funcrt.auth import Tokens
from funcrt.gateway.problem import HttpProblem

__all__ = ["ClientGone", "GatewayConfig", "Head", "Receive", "Scope", "Send", "read_body"]

Scope = Any
"""An ASGI scope: a mutable mapping of str. Any, as the servers' own types differ."""
Receive = Any
Send = Any

Head = dict[bytes, bytes]
"""A request's headers by lower-case name; of repeated ones, the last."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens, whom it lets in, and how much it takes."""

    host: str = "127.0.0.1"
    port: int = 8080
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    allowed_hosts: tuple[str, ...] = ()
    """Names that a Host header may carry besides the loopback's and `host`; no ports."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may call, besides the gateway's own, e.g. `https://ops.example`."""

    event_bytes: int = 1 << 20
    """The most data of one event. A structured one's body may be twice that: base64, escapes."""
    batch_bytes: int = 8 << 20
    header_bytes: int = 32 << 10
    header_count: int = 100
    concurrent: int = 1024
    """Requests being answered at once; more get a 429."""
    connections: int = 4096
    """Open connections; more are closed at once."""
    head_timeout_s: float = 10.0
    """From the first byte of a request (or from connecting) to the end of its headers."""
    body_timeout_s: float = 20.0
    """Between two pieces of a body; also for a client that does not read its response."""
    keep_alive_s: float = 60.0
    drain_s: float = 30.0
    """How long requests in flight may take when the server stops."""


class ClientGone(Exception):
    """The client left before its request was whole: nobody waits for an answer."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes; refused as soon as it is known to be more.

    Raises HttpProblem 413, or 415 for a compressed body (a few bytes could hold gigabytes);
    ClientGone.
    """
    head: Head = scope["funcrt.head"]
    declared = head.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise _too_large(limit)
    if b"content-encoding" in head and head[b"content-encoding"].lower() != b"identity":
        raise HttpProblem(
            415, "encoding", "Content-Encoding is not supported; send the body as it is"
        )
    body = b""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(body)
        scope["funcrt.body_read"] = not more
        if size > limit:
            raise _too_large(limit)
        if more or parts:
            parts.append(body)
    return b"".join(parts) if parts else body


def _too_large(limit: int) -> HttpProblem:
    return HttpProblem(
        413, "too-large", f"the body is over the limit of {limit} bytes", limit=limit
    )
