"""Writing a tree of files durably, and walking one that others wrote (`entries`): every opening
relative to a directory that is no link."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "DEEPEST",
    "DIRECTORY",
    "Member",
    "Taken",
    "entries",
    "held_anew",
    "hold",
    "remove",
    "size",
    "sync",
    "tidy",
    "unheld",
    "write_tree",
]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory, and nothing else."""
DEEPEST = 64
"""Directories within directories that nobody writes who means well."""
DEEPEST_SEEN = 1000
"""Of those that are only looked at: each on the way is an open file."""


@dataclass(frozen=True)
class Member:
    """A regular file to be written; `path` is relative and was checked."""

    path: str
    executable: bool
    content: memoryview


def write_tree(root: Path, members: Iterable[Member], *, durable: bool = True) -> None:
    """Write files below an empty directory of ours, and make all of it durable if asked.

    The paths are in order, none a prefix of another. Everyone may read what is written, whatever
    the umask; only the owner may write. Raises OSError, with part of it written.
    """
    made: dict[str, int] = {"": os.open(root, DIRECTORY)}
    try:
        for member in members:
            parent, _, name = member.path.rpartition("/")
            _write_file(_directory(parent, made), name, member, durable)
            # Paths are in order: a directory that was left does not come back.
            for path in [path for path in made if path and not _within(parent, path)]:
                if durable:
                    os.fsync(made[path])
                os.close(made.pop(path))
        os.fchmod(made[""], 0o755)
        if durable:
            for fd in made.values():
                os.fsync(fd)
    finally:
        for fd in made.values():
            os.close(fd)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _directory(path: str, made: dict[str, int]) -> int:
    """The descriptor of a directory below the root, made where it is not open yet."""
    if path in made:
        return made[path]
    parent, _, name = path.rpartition("/")
    above = _directory(parent, made)
    os.mkdir(name, 0o755, dir_fd=above)
    made[path] = os.open(name, DIRECTORY, dir_fd=above)
    os.fchmod(made[path], 0o755)
    return made[path]


def _write_file(directory: int, name: str, member: Member, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o644, dir_fd=directory)
    with os.fdopen(fd, "wb") as opened:
        opened.write(member.content)
        opened.flush()
        os.fchmod(fd, 0o755 if member.executable else 0o644)
        if durable:
            os.fsync(fd)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def entries(
    top: int, deepest: int = DEEPEST, *, only_look: bool = False
) -> Iterator[tuple[int, str, os.stat_result]]:
    """All that is in an open directory, as (the open directory that it is in, its name, what it
    is): a directory before what is in it. What is deeper than `deepest` is removed. Where this may
    `only_look`, as others may still write there, that is passed over, as is what cannot be entered
    and what is gone; else raises OSError."""
    gone = (OSError,) if only_look else ()
    stack: list[tuple[int, list[str]]] = [(os.dup(top), [])]
    try:
        stack[0][1].extend(os.listdir(top))
        while stack:
            parent, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            name = names.pop()
            try:
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
                yield parent, name, info
                if stat.S_ISDIR(info.st_mode) and len(stack) < deepest:
                    stack.append((os.open(name, DIRECTORY, dir_fd=parent), []))
                    stack[-1][1].extend(os.listdir(stack[-1][0]))  # noqa: PTH208 - an open one
                elif stat.S_ISDIR(info.st_mode) and not only_look:
                    _uproot(parent, name)
            except gone:
                pass
    finally:
        for parent, _ in stack:
            os.close(parent)


def _uproot(parent: int, name: str) -> None:
    """Remove a directory with all that is in it, however deep: what it holds is moved up first."""
    root = os.geteuid() == 0  # it needs no mode, and is not to set any by a name
    left = [name]
    if not root:
        os.chmod(name, 0o700, dir_fd=parent)
    while left:
        directory = left.pop()
        opened = os.open(directory, DIRECTORY, dir_fd=parent)
        try:
            for child in os.listdir(opened):  # noqa: PTH208 - an open one
                info = os.stat(child, dir_fd=opened, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    os.unlink(child, dir_fd=opened)
                    continue
                if not root:  # else it may be neither moved nor opened
                    os.chmod(child, 0o700, dir_fd=opened)
                left.append(f".{secrets.token_hex(8)}")
                os.rename(child, left[-1], src_dir_fd=opened, dst_dir_fd=parent)
        finally:
            os.close(opened)
        os.rmdir(directory, dir_fd=parent)


def tidy(root: Path) -> None:
    """Make what others have written here plain: directories and files that everyone may read and
    the owner change, and nothing else. Raises OSError."""
    top = os.open(root, DIRECTORY)
    try:
        for parent, name, info in entries(top):
            if stat.S_ISDIR(info.st_mode):
                mode = 0o755
            elif stat.S_ISREG(info.st_mode):
                mode = 0o755 if info.st_mode & 0o111 else 0o644
            else:
                os.unlink(name, dir_fd=parent)
                continue
            if stat.S_IMODE(info.st_mode) != mode:
                _set_mode(parent, name, mode)
    finally:
        os.close(top)


def _set_mode(parent: int, name: str, mode: int) -> None:
    """Of what has the name now, and not of what a link leads to that has taken its place."""
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{opened}").chmod(mode)
    finally:
        os.close(opened)


def remove(root: Path) -> None:
    """Remove what others have written, as far as that can be done: however deep, with what cannot
    be entered, and following no link, also where somebody still writes there."""
    owner = os.geteuid() != 0  # root needs no mode, and is not to set any by a name
    with contextlib.suppress(OSError):
        top = os.open(root, DIRECTORY)
        try:
            for parent, name, info in entries(top):
                if owner and stat.S_ISDIR(info.st_mode):
                    os.chmod(name, 0o700, dir_fd=parent)
        finally:
            os.close(top)
    with contextlib.suppress(RecursionError):  # it was made deeper meanwhile
        shutil.rmtree(root, ignore_errors=True)


class Taken(NamedTuple):
    """What is below a directory."""

    bytes: int
    files: int
    """Directories and links among them."""


def size(directory: Path, most: Taken) -> Taken:
    """How much is below a directory where others may still write; nothing where it is not there. No
    more is counted once it is over `most`."""
    found = Taken(0, 0)
    try:
        top = os.open(directory, DIRECTORY)
    except OSError:
        return found
    try:
        for _, _, info in entries(top, DEEPEST_SEEN, only_look=True):
            found = Taken(found.bytes + info.st_size, found.files + 1)
            if found.bytes > most.bytes or found.files > most.files:
                break
    finally:
        os.close(top)
    return found


def hold(directory: Path, how: int) -> int:
    """Lock a directory, by `fcntl.flock`'s LOCK_SH or LOCK_EX, until the descriptor is closed that
    this returns; -1 where it is gone by then, or with LOCK_NB is locked by others."""
    try:
        held = os.open(directory, DIRECTORY)
    except OSError:
        return -1
    keep = False
    try:
        fcntl.flock(held, how)
        keep = os.path.samestat(os.fstat(held), directory.lstat())
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not keep:
            os.close(held)
    return held if keep else -1


def held_anew(make: Callable[[], str]) -> tuple[Path, int]:
    """A directory that `make` makes, and a descriptor: while that is open, at most until this
    process ends, `unheld` leaves it alone. Raises OSError."""
    for _ in range(1000):  # who looks for what is left takes it, where it looks before the lock
        made = Path(make())
        if (held := hold(made, fcntl.LOCK_EX)) >= 0:
            return made, held
        if made.is_dir():  # else others took it away before it was locked
            made.rmdir()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(made))
    raise OSError(errno.EAGAIN, "others remove it each time", str(made))


def unheld(above: Path, beginning: str) -> Iterator[Path]:
    """Directories of such names that nobody holds any more, each held while it is looked at: a pid
    would not tell, for others here may have pids of another namespace. Raises OSError."""
    for left in above.glob(f"{beginning}*"):
        if (held := hold(left, fcntl.LOCK_EX | fcntl.LOCK_NB)) >= 0:
            try:
                yield left
            finally:
                os.close(held)
