"""The host's side of installing packages: asks the runtime zygote for a process that installs, and
sees that it ends."""

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from funcrt.errors import SandboxError
from funcrt.sandbox.asking import ask, claimed, readable, socketpair
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.destinations import OUTBOUND
from funcrt.sandbox.groups import Group
from funcrt.sandbox.installing import Hand, Install
from funcrt.sandbox.levels import Level, Policy, choose, mend
from funcrt.sandbox.runtime import Fork
from funcrt.sandbox.told import received
from funcrt.sandbox.view import covering
from funcrt.sandbox.warm import Send
from funcrt.tree import DIRECTORY, Taken, size

__all__ = ["LEAST_FREE", "InstallUnconfined", "Job", "Place", "Workshop", "free"]

MOST = Taken(16 << 30, 1_000_000)
"""Of what one installation has on disk, downloads and builds among them."""
MOST_FILE_BYTES = 8 << 30
LEAST_FREE = Taken(256 << 20, 10_000)
"""An installation that leaves its disk less is ended: the mesh is to go on."""
TMP_BYTES = 256 << 20
"""Of /tmp, for programs that do not ask where to write."""
LOOK_S = 0.2
"""Between two looks at the room on its disk."""
COUNT_S, COUNTING = 2.0, 0.1
"""Between two counts of what it has there; and the most of the time that counting takes."""
END_S, AGAIN_S = 10.0, 0.1
MOST_SAID = 256 << 10
"""Characters of what an installer writes that are kept, the last."""


class InstallUnconfined(SandboxError):
    """Nothing here would hold what installs packages to where they come from."""

    def __init__(self, function: str, why: str, *, builds: bool) -> None:
        lower = "none" if builds else "process"
        super().__init__(
            f"{function}: what it needs is not installed, as nothing here holds its installer to"
            f" where packages come from: {why}. {mend(why)}; or let this host do with less by"
            f" --allow-isolation {lower}, or have the packages in funcrt's own environment and"
            " start it with --no-install"
        )


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A program that installs, and what it is to have."""

    command: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    """It begins there, and may write to what is below `work`."""
    work: Path
    """A directory of the host's own; what is in it is the host's again in the end."""
    cache: Path | None = None
    """A directory to write to that stays the installer's, for the next time."""
    writable: tuple[str, ...] = ()
    """Other directories to write to."""
    readable: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    """Where packages come from, as `host:port`; public addresses are open to it besides."""
    alone: bool = False
    """It may start no program of its own."""


class Place(msgspec.Struct, frozen=True):
    """How something is installed here."""

    function: str
    """For whom."""
    builds: bool
    """Code of packages may run."""
    level: Level
    user: int = 0
    """Who installs it, where that is somebody of its own; else 0."""


class Workshop:
    """Installs for one host. `probed` finds the levels that cannot be had, and why; `send` hands
    messages to the runtime zygote, `end` ends the process of a descriptor."""

    def __init__(
        self,
        policy: Policy,
        probed: Callable[[], Awaitable[Mapping[Level, str]]],
        send: Send,
        end: Callable[[int], None],
    ) -> None:
        self.policy = policy
        self._probed = probed
        self._send = send
        self._end = end
        self._root = os.geteuid() == 0
        self._handing = asyncio.Lock()
        self._borrowers: Counter[Path] = Counter()

    async def place(self, function: str, *, builds: bool) -> Place:
        """At which level, and as whom, it is installed. Raises IsolationMissing, Unclaimed."""
        policy = self.policy
        if policy.forced == "none":
            return Place(function, builds, "none")
        if policy.forced == "container":  # whose functions have what their image has
            policy = Policy(allowed=policy.allowed)
        missing = await self._probed()
        best: Level = "process" if "sandbox" in missing else "sandbox"
        level = choose(f"{function}, to install what it needs", best, missing, policy)
        user = 0
        if self._root and level != "none":
            user = await claimed(self._send, "builder" if builds else "installer")
        return Place(function, builds, level, user)

    async def run(self, job: Job, place: Place) -> tuple[int, str]:
        """Its exit code, and what it wrote. Raises InstallUnconfined, SandboxError."""
        held = self._confinement(job, place)
        async with self._lent(job.work, place.user), self._lent(job.cache, place.user):
            try:
                try:
                    return await self._run(job, held)
                except _Refused as refused:
                    held = self._less(place, held, refused.why)
                return await self._run(job, held)
            except _Refused as refused:
                what = f"isolation {held.level!r}, to install what it needs: {refused.why}"
                raise SandboxError(f"{place.function}: {what}") from None

    @contextlib.asynccontextmanager
    async def _lent(self, directory: Path | None, user: int) -> AsyncIterator[None]:
        """A directory is the installer's while any installation has it, and else the host's: by
        then the user may be another host's."""
        if directory is None or not user:
            yield
            return
        async with self._handing:
            if not self._borrowers[directory]:
                await self._hand(directory, user)
            self._borrowers[directory] += 1
        try:
            yield
        finally:
            async with self._handing:
                self._borrowers -= Counter([directory])
                if not self._borrowers[directory]:
                    await self._hand(directory, user, back=True)

    def _less(self, place: Place, held: Confinement, why: str) -> Confinement:
        """What will do instead, where a step failed. Raises _Refused, InstallUnconfined."""
        if not why.startswith("supervised connections"):
            raise _Refused(why)
        allowed = ("none",) if place.builds else ("none", "process")
        if self.policy.allowed not in allowed:
            raise InstallUnconfined(place.function, why, builds=place.builds)
        return msgspec.structs.replace(held, level="process", unwatched=True)

    def _confinement(self, job: Job, place: Place) -> Confinement:
        cache = [str(job.cache)] if job.cache is not None else []
        return Confinement(
            level=place.level,
            readable=job.readable,
            writable=tuple(covering([str(job.work), *cache, *job.writable])),
            network=(*job.network, OUTBOUND),
            near=True,
            programs=True,
            tmp_bytes=TMP_BYTES,
            file_bytes=MOST_FILE_BYTES,
            memory_bytes=_memory_bytes(),
            cpu=max(1.0, 0.75 * (os.cpu_count() or 1)),
            user=os.geteuid() if self._root and place.level == "none" else place.user,
        )

    async def _hand(self, directory: Path, user: int, *, back: bool = False) -> None:
        """Make it the installer's, or the host's again. Raises SandboxError."""
        held = os.open(directory, DIRECTORY)
        try:
            told, _ = await ask(self._send, Hand(user, back), held)
        finally:
            os.close(held)
        if "handed" not in told:
            why = told.get("refused", "the process that does it ended")
            raise SandboxError(f"what was installed cannot be taken over: {why}")

    async def _run(self, job: Job, held: Confinement) -> tuple[int, str]:
        asked = Install(
            command=list(job.command),
            env=dict(job.env),
            directory=str(job.directory),
            confine=held,
            alone=job.alone,
        )
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        try:
            with theirs:
                ours.send(msgspec.msgpack.encode(asked))
                fork = msgspec.msgpack.encode(Fork(held, installs=True))
                self._send(fork, [theirs.fileno(), write])
        except OSError as error:
            ours.close()
            os.close(read)
            raise SandboxError(f"the runtime zygote is gone ({error})") from None
        finally:
            os.close(write)
        running = _Running(self._end, ours, read)
        try:
            cache = [job.cache] if job.cache is not None else []
            return await running.over([job.work, *cache], held.memory_bytes)
        finally:
            await running.close()


class _Refused(Exception):
    """A step of its confinement that failed."""

    def __init__(self, why: str) -> None:
        self.why = why


class _Told(msgspec.Struct):
    """What is heard of one: one field is set."""

    zygote: int | None = None
    """It is there; a descriptor of it comes along."""
    group: Group | None = None
    refused: str | None = None
    exit: int | None = None


class _Running:
    """One that installs."""

    def __init__(self, end: Callable[[int], None], control: socket.socket, read: int) -> None:
        self._end = end
        self._control = control
        self._read = read
        self._watch = -1
        self._group: Group | None = None
        self._heard: _Told | None = None
        """The last that is said of it."""
        self._words = ""
        os.set_blocking(read, False)

    async def over(self, places: Sequence[Path], memory_bytes: int) -> tuple[int, str]:
        """Wait for its end; `places` are where it writes. Raises _Refused, SandboxError."""
        first, why = free(places[0]), ""
        count_at = time.monotonic() + COUNT_S
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(self._hear())
            listening = group.create_task(self._listen())
            while not (await asyncio.wait({hearing}, timeout=LOOK_S))[0]:
                why = why or _too_little(free(places[0]), first)
                began = time.monotonic()
                if not why and began >= count_at:
                    why = await asyncio.to_thread(_too_much, places)
                    ended = time.monotonic()
                    count_at = ended + max(COUNT_S, (ended - began) / COUNTING)
                if why:
                    self._kill()
            told = hearing.result()
            await asyncio.wait({listening}, timeout=1)  # what it left is on its way out
            listening.cancel()
        if told.refused is not None:
            raise _Refused(told.refused)
        if told.exit is None:
            raise SandboxError("the runtime zygote is gone")
        if told.exit and self._group is not None and self._group.killed_for_memory():
            why = f"it took more than {memory_bytes >> 20} MiB of memory"
        said = f"{self._words}\nerror: given up: {why}" if why else self._words
        return told.exit or int(bool(why)), said

    async def _hear(self) -> _Told:
        """Until it has ended, or nobody is left to say so."""
        while self._heard is None:
            await readable(self._control.fileno())
            body, descriptors = received(self._control)
            told = msgspec.msgpack.decode(body, type=_Told) if body else _Told()
            if descriptors:
                self._watch, self._group = descriptors[0], told.group
            else:
                self._heard = told
        return self._heard

    async def _listen(self) -> None:
        """Keep the last of what it writes, until nobody is left to write."""
        while True:
            await readable(self._read)
            chunk = os.read(self._read, 64 << 10)
            if not chunk:
                return
            self._words = (self._words + chunk.decode(errors="replace"))[-MOST_SAID:]

    def _kill(self) -> None:
        if self._watch >= 0:
            self._end(self._watch)

    async def close(self) -> None:
        """It has ended, or is ended now."""
        hearing = asyncio.ensure_future(self._hear())
        try:
            async with asyncio.timeout(END_S):
                while not (await asyncio.wait({hearing}, timeout=AGAIN_S))[0]:
                    self._kill()  # once it is known
        except TimeoutError:
            pass
        finally:
            hearing.cancel()
            self._control.close()
            for descriptor in (self._read, self._watch):
                if descriptor >= 0:
                    os.close(descriptor)


def _too_much(places: Sequence[Path]) -> str:
    """Why it is to be ended, for what it has written; "" to let it go on."""
    found = [size(place, MOST) for place in places]
    if sum(each.bytes for each in found) > MOST.bytes:
        return f"it took more than {MOST.bytes >> 30} GiB of disk"
    if sum(each.files for each in found) > MOST.files:
        return f"it made more than {MOST.files:,} files"
    return ""


def _too_little(room: Taken, first: Taken) -> str:
    """The same, for the room on its disk, of which there was so much at first."""
    if room.bytes < min(LEAST_FREE.bytes, first.bytes):
        return f"its disk has less than {LEAST_FREE.bytes >> 20} MiB left"
    if room.files < min(LEAST_FREE.files, first.files):
        return f"its disk has room for less than {LEAST_FREE.files:,} more files"
    return ""


def free(directory: Path) -> Taken:
    """The room on its disk. Raises OSError."""
    found = os.statvfs(directory)
    # Where files are not counted there is no room for any, by these words.
    return Taken(found.f_bavail * found.f_frsize, found.f_favail)


def _memory_bytes() -> int:
    """Half of what the machine has."""
    return max(1 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
