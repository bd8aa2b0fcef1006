"""What of the machine a function can read: the interpreter it runs in, the libraries below that,
and what each function adds. All of it read-only."""

import errno
import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from funcrt.sandbox.interpreter import Interpreter

__all__ = [
    "DEVICES",
    "NAMES",
    "Opened",
    "covering",
    "interpreter_paths",
    "links",
    "name_files",
    "never",
    "no_file",
    "opened",
    "opened_files",
    "runtime_paths",
]

SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",
    "/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
    "/etc/ld.so.cache", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path",
    "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/ssl",
    "/etc/ca-certificates", "/etc/pki/tls", "/etc/pki/ca-trust", "/etc/services", "/etc/gai.conf",
)  # fmt: skip
"""Shared libraries, time zones and the certificates of authorities."""
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf")
"""How this machine looks names up."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PACKAGES = ("funcrt", "mesh", "triggers")

_KERNEL = (
    "shows processes, devices and settings of the kernel's; it has a /proc and /dev of its own"
)
_SERVICES = "is where services have their sockets and keys; a key of its own is for [secrets]"
_MADE = "is made for it; name another file of /etc"
BELOW = {
    "/proc": _KERNEL, "/sys": _KERNEL, "/dev": _KERNEL,
    "/run": _SERVICES, "/var/run": _SERVICES,
}  # fmt: skip
ITSELF = {
    "/": "is the whole machine; name the directories that it needs",
    "/tmp": "would be in the place of its own /tmp; name what is in it",
    **dict.fromkeys(
        ("/etc", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf",
         "/etc/nsswitch.conf"), _MADE,
    ),
}  # fmt: skip
KINDS = {
    stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


class Opened(NamedTuple):
    """What a name led to, held whatever becomes of the name."""

    name: str
    path: str
    """Where that was then."""
    descriptor: int
    """One that only stands for it."""

    @property
    def info(self) -> os.stat_result:
        """What it is."""
        return os.fstat(self.descriptor)


def runtime_paths(root: str) -> list[str]:
    """Files and directories that every function of this interpreter can read. `root` is the
    directory that holds funcrt's own packages; of what else is there nothing is shown."""
    here = Path(root).resolve()
    paths = list(SYSTEM)
    paths += [str(here / name) for name in PACKAGES]
    paths += [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    paths.append(f"{sys.base_prefix}/lib")
    paths += [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    if Path(sysconfig.get_path("purelib")).resolve() == here:
        paths.append(str(here))  # installed among the other packages
    return covering(path for path in paths if path and Path(path).exists())


def interpreter_paths(python: Interpreter) -> list[str]:
    """The same for a function of another one: of this one's own there is nothing."""
    paths = (*SYSTEM, *python.paths, python.library)
    return covering(path for path in paths if Path(path).exists())


def name_files(nameserver: str, host: str) -> Iterator[tuple[str, str]]:
    """Files for a function that asks one nameserver of its own, with what they say. `host` is the
    host's resolv.conf: what short names stand for there, they do here."""
    kept = [
        line
        for line in host.splitlines()
        if line.split()[:1] in (["search"], ["domain"], ["options"])
    ]
    yield "/etc/resolv.conf", "\n".join([f"nameserver {nameserver}", *kept, ""])
    yield "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"
    yield "/etc/nsswitch.conf", "hosts: files dns\n"


def covering(paths: Iterable[str]) -> list[str]:
    """The paths, in order, without those that lie beneath another."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == above or path.startswith(f"{above.rstrip('/')}/") for above in kept):
            kept.append(path)
    return kept


def opened(names: Iterable[str], undo: ExitStack) -> list[Opened]:
    """What these names lead to now, for as long as `undo` is not closed; those that lead nowhere
    are left out. Raises OSError."""
    found = []
    for name in names:
        try:
            descriptor = os.open(name, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        undo.callback(os.close, descriptor)
        one = Opened(name, str(Path(f"/proc/self/fd/{descriptor}").readlink()), descriptor)
        if one.info.st_nlink:  # else it was removed meanwhile, and has no path
            found.append(one)
    return found


def opened_files(names: Iterable[str], apart: Iterable[str], undo: ExitStack) -> list[Opened]:
    """The same of `sandbox.files`. Where these lead was looked at as the function was deployed, and
    others may have changed it since. Raises OSError where one leads now to what no function is
    shown, or to one of the paths that are to be kept `apart`, or is above that."""
    found = opened(names, undo)
    for one in found:
        why = never(one.path) or no_file(one.info.st_mode)
        if any(len(covering([one.path, each])) < 2 for each in apart):
            why = why or "would show it what is the host's, or another function's"
        if why:
            raise OSError(errno.EPERM, f"leads to {one.path}, which {why}", one.name)
    return found


def never(path: str) -> str:
    """Why no function may be shown a path, by its name alone; empty where it may."""
    if why := ITSELF.get(path):
        return why
    for above, why in BELOW.items():
        if path == above or path.startswith(f"{above}/"):
            return why
    return ""


def no_file(mode: int) -> str:
    """Why what has this mode cannot be shown; empty where it is a file or directory."""
    kind = KINDS.get(stat.S_IFMT(mode))
    return f"is {kind}; only files and directories can be shown" if kind else ""


def links(found: Iterable[Opened], shown: Iterable[Opened]) -> list[tuple[str, str]]:
    """The links that lead from the names of what was found to where it is, but for those that are
    in what is `shown`."""
    real = covering(one.path for one in shown)
    return [
        (one.name, one.path)
        for one in sorted(found)
        if one.name != one.path and covering([*real, one.name]) != real
    ]
