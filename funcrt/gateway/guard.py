"""Who may pass: Host, Origin, token, and how many at once. Pure ASGI, in front of everything.

Host and Origin are checked on every route, health included, so that a web page can neither call
the gateway across origins nor reach it by rebinding a name of its own to 127.0.0.1.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from funcrt.api import HostApi
from funcrt.auth import Grant
from funcrt.gateway.limits import GatewayConfig, Head, Load, Receive, Scope, Send
from funcrt.gateway.problem import HttpProblem, retry_after
from funcrt.manifest_kinds import OWN_NAMES

__all__ = [
    "EVERYTHING",
    "App",
    "Guard",
    "needed_scope",
    "refuse",
]

App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = ("/healthz", "/readyz")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
LOCAL = Grant("local", frozenset({"publish", "read"}))
"""What a caller on this machine may do while no tokens are configured."""
EVERYTHING = Grant("admin socket", frozenset({"publish", "read", "admin"}))

LINGER_BYTES = 16 << 20
_ONCE = (
    b"host",
    b"origin",
    b"authorization",
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"transfer-encoding",
)
QUERY_FIELDS = 200


class Guard:
    """Lets a request through to `app`, or answers it with a problem.

    `trusted` is for the admin socket, whose file mode has decided already who may connect.
    """

    def __init__(
        self, app: App, host: HostApi, config: GatewayConfig, *, trusted: bool = False
    ) -> None:
        self.app = app
        self.host = host
        self.config = config
        self.tokens = config.tokens
        self.anonymous = EVERYTHING if trusted else None if config.tokens else LOCAL
        names = {*LOCAL_NAMES, *config.allowed_hosts}
        self.any_address = False
        try:
            bound = ipaddress.ip_address(config.host)
            self.any_address = bound.is_unspecified
        except ValueError:
            pass
        if not self.any_address:
            names.add(config.host)
        self.names = frozenset(name.lower().strip("[]").encode("latin-1") for name in names)
        self.origins = frozenset(
            origin.lower().rstrip("/").encode("latin-1") for origin in config.allowed_origins
        )
        self.load = Load()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = scope["headers"]
        head: Head = dict(headers)
        scope["funcrt.head"] = head
        try:
            self.check_head(headers, head)
            if scope["path"] not in HEALTH:
                scope["funcrt.grant"] = self.admit(scope, head)
        except HttpProblem as problem:
            await refuse(scope, receive, send, problem, self.config)
            return
        load = scope["funcrt.load"] = self.load
        scope["funcrt.config"] = self.config
        load.active += 1
        try:
            await self.app(scope, receive, send)
        finally:
            load.active -= 1

    async def idle(self, seconds: float) -> None:
        """Return once no request is being answered, at the latest after `seconds`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.load.active and loop.time() < until:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)

    def check_head(self, headers: list[tuple[bytes, bytes]], head: Head) -> None:
        """Number of headers, Host, Origin, framing. Raises HttpProblem."""
        if len(headers) != len(head):
            names = [name for name, _ in headers]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise HttpProblem(400, "header", f"{name.decode()} was sent more than once")
        if len(headers) > self.config.header_count:
            raise HttpProblem(
                431, "headers", f"more than {self.config.header_count} headers were sent"
            )
        host = head.get(b"host", b"").lower()
        if host[:1] == b"[":
            name, _, port = host[1:].partition(b"]")
            colon, port = port[:1], port[1:]
        else:
            name, colon, port = host.partition(b":")
        if colon not in (b"", b":") or (port and not port.isdigit()):
            name = host
        if name not in self.names and not (self.any_address and _is_address(name)):
            raise HttpProblem(
                403 if host else 400,
                "host",
                f"the Host header names {_shown(host)}, which this gateway does not answer to",
            )
        origin = head.get(b"origin")
        if origin is not None:
            origin = origin.lower()
            scheme, _, page = origin.partition(b"://")
            own = page == host and scheme in (b"http", b"https")
            if not own and origin not in self.origins:
                raise HttpProblem(
                    403, "origin", f"pages of {_shown(origin)} may not call this gateway"
                )
        elif head.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise HttpProblem(403, "origin", "pages of another site may not call this gateway")
        coding = head.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise HttpProblem(
                501, "transfer-encoding", "of the transfer codings only chunked is taken"
            )

    def admit(self, scope: Scope, head: Head) -> Grant:
        """State, token and number of requests. Raises HttpProblem."""
        if self.host.state != "ready":
            raise HttpProblem(
                503,
                "draining" if self.host.state == "draining" else "closed",
                f"the host is {self.host.state}",
                headers=[*retry_after(1), (b"connection", b"close")],
                state=self.host.state,
            )
        if scope["query_string"]:
            self.check_query(scope["query_string"])
        wanted = needed_scope(scope["method"], scope["path"])
        grant = self.grant(head)
        if grant is None or (grant is LOCAL and wanted not in grant.scopes):
            raise HttpProblem(
                401,
                "unauthorized",
                f"this needs a token with the scope {wanted!r}",
                headers=[(b"www-authenticate", b'Bearer realm="funcrt"')],
                scope=wanted,
            )
        if wanted not in grant.scopes:
            challenge = f'Bearer realm="funcrt", error="insufficient_scope", scope="{wanted}"'
            raise HttpProblem(
                403,
                "forbidden",
                f"this needs the scope {wanted!r}; the token {grant.name!r} has "
                + ", ".join(sorted(grant.scopes)),
                headers=[(b"www-authenticate", challenge.encode())],
                scope=wanted,
            )
        if self.load.active >= self.config.concurrent:
            raise HttpProblem(
                429,
                "admission",
                f"{self.load.active} requests are being answered already",
                headers=retry_after(1),
            )
        return grant

    def grant(self, head: Head) -> Grant | None:
        """The grant of the bearer token (RFC 6750 §2.1). Raises HttpProblem for a bad one."""
        given = head.get(b"authorization")
        if given is None or (self.anonymous is not None and not self.tokens):
            return self.anonymous
        scheme, _, token = given.partition(b" ")
        grant = self.tokens.check(token.strip()) if scheme.lower() == b"bearer" else None
        if grant is None:
            raise HttpProblem(
                401,
                "unauthorized",
                "the token is not known here",
                headers=[(b"www-authenticate", b'Bearer realm="funcrt", error="invalid_token"')],
            )
        return grant

    def check_query(self, query: bytes) -> None:
        """Refuse a token in the query: it would end up in logs and histories (RFC 6750 §5.3)."""
        try:
            fields = parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS)
        except ValueError:
            raise HttpProblem(
                400, "query", f"more than {QUERY_FIELDS} parameters in the query"
            ) from None
        for name, value in fields:
            if name == "access_token" or (
                self.tokens and self.tokens.check(value.encode("latin-1", "replace"))
            ):
                raise HttpProblem(
                    400, "token-in-query", "send the token as `Authorization: Bearer`, never in the"
                    " query; one that was sent so must be replaced"
                )  # fmt: skip


def needed_scope(method: str, path: str) -> str:
    """The scope that a request needs."""
    if path == "/admin" or path.startswith("/admin/"):
        return "admin"
    if method in ("GET", "HEAD") and (path == "/topics" or path.startswith("/topics/")):
        return "admin" if path.startswith(f"/topics/{OWN_NAMES}") else "read"
    return "publish"


async def refuse(
    scope: Scope, receive: Receive, send: Send, problem: HttpProblem, config: GatewayConfig
) -> None:
    """Answer with a problem, whatever of the body is still to come.

    A small rest is left to the server to skip, and the connection lives on. A larger one, or one
    of unknown length, ends the connection: the answer goes out first, then a bounded part of the
    rest is read, as closing at once would reset the connection and lose the answer on its way.
    """
    head: Head = scope["funcrt.head"]
    small = int(head.get(b"content-length", b"0")) <= config.event_bytes
    skip = small and b"transfer-encoding" not in head
    close = not (skip or scope.get("funcrt.body_read"))
    start, body = problem.response(close=close)
    await send(start)
    if not close or b"expect" in head:
        await send(body)
        return
    await send({**body, "more_body": True})
    left = LINGER_BYTES
    while left > 0:
        message: dict[str, Any] = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.body", "body": b""})


def _is_address(name: bytes) -> bool:
    try:
        ipaddress.ip_address(name.decode("latin-1"))
    except ValueError:
        return False
    return True


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1")) if value else "nothing"
