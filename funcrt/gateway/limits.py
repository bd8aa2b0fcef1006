"""What the gateway allows, and reading a body within it."""

from typing import Any

import msgspec

from funcrt.auth import Tokens
from funcrt.gateway.problem import HttpProblem, retry_after

__all__ = [
    "ClientGone",
    "GatewayConfig",
    "Head",
    "Load",
    "Receive",
    "Scope",
    "Send",
    "check_load",
    "read_body",
]

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
    request_bytes: int = 8 << 20
    """The most of a request's body that a handler of Requests gets."""
    deploy_bytes: int = 64 << 20
    """Of one upload of functions."""
    header_bytes: int = 32 << 10
    header_count: int = 100
    concurrent: int = 1024
    """Requests being answered at once; more get a 429."""
    tails: int = 256
    """Topics being tailed by server-sent events, each a request that is being answered."""
    buffered_bytes: int = 64 << 20
    """Of bodies that are still coming, in all; more get a 429."""
    connections: int = 4096
    """Open connections. One more ends one that is idle; where none is, it is closed itself."""
    head_timeout_s: float = 10.0
    """From the first byte of a request (or from connecting) to the end of its headers."""
    body_timeout_s: float = 20.0
    """Between two pieces of a body; also for a client that does not read its response."""
    request_timeout_s: float = 300.0
    """From the end of a request's headers to the end of its body."""
    keep_alive_s: float = 60.0
    drain_s: float = 30.0
    """How long requests in flight may take when the server stops."""


class Load:
    """What a gateway has in hand."""

    __slots__ = ("active", "buffered")

    def __init__(self) -> None:
        self.active = 0
        """Requests being answered. One whose body is still coming is not, or a client that sends
        slowly would take another's place."""
        self.buffered = 0
        """Bytes of bodies that are still coming."""


class ClientGone(Exception):
    """The client left before its request was whole: nobody waits for an answer."""


async def read_body(scope: Scope, receive: Receive, limit: int, *, encoded: bool = False) -> bytes:
    """The request's body, at most `limit` bytes; refused as soon as it is known to be more.

    Raises HttpProblem 413, or 415 for a compressed body (a few bytes could hold gigabytes) unless
    it is taken `encoded`, as it is; ClientGone.
    """
    head: Head = scope["funcrt.head"]
    declared = head.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise _too_large(limit)
    if (
        not encoded
        and b"content-encoding" in head
        and head[b"content-encoding"].lower() != b"identity"
    ):
        raise HttpProblem(
            415, "encoding", "Content-Encoding is not supported; send the body as it is"
        )
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        load: Load = scope["funcrt.load"]
        load.active -= 1
        try:
            body = await _rest(scope, receive, limit, body)
        finally:
            load.active += 1
        check_load(load, scope["funcrt.config"])
    scope["funcrt.body_read"] = True
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _rest(scope: Scope, receive: Receive, limit: int, body: bytes) -> bytes:
    load: Load = scope["funcrt.load"]
    most = scope["funcrt.config"].buffered_bytes
    # One growing block, not a list of what came: thousands of pieces of 4 KiB, freed among smaller
    # things that stay, would leave the heap as large as the largest burst.
    whole, size, more = bytearray(body), len(body), True
    load.buffered += size
    try:
        while more:
            if size > limit:
                raise _too_large(limit)
            if load.buffered > most:
                raise _too_many(f"{load.buffered} bytes of unfinished requests are held already")
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body = message.get("body", b"")
            whole += body
            more = message.get("more_body", False)
            size += len(body)
            load.buffered += len(body)
    finally:
        load.buffered -= size
    return bytes(whole)


def check_load(load: Load, config: GatewayConfig) -> None:
    """Raises HttpProblem 429 where more requests are being answered than may be."""
    if load.active > config.concurrent:
        raise _too_many(f"{load.active - 1} requests are being answered already")


def _too_many(detail: str) -> HttpProblem:
    return HttpProblem(429, "admission", detail, headers=retry_after(1))


def _too_large(limit: int) -> HttpProblem:
    return HttpProblem(
        413, "too-large", f"the body is over the limit of {limit} bytes", limit=limit
    )
