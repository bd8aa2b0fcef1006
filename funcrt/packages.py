"""What functions need installed, in directories that are named by what was asked for: installed
once, shared by all who ask for the same, whole or not there."""

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import msgspec

from funcrt.errors import DataUnwritable, DeployError
from funcrt.installer import (
    CACHE,
    HOME,
    RUNTIME,
    SITE,
    DependencyError,
    compile_in,
    pinned,
    run_installer,
)
from funcrt.requirements import Needs, name_of
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.workshop import LEAST_FREE, Workshop, free
from funcrt.tree import DIRECTORY, Taken, held_anew, hold, remove, size, sync, tidy, unheld
from funcrt.wheels import hashed
from mesh.failpoint import point

__all__ = [
    "BuildsRefused",
    "InstallStopped",
    "Installed",
    "Packages",
    "PythonUnusable",
]

T = TypeVar("T")
INSTALLING = ".install-"
LISTED = "installed.json"
KEPT_S = 24 * 3600.0
"""What no version in service uses stays so long after it was last used: a rollback, or `invoke`
beside the host, finds it."""
MOST_CACHED = Taken(2 << 30, 500_000)
"""Downloads that are kept from one installation to the next."""
MOST_LISTED = 1000
"""Packages that one function needs."""
DEBUGGER = "debugpy"
BELOW_THE_CHANNEL = ("funcrt", "funcrt/sandbox", "mesh")
"""Where the modules are that a function's process may import."""
SWAPPED = (
    ", which funcrt has with it: somebody else's file was handed out, or one that was built anew;"
    " let it be had from an index that has the one of PyPI"
)
NOT_INSTALLING = (
    "what functions run on is not installed for it, and this host installs nothing: start it once"
    " without --no-install"
)
_INFO = re.compile(
    r"([A-Za-z0-9._]{1,128})-([0-9][A-Za-z0-9.!+_]{0,127})(?:-py3\.[0-9]+)?\.(?:dist|egg)-info",
    re.ASCII,
)
"""The name of what an installer keeps of a package that it has installed. What is in it is the
package's own, and no business of the host's."""
_libc = ctypes.CDLL(None, use_errno=True)


class BuildsRefused(DeployError):
    """A function that asks for builds from source, on a host that allows none."""

    def __init__(self, function: str) -> None:
        super().__init__(
            f"{function}: source_builds = true, and this host builds nothing: that runs code of the"
            " packages as it installs them. Take only what has wheels, or start the host with"
            " --source-builds"
        )


class PythonUnusable(DeployError):
    """A Python that is there, and that functions cannot run in."""

    def __init__(self, function: str, python: Interpreter, why: str) -> None:
        super().__init__(f"{function}: Python {python.version} ({python.executable}): {why}")


class InstallStopped(DeployError):
    """An installation that was given up, as the host ends."""

    def __init__(self, function: str) -> None:
        super().__init__(f"{function}: what it needs was not installed, as the host was stopped")


class Installed(msgspec.Struct, frozen=True):
    """What a function needs, and where it is."""

    path: Path
    """What goes on sys.path."""
    packages: tuple[str, ...]
    """With their versions: `pillow 11.3.0`."""
    took_s: float | None = None
    """None where it was there."""


Told = Callable[[str, Sequence[str], float | None], None]
"""(function, packages, seconds): told as an installation begins, with what was asked for and None,
and as it ends, with what was installed."""

Fill = Callable[[Path], Awaitable[None]]
"""Puts what is asked for into the empty directory `site` of one."""


class Packages:
    """Those of one data directory. Several hosts, and commands beside them, may share it. Without a
    `workshop` nothing is installed."""

    def __init__(
        self,
        root: Path,
        workshop: Workshop | None = None,
        *,
        install: bool = True,
        builds: bool = True,
    ) -> None:
        self.root = root
        self.workshop = workshop
        self.install = install
        """Whether anything is installed; else what functions need is in the host's environment."""
        self.builds = builds
        """Whether functions may ask for builds from source."""
        self.debugging = False
        """Whether the debugger comes with what functions run on in another Python."""
        self.told: Told = lambda *_: None
        self._locks: dict[str, asyncio.Lock] = {}
        self._making: set[asyncio.Task[Installed]] = set()
        self._stopped = False
        self._grown = True
        """Whether there may be more downloads than there were as they were last counted."""

    async def get(
        self,
        function: str,
        needs: Needs,
        *,
        builds: bool = False,
        python: Interpreter | None = None,
    ) -> Installed | None:
        """What a function needs in the Python that it runs in, installed now where it is not; None
        where it needs nothing, or nothing is installed here. Raises DependencyError,
        InstallerMissing, BuildsRefused, SandboxError."""
        workshop = self.workshop
        if not needs.lines or not self.install or workshop is None:
            return None
        if builds and not self.builds:
            raise BuildsRefused(function)

        async def fill(work: Path) -> None:
            place = await workshop.place(function, builds=builds)
            await run_installer(work, needs, self.root, workshop, place, python=python)

        return await self._got(function, _key(needs, builds, python), needs.names, fill)

    async def library(self, function: str, python: Interpreter) -> Interpreter:
        """That Python, with what a function's process runs on installed for it, once for all
        functions: wheels of known hashes alone. Raises PythonUnusable, InstallerMissing,
        SandboxError."""
        runtime = hashed([*RUNTIME, *([DEBUGGER] if self.debugging else [])])
        key, workshop = _library_key(python, runtime), self.workshop if self.install else None
        if workshop is None and self._there(key) is None:
            raise PythonUnusable(function, python, NOT_INSTALLING)

        async def fill(work: Path) -> None:
            if workshop is None:  # it was there, and was taken away meanwhile
                raise PythonUnusable(function, python, NOT_INSTALLING)
            place = await workshop.place(function, builds=False)
            needs = Needs(tuple(runtime))
            await run_installer(work, needs, self.root, workshop, place, python=python)
            await asyncio.to_thread(_copy_own, work / SITE)
            await compile_in(work, python, workshop, place)

        try:
            found = await self._got(function, key, [f"msgspec (Python {python.version})"], fill)
        except DependencyError as error:
            mend = "; uv beside funcrt, or a pip of that Python, may do it"
            if error.kind == "hash":
                mend = SWAPPED
            elif python.pip:
                mend = ""
            why = f"{error.problem.message}{mend}\n{error.traceback}".rstrip()
            raise PythonUnusable(function, python, why) from None
        return msgspec.structs.replace(python, library=str(found.path))

    async def _got(self, function: str, key: str, names: Sequence[str], fill: Fill) -> Installed:
        async with self._locks.setdefault(key, asyncio.Lock()):
            try:
                found = self._there(key)
                if found is None:
                    self.told(function, names, None)
                    found = await self._made(function, key, fill)
                    self.told(function, found.packages, found.took_s)
            except OSError as error:
                raise DataUnwritable(f"{function}: what it needs", self.root, error) from None
        return found

    async def _made(self, function: str, key: str, fill: Fill) -> Installed:
        if self._stopped:
            raise InstallStopped(function)
        making = asyncio.ensure_future(self._make(key, fill))
        self._making.add(making)
        try:
            await asyncio.wait({making})
        finally:
            self._making.discard(making)
            if not making.done():  # nobody waits for it any more
                _give_up(making)
                await asyncio.wait({making})
        if making.cancelled():
            raise InstallStopped(function)
        return making.result()

    def stop(self) -> None:
        """Give up what is being installed, and install nothing more: its host ends."""
        self._stopped = True
        for making in self._making:
            _give_up(making)

    def _there(self, key: str) -> Installed | None:
        directory = self.root / key
        try:
            listed = msgspec.json.decode((directory / LISTED).read_bytes(), type=tuple[str, ...])
            os.utime(directory)  # when it was used last
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return Installed(directory / SITE, listed)

    async def _make(self, key: str, fill: Fill) -> Installed:
        began = time.perf_counter()
        self._grown = True
        self.root.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_remove_left, self.root)
        temporary, held = _begin(self.root)
        try:
            point("packages.before")
            (temporary / SITE).mkdir()
            await fill(temporary)
            listed = await _to_its_end(_finish, temporary)
            point("packages.installed")
            try:
                temporary.rename(self.root / key)
                point("packages.renamed")
            except OSError:
                if self._there(key) is None:  # else another process was faster
                    with contextlib.suppress(FileNotFoundError):
                        _discard(self.root / key)  # half of one
                    temporary.rename(self.root / key)
        finally:
            try:
                await _to_its_end(remove, temporary)
            finally:
                os.close(held)
        sync(self.root)
        point("packages.after")
        return Installed(self.root / key / SITE, listed, time.perf_counter() - began)

    async def swept(self, used: Collection[Path]) -> None:
        """Remove what is not among `used` (their `path`s) and was not lately; and what
        installations that were killed left behind."""
        if not self.root.is_dir():
            return
        await asyncio.to_thread(self._sweep, used, time.time())

    def _sweep(self, used: Collection[Path], now: float) -> None:
        kept = {path.parent.name for path in used}
        grown, self._grown = self._grown, False
        _remove_left(self.root)
        for directory in self.root.iterdir():
            name = directory.name
            with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
                if name == CACHE or name.startswith(f"{CACHE}-"):
                    if grown:  # 50,000 files take a third of a second
                        self._grown |= not _discard_large(directory)
                elif name in kept:
                    os.utime(directory)
                elif now - directory.stat().st_mtime > KEPT_S:
                    _discard(directory)


def _give_up(making: asyncio.Task[Installed]) -> None:
    """Once: a second time would cut short how it is tidied up."""
    if not making.cancelling():
        making.cancel()


def _key(needs: Needs, builds: bool, python: Interpreter | None = None) -> str:
    """Different where something else would be installed: for another Python, or machine, too."""
    own = (sysconfig.get_config_var("SOABI"), sysconfig.get_platform(), sys.version_info[:2])
    for_it = own if python is None else _of(python)
    asked = repr((1, needs.lines, builds, for_it, pinned(python)))
    return hashlib.sha256(asked.encode()).hexdigest()[:40]


def _library_key(python: Interpreter, runtime: Sequence[str]) -> str:
    """Different for another version of funcrt, too, down to a changed line."""
    asked = repr(("library", 1, _of(python), runtime, _own_digest()))
    return hashlib.sha256(asked.encode()).hexdigest()[:40]


def _of(python: Interpreter) -> tuple[str, str, tuple[int, ...]]:
    version = tuple(int(part) for part in python.version.split(".")[:2])
    return python.abi, python.platform, version


def _own_files() -> list[tuple[str, Path]]:
    """Of funcrt's and mesh's modules those that a function's process may import, by their place."""
    root = Path(__file__).parents[1]
    return [
        (str(file.relative_to(root)), file)
        for place in BELOW_THE_CHANNEL
        for file in sorted((root / place).glob("*.py"))
    ]


@cache
def _own_digest() -> str:
    found = hashlib.sha256()
    for name, file in _own_files():
        body = file.read_bytes()
        found.update(f"{name} {len(body)}\n".encode() + body)
    return found.hexdigest()


def _copy_own(site: Path) -> None:
    for name, file in _own_files():
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o644)
        target.parent.chmod(0o755)


def _finish(temporary: Path) -> tuple[str, ...]:
    """List what was installed, let everyone read it, and make it durable; synced as a whole, for a
    package may have thousands of files. Code of packages may have written here what it liked.
    Raises DeployError."""
    site = temporary / SITE
    tidy(temporary)
    shutil.rmtree(temporary / HOME, ignore_errors=True)
    found = [_INFO.fullmatch(each.name) for each in site.iterdir()]
    listed = tuple(sorted({f"{name_of(one[1])} {one[2]}" for one in found if one}))
    if len(listed) > MOST_LISTED:
        told = f"it is {len(listed)} packages; at most {MOST_LISTED}"
        raise DeployError(f"cannot take over what was installed: {told}")
    (temporary / LISTED).write_bytes(msgspec.json.encode(listed))
    (temporary / LISTED).chmod(0o644)
    temporary.chmod(0o755)
    fd = os.open(temporary, DIRECTORY)
    try:
        if _libc.syncfs(fd):
            raise OSError(ctypes.get_errno(), "cannot be made durable", str(temporary))
    finally:
        os.close(fd)
    return listed


def _begin(root: Path) -> tuple[Path, int]:
    """A directory of one's own, and a descriptor: nobody removes it while that is open."""
    return held_anew(partial(tempfile.mkdtemp, prefix=INSTALLING, dir=root))


def _remove_left(root: Path) -> None:
    """What installations that were killed have left behind."""
    for directory in unheld(root, INSTALLING):
        remove(directory)


def _discard(directory: Path) -> None:
    """Renamed first: half of it would pass for the whole. Raises FileNotFoundError."""
    hidden, held = _begin(directory.parent)
    try:
        directory.rename(hidden / directory.name)
    finally:
        remove(hidden)
        os.close(held)


def _discard_large(cache: Path) -> bool:
    """Downloads that have become too many, or too many for their disk. False where something is
    installed with them."""
    found, room = size(cache, MOST_CACHED), free(cache)
    many = found.bytes > MOST_CACHED.bytes or found.files > MOST_CACHED.files
    if not many and (not found.files or room.bytes >= LEAST_FREE.bytes):
        return True
    held = hold(cache, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if held < 0:
        return False
    try:
        if cache.stat().st_uid == os.geteuid():  # else it is lent to an installer
            _discard(cache)
    finally:
        os.close(held)
    return True


async def _to_its_end(do: Callable[[Path], T], directory: Path) -> T:
    """In a thread, which is waited for even where nobody wants the result any more: nothing else
    is to be done to that directory meanwhile."""
    doing = asyncio.ensure_future(asyncio.to_thread(do, directory))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
