"""Whether this machine gives what each level of isolation is made of, tried in forked children."""

import errno
import os
import resource
from collections.abc import Callable, Iterator

from funcrt.sandbox import kernel, notify
from funcrt.sandbox.confine import own_users
from funcrt.sandbox.syscalls import program, rules, supervised

__all__ = ["PRIMITIVES", "tried"]


def _landlock() -> None:
    if not kernel.landlock_abi():
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    ruleset = kernel.landlock_ruleset(1, 0, 0)
    kernel.no_new_privileges()
    kernel.restrict_self(ruleset)


def _seccomp() -> None:
    kernel.no_new_privileges()
    try:
        made = program(kernel.MACHINE, list(rules(unix=False)))
    except KeyError:
        raise OSError(errno.ENOSYS, f"no table of calls for {kernel.MACHINE}") from None
    kernel.seccomp(made)


def _listener() -> None:
    kernel.no_new_privileges()
    try:
        made = program(kernel.MACHINE, list(supervised(unix=False, datagrams=False)))
    except KeyError:
        raise OSError(errno.ENOSYS, f"no table of calls for {kernel.MACHINE}") from None
    notify.usable(kernel.seccomp_listener(made))


def _drop() -> None:
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only a host that was started as root can")
    os.setgroups([])
    os.setresgid(61184, 61184, 61184)
    os.setresuid(61184, 61184, 61184)


def _namespace(flag: int) -> Callable[[], None]:
    def tried() -> None:
        if os.geteuid() == 0:
            kernel.unshare(flag)
        else:
            own_users(flag)

    return tried


def _mounts() -> None:
    _namespace(kernel.NEW_NS)()
    kernel.mount("none", "/", "", kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.NO_SUID, "size=64k")


def _proc() -> None:
    _namespace(kernel.NEW_NS | kernel.NEW_PID)()
    child = os.fork()
    if child == 0:
        number = 0
        try:
            kernel.mount("none", "/", "", kernel.RECURSIVE | kernel.PRIVATE)
            kernel.mount("proc", "/proc", "proc", kernel.NO_SUID)
        except OSError as error:
            number = error.errno or 255
        os._exit(number)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number:
        raise OSError(number, os.strerror(number))


def _rlimits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


PRIMITIVES: dict[str, Callable[[], None]] = {
    "rlimits": _rlimits,
    "uid drop": _drop,
    "no_new_privs": kernel.no_new_privileges,
    "landlock": _landlock,
    "seccomp": _seccomp,
    "supervised connections": _listener,
    "user namespace": own_users,
    "mount namespace": _mounts,
    "pid namespace": _proc,
    "net namespace": _namespace(kernel.NEW_NET),
    "ipc namespace": _namespace(kernel.NEW_IPC),
    "uts namespace": _namespace(kernel.NEW_UTS),
}


def tried() -> Iterator[tuple[str, int, str]]:
    """(primitive, errno, what it says) of each, 0 and nothing where it is there. To be called in a
    process of one thread, without descriptors that matter to others."""
    for name, attempt in PRIMITIVES.items():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            told = b"0 "
            try:
                attempt()
            except OSError as error:
                told = f"{error.errno or 0} {error.strerror}".encode()
            os.write(write, told)
            os._exit(0)
        os.close(write)
        with open(read, "rb") as file:
            number, _, text = file.read().decode().partition(" ")
        os.waitpid(child, 0)
        yield name, int(number or errno.EIO), text or ("" if number else "its process ended")
