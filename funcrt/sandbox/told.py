"""What a zygote may tell the host. The author's code runs in it, and can write whatever it likes to
its socket: nothing of it is believed that could harm anything but its own function."""

import math
import os
import signal
import socket
from pathlib import Path
from typing import Annotated, Any

import msgspec

from funcrt.errors import Problem
from funcrt.sandbox import HandlerInfo
from funcrt.sandbox.forking import MAX_MESSAGE
from funcrt.sandbox.groups import Group

__all__ = [
    "Failed",
    "Forged",
    "Told",
    "exit_code",
    "info_of",
    "is_below",
    "is_child",
    "pid_of",
    "read",
    "received",
    "signal_name",
]

MOST_CALLS = 1000
"""At once in one instance; a manifest cannot ask for more."""
DEEPEST = 10_000
"""Processes one below the other that are looked at."""
KINDS = ("sync", "async", "generator", "async generator")
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class Forged(ValueError):
    """No zygote of funcrt's says this."""


class Failed(msgspec.Struct):
    """An import that failed."""

    problem: Problem
    traceback: str = ""


class Told(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One message: one field is set."""

    zygote: int | None = None
    """Who it is; its descriptor comes along. By who forked it, before it says a word."""
    group: Group | None = None
    """With `zygote`: its control group."""
    ready: msgspec.Raw = msgspec.Raw()
    """Imported: a HandlerInfo, or an empty map where each instance imports."""
    error: Failed | None = None
    refused: str | None = None
    """A step of its confinement that failed."""
    spawned: tuple[Number, int] | None = None
    """An instance, by the number that was asked for, and its pid; its descriptor comes along."""
    unforked: tuple[Number, Number] | None = None
    """An instance that could not be forked, and errno."""
    exit: tuple[Number, int] | None = None
    """An instance that ended, and its wait status."""
    gone: bool = False
    """The host's own word: it ended."""


_decode = msgspec.msgpack.Decoder(Told).decode


def received(control: socket.socket) -> tuple[bytes, list[int]]:
    """The next message of one's socket, and a descriptor if one came along; none once nobody is at
    its other end. Raises BlockingIOError where there is none yet. Until then it is to be asked
    again: libuv calls no more for a socket whose other end was closed with something unread."""
    for _ in range(2):
        try:
            body, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        except BlockingIOError:
            raise
        except OSError:  # it ended with something unread: told once, before what it had said
            continue
        return body, descriptors
    return b"", []


def read(body: bytes) -> Told:
    """A message. Raises Forged."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Forged(str(error)) from None


def info_of(raw: msgspec.Raw, asked: int) -> HandlerInfo:
    """What an import found, where the manifest asks for `asked` calls at once, or 0. Raises
    Forged."""
    try:
        info = msgspec.msgpack.decode(raw, type=HandlerInfo)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Forged(str(error)) from None
    right = (
        info.kind in KINDS
        and 1 <= info.concurrency <= MOST_CALLS
        and asked in (0, info.concurrency)
        and math.isfinite(info.import_ms)
        and info.import_ms >= 0
        and info.threads >= 0
    )
    if not right:
        raise Forged(f"a handler of kind {info.kind[:20]!r} with {info.concurrency} calls at once")
    shown: dict[str, Any] = {
        name: "".join(c if c.isprintable() else "\ufffd" for c in getattr(info, name)[:2000])
        for name in ("handler", "signature", "python")
    }
    return msgspec.structs.replace(info, **shown)


def exit_code(status: int | None) -> int:
    """As `os.waitstatus_to_exitcode`; as for SIGKILL where the status is not known, or none."""
    try:
        return os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    except (ValueError, OverflowError):
        return -signal.SIGKILL


def signal_name(number: int) -> str:
    """For people; those for real time have no names."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} ({(signal.strsignal(number) or name).lower()})"


def pid_of(descriptor: int) -> int:
    """The process of a pidfd, as this one sees it; 0 where it has ended. Raises Forged for any
    other descriptor, and for a process that is not to be seen from here."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("Pid:"):
            pid = int(line.split()[1])
            if pid == 0:
                break
            return max(0, pid)
    raise Forged("no descriptor of a process")


def is_child(pid: int, parent: int) -> bool:
    """Whether a process is a child of another, or has ended."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return parent > 0 and int(found.rpartition(")")[2].split()[1]) == parent


def is_below(pid: int, above: int) -> bool:
    """Whether a process is another's child, or a child of such; not where it has ended."""
    seen = 0
    while pid > 1 and seen < DEEPEST:
        try:
            found = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(found.rpartition(")")[2].split()[1])
        if pid == above:
            return True
        seen += 1
    return False
