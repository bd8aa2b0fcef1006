"""One run of `funcrt dev`: the host, the functions' folders, and what ends it."""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from funcrt import logs
from funcrt.auth import Tokens
from funcrt.cautions import lowered
from funcrt.config import DevConfig
from funcrt.dev.debugger import Debugger, debugged
from funcrt.dev.keys import Keys
from funcrt.dev.reload import Reloader
from funcrt.dev.seen import Seen
from funcrt.dev.show import YELLOW, FunctionLog, HostLog, Screen
from funcrt.dev.terminal import Lender
from funcrt.dev.watch import Watcher
from funcrt.env_file import NAME, read_env
from funcrt.host import Host
from funcrt.rollout import find_functions, is_function
from funcrt.running import Ending, hosting, listening, settle_down
from funcrt.tasks import Tasks
from funcrt.text import alarm, installed

__all__ = ["run"]

QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
"""Keeps debugpy from advice about how Python was started."""
CODE = "dev-code"
"""Where versions are unpacked, below the data directory; emptied at each start."""


def run(config: DevConfig) -> int:
    """Serve the functions until SIGINT or SIGTERM, and put each change into service.

    Raises what a user can cause: EnvFileInvalid, OSError where the environment file cannot be
    read, DebugpyMissing, DebuggerFailed, PortTaken, SocketTaken, MeshBusy, MeshCorrupt.
    """
    if config.env_file is not None:
        config.env_file.read_bytes()
    read_env([config.env_file or Path(NAME)])
    logs.set_up()
    return uvloop.run(_dev(config))


async def _dev(config: DevConfig) -> int:
    screen = Screen()
    log = logging.getLogger("funcrt.function")
    log.handlers[:] = [FunctionLog(screen)]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger().handlers[:] = [HostLog(screen)]
    ending = Ending()
    serve = config.serve
    debugger = Debugger(config.debug) if config.debug is not None else None
    lender = None
    if debugger is None and screen.interactive:
        lender = Lender(screen, ending)
    async with AsyncExitStack() as stack:
        if debugger is not None:
            stack.push_async_callback(debugger.close)
            await debugger.start(ending.ask)
        host = await stack.enter_async_context(
            hosting(
                serve,
                ending,
                code=CODE,
                warm=config.reload,
                local=True,
                debugger=debugger,
                lending=lender,
            )
        )
        shutil.rmtree(serve.data.root / CODE, ignore_errors=True)
        host.durable_code = False
        host.deploys.recording = False
        host.name_sources = debugger is not None
        host.observer = screen
        host.packages.told = screen.installing
        host.packages.debugging = debugger is not None
        host.packages.builds = True  # the author's own machine, and their choice
        port = await stack.enter_async_context(listening(serve, Tokens(), host, ending))
        session = Session(config, host, screen, debugger)
        seen = Seen(host)
        host.mesh.set_router(seen.route)
        keys = Keys(session.reloader, screen, seen, ending.ask)
        if lender is not None:
            lender.keys = keys
        try:
            await session.start(port)
            host.state = "ready"
            settle_down()
            with keys.reading():
                await ending.asked
        finally:
            await keys.close()
            await session.close(0.0 if ending.hurry.is_set() else serve.drain_s)
    ending.raise_failure(serve.mesh_url)
    return 0


class Session:
    """What is between the watcher, the reloader and the screen."""

    def __init__(
        self, config: DevConfig, host: Host, screen: Screen, debugger: Debugger | None = None
    ) -> None:
        self.config = config
        self.screen = screen
        self.debugger = debugger
        self.reloader = Reloader(host, screen, self._env)
        if debugger is not None:
            self.reloader.served = debugged
            debugger.told = self._attached
            debugger.anew = self._anew
        self.env_file = (config.env_file or Path(NAME)).absolute()
        self.host = host
        self._changed: set[Path] = set()
        self._wake = asyncio.Event()
        self._tasks = Tasks(host.failed)

    async def start(self, port: int) -> None:
        """Put all into service, say so, and begin to watch."""
        roots = self.config.serve.functions
        found, passed = find_functions(roots)
        for directory in found:
            await self._look(directory.absolute())
        async with self.host.deploys.lock:
            await self.host.deploys.sweep()
        self._banner(port)
        for directory in passed:
            text = f"{directory} was passed over: it has no main.py of its own"
            self.screen.line(f"{self.screen.paint(YELLOW, '!')} {text}")
        if not found:
            text = f"no function yet; save {roots[0]}/NAME/main.py"
            self.screen.line(f"{self.screen.paint(YELLOW, '!')} {text}")
        if self.config.reload:
            watcher = Watcher(roots, [self.env_file], self.changed)
            self._tasks.start(watcher.run(), "watch")
            self._tasks.start(self._reload(), "reload")

    def changed(self, paths: set[Path]) -> None:
        """Folders, or files of the environment, that are to be looked at."""
        self._changed |= paths
        self._wake.set()

    async def _reload(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            if self.env_file in changed:
                changed |= {*self.reloader.folders}
            for directory in sorted(changed):
                if directory in self.reloader.folders or is_function(directory):
                    await self._look(directory)

    async def _look(self, directory: Path) -> None:
        await self.reloader.look(directory, _shown(directory))

    def _env(self, directory: Path) -> Mapping[str, str]:
        """The function's own file beats the one for all."""
        found = read_env([_shown(self.env_file), _shown(directory) / NAME])
        return found if self.debugger is None else {**QUIET, **found}

    def _attached(self, attached: bool) -> None:
        if attached:
            self.screen.now("debugger attached")
        else:
            self.screen.now("debugger gone; functions run on without it")

    def _anew(self) -> None:
        assert self.debugger is not None
        self.screen.now(
            "the debugger ended what it was attached to; listening again on"
            f" 127.0.0.1:{self.debugger.port}, for what starts from now on"
        )

    def _banner(self, port: int) -> None:
        serve, count = self.config.serve, len(self.host.deployed)
        many = "1 function" if count == 1 else f"{count} functions"
        place = serve.data.mesh_file if serve.mesh_url == serve.data.mesh_url else serve.mesh_url
        self.screen.line(
            f"funcrt dev · {many} · {_shown(place) if isinstance(place, Path) else place}"
            f" · http://{serve.host}:{port} · ^C stop"
        )
        width = max((len(name) for name in self.host.deployed), default=0)
        for name, function in sorted(self.host.deployed.items()):
            manifest, info = function.manifest, function.pool.info
            shown = [str(each) for each in function.triggers() if each.kind != "call"]
            triggers = ", ".join(shown) or f"http /functions/{name}"
            head, tail = f"  {name:<{width}}  ", f" → {manifest.output.topic or '-'}   {info.kind}"
            tail += f", ready in {self.screen.took[name]:.0f} ms"
            self.screen.line(head + self.screen.cut(triggers, len(head) + len(tail)) + tail)
            if function.installed is not None:
                text = installed(function.installed.packages, function.installed.took_s)
                self.screen.line(f"  {'':<{width}}  deps {text}")
        served = [each for _, each in sorted(self.host.deployed.items())]
        if self.debugger is None:  # which takes all isolation away, and is asked for
            for text, hint in lowered((each.manifest, each.pool.info) for each in served):
                self.screen.line(alarm(text, hint, sys.stdout))
        else:
            self.screen.line(
                f"waiting for a debugger on 127.0.0.1:{self.debugger.port}; nothing is called"
                " before one attaches"
            )
        self.screen.begun = True

    async def close(self, seconds: float) -> None:
        """Stop watching, and let old versions end what they run."""
        await self._tasks.cancel()
        await self.reloader.close(seconds)


def _shown(path: Path) -> Path:
    """As a person names it: from where they are, unless that is far."""
    here = Path(os.path.relpath(path))
    return path if here.parts[:2] == ("..", "..") else here
