"""System calls of others that this process answers: seccomp_unotify(2).

A filter that is loaded by `kernel.seccomp_listener` hands the calls that it names to whoever holds
the listener; their threads wait. When nobody holds it any more, they fail with ENOSYS.
"""

import ctypes
import errno
import fcntl
import os
import select
import struct
from dataclasses import dataclass
from pathlib import Path

from funcrt.sandbox import kernel

__all__ = ["Asked", "answer", "descriptor_of", "give", "go_on", "memory_of", "next_of", "usable"]

# linux/seccomp.h
_RECEIVE, _SEND, _VALID, _ADD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_CONTINUE = 1
_ADD_AND_SEND = 2
_PIDFD_THREAD = 0o200
_HEAD = struct.Struct("=QIIiIQ6Q")


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that waits for its answer."""

    listener: int
    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]

    def valid(self) -> bool:
        """Whether its thread still waits, and `thread` is thus still that one's number."""
        try:
            fcntl.ioctl(self.listener, _VALID, struct.pack("=Q", self.id))
        except OSError:
            return False
        return True


def next_of(listener: int) -> Asked | None:
    """A call, where one waits. Raises EOFError once there is nobody left who could make one."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    found = poll.poll(0)
    if not found:
        return None
    if not found[0][1] & select.POLLIN:
        raise EOFError
    held = bytearray(_HEAD.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, held)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None  # it was killed, or interrupted by a signal
        raise
    number, thread, _, call, _, _, *arguments = _HEAD.unpack(held)
    return Asked(listener, number, thread, call, tuple(arguments))


def answer(asked: Asked, error: int = 0) -> None:
    """Let it return 0, or fail with this errno."""
    _send(asked, struct.pack("=QqiI", asked.id, 0, -error, 0))


def go_on(asked: Asked) -> None:
    """Let the kernel do as it was asked. By then its arguments, and what they stand for, can be
    others: only for what the kernel itself holds back."""
    _send(asked, struct.pack("=QqiI", asked.id, 0, 0, _CONTINUE))


def _send(asked: Asked, response: bytes) -> None:
    try:
        fcntl.ioctl(asked.listener, _SEND, response)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def give(asked: Asked, descriptor: int, *, close_on_exec: bool) -> None:
    """Let it return a new descriptor of its own for what this one is of, in one step."""
    flags = os.O_CLOEXEC if close_on_exec else 0
    wanted = struct.pack("=QIIII", asked.id, _ADD_AND_SEND, descriptor, 0, flags)
    try:
        fcntl.ioctl(asked.listener, _ADD, wanted)
    except OSError as error:
        answer(asked, error.errno or errno.EIO)  # EMFILE: it has too many


def usable(listener: int) -> None:
    """Raises OSError where this kernel cannot answer with a descriptor: before 5.14."""
    wanted = struct.pack("=QIIII", 0, _ADD_AND_SEND, listener, 0, 0)
    try:
        fcntl.ioctl(listener, _ADD, wanted)
    except OSError as error:
        if error.errno != errno.ENOENT:  # there is no call of this id
            raise OSError(error.errno, "SECCOMP_ADDFD_FLAG_SEND, of Linux 5.14") from None


def memory_of(asked: Asked, address: int, size: int) -> bytes:
    """What it has there, read once. Raises OSError."""
    held = ctypes.create_string_buffer(size)
    read = kernel.read_memory(asked.thread, address, held)
    return held.raw[:read]


def descriptor_of(asked: Asked, number: int) -> int:
    """One of our own for what its descriptor is of. Raises OSError."""
    try:
        watch = os.pidfd_open(asked.thread, _PIDFD_THREAD)
    except OSError:  # before Linux 6.9
        watch = os.pidfd_open(_process_of(asked.thread))
    try:
        return kernel.take_descriptor(watch, number)
    finally:
        os.close(watch)


def _process_of(thread: int) -> int:
    with Path(f"/proc/{thread}/status").open() as file:
        for line in file:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    return thread
