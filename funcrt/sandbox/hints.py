"""Which limit, or what of its isolation, an exception of a function comes from, and the key of the
manifest that moves it. Runs in the sandbox."""

import errno
import resource
import socket
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from funcrt.sandbox.confine import Confinement

__all__ = ["hint"]

CHAIN = 8
"""Of exceptions that were raised from one another, looked at."""


def hint(error: BaseException, held: "Confinement") -> tuple[str, str]:
    """Which of protocol.LIMITS it was over, and what to say; either may be empty."""
    for each in _chain(error):
        found = _of(each, held)
        if found != ("", ""):
            return found
    return "", ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, and what it was raised from: clients of networks wrap what the system says."""
    for _ in range(CHAIN):
        yield error
        cause = error.__cause__ or error.__context__
        if cause is None:
            return
        error = cause


def _of(error: BaseException, held: "Confinement") -> tuple[str, str]:
    walled = held.level in ("sandbox", "container")
    if isinstance(error, MemoryError):
        if held.memory_bytes and "memory" not in held.grouped and held.level != "container":
            return "memory", f"limits.memory = {_size(held.memory_bytes)}, of address space"
        return "memory", ""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "processes", _processes(held)
    if isinstance(error, socket.gaierror):
        return "", _nameless(held) if held.network else _network()
    if not isinstance(error, OSError):
        return "", ""
    match error.errno:
        case errno.ENOSPC if walled:
            return "tmp", f"its /tmp is full: limits.tmp = {_size(held.tmp_bytes)}"
        case errno.ENOENT if walled and _in(error, "_get_default_tempdir"):
            return "tmp", f"its /tmp is full: limits.tmp = {_size(held.tmp_bytes)}"
        case errno.EFBIG if held.level != "none":
            return "tmp", f"a file may have limits.tmp = {_size(held.tmp_bytes)}"
        case errno.EMFILE:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return "files", f"an instance may have {most} files open"
        case errno.EAGAIN if _in(error, "fork", "popen"):
            return "processes", _processes(held)
        case errno.EPERM if held.level != "none" and _in(error, "popen_by_program"):
            return "", f"{_no_programs(held)}; {_beside(held)}"
        case errno.EPERM if held.level != "none" and _in(
            error, "_execute_child", "os.exec", "spawn"
        ):
            return "", f"{_no_programs(held)}: do it in Python, or in a service that it calls"
        case errno.EACCES if not held.network and _in(error, "socket"):
            return "", _network() if held.level != "none" else ""
        case errno.EROFS if walled:
            return "", f"at isolation {held.level!r} only /tmp can be written to"
        case errno.EACCES if held.level == "process" and _in(
            error, "multiprocessing/synchronize.py", "multiprocessing/shared_memory.py"
        ):
            none = "at isolation 'process' processes share no locks and no memory by name"
            return "", f"{none}; {_beside(held)}"
        case errno.EACCES if held.level == "process" and error.filename:
            return (
                "",
                "at isolation 'process' it has its code, sandbox.files, and $TMPDIR to write to",
            )
    return "", ""


def _in(error: BaseException, *words: str) -> bool:
    """Whether the last frame is of a function, or of a line, with one of these in it."""
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    text = "".join(f"{frame.filename} {frame.name} {frame.line}" for frame in frames).lower()
    return any(word in text for word in words)


def _no_programs(held: "Confinement") -> str:
    return f"programs cannot be started at isolation {held.level!r}, nor at another but 'none'"


def _beside(held: "Confinement") -> str:
    """What does work beside the call's own."""
    forks = 'multiprocessing.get_context("fork")'
    if held.level == "process":
        forks = f'isolation = "sandbox" and {forks}'
    return f"use threads, {forks}, or an event for each piece of work"


def _network() -> str:
    return 'sandbox.network is "none"'


def _nameless(held: "Confinement") -> str:
    """Why no name is found where there is a network: of C libraries musl asks by datagrams alone,
    and those go nowhere but in a network of its own."""
    if held.level != "process" or not getattr(sys.implementation, "_multiarch", "").endswith(
        "musl"
    ):
        return ""
    return "at isolation 'process' musl finds no names; use addresses, or isolation = \"sandbox\""


def _processes(held: "Confinement") -> str:
    from funcrt.sandbox.confine import MOST_PROCESSES

    whose = "an instance" if "pids" in held.grouped else "a function"
    return f"{whose} may have {MOST_PROCESSES} processes and threads"


def _size(size: int) -> str:
    """Bytes, as the manifest has them."""
    return f'"{size >> 20}MiB"' if size % (1 << 20) == 0 else f'"{size >> 10}KiB"'
