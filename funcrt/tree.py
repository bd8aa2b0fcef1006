"""Writing a tree of files durably, every opening relative to a directory that is no link."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DIRECTORY", "Member", "sync", "write_tree"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory, and nothing else."""


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
