"""uvicorn inside the host's own loop: its sockets, and the timeouts that it does not have.

uvicorn's httptools protocol bounds neither the size of a request's head nor the time that one may
take; `Connection` counts the first, and a sweep once a second ends what is too slow.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from socket import AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from funcrt.auth import check_bind
from funcrt.errors import FuncrtError
from funcrt.gateway.guard import App
from funcrt.gateway.limits import GatewayConfig
from funcrt.gateway.problem import HttpProblem

__all__ = ["PortTaken", "bind_tcp", "serve_http"]

BACKLOG = 1024


class PortTaken(FuncrtError):
    """The address that the gateway was to listen on cannot be had."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        super().__init__(f"cannot listen on {host}:{port}: {reason}")


def bind_tcp(config: GatewayConfig) -> socket:
    """A socket bound to the configured address.

    Raises UnsafeBind for an address that others reach while there are no tokens, PortTaken.
    """
    check_bind(config.host, config.tokens)
    host = "127.0.0.1" if config.host == "localhost" else config.host
    sock = socket(AF_INET6, SOCK_STREAM) if ":" in host else socket()
    try:
        sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        sock.bind((host, config.port))
    except OSError as error:
        sock.close()
        raise PortTaken(host, config.port, error.strerror or str(error)) from None
    return sock


@contextlib.asynccontextmanager
async def serve_http(
    app: App, config: GatewayConfig, sock: socket | None = None
) -> AsyncIterator[socket]:
    """Serve `app` on `sock` (by default `bind_tcp(config)`) while the block runs.

    On entering it listens; the value is the socket, for its address. On leaving it takes no more
    connections, lets requests in flight finish for `config.drain_s`, then cancels them. Installs
    no signal handlers. Raises as `bind_tcp`.
    """
    sock = sock or bind_tcp(config)
    server = _Server(app, config)
    await server.startup([sock])
    ticking = asyncio.get_running_loop().create_task(server.main_loop())
    try:
        yield sock
    finally:
        server.stopping.set()
        await ticking
        await server.shutdown([sock])


class Connection(HttpToolsProtocol):
    """One connection, with the limits that uvicorn leaves out."""

    settings: GatewayConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_head = True
        self.head_size = 0
        self.since = self.loop.time()
        """When the head began, or of a body when its last piece came."""
        self.unsent = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            self.connections.discard(self)
            transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.in_head:
            self.in_head = True
            self.since = self.loop.time()
        self.head_size = 0

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        limit = self.settings.header_bytes
        if not self.in_head:
            self.since = self.loop.time()
        super().data_received(data)
        if self.in_head:
            self.head_size += len(data)
            if self.head_size > limit:
                self.refuse(431, "headers", f"the headers are over the limit of {limit} bytes")
        elif len(data) > limit and sum(len(k) + len(v) + 4 for k, v in self.headers) > limit:
            self.refuse(431, "headers", f"the headers are over the limit of {limit} bytes")

    def refuse(self, status: int, kind: str, detail: str) -> None:
        """Answer before there is a request, and hang up."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            start, body = HttpProblem(status, kind, detail).response(close=True)
            lines = [b"HTTP/1.1 %d \r\n" % status]
            lines += [b"%s: %s\r\n" % header for header in start["headers"]]
            self.transport.write(b"".join([*lines, b"\r\n", body["body"]]))
        self.transport.close()

    def sweep(self, now: float) -> None:
        """End this connection where its client is too slow."""
        quiet_s = now - self.since
        cycle = self.cycle
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting == self.unsent:
            if quiet_s > self.settings.body_timeout_s:
                self.transport.abort()
        elif cycle is not None and not cycle.response_complete:
            if cycle.more_body and quiet_s > self.settings.body_timeout_s:
                self.transport.abort()
        elif self.in_head and (self.head_size or cycle is None):
            if quiet_s > self.settings.head_timeout_s:
                self.refuse(408, "slow", "the request's headers took too long")
        elif quiet_s > self.settings.keep_alive_s + self.settings.body_timeout_s:
            self.transport.close()
        self.unsent = waiting


class _Server(uvicorn.Server):
    """A server without signals and without polling ten times a second."""

    def __init__(self, app: App, config: GatewayConfig) -> None:
        kind = type("Connection", (Connection,), {"settings": config})
        super().__init__(
            uvicorn.Config(
                app,
                http=kind,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=max(1, round(config.keep_alive_s)),
                timeout_graceful_shutdown=max(1, round(config.drain_s)),
            )
        )
        self.stopping = asyncio.Event()
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)

    async def main_loop(self) -> None:
        """Keep the date, and end slow connections, once a second."""
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            await self.on_tick(0)
            sweep(self.server_state, loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1.0)


def sweep(state: ServerState, now: float) -> None:
    """End each connection whose client is too slow."""
    for connection in list(state.connections):
        if isinstance(connection, Connection):
            connection.sweep(now)
