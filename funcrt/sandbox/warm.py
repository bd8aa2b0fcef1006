"""F0: a process that has imported a function's dependencies and none of its author's code, from
which the versions of the function are forked, so that a reload does not import them again."""

import asyncio
import os
import site
import socket
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from funcrt.sandbox import Code
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.imports import leading_imports
from funcrt.sandbox.logs import Budget, LogReader
from funcrt.sandbox.protocol import Log
from funcrt.sandbox.runtime import Fork
from funcrt.sandbox.told import received
from funcrt.sandbox.zygote import Warm

__all__ = ["Send", "WarmProcesses", "Warmed"]

IMPORT_TIMEOUT_S = 60.0
Send = Callable[[bytes, list[int]], None]
"""Hands a message and descriptors to the runtime zygote. Raises OSError."""


class Warmed:
    """One F0. It outlives `close` for as long as versions forked from it run."""

    def __init__(self, wanted: Warm, key: object) -> None:
        self.wanted = wanted
        self.key = key
        self.usable = False
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Future[bytes] = self._loop.create_future()
        self._files: dict[str, int] = {}
        self._logs: list[LogReader] = []
        self.control: socket.socket | None = None

    async def start(self, send: Send, said: Callable[[Sequence[Log]], None]) -> None:
        """Fork it and wait for its imports; `usable` says whether versions can be forked from it:
        not where an import failed, which the version's own will tell, or started threads."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        logs = [os.pipe(), os.pipe()]
        self.control = ours
        budget = Budget(self._loop.time)
        self._logs = [LogReader(read, "stderr", said, budget) for read, _ in logs]
        try:
            descriptors = [theirs.fileno(), *(write for _, write in logs)]
            ours.send(msgspec.msgpack.encode(self.wanted))
            asked = Fork(self.wanted.confine, self.wanted.python)
            send(msgspec.msgpack.encode(asked), descriptors)
        finally:
            theirs.close()
            for _, write in logs:
                os.close(write)
        self._loop.add_reader(ours.fileno(), self._readable)
        try:
            async with asyncio.timeout(IMPORT_TIMEOUT_S):
                body = await self._said
        except TimeoutError:
            return
        if body:
            found: dict[str, Any] = msgspec.msgpack.decode(body)
            if "refused" in found:  # the version's own load will tell
                return
            self._files = {file: _changed(file) for file in found["files"]}
            self.usable = not found["failed"] and found["threads"] == 1

    def _readable(self) -> None:
        assert self.control is not None
        while True:
            try:
                body, descriptors = received(self.control)
            except BlockingIOError:
                return
            for descriptor in descriptors:  # its own: it ends with its control socket
                os.close(descriptor)
            if not descriptors and not self._said.done():
                self._said.set_result(body)
            if not body:
                self.usable = False
                self._loop.remove_reader(self.control.fileno())
                return

    def fresh(self, key: object) -> bool:
        """Whether it holds just what a version with this key needs, as it is on disk now."""
        return (
            self.usable
            and self.key == key
            and all(_changed(file) == at for file, at in self._files.items())
        )

    def fork(self, body: bytes, descriptors: list[int]) -> None:
        """Hand over a message. Raises OSError."""
        if self.control is None:
            raise OSError("it was closed")
        socket.send_fds(self.control, [body], descriptors)

    def close(self) -> None:
        """Let it end once what was forked from it has. Twice is harmless."""
        self.usable = False
        if self.control is not None:
            self._loop.remove_reader(self.control.fileno())
            self.control.close()
            self.control = None
        for reader in self._logs:
            reader.close()


class WarmProcesses:
    """The F0s of a sandbox, one a function. All import the modules `ahead`, too."""

    def __init__(self, ahead: Sequence[str] = ()) -> None:
        self._ahead: tuple[tuple[str, tuple[str, ...]], ...] = tuple((name, ()) for name in ahead)
        self._held: dict[str, Warmed] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(
        self,
        code: Code,
        held: Confinement,
        send: Send,
        said: Callable[[Sequence[Log]], None],
    ) -> Warmed | None:
        """The process to fork this version from, made now where there is none that fits; None
        where nothing is imported ahead, and no interpreter has to start. Raises OSError."""
        # Two at once would each close the other's, which waits for its imports.
        async with self._locks.setdefault(code.name, asyncio.Lock()):
            modules = self._ahead + leading_imports(code.path, code.handler)
            packages, python = str(code.packages or ""), code.python
            key = (modules, dict(code.env), held, packages, python, _installed())
            before = self._held.get(code.name)
            if before is not None and before.fresh(key):
                return before
            self.drop(code.name)
            if not modules and python is None:
                return None
            own = _prefixes() if python is None else {*python.paths, python.library}
            wanted = Warm(
                modules=modules, env=dict(code.env), confine=held, packages=packages, python=python,
                prefixes=[*own, *filter(None, [packages])],
            )  # fmt: skip
            made = self._held[code.name] = Warmed(wanted, key)
            await made.start(send, said)
            return made if made.usable else None

    def drop(self, name: str) -> None:
        """The function's is not needed any more."""
        held = self._held.pop(name, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """All of them."""
        for name in list(self._held):
            self.drop(name)


def _prefixes() -> set[str]:
    """Where installed packages and the standard library are: what is there changes only with the
    directory itself."""
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    return {place for place in (*places, *site.getsitepackages()) if place}


def _installed() -> tuple[int, ...]:
    """Different after a package was installed, replaced or removed."""
    return tuple(_changed(place) for place in sorted({*_prefixes(), *sys.path}))


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0
