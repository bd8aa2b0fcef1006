"""What of the file system a function reaches, whatever its user could: landlock(7)."""

import os
from collections.abc import Iterable

from funcrt.sandbox import kernel

__all__ = ["restrict"]

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
BIND_TCP, CONNECT_TCP = 1, 2
ABSTRACT_SOCKETS, OTHERS_SIGNALS = 1, 2


def _actions(abi: int) -> int:
    """Those of the file system that this kernel knows."""
    return (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1


def restrict(
    readable: Iterable[str | int] = (),
    writable: Iterable[str] = (),
    *,
    files: bool = True,
    network: bool = False,
    programs: bool = False,
) -> None:
    """Hold this process, and those it forks, to these paths, or what these descriptors are of, and
    what is beneath them, of which it may execute files with `programs`; to signals and abstract
    sockets of its own and, unless it has the network, to no TCP. Without `files`, only signals and
    sockets are looked at. A path that is not there is passed over. Raises OSError."""
    abi = kernel.landlock_abi()
    handled = _actions(abi) if files else 0
    scoped = ABSTRACT_SOCKETS | OTHERS_SIGNALS if abi >= 6 else 0
    tcp = BIND_TCP | CONNECT_TCP if abi >= 4 and not network and files else 0
    if not (handled or scoped):
        return
    ruleset = kernel.landlock_ruleset(handled, tcp, scoped)
    try:
        if files:
            run = EXECUTE if programs else 0
            read = READ_FILE | READ_DIR | run
            change = handled & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV) | run
            for paths, allowed in ((readable, read), (writable, change)):
                for path in paths:
                    _allow(ruleset, path, allowed)
        kernel.restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str | int, allowed: int) -> None:
    try:
        opened = os.dup(path) if isinstance(path, int) else os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        directory = os.fstat(opened).st_mode & 0o170000 == 0o040000
        kernel.landlock_add_path(ruleset, allowed if directory else allowed & OF_FILES, opened)
    finally:
        os.close(opened)
