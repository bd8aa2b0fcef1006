"""Control groups: a group for each zygote and each instance, which bounds its memory, its processes
and its share of the CPU, by cgroup v2 where that was delegated to this host, or by v1.

R makes and removes them, as it keeps the right to. What is in their files anybody may read.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from funcrt.tree import held_anew, unheld

__all__ = [
    "CONTROLLERS",
    "KEPT_S",
    "NAMED",
    "USUAL_MEMORY",
    "Bounds",
    "Group",
    "Groups",
    "Place",
    "groups_of",
    "hierarchies",
    "write",
]

NAMED = "funcrt-"
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
USUAL_MEMORY = 512 << 20
"""What an instance may have in memory where its manifest does not say, and a group can hold it."""
PERIOD_US = 100_000
NO_MORE = b"0"
LEAST_QUOTA_US = 1000
"""The kernel takes no less."""
KEPT_S = 5.0
"""How long a zygote's group stays that has ended, for the host to see why."""


class Bounds(msgspec.Struct, frozen=True):
    """What a group holds its processes to; 0 for no limit."""

    memory_bytes: int = 0
    processes: int = 0
    """Threads among them."""
    cpu: float = 0.0
    """CPU seconds a second."""


class Group(msgspec.Struct, frozen=True):
    """A group, as a directory for each controller that it has: in version 2 the same for all."""

    name: str
    version: int
    directories: dict[str, str]

    def places(self) -> list[str]:
        """Its directories."""
        return list(dict.fromkeys(self.directories.values()))

    def join(self) -> None:
        """Put this process into it, which must have but one thread."""
        for file in self.entries():
            with open(file, "wb", buffering=0) as opened:
                opened.write(b"0")

    def entries(self) -> list[str]:
        """The files that a process without threads writes 0 to. In version 1 that of a thread."""
        # For a whole process the kernel waits for all CPUs: 10 ms instead of 0.04.
        name = "tasks" if self.version == 1 else "cgroup.procs"
        return [f"{each}/{name}" for each in self.places()]

    def _read(self, controller: str, old: str, new: str = "") -> str:
        directory = self.directories.get(controller)
        if directory is None:
            return ""
        try:
            return Path(directory, old if self.version == 1 else new or old).read_text()
        except OSError:
            return ""

    def _count(self, controller: str, old: str, new: str, key: str) -> int:
        for line in self._read(controller, old, new).splitlines():
            if line.startswith(f"{key} "):
                return int(line.split()[1])
        return 0

    def killed_for_memory(self) -> int:
        """How many of its processes the kernel has ended, as it was over its memory."""
        return self._count("memory", "memory.oom_control", "memory.events", "oom_kill")

    def throttled_s(self) -> float:
        """How long it was kept from the CPU, as it had used its share."""
        if self.version == 1:
            return self._count("cpu", "cpu.stat", "", "throttled_time") / 1e9
        return self._count("cpu", "", "cpu.stat", "throttled_usec") / 1e6

    def cpu_s(self) -> float | None:
        """CPU time of all that were in it; None where nobody counts."""
        if self.version == 2:
            return self._count("cpuacct", "", "cpu.stat", "usage_usec") / 1e6
        text = self._read("cpuacct", "cpuacct.usage")
        return int(text) / 1e9 if text else None

    def memory_bytes(self) -> int | None:
        """The memory that it has now; None where nobody counts."""
        text = self._read("memory", "memory.usage_in_bytes", "memory.current")
        return int(text) if text else None

    def peak_bytes(self) -> int | None:
        """The most memory that it has had at once; None where nobody counts."""
        text = self._read("memory", "memory.max_usage_in_bytes", "memory.peak")
        return int(text) if text else None


class Place(msgspec.Struct, frozen=True):
    """Where groups can be made: this process's own group, in one hierarchy."""

    version: int
    directory: str
    controllers: tuple[str, ...]


def hierarchies(
    mounts: str, groups: str, controllers: Sequence[str] = CONTROLLERS
) -> Iterator[Place]:
    """A process's group in each hierarchy, of this one's mountinfo and that one's cgroup."""
    places = {}
    for line in groups.splitlines():
        _, those, path = line.split(":", 2)
        places[those] = path
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2":
            names: tuple[str, ...] = ()
            path = places.get("", "..")
        elif kind == "cgroup":
            given = options.split(",")
            named = next(
                (each for each in places if each and set(each.split(",")) <= set(given)), ""
            )
            names = tuple(each for each in named.split(",") if each in controllers)
            path = places[named] if names else ".."
        else:
            continue
        if not f"{path}/".startswith(root.rstrip("/") + "/"):
            continue  # a group of another tree than is mounted here
        below = path.removeprefix(root.rstrip("/")).strip("/")
        directory = f"{mounted}/{below}".rstrip("/")
        yield Place(1 if kind == "cgroup" else 2, directory, names)


def groups_of(pid: int, controllers: Sequence[str] = CONTROLLERS) -> list[Place]:
    """A process's group in each hierarchy that has one of these; none where there is no /proc."""
    mounts, groups = Path("/proc/self/mountinfo"), Path(f"/proc/{pid}/cgroup")
    try:
        return list(hierarchies(mounts.read_text(), groups.read_text(), controllers))
    except OSError:
        return []


def write(file: str, text: bytes) -> None:
    """Say a word to the kernel, by a file of its own. Raises OSError."""
    opened = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(opened, text)
    finally:
        os.close(opened)


class Groups:
    """R's. Each is below a directory of this runtime's, which it holds a lock on: those of runtimes
    that were killed are removed by the next."""

    def __init__(self, wanted: bool = True) -> None:
        self.lacks: dict[str, OSError] = {}
        """Controllers that cannot be had, and why."""
        self._roots: dict[str, str] = {}
        self._held: list[int] = []
        self._version = 1
        self._made: dict[str, Group] = {}
        self._leaving: list[tuple[float, Group]] = []
        """And when each may be removed at the earliest."""
        name = NAMED + os.urandom(6).hex()
        for place in groups_of(os.getpid()) if wanted else ():
            self._open(place, name)
        missing = OSError(errno.ENOENT, "no control group of it is mounted")
        for controller in CONTROLLERS:
            if controller not in self._roots:
                self.lacks.setdefault(controller, missing)
        self.lacks = {each: why for each, why in self.lacks.items() if each not in self._roots}

    # Making ready

    def _open(self, place: Place, name: str) -> None:
        if self._roots and place.version != self._version:
            return  # a process is in one of them by either way
        controllers, directory = place.controllers, place.directory
        try:
            if place.version == 2:
                directory = directory.removesuffix(f"/{NAMED}host")  # by an earlier runtime of it
                controllers = _delegated(directory)
                if not controllers:
                    return
            _sweep(directory)
            root = f"{directory}/{name}"
            self._held.append(held_anew(partial(_made, root))[1])
            if place.version == 2:
                _hand_down(root, controllers)
                controllers = (*controllers, "cpuacct")  # always there
        except OSError as error:
            for controller in controllers or CONTROLLERS:
                self.lacks[controller] = error
            return
        self._version = place.version
        self._roots |= dict.fromkeys(controllers, root)

    # Groups

    def make(self, name: str, bounds: Bounds) -> Group | None:
        """A group of these bounds; None where no controller is there. That of cpu is left out where
        there is no limit for it: to enter it costs a process its turn. Raises OSError."""
        wanted = [each for each in self._roots if each != "cpu" or bounds.cpu]
        if not wanted:
            return None
        self._clear()
        made = {each: f"{self._roots[each]}/{name}" for each in wanted}
        group = Group(name, self._version, made)
        try:
            for directory in group.places():
                os.mkdir(directory)
            self._bound(group, bounds)
        except OSError:
            self._leaving.append((0.0, group))
            raise
        self._made[name] = group
        return group

    def _bound(self, group: Group, bounds: Bounds) -> None:
        at, old = group.directories, group.version == 1
        if "memory" in at and bounds.memory_bytes:
            most = str(bounds.memory_bytes).encode()
            write(f"{at['memory']}/memory.{'limit_in_bytes' if old else 'max'}", most)
            swap = "memory.memsw.limit_in_bytes" if old else "memory.swap.max"
            with contextlib.suppress(OSError):  # a kernel that does not count swap
                write(f"{at['memory']}/{swap}", most if old else NO_MORE)
        if "pids" in at and bounds.processes:
            write(f"{at['pids']}/pids.max", str(bounds.processes).encode())
        if "cpu" in at and bounds.cpu:
            quota = max(int(bounds.cpu * PERIOD_US), LEAST_QUOTA_US)
            name, text = "cpu.max", f"{quota} {PERIOD_US}"
            if old:
                name, text = "cpu.cfs_quota_us", str(quota)
            try:
                write(f"{at['cpu']}/{name}", text.encode())
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The group above has less, which bounds it anyway.

    def place(self, name: str, pid: int) -> None:
        """Put a process into a group, in 10 ms: the way of version 2, where no process may enter by
        itself which has no right to."""
        group = self._made.get(name)
        if group is not None and pid > 0:  # 0, of one that has ended, is the writer
            for directory in group.places():
                with contextlib.suppress(OSError):  # it has ended
                    write(f"{directory}/cgroup.procs", str(pid).encode())

    def remove(self, name: str, *, kept_s: float = 0.0) -> None:
        """End what is left in a group, and take it away; later, with another, where that is not yet
        possible, or where its figures are to be `kept_s` longer."""
        group = self._made.pop(name, None)
        if group is not None:
            _empty(group)
            self._leaving.append((time.monotonic() + kept_s if kept_s else 0.0, group))
            self._clear()

    def _clear(self) -> None:
        now = time.monotonic()
        self._leaving = [
            (until, group) for until, group in self._leaving if until > now or not _removed(group)
        ]

    def close(self) -> None:
        """Remove them all: what was in them has been ended."""
        for name in list(self._made):
            self.remove(name)
        self._leaving = [(0.0, group) for _, group in self._leaving]
        for _ in range(100):
            self._clear()
            if not self._leaving:
                break
            time.sleep(0.01)  # what was ended is still on its way out
        for root in dict.fromkeys(self._roots.values()):
            with contextlib.suppress(OSError):
                os.rmdir(root)
        for held in self._held:
            os.close(held)


def _made(root: str) -> str:
    os.mkdir(root)
    return root


def _sweep(directory: str) -> None:
    """Remove what runtimes have left that were killed."""
    for left in unheld(Path(directory), NAMED):
        with contextlib.suppress(OSError):  # what was in one is still on its way out
            for group in left.glob("*/"):
                _end(str(group))
                os.rmdir(group)
            os.rmdir(left)


def _empty(group: Group) -> None:
    if "pids" in group.directories:
        with contextlib.suppress(OSError):
            write(f"{group.directories['pids']}/pids.max", NO_MORE)  # none comes after
    _end(group.places()[0])


def _removed(group: Group) -> bool:
    """Whether it is gone now. What was ended may still be on its way out."""
    _end(group.places()[0])
    gone = True
    for directory in group.places():
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            gone = False
    return gone


def _end(directory: str) -> None:
    """SIGKILL to what is in a group."""
    try:
        write(f"{directory}/cgroup.kill", b"1")
    except OSError:
        with contextlib.suppress(OSError, ProcessLookupError):
            for pid in Path(directory, "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)


# Version 2


def _delegated(own: str) -> tuple[str, ...]:
    """Have the groups below our own the controllers that it has. A group with groups of that kind
    below it may hold no processes: where it holds none but the host's and ours, they make room.
    Raises OSError."""
    there = Path(own, "cgroup.controllers").read_text().split()
    wanted = tuple(each for each in CONTROLLERS if each in there)
    if not wanted:
        return ()
    try:
        _hand_down(own, wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        held = {int(pid) for pid in Path(own, "cgroup.procs").read_text().split()}
        if others := held - {os.getpid(), os.getppid()}:
            what = f"its group holds process {min(others)} besides the host"
            raise OSError(errno.EBUSY, what, own) from None
        leaf = f"{own}/{NAMED}host"
        with contextlib.suppress(FileExistsError):
            os.mkdir(leaf)
        for pid in held:
            write(f"{leaf}/cgroup.procs", str(pid).encode())
        _hand_down(own, wanted)
    return wanted


def _hand_down(directory: str, controllers: tuple[str, ...]) -> None:
    more = [f"+{each}" for each in controllers]
    write(f"{directory}/cgroup.subtree_control", " ".join(more).encode())
