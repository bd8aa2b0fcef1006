"""`funcrt serve` behind its flags: open the mesh, start a host, listen, drain at the end."""

import asyncio
import gc
import os
import resource
import signal
import sqlite3
import sys
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import uvloop

import mesh
from funcrt import logs
from funcrt.auth import Tokens, check_bind
from funcrt.config import ServeConfig
from funcrt.gateway import OPEN_NOTICE, GatewayConfig, make_admin_app, make_app, serve_http
from funcrt.host import Host
from funcrt.rollout import find_functions, roll_out
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sockets import bind_unix, unlink_unix
from mesh.clock import SystemClock
from mesh.errors import MeshFull
from mesh.integrity import told

__all__ = ["run"]

MOST_FILES = 8192
OWN_FILES = 512
"""Open files kept for instances, the mesh and its clients."""


def run(config: ServeConfig) -> int:
    """Serve until SIGINT or SIGTERM; the exit code: 0, or 1 where the mesh file failed.

    Raises what a user can cause: TokenFileInvalid, UnsafeBind, PortTaken, SocketTaken, MeshBusy,
    MeshCorrupt, FunctionsRefused.
    """
    tokens = Tokens.load(config.tokens) if config.tokens else Tokens()
    check_bind(config.host, tokens)
    logs.set_up()
    return uvloop.run(_serve(config, tokens))


async def _serve(config: ServeConfig, tokens: Tokens) -> int:
    stop: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    hurry = asyncio.Event()

    def end(error: BaseException | None = None) -> None:
        if not stop.done():
            stop.set_result(error)
        else:
            hurry.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    transport = await mesh.connect(config.mesh_url, namespace=config.namespace, host=True)
    try:
        if hasattr(transport, "on_fatal"):
            transport.on_fatal = end
        sandbox = ProcessSandbox()
        await sandbox.start()
        try:
            host = Host(
                transport,
                sandbox,
                SystemClock(),
                config.data.root / "code",
                namespace=config.namespace,
                host_id=config.data.host_id(),
            )
            host.on_failure = end
            await host.start()
            error: BaseException | None = None
            try:
                error = await _listen(config, tokens, host, stop, hurry)
            finally:
                await _drain(host, 0.0 if error else config.drain_s, hurry)
        finally:
            await sandbox.close()
    finally:
        await transport.close()
    if isinstance(error, sqlite3.DatabaseError):
        error = told(config.mesh_url, error)
    if isinstance(error, sqlite3.Error):
        raise MeshFull(config.mesh_url, f"the host stopped, as it could not be written ({error})")
    if error is not None:
        raise error
    return 0


async def _drain(host: Host, seconds: float, hurry: asyncio.Event) -> None:
    """Let what runs finish; a second signal gives it back at once."""
    if not await _unless(hurry, asyncio.ensure_future(host.drain(seconds))):
        await host.drain(0.0)


async def _unless(hurry: asyncio.Event, work: "asyncio.Future[Any]") -> bool:
    """Wait for `work`, or cancel it on `hurry`; whether it came to its end."""
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({work, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        return False
    work.result()
    return True


async def _deploy(config: ServeConfig, host: Host) -> None:
    """All functions of the directories, and a line for each."""
    directories, passed = find_functions(config.functions)
    for directory in passed:
        _warn(config, f"{directory} was passed over: it has no main.py of its own")
    if not directories:
        where = ", ".join(map(str, config.functions))
        _warn(config, f"no function in {where}; expected {config.functions[0]}/NAME/main.py")
    functions = await roll_out(host, directories, config.profile)
    width = max((len(function.name) for function in functions), default=0)
    for function in functions:
        info, status = function.pool.info, await function.status()
        triggers = ", ".join(map(str, status.triggers)) or "no trigger: called by name only"
        line = f"  {function.name:<{width}}  {triggers} → {status.output_topic or '-'}"
        _say(config, "deployed", f"{line}   {info.kind}, imported in {info.import_ms:.0f} ms")


async def _listen(
    config: ServeConfig,
    tokens: Tokens,
    host: Host,
    stop: "asyncio.Future[BaseException | None]",
    hurry: asyncio.Event,
) -> BaseException | None:
    gateway = GatewayConfig(
        host=config.host,
        port=config.port,
        tokens=tokens,
        allowed_hosts=config.allowed_hosts,
        allowed_origins=config.allowed_origins,
        drain_s=config.drain_s,
        connections=_connections(),
    )
    apps = make_app(host, gateway), make_admin_app(host, gateway)
    async with AsyncExitStack() as stack:
        # Listening first: a port that is taken is told before functions are loaded, and whoever
        # asks meanwhile is told to come again.
        http = await stack.enter_async_context(serve_http(apps[0], gateway))
        admin = bind_unix(config.admin_socket)
        stack.callback(unlink_unix, config.admin_socket)
        few = msgspec.structs.replace(gateway, connections=max(16, gateway.connections // 8))
        await stack.enter_async_context(serve_http(apps[1], few, admin))
        await _deploy(config, host)
        host.state = "ready"
        # What start-up made stays; collecting it again and again would only delay calls. Young
        # objects are mostly events on their way, which go without the collector: looking at them
        # every 20,000 took a quarter of the throughput.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 20)
        port = http.getsockname()[1]
        _say(config, "ready", f"funcrt serve · mesh {config.mesh_url} · "
             f"http http://{config.host}:{port} · ^C stop", port=port)  # fmt: skip
        if not tokens:
            _say(config, "open", OPEN_NOTICE)
        error = await stop
        host.state = "draining"
        _say(config, "draining", "draining: calls in flight finish")
        # Still listening: who asks for readiness, or calls, is told 503 and not cut off.
        seconds = 0.0 if error else config.drain_s
        await _unless(hurry, asyncio.gather(*(app.idle(seconds) for app in apps)))
    return error


def _connections() -> int:
    """How many connections the gateway may hold: what the limit of open files leaves it.

    The soft limit is raised towards the hard one first; 1024, a usual one, is soon used up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = MOST_FILES if hard == unlimited else min(hard, MOST_FILES)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == unlimited:
        soft = MOST_FILES
    return max(16, min(GatewayConfig().connections, soft - min(OWN_FILES, soft // 2)))


def _warn(config: ServeConfig, text: str) -> None:
    """What is worth a look, even with --quiet."""
    if config.json:
        _say(config, "warning", text)
    else:
        print(f"! {text}", file=sys.stderr, flush=True)


def _say(config: ServeConfig, event: str, text: str, **more: int) -> None:
    if config.json:
        line = msgspec.json.encode({"event": event, "text": text, "pid": os.getpid(), **more})
        print(line.decode(), flush=True)
    elif not config.quiet:
        print(text, file=sys.stderr, flush=True)
