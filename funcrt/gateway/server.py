"""uvicorn inside the host's own loop: its sockets, and a sweep that ends slow connections."""

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

import uvicorn
from uvicorn.server import ServerState

from funcrt.auth import check_bind
from funcrt.errors import FuncrtError
from funcrt.gateway.connection import Connection
from funcrt.gateway.guard import App
from funcrt.gateway.limits import GatewayConfig

__all__ = ["PortTaken", "bind_tcp", "serve_http"]

BACKLOG = 1024
SWEEP_S = 1.0


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
