"""uvicorn inside the host's own loop: its sockets, and the timeouts that it does not have.

uvicorn's httptools protocol bounds neither the size of a request's head nor the time that one may
take; `Connection` counts the first, and a sweep once a second ends what is too slow.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from socket import (
    AF_INET6,
    IPPROTO_TCP,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from funcrt.auth import check_bind
from funcrt.errors import FuncrtError
from funcrt.gateway.guard import App
from funcrt.gateway.limits import GatewayConfig
from funcrt.gateway.problem import HttpProblem

__all__ = ["PortTaken", "bind_tcp", "serve_http"]

BACKLOG = 1024
SWEEP_S = 1.0
LINGER_S = 2.0
"""How long a client that was refused may go on sending before its connection is cut."""


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
        # uvicorn writes head and body apart; without this, asyncio's own loop (uvloop sets it
        # itself) would let the second wait 40 ms for the client's delayed acknowledgement.
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
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
        self.piece = 0
        self.since = self.loop.time()  # the head began, or a piece of a body came
        self.unsent = 0
        self.moved = self.since
        self.refused: HttpProblem | None = None

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
        self.head_size = self.piece  # at most: the head begins somewhere in it

    def on_headers_complete(self) -> None:
        self.in_head = False
        limit = self.settings.header_bytes
        if self.head_size > limit and sum(len(k) + len(v) + 4 for k, v in self.headers) > limit:
            self.refused = self.head_too_large()
            raise self.refused  # out of the parser, and back to us in send_400_response
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self.refused is not None:
            return
        self.piece = len(data)
        if self.in_head:
            self.head_size += self.piece
        else:
            self.since = self.loop.time()
        super().data_received(data)
        if self.in_head and self.head_size > self.settings.header_bytes and self.refused is None:
            self.refuse(self.head_too_large())

    def head_too_large(self) -> HttpProblem:
        limit = self.settings.header_bytes
        return HttpProblem(431, "headers", f"the headers are over the limit of {limit} bytes")

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has failed."""
        self.refuse(self.refused or HttpProblem(400, "http", "this is no valid HTTP request"))

    def refuse(self, problem: HttpProblem) -> None:
        """Answer before there is a request, and hang up.

        Only our side is closed: closing both while the client still sends would reset the
        connection, and the answer with it. What it sends is dropped; the sweep ends it.
        """
        self.refused = problem
        self.since = self.loop.time()
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or not self.transport.can_write_eof():
            self.transport.close()
            return
        start, body = problem.response(close=True)
        lines = [STATUS_LINE[problem.status]]
        lines += [b"%s: %s\r\n" % header for header in start["headers"]]
        self.transport.write(b"".join([*lines, b"\r\n", body["body"]]))
        self.transport.write_eof()

    def sweep(self, now: float) -> None:
        """End this connection where its client is too slow."""
        quiet_s = now - self.since
        cycle = self.cycle
        waiting = self.transport.get_write_buffer_size()
        if not waiting or waiting != self.unsent:
            self.unsent, self.moved = waiting, now
        if self.refused is not None:
            if quiet_s > LINGER_S:
                self.transport.abort()
        elif now - self.moved > self.settings.body_timeout_s:
            self.transport.abort()  # it does not read what we answer
        elif cycle is not None and not cycle.response_complete:
            if cycle.more_body and quiet_s > self.settings.body_timeout_s:
                self.transport.abort()
        elif self.in_head and (self.head_size or cycle is None):
            if quiet_s > self.settings.head_timeout_s:
                self.refuse(HttpProblem(408, "slow", "the request's headers took too long"))
        elif quiet_s > self.settings.keep_alive_s + self.settings.body_timeout_s:
            self.transport.close()


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
            )
        )
        self.stopping = asyncio.Event()
        self.drain_s = config.drain_s
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)

    async def main_loop(self) -> None:
        """Keep the date, and end slow connections, every SWEEP_S."""
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            await self.on_tick(0)
            sweep(self.server_state, loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), SWEEP_S)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let what is in flight finish, then cancel it. Unlike uvicorn's own, returns at once
        when there is nothing to wait for, and always by the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.drain_s
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        while (state.tasks or state.connections) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in list(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=1.0)
        for connection in list(state.connections):
            connection.transport.abort()
        for server in self.servers:
            await server.wait_closed()


def sweep(state: ServerState, now: float) -> None:
    """End each connection whose client is too slow."""
    for connection in list(state.connections):
        if isinstance(connection, Connection):
            connection.sweep(now)
