"""The steps that lock a function's processes in, in the order in which they work.

R forks with `fork`: for level `sandbox` twice, since a process enters a new pid namespace only by
being forked into it. What it forked calls `enter` before any of the author's code is imported, and
each instance calls `enter_alone`. A step that fails is named in a `Refused`.
"""

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import stat
import struct
from collections.abc import Iterator

import msgspec

from funcrt.sandbox import kernel, landlock, notify
from funcrt.sandbox.groups import USUAL_MEMORY, Bounds
from funcrt.sandbox.levels import Level
from funcrt.sandbox.neighbours import uncut, unwalled
from funcrt.sandbox.syscalls import NAMELESS, Rule, program, rules, supervised
from funcrt.sandbox.view import (
    DEVICES,
    NAMES,
    Opened,
    covering,
    links,
    name_files,
    opened,
    opened_files,
)
from funcrt.tree import DIRECTORY

__all__ = [
    "MOST_PROCESSES",
    "Confinement",
    "Refused",
    "bounds_of",
    "enter",
    "enter_alone",
    "enter_contained",
    "enter_first",
    "enter_rest",
    "fork",
    "has_unix",
    "own_users",
    "step",
]

NAMESPACES = kernel.NEW_NS | kernel.NEW_PID | kernel.NEW_IPC | kernel.NEW_UTS | kernel.NEW_NET
MOST_PROCESSES = 1024
"""Of one instance, threads among them; of all of a function where no group counts them."""
MOST_FILES = 4096
NAMESERVER = "127.0.0.1"
PLAIN = kernel.NO_SUID | kernel.NO_DEV


class Refused(Exception):
    """A step that this machine does not let us take."""

    def __init__(self, step: str, error: OSError) -> None:
        self.step = step
        self.number = error.errno or 0
        what = f"{error.filename}: " if error.filename else ""
        super().__init__(f"{step}: {what}{error.strerror or os.strerror(self.number)}")


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What one function is held to."""

    level: Level = "none"
    readable: tuple[str, ...] = ()
    """Besides the interpreter's own: its code, its environment."""
    files: tuple[str, ...] = ()
    """Of its manifest, which it may read as well."""
    apart: tuple[str, ...] = ()
    """What none of its `files` may lead to."""
    network: tuple[str, ...] = ()
    """What it may connect to (`destinations.py`)."""
    tmp_bytes: int = 64 << 20
    """The room in its private /tmp and, at any level, the most that one file may have."""
    memory_bytes: int = 0
    """Of an instance; 0 for no limit of its manifest's. Where no group counts it, it is the address
    space of a process."""
    cpu: float = 0.0
    """CPU seconds a second that an instance may use; 0 for no limit."""
    grouped: tuple[str, ...] = ()
    """What control groups bound, by R."""
    user: int = 0
    """Who it runs as, where the host is root; 0 for the host's own user."""
    tmp: str = ""
    """At level `process`: the directory that it may write to."""
    programs: bool = False
    """It may start programs: what installs packages."""
    writable: tuple[str, ...] = ()
    """Directories of the host that it may write to, besides."""
    file_bytes: int = 0
    """The most that one file may have, where that is not `tmp_bytes`."""
    near: bool = False
    """The names of `network` are the host's to say: they may lead to the host itself."""
    unwatched: bool = False
    """With `network`, at level `process`: nothing looks at what it connects to."""

    @property
    def supervised(self) -> bool:
        """Somebody makes its connections for it."""
        return bool(self.network) and not self.unwatched and self.level in ("process", "sandbox")


def bounds_of(held: Confinement) -> Bounds:
    """What a control group holds an instance to."""
    return Bounds(held.memory_bytes or USUAL_MEMORY, MOST_PROCESSES, held.cpu)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Names what fails within. Raises Refused."""
    try:
        yield
    except OSError as error:
        raise Refused(name, error) from None


# What R does


def fork(held: Confinement) -> tuple[int, int]:
    """Fork a process for it: (0, a descriptor) in the child, which is to call `enter` with that,
    and (its pid, a descriptor) in the parent, who is to write a byte to that once it is the
    child's parent indeed, and to hold it open. Raises Refused."""
    with step("fork"):
        go, ready = os.pipe()
    if held.level != "sandbox":
        with _closed_if_refused(go, ready), step("fork"):
            pid = os.fork()
        if pid == 0:
            os.close(ready)
            return 0, go
        os.close(go)
        return pid, ready
    with _closed_if_refused(go, ready), step("fork"):
        said, say = os.pipe()
    with _closed_if_refused(go, ready, said, say), step("fork"):
        between = os.fork()
    if between == 0:
        os.close(said)
        os.close(ready)
        try:
            pid = _fork_into_namespaces(held)
        except Refused as refused:
            os.write(say, struct.pack("=ii", 0, refused.number) + refused.step.encode())
            os._exit(0)
        if pid:
            os.write(say, struct.pack("=ii", pid, 0))
            os._exit(0)
        os.close(say)
        return 0, go
    os.close(go)
    os.close(say)
    with open(said, "rb") as file:
        told = file.read()
    os.waitpid(between, 0)  # from here on the child is ours: R is a subreaper
    pid, number = struct.unpack("=ii", told[:8]) if len(told) >= 8 else (0, 0)
    if not pid:
        os.close(ready)
        raise Refused(told[8:].decode() or "fork", OSError(number, ""))
    return pid, ready


@contextlib.contextmanager
def _closed_if_refused(*descriptors: int) -> Iterator[None]:
    try:
        yield
    except Refused:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _fork_into_namespaces(held: Confinement) -> int:
    if os.geteuid() == 0:
        with step("mount, pid, net, ipc and uts namespaces"):
            kernel.unshare(NAMESPACES)
    else:
        with step("a user namespace"):
            own_users(NAMESPACES)
    with step("fork"):
        return os.fork()


def own_users(more: int = 0) -> None:
    """A user namespace in which this process is whom it was, and no one else is anybody."""
    user, group = os.geteuid(), os.getegid()
    kernel.set_dumpable(True)  # where the user was changed: or its files in /proc are root's
    kernel.unshare(kernel.NEW_USER | more)
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")
    ):  # fmt: skip
        _write(f"/proc/self/{name}", text)


def _write(path: str, text: str, directory: int | None = None) -> None:
    """A file that is there, or a new one in an open directory. Raises OSError."""
    new = os.O_CREAT | os.O_EXCL if directory is not None else 0
    file = os.open(path, os.O_WRONLY | new | os.O_CLOEXEC, 0o644, dir_fd=directory)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


# What the forked process does


def enter(held: Confinement, go: int, root: tuple[str, ...], line: socket.socket) -> None:
    """Lock this process in. It waits for its parent's word on `go`, and ends with it. `root` are
    the paths of the interpreter; its supervisor is at the other end of `line`, if it has one.
    Raises Refused."""
    enter_rest(held, root, line, enter_first(held, go, root, (os.__file__,)))


def enter_first(
    held: Confinement, go: int, root: tuple[str, ...], needed: tuple[str, ...]
) -> list[socket.socket]:
    """What takes rights: its view, its user. From here on it has none, and what it executes gives
    it none; `needed` are files that its interpreter begins with. Gives what `enter_rest` is to
    have. Raises Refused."""
    if not os.read(go, 1):
        os._exit(1)  # it is gone already
    names: list[socket.socket] = []
    if held.level == "sandbox":
        if held.supervised:
            names.append(_own_network())
        _build_view(held, root)
    if held.level != "none" or held.user:
        _become(held)
    if held.user:
        with step(f"the interpreter's own files, as user {held.user}"):
            for each in needed:
                os.stat(each)
    with step("prctl"):
        kernel.tie_to_parent(signal.SIGKILL)  # a change of user would undo it
    if select.select([go], [], [], 0)[0]:
        os._exit(1)
    os.close(go)
    with step("no_new_privs"):
        kernel.no_new_privileges()
    return names


def enter_rest(
    held: Confinement, root: tuple[str, ...], line: socket.socket, names: list[socket.socket]
) -> None:
    """What only holds it back: limits, and what it may ask the kernel. Only what installs can
    execute a program from here on. Raises Refused."""
    _limits(held)
    if held.level == "none":
        line.close()
        return
    with step("dumpable"):
        _set_dumpable(held)
    _wall_off(held, root)
    if held.supervised:
        _be_supervised(held, line, names)
    else:
        _filter(held)
    line.close()


def _wall_off(held: Confinement, root: tuple[str, ...]) -> None:
    with contextlib.ExitStack() as undo:
        readable: list[str | int] = ["/"]
        if held.level != "sandbox":
            with step("sandbox.files"):
                files = opened_files(held.files, held.apart, undo)
            readable = [*root, *held.readable, *(NAMES if held.network else ())]
            readable += [each.descriptor for each in files]
        with step("landlock"):
            if not kernel.landlock_abi():
                raise OSError(95, "", "this kernel has none")
            writable = ["/tmp" if held.level == "sandbox" else held.tmp, *held.writable, *DEVICES]
            landlock.restrict(readable, writable, network=held.unwatched, programs=held.programs)


def _set_dumpable(held: Confinement) -> None:
    """A process that nobody looks into, but for who makes its connections: that one has its user
    and no rights, so it could not otherwise. No limit of cores but 1 stops those of pipes, too."""
    kernel.set_dumpable(held.supervised)
    if held.supervised and held.level == "process":
        kernel.traced_by_any()


def _own_network() -> socket.socket:
    """Where it asks for names: in a network of its own."""
    with step("a loopback device of its own"):
        kernel.loopback_up()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((NAMESERVER, 53))
    return sock


def _be_supervised(held: Confinement, line: socket.socket, names: list[socket.socket]) -> None:
    """Hand the calls that connect over, and see that they are answered."""
    with step("supervised connections"):
        listener = kernel.seccomp_listener(_program(held))
        try:
            notify.usable(listener)
            socket.send_fds(line, [b"l"], [listener, *(each.fileno() for each in names)])
        finally:  # held by nobody else: calls fail, and do not hang, once its supervisor is gone
            os.close(listener)
            for each in names:
                each.close()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            found = sock.connect_ex(("0.0.0.0", 0))
        if found != errno.EACCES:
            raise OSError(found, "")


def enter_contained(held: Confinement) -> None:
    """Lock the first process of a container in, of which Docker has seen to the rest. Raises
    Refused."""
    with step("capabilities"):
        kernel.clear_capabilities()
    _limits(held)
    with step("no_new_privs"):
        kernel.no_new_privileges()
    with step("dumpable"):
        kernel.set_dumpable(False)
    with step("landlock"):
        landlock.restrict(["/"], ["/tmp", "/dev/shm", *DEVICES], network=bool(held.network))
    _filter(held)


def enter_alone(held: Confinement) -> None:
    """Lock an instance in by itself: it cannot end, or signal, the function's other processes."""
    if held.level == "none":
        return
    if held.supervised:
        _set_dumpable(held)
    with step("landlock"):
        landlock.restrict(files=False)
    if held.level == "process" and kernel.landlock_abi() < 6:
        _filter(held, os.getpid())


def _filter(held: Confinement, signals_to: int | None = None) -> None:
    with step("seccomp"):
        kernel.seccomp(_program(held, signals_to))


def has_unix(held: Confinement) -> bool:
    """Whether it has Unix sockets, and not only pairs that are connected."""
    abi = kernel.landlock_abi()
    if held.supervised:
        # What a Unix socket is asked to do, the kernel does: by then it may be a TCP socket, which
        # only Landlock's rules of these hold back.
        return held.level == "sandbox" and abi >= 4
    # A Unix socket's name leads out of level `process`, and an abstract one out of a container on a
    # network that others are on, where Landlock does not hold those back.
    return held.level in ("sandbox", "container") and (not held.network or abi >= 6)


def _program(held: Confinement, signals_to: int | None = None) -> bytes:
    unix = has_unix(held)
    if held.supervised:
        own, ask = held.level == "sandbox", signals_to is None
        made = supervised(
            unix=unix, datagrams=own, ask=ask, signals_to=signals_to, programs=held.programs
        )
    else:
        made = rules(
            network=bool(held.network), unix=unix, signals_to=signals_to, programs=held.programs
        )
    alone = held.level == "process"
    more = list(unwalled(own_user=bool(held.user), quiet=held.programs)) if alone else []
    if alone and kernel.landlock_abi() < 3:
        more += uncut()
    if "memory" not in held.grouped and held.level != "container":
        more.append(Rule(NAMELESS, errno.ENOSYS))  # files in memory, which nothing else counts
    try:
        return program(kernel.MACHINE, [*made, *more])
    except KeyError:
        raise OSError(errno.ENOSYS, f"no table of calls for {kernel.MACHINE}") from None


def _limits(held: Confinement) -> None:
    with step("rlimits"):
        limits = [(resource.RLIMIT_CORE, int(held.supervised))]
        if held.memory_bytes and "memory" not in held.grouped:
            limits.append((resource.RLIMIT_AS, held.memory_bytes))
        if held.level != "none":
            limits.append((resource.RLIMIT_FSIZE, held.file_bytes or held.tmp_bytes))
            limits.append((resource.RLIMIT_NOFILE, MOST_FILES))
            limits.append((resource.RLIMIT_MSGQUEUE, 0))
            limits.append((resource.RLIMIT_MEMLOCK, 1 << 20))
            if "pids" not in held.grouped:
                others = 0 if held.level == "sandbox" or held.user else _threads_of_user()
                limits.append((resource.RLIMIT_NPROC, others + MOST_PROCESSES))
        for which, most in limits:
            hard = resource.getrlimit(which)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(which, (least, least))


def _threads_of_user() -> int:
    """How many run as this process's user: a limit on their number counts all of them."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += os.stat(f"/proc/{name}/task").st_nlink - 2
    return count


def _become(held: Confinement) -> None:
    """Somebody without rights: the user that was given, in a namespace of their own at level
    `sandbox`, and without any capability."""
    if held.user:
        with step("uid drop"):
            os.setgroups([])
            os.setresgid(held.user, held.user, held.user)
            os.setresuid(held.user, held.user, held.user)
        if held.level == "sandbox":
            with step("a user namespace"):
                own_users()
    with step("capabilities"):
        kernel.clear_capabilities()


# The view


def _build_view(held: Confinement, root: tuple[str, ...]) -> None:
    """A tree of its own: what may be read, an empty /tmp, the plain devices and its own /proc.

    Others may change what leads to what it is shown, and whose names they are while this is done,
    as root where the host is: so that is opened once, shown by its descriptor, and a name in the
    tree is followed through no link. Once the tree is the root nothing is made in it any more."""
    with step("a private mount tree"):
        kernel.mount("none", "/", "", kernel.RECURSIVE | kernel.PRIVATE)
    with contextlib.ExitStack() as undo:
        with step("what it is shown"):
            readable = opened((*root, *held.readable), undo)
            devices, writable = opened(DEVICES, undo), opened(held.writable, undo)
        with step("sandbox.files"):
            readable += opened_files(held.files, held.apart, undo)
        names = dict(name_files(NAMESERVER, _text("/etc/resolv.conf")) if held.supervised else ())
        user, group = held.user or os.geteuid(), held.user or os.getegid()
        names["/etc/passwd"] = f"function:x:{user}:{group}::/tmp:/sbin/nologin\n"
        names["/etc/group"] = f"function:x:{group}:\n"
        with step("tmpfs"):
            _tmpfs("/tmp", "size=1m,nr_inodes=8k,mode=755")
            tree = os.open("/tmp", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, tree)
            for name in ("old", "proc", "tmp"):
                os.mkdir(name, dir_fd=tree)
            # A page is 4 KiB: so many files of one page each fill it, too.
            pages = held.tmp_bytes // 4096
            _tmpfs("/tmp/tmp", f"size={held.tmp_bytes},nr_inodes={pages + 64},mode=1777")
        with step("/proc"):  # before the machine's own is out of sight
            kernel.mount("proc", "/tmp/proc", "proc", PLAIN | kernel.NO_EXEC)
        with step("bind mounts"):
            _show_all(held, tree, readable, devices, writable)
            for path, text in names.items():
                _make(tree, path, text)
    with step("pivot_root"):
        kernel.pivot("/tmp", "old")
    with step("umount2"):
        kernel.let_go("/old")
        os.rmdir("/old")
    with step("a read-only root"):
        again = kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY
        kernel.mount("none", "/", "", again | PLAIN)
    with step("sethostname"):
        kernel.name_host("function")


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(64 << 10)
    except OSError:
        return ""


def _tmpfs(where: str, options: str) -> None:
    kernel.mount("tmpfs", where, "tmpfs", PLAIN, options)


def _show_all(
    held: Confinement,
    tree: int,
    readable: list[Opened],
    devices: list[Opened],
    writable: list[Opened],
) -> None:
    """Fill the tree. Raises OSError."""
    above = set(covering(each.path for each in readable))
    shown = {each.path: each for each in readable if each.path in above}
    for one in shown.values():
        _show(tree, one)
    for one in devices:
        _show(tree, one, devices=True)
    for one in writable:
        # Who asks may be root no more: what is root's is not for it, nor is what it writes to land
        # there.
        if held.user and one.info.st_uid != held.user:
            raise OSError(errno.EPERM, "", one.name)
        _show(tree, one, writable=True)
    led = links([*readable, *devices, *writable], [*shown.values(), *devices, *writable])
    led += [("/dev/fd", "/proc/self/fd")]
    led += [("/dev/shm", "/tmp")]  # semaphores and shared memory count as its files
    for path, target in led:
        with contextlib.suppress(FileExistsError), _parent(tree, path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)


def _show(tree: int, one: Opened, *, devices: bool = False, writable: bool = False) -> None:
    with _parent(tree, one.path) as (parent, name):
        with contextlib.suppress(FileExistsError):
            if stat.S_ISDIR(one.info.st_mode):
                os.mkdir(name, dir_fd=parent)
            else:
                _write(name, "", parent)
        kernel.bind(one.descriptor, parent, name, devices=devices, writable=writable)


def _make(tree: int, path: str, text: str) -> None:
    with _parent(tree, path) as (parent, name):
        _write(name, text, parent)


@contextlib.contextmanager
def _parent(tree: int, path: str) -> Iterator[tuple[int, str]]:
    """The directory of a path in the tree, made where it is not there, and the path's last name.
    Raises FileExistsError where it leads through a link: what that leads to is there."""
    *above, last = path.strip("/").split("/")
    at = os.dup(tree)
    try:
        for name in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=at)
            try:
                below = os.open(name, DIRECTORY | os.O_PATH, dir_fd=at)
            except NotADirectoryError:
                raise FileExistsError(errno.EEXIST, "leads through a link", path) from None
            os.close(at)
            at = below
        yield at, last
    finally:
        os.close(at)
