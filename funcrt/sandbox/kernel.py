"""System calls that Python's standard library has not, as functions that raise OSError.

Constants are those of the kernel's headers; every function names the manual page it follows.
"""

import ctypes
import fcntl
import os
import platform
import socket
import struct
from collections.abc import Sequence

__all__ = [
    "BIND",
    "MACHINE",
    "NET_BIND_SERVICE",
    "NEW_IPC",
    "NEW_NET",
    "NEW_NS",
    "NEW_PID",
    "NEW_USER",
    "NEW_UTS",
    "NO_DEV",
    "NO_EXEC",
    "NO_SUID",
    "PRIVATE",
    "READ_ONLY",
    "RECURSIVE",
    "REMOUNT",
    "adopt_orphans",
    "alone",
    "become",
    "bind",
    "clear_capabilities",
    "connect",
    "give",
    "landlock_abi",
    "landlock_add_path",
    "landlock_ruleset",
    "let_go",
    "loopback_up",
    "mount",
    "name_host",
    "no_new_privileges",
    "pivot",
    "read_memory",
    "restrict_self",
    "seccomp",
    "seccomp_listener",
    "set_dumpable",
    "take_descriptor",
    "tie_to_parent",
    "traced_by_any",
    "unshare",
]

_libc = ctypes.CDLL(None, use_errno=True)
MACHINE = platform.machine()

# Numbers of the calls that libc has no function for (asm/unistd.h).
_NUMBERS = {
    "x86_64": {"pivot_root": 155, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "seccomp": 277},
}
_CALLS = {
    **_NUMBERS.get(MACHINE, {}),
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}  # those from 424 on are the same everywhere

_CLONE_THREAD = 0x00010000
NEW_NS = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000
NET_BIND_SERVICE = 10
READ_ONLY = 1
NO_SUID = 2
NO_DEV = 4
NO_EXEC = 8
REMOUNT = 32
BIND = 4096
RECURSIVE = 16384
PRIVATE = 1 << 18

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_SET_CHILD_SUBREAPER, _PR_SET_KEEPCAPS = 36, 8
_PR_SET_PTRACER, _ANY = 0x59616D61, 0xFFFFFFFFFFFFFFFF
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_MNT_DETACH = 2
_AT_SYMLINK_NOFOLLOW, _AT_RECURSIVE = 0x100, 0x8000
_SECCOMP_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_CAPABILITY_VERSION_3 = 0x20080522


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _syscall(name: str, *arguments: object) -> int:
    number = _CALLS.get(name)
    if number is None:
        raise OSError(38, f"not known on {MACHINE}", name)  # ENOSYS
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide), name)


def _prctl(what: str, *arguments: int) -> int:
    return _checked(_libc.prctl(*(ctypes.c_ulong(each) for each in arguments)), what)


# Processes: prctl(2), capabilities(7)


def tie_to_parent(number: int) -> None:
    """Send this process the signal when its parent ends. A change of user undoes it."""
    _prctl("prctl(PR_SET_PDEATHSIG)", _PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of what processes below this one leave behind."""
    _prctl("prctl(PR_SET_CHILD_SUBREAPER)", _PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """No file that this process or those below it execute gives them rights."""
    _prctl("prctl(PR_SET_NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same user may trace this process, and read its memory in /proc."""
    _prctl("prctl(PR_SET_DUMPABLE)", _PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def traced_by_any() -> None:
    """Let any process of the same user look into this one, where Yama asks for such a word."""
    _libc.prctl(ctypes.c_ulong(_PR_SET_PTRACER), ctypes.c_ulong(_ANY), 0, 0, 0)


def read_memory(pid: int, address: int, into: "ctypes.Array[ctypes.c_char]") -> int:
    """Read another's memory, in one go; how many bytes: process_vm_readv(2)."""
    size = len(into)
    local = struct.pack("=QQ", ctypes.addressof(into), size)
    there = struct.pack("=QQ", address, size)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    found = _libc.process_vm_readv(ctypes.c_int(pid), local, one, there, one, none)
    return _checked(found, "process_vm_readv")


def take_descriptor(watch: int, number: int) -> int:
    """A descriptor for what `number` is of in the process of a pidfd: pidfd_getfd(2)."""
    return _syscall("pidfd_getfd", watch, number, 0)


def clear_capabilities() -> None:
    """Give up every capability, for good where this process has the right to say so."""
    _drop_from_bounds(())
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(())


def become(user: int, group: int, keep: Sequence[int] = ()) -> None:
    """Be this user, for good, with these capabilities alone, by their numbers."""
    _prctl("prctl(PR_SET_KEEPCAPS)", _PR_SET_KEEPCAPS, int(bool(keep)), 0, 0, 0)
    os.setresgid(group, group, group)
    _drop_from_bounds(keep)
    os.setresuid(user, user, user)
    _set_capabilities(keep)


def _drop_from_bounds(but: Sequence[int]) -> None:
    """What no program that is executed from here on can get back."""
    for capability in range(64):
        if capability not in but and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # not one of this kernel's, or not ours to drop


def _set_capabilities(held: Sequence[int]) -> None:
    """Those of the first 32 that are in effect, and permitted; none is inherited."""
    low = sum(1 << capability for capability in held)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, struct.pack("=6I", low, low, 0, 0, 0, 0)), "capset")


# Namespaces and mounts: unshare(2), mount(2), mount_setattr(2), pivot_root(2)


def unshare(flags: int) -> None:
    """Leave the namespaces of the flags for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def alone() -> bool:
    """Whether this process has but one thread: unshare(2) says that only then it may leave its
    thread group, which changes nothing."""
    return bool(_libc.unshare(ctypes.c_int(_CLONE_THREAD)) == 0)


def name_host(name: str) -> None:
    """The host's name in this UTS namespace."""
    _checked(_libc.sethostname(name.encode(), len(name.encode())), "sethostname")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """As mount(2); empty strings are null."""
    given = [text.encode() or None for text in (source, target, kind)]
    result = _libc.mount(*given, ctypes.c_ulong(flags), data.encode() or None)
    _checked(result, f"mount {kind or source} on {target}")


def bind(
    source: int, parent: int, name: str, *, devices: bool = False, writable: bool = False
) -> None:
    """Show what the descriptor `source` is of, with all that is mounted below it, by this name of
    the directory `parent`, where nobody writes unless that is asked for; nor do device files work.
    No link is followed."""
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        mount(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", "", BIND | RECURSIVE)
    finally:
        os.close(target)
    # MOUNT_ATTR_* have the values of these flags; a submount is not to be left out.
    flags = NO_SUID | (NO_EXEC if devices else NO_DEV) | (0 if writable else READ_ONLY)
    attributes, how = struct.pack("=QQQQ", flags, 0, 0, 0), _AT_RECURSIVE | _AT_SYMLINK_NOFOLLOW
    _syscall("mount_setattr", parent, name.encode(), how, attributes, len(attributes))


def pivot(root: str, old: str) -> None:
    """Make the mount point `root` the root; the one before is at `/old`, a directory of it."""
    _syscall("pivot_root", root.encode(), f"{root}/{old}".encode())
    os.chdir("/")


def let_go(path: str) -> None:
    """Take off what is mounted at `path`, with all that is mounted below it."""
    _checked(_libc.umount2(path.encode(), _MNT_DETACH), f"umount2 {path}")


def give(descriptor: int, user: int) -> None:
    """Make what a descriptor is of, also one that only stands for a path, another user's:
    fchownat(2)."""
    empty, flags = b"", 0x1000  # AT_EMPTY_PATH
    given = _libc.fchownat(descriptor, empty, ctypes.c_uint(user), ctypes.c_uint(user), flags)
    _checked(given, "fchownat")


# Sockets: connect(2), netdevice(7)


def connect(descriptor: int, address: bytes) -> None:
    """To a sockaddr as it is, also one that only undoes a connection."""
    _checked(_libc.connect(descriptor, address, len(address)), "connect")


def loopback_up() -> None:
    """Let a network namespace, which must be this process's own, talk to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(sock, 0x8914, struct.pack("=16sH22x", b"lo", 1))


# Landlock: landlock(7)


def landlock_abi() -> int:
    """The kernel's Landlock ABI; 0 for none."""
    # LANDLOCK_CREATE_RULESET_VERSION
    return max(0, int(_libc.syscall(_CALLS["landlock_create_ruleset"], None, 0, 1)))


def landlock_ruleset(files: int, network: int, scoped: int) -> int:
    """A descriptor of a ruleset which forbids these actions except where rules allow them."""
    abi = landlock_abi()
    fields = [files, network, scoped][: 3 if abi >= 6 else 2 if abi >= 4 else 1]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return _syscall("landlock_create_ruleset", attributes, len(attributes), 0)


def landlock_add_path(ruleset: int, allowed: int, path: int) -> None:
    """Allow the actions beneath what the descriptor `path` is of."""
    # LANDLOCK_RULE_PATH_BENEATH
    _syscall("landlock_add_rule", ruleset, 1, struct.pack("=Qi", allowed, path), 0)


def restrict_self(ruleset: int) -> None:
    """Hold this thread, and what it forks, to the ruleset, for good."""
    _syscall("landlock_restrict_self", ruleset, 0)


# seccomp(2)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def seccomp(program: bytes) -> None:
    """Hold this thread, and what it forks, to a filter: `struct sock_filter`s, 8 bytes each."""
    _seccomp(program, 0)


def seccomp_listener(program: bytes) -> int:
    """As `seccomp`, for one that hands calls over: a descriptor of who answers them."""
    return _seccomp(program, _NEW_LISTENER)


def _seccomp(program: bytes, flags: int) -> int:
    held = _Program(len(program) // 8, program)
    return _syscall("seccomp", _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(held))
