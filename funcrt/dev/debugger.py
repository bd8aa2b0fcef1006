"""The debugger's end in the host: debugpy's adapter on one port, over all reloads."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path

import msgspec

from funcrt.errors import FuncrtError
from funcrt.manifest import Manifest
from funcrt.sandbox.debugging import Debug
from funcrt.tasks import OnFailure, Tasks

__all__ = ["Debugger", "DebuggerFailed", "DebugpyMissing", "debugged"]


AGAIN, AGAIN_S = 25, 0.2


class DebugpyMissing(FuncrtError):
    """`--debug` where debugpy is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "--debug needs debugpy, which is not installed; "
            f"{sys.executable} -m pip install 'funcrt[debug]'"
        )


class DebuggerFailed(FuncrtError):
    """debugpy's adapter could not be started."""

    def __init__(self, port: int, why: str) -> None:
        super().__init__(f"--debug: cannot listen on port {port} of the loopback: {why}")


class Debugger:
    """Started once a run; what the sandbox asks for where instances find the adapter."""

    def __init__(self, wanted: int) -> None:
        if importlib.util.find_spec("debugpy") is None:
            raise DebugpyMissing
        self.wanted = wanted
        self.port = 0
        """Where editors attach."""
        self.told: Callable[[bool], None] = lambda attached: None
        """Whether an editor is attached, whenever that changes."""
        self.anew: Callable[[], None] = lambda: None
        """The adapter was ended, and there is another on the port."""
        self._where: Debug | None = None
        self._once = asyncio.Event()
        self._process: Process | None = None
        self._adapter = -1
        """Its process, as a descriptor."""
        self._tasks: Tasks | None = None

    async def attached(self) -> Debug:
        """As the sandbox says."""
        await self._once.wait()
        assert self._where is not None
        return self._where

    async def start(self, failed: OnFailure) -> None:
        """Listen. Raises DebuggerFailed."""
        said = await self._start()
        self._tasks = Tasks(failed)
        self._tasks.start(self._listen(said), "debugger")

    async def _start(self) -> asyncio.StreamReader:
        root = str(Path(__file__).parents[2])
        port = self.port or self.wanted or _free()
        program = (
            f"import sys; sys.path.insert(0, {root!r});"
            f"from funcrt.sandbox.anchor import anchor; anchor({port})"
        )
        env = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env,
            start_new_session=True,
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        told = json.loads(await process.stdout.readline() or '{"error": "debugpy ended"}')
        if "error" in told:
            raise DebuggerFailed(port, told["error"])
        self._adapter = os.pidfd_open(told["adapter"])
        self.port = told["port"]
        host, port = told["server"]
        self._where = Debug(host, port, process.pid, told["token"])
        return process.stdout

    async def _listen(self, said: asyncio.StreamReader) -> None:
        while True:
            while line := await said.readline():
                attached = json.loads(line)["attached"]
                if attached:
                    self._once.set()
                self.told(attached)
            # An editor that is told to end what it is attached to has ended the anchor.
            await self._end()
            said = await self._start_again()
            self.anew()

    async def _start_again(self) -> asyncio.StreamReader:
        for _ in range(AGAIN):
            try:
                return await self._start()
            except DebuggerFailed:  # the port may take a moment to be free
                await asyncio.sleep(AGAIN_S)
        return await self._start()

    async def close(self) -> None:
        """End it; the adapter ends with it."""
        if self._tasks is not None:
            await self._tasks.cancel()
        await self._end()

    async def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
        if self._adapter >= 0:
            # Where the anchor was ended, its adapter stays for as long as instances are attached.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._adapter, signal.SIGKILL)
            os.close(self._adapter)
            self._adapter = -1


def _free() -> int:
    """A port; debugpy, left to choose, could not listen there again in its own lingering."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def debugged(manifest: Manifest) -> Manifest:
    """As it is served while it is debugged: one instance, which is there from the start and stays;
    no timeout; and room for the debugger's threads."""
    most = min(manifest.scale.max, 1)
    return msgspec.structs.replace(
        manifest,
        timeout_s=0.0,
        scale=msgspec.structs.replace(manifest.scale, min=most, max=most),
        limits=msgspec.structs.replace(manifest.limits, memory_bytes=None),
    )
