"""A host in the foreground, as `funcrt serve` and `funcrt dev` run it: on its mesh and sandbox,
listening, ended by a signal, drained at the end."""

import asyncio
import gc
import os
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

import mesh
from funcrt.auth import Tokens
from funcrt.config import ServeConfig
from funcrt.gateway import GatewayConfig, make_admin_app, make_app, serve_http
from funcrt.host import Host
from funcrt.privileges import UserInvalid, drop, unreadable, wanted_user
from funcrt.sandbox.keeper import Keeper, RuntimeLost
from funcrt.sandbox.lending import Lending
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import Debugging, ProcessSandbox
from funcrt.secrets import SecretStore
from funcrt.sockets import bind_unix, unlink_unix
from mesh.clock import SystemClock
from mesh.embedded import file_of
from mesh.errors import MeshFull
from mesh.integrity import told

__all__ = ["Ending", "hosting", "listening", "settle_down"]

MOST_FILES = 8192
FLUSH_S = 0.5
"""For answers that are made by the end of a drain to be sent."""
OWN_FILES = 512
"""Open files kept for instances, the mesh and its clients."""


class Ending:
    """When a host is to end: at a signal, or with the error of what failed. Made on its loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[BaseException | None] = loop.create_future()
        self.hurry = asyncio.Event()
        """Set where it was asked again: what runs is given back at once."""
        self._asked_at = 0.0
        self._time = loop.time
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.ask)

    def ask(self, error: BaseException | None = None) -> None:
        """End it; the second time, at once."""
        if not self.asked.done():
            self._asked_at = self._time()
            self.asked.set_result(error)
        else:
            self.hurry.set()

    def seconds(self, most: float) -> float:
        """How long what runs may take to finish, of `most` in all: none after a failure."""
        if not self.asked.done():
            return most
        error = self.asked.result()
        failed = error is not None and not isinstance(error, RuntimeLost)
        return 0.0 if failed else max(0.0, self._asked_at + most - self._time())

    @property
    def lost(self) -> bool:
        """Whether no function can run any more."""
        return self.asked.done() and isinstance(self.asked.result(), RuntimeLost)

    async def unless_hurried(self, work: "asyncio.Future[Any]") -> bool:
        """Wait for `work`, or cancel it on `hurry`; whether it came to its end."""
        hurried = asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait({work, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            return False
        work.result()
        return True

    def raise_failure(self, mesh_url: str) -> None:
        """Raise what the host ended with, as its user can read it; nothing where it was asked."""
        error = self.asked.result() if self.asked.done() else None
        if isinstance(error, sqlite3.DatabaseError):
            error = told(mesh_url, error)
        if isinstance(error, sqlite3.Error):
            raise MeshFull(mesh_url, f"the host stopped, as it could not be written ({error})")
        if error is not None:
            raise error


@asynccontextmanager
async def hosting(
    config: ServeConfig,
    ending: Ending,
    *,
    code: str = "code",
    warm: bool = False,
    local: bool = False,
    debugger: Debugging | None = None,
    lending: Lending | None = None,
) -> AsyncIterator[Host]:
    """A started host on the config's mesh; on leaving it is drained and all is closed. Functions
    are unpacked in `code`, below the data directory. With `warm`, their dependencies stay imported
    from one version to the next. A `local` one takes an author's secrets, too. `debugger` and
    `lending` are the sandbox's."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # a core would have the secrets in it
    # A debugger is an editor's hand in the function: it needs sockets, and all of its files.
    policy = Policy(forced="none") if debugger is not None else config.policy
    sandbox = ProcessSandbox(warm=warm, debugger=debugger, policy=policy)
    sandbox.workshop.policy = config.policy  # a debugger has no hand in that
    sandbox.lending = lending
    sandbox.keeper.lost = ending.ask
    await sandbox.start()
    try:
        told = "" if config.keeps_user else _become_user(config)
        transport = await mesh.connect(config.mesh_url, namespace=config.namespace, host=True)
        try:
            if hasattr(transport, "on_fatal"):
                transport.on_fatal = ending.ask
            host = Host(
                transport,
                sandbox,
                SystemClock(),
                config.data.root / code,
                namespace=config.namespace,
                host_id=config.data.host_id(),
            )
            host.on_failure = ending.ask
            host.cautions = [told] if told else []
            host.kept |= _kept(config)
            host.secrets = SecretStore(config.secrets, os.environ, local=local)
            ending.asked.add_done_callback(lambda _: host.packages.stop())
            host.packages.workshop = sandbox.workshop
            host.packages.install = config.install
            host.packages.builds = config.source_builds
            sandbox.heard, sandbox.apart = host.observation.imported, host.apart
            _follow(sandbox.keeper, host)
            await host.start()
            try:
                yield host
            finally:
                # A second signal gives back at once what runs.
                drained = asyncio.ensure_future(host.drain(ending.seconds(config.drain_s)))
                if not await ending.unless_hurried(drained):
                    await host.drain(0.0)
        finally:
            await transport.close()
    finally:
        await sandbox.close()


def _follow(keeper: Keeper, host: Host) -> None:
    """Have the host know when functions cannot run, and load what was loaded once they can."""

    def ended() -> None:
        host.recovering = True

    def again() -> None:
        host.recovering = False
        host.tasks.start(host.zygotes.renew(), "load anew")

    keeper.ended.append(ended)
    keeper.again = again
    host.recovering = keeper.control is None


def _kept(config: ServeConfig) -> dict[str, Path]:
    """What of a host's files can be elsewhere than in its data directory."""
    found = {"the host's admin socket": config.admin_socket}
    if config.tokens is not None:
        found["the host's tokens"] = config.tokens
    if config.mesh_url.startswith("embedded:") and (file := file_of(config.mesh_url)) != ":memory:":
        found["the mesh's file"] = Path(file)
    return found


def _become_user(config: ServeConfig) -> str:
    """Give up being root, where this is; why it could not be, for people. Raises UserInvalid."""
    user = wanted_user(config.user, config.data)
    if user == 0:
        return ""
    needed = [Path(mesh.__file__), Path(os.__file__), *config.functions, config.data.root.parent]
    if config.secrets is not None:
        needed += [config.secrets, *config.secrets.rglob("*")]
    if closed := unreadable(user, needed):
        why = f"user {user} may not read or enter {closed}"
        if config.user:
            raise UserInvalid(f"--user {config.user}: {why}")
        return f"the host stays root: {why}; make it readable, or say --user root"
    try:
        drop(user, config.data, low_port=0 < config.port < 1024)
    except UserInvalid as error:
        if config.user:
            raise
        return f"the host stays root: {error}"
    return ""


@asynccontextmanager
async def listening(
    config: ServeConfig, tokens: Tokens, host: Host, ending: Ending
) -> AsyncIterator[int]:
    """The host's gateway and admin socket; yields the gateway's port. On leaving, who has asked is
    answered first."""
    gateway = GatewayConfig(
        host=config.host,
        port=config.port,
        tokens=tokens,
        allowed_hosts=config.allowed_hosts,
        allowed_origins=config.allowed_origins,
        drain_s=min(config.drain_s, FLUSH_S),
        connections=_connections(),
    )
    apps = make_app(host, gateway), make_admin_app(host, gateway)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(serve_http(apps[0], gateway))
        admin = bind_unix(config.admin_socket)
        stack.callback(unlink_unix, config.admin_socket)
        few = msgspec.structs.replace(gateway, connections=max(16, gateway.connections // 8))
        await stack.enter_async_context(serve_http(apps[1], few, admin))
        yield http.getsockname()[1]
        host.state = "draining"
        await host.stop_pulling()
        if ending.lost:  # who waits for an instance would wait in vain
            await host.drain(ending.seconds(config.drain_s))
        # Still listening: who asks for readiness, or calls, is told 503 and not cut off.
        seconds = ending.seconds(config.drain_s)
        idle = asyncio.gather(*(app.idle(seconds) for app in apps))
        await ending.unless_hurried(idle)


def settle_down() -> None:
    """What start-up made stays; collecting it again and again would only delay calls. Young
    objects are mostly events on their way, which go without the collector: looking at them every
    20,000 took a quarter of the throughput."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


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
