"""From a changed folder to its new version in service, or to why it cannot be."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from funcrt import bundle
from funcrt.bundle import Bundle
from funcrt.errors import FuncrtError, FunctionsRefused, LoadError
from funcrt.function import Function
from funcrt.host import Host, Prepared
from funcrt.manifest import Manifest, load_manifest
from funcrt.rollout import clashes, is_function, placed
from funcrt.secrets import apart
from funcrt.tasks import Tasks
from mesh.errors import MeshError

__all__ = ["Folder", "Reloader", "Reloads"]

AGAIN_S = 0.05
"""What cannot be loaded may be half a save; it is looked at again after this, and then told."""
TRIES = 10


class Reloads(Protocol):
    """Who is told what came of a change."""

    def reloaded(self, folder: "Folder", files: Sequence[str], ms: float, in_flight: int) -> None:
        """A version is in service, as these files changed; calls in flight end on the old one."""

    def mended(self, folder: "Folder", files: Sequence[str]) -> None:
        """What is on disk is the version in service again."""

    def broken(self, folder: "Folder", files: Sequence[str], error: Exception) -> None:
        """What is on disk cannot be; the version before, if there is one, stays."""

    def removed(self, folder: "Folder", waiting: int) -> None:
        """The folder is no function's any more, and its function out of service, for which so many
        events wait."""


@dataclass
class Folder:
    """A function's folder, as it was last looked at."""

    directory: Path
    shown: Path
    """As messages name it."""
    number: int = 0
    """Of the version in service, counted from 1 in this run; 0 for none."""
    function: Function | None = None
    manifest: Manifest | None = None
    seen: dict[str, str] = field(default_factory=dict)
    """The files that were looked at last, whether they could be loaded or not."""
    env: Mapping[str, str] = field(default_factory=dict)
    looked: bool = False
    problem: str = ""
    """Why what was looked at last is not in service."""


class Reloader:
    """A host's functions as they are on disk. One change at a time; what runs on an old version
    ends beside it."""

    def __init__(self, host: Host, told: Reloads, env: Callable[[Path], Mapping[str, str]]) -> None:
        self.host = host
        self.env = env
        """What is added to the environment of the function in a directory. May raise."""
        self.served: Callable[[Manifest], Manifest] = lambda manifest: manifest
        """What of a manifest is different here."""
        self.told = told
        self.folders: dict[Path, Folder] = {}
        self.paused = False
        """Whether what comes into service takes no event yet."""
        self._ending = Tasks(host.failed)
        self._retiring: list[Function] = []
        self._looking = asyncio.Lock()

    async def look(self, directory: Path, shown: Path) -> None:
        """Bring what is in service to what is in the directory now."""
        async with self._looking:
            await self._look(directory, shown, time.perf_counter())

    async def _look(self, directory: Path, shown: Path, began: float) -> None:
        folder = self.folders.setdefault(directory, Folder(directory, shown))
        if not is_function(directory):
            await self._remove(folder)
            return
        problem: Exception | None = None
        files: list[str] = []
        for _ in range(TRIES):
            try:
                env = self.env(directory)
                packed = bundle.pack(shown)
                now = bundle.files(packed)
                changed = _differing(folder.seen, now)
                if env != folder.env and folder.looked:
                    changed.append(".env")
                files += [file for file in changed if file not in files]
                if problem is None and not files:
                    return
                if problem is not None and not changed:
                    break  # it is no half of a save
                folder.seen, folder.env, folder.looked = now, env, True
                await self._take(folder, packed, env, files, began)
                return
            except (FuncrtError, MeshError) as error:
                problem = error
            await asyncio.sleep(AGAIN_S)
        assert problem is not None
        if not is_function(directory):
            await self._remove(folder)
            return
        if files or str(problem) != folder.problem:
            folder.problem = str(problem)
            if isinstance(problem, LoadError):
                problem = placed(problem, folder.shown)
            self.told.broken(folder, files, problem)

    async def _take(
        self,
        folder: Folder,
        packed: Bundle,
        env: Mapping[str, str],
        files: Sequence[str],
        began: float,
    ) -> None:
        manifest = self.served(load_manifest(folder.shown))
        others = {f.shown: f.manifest for f in self.folders.values() if f.manifest}
        if errors := list(clashes({**others, folder.shown: manifest})):
            raise FunctionsRefused(errors)
        env, given = apart(env, manifest.secrets)
        self.host.secrets.give(manifest.name, given)
        made = await self.host.prepare(manifest, folder.shown, packed=packed, env=env)
        if (now := folder.function) is not None and now.serves(made.manifest, made.code):
            folder.problem = ""
            self.told.mended(folder, files)
            return
        in_flight = await self._swap(folder, made)
        folder.number += 1
        folder.problem = ""
        self.told.reloaded(folder, files, (time.perf_counter() - began) * 1000, in_flight)

    async def _swap(self, folder: Folder, made: Prepared) -> int:
        """Put it into service; how many calls are still on the version before."""
        if folder.function is not None and folder.function.name != made.manifest.name:
            self._retire(await self.host.withdraw(folder.function.name))
            folder.function = None
        paused = self.paused or (folder.function is not None and folder.function.paused)
        folder.function, before = await self.host.swap(made, paused=paused)
        folder.manifest = made.manifest
        if before is None:
            return 0
        in_flight = before.pool.in_flight
        self._retire(before)
        return in_flight

    async def _remove(self, folder: Folder) -> None:
        self.folders.pop(folder.directory, None)
        if folder.function is not None:
            waiting = (await folder.function.status()).depth
            self._retire(await self.host.withdraw(folder.function.name))
            self.told.removed(folder, waiting)

    def _retire(self, before: Function) -> None:
        self._retiring.append(before)
        self._ending.start(self._end(before), f"retire {before.name}")

    async def _end(self, before: Function) -> None:
        try:
            await self.host.retire(before)
        finally:
            self._retiring.remove(before)
        code = before.pool.code.path
        async with self._looking:  # a version that comes back is imported from there
            used = [*self._retiring, *self.host.deployed.values()]
            if code not in {function.pool.code.path for function in used}:
                shutil.rmtree(code, ignore_errors=True)

    async def pause(self) -> None:
        """Let no function take an event, nor any that comes, until `resume`."""
        async with self._looking:
            self.paused = True
            for name in sorted(self.host.deployed):
                await self.host.deploys.pause(name)

    async def resume(self) -> None:
        """Let all functions take events."""
        async with self._looking:
            self.paused = False
            for name in sorted(self.host.deployed):
                await self.host.deploys.resume(name)

    async def close(self, seconds: float) -> None:
        """Give what still runs on old versions so long."""
        await self._ending.finish(seconds)


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names: Iterable[str] = sorted({*before, *now})
    return [name for name in names if before.get(name) != now.get(name)]
