"""Another Python than the host's, for a function's processes: what is known of one."""

import errno
import os

import msgspec

from funcrt.errors import SandboxError

__all__ = ["Interpreter", "PythonRefused"]

CLOSED = 'Install one where everyone may read it, or ask for isolation = "sandbox", which shows it'
GONE = "It was there before: deploy the function again, or start the host anew, to take another"


class Interpreter(msgspec.Struct, frozen=True):
    """A Python of this machine."""

    executable: str
    """Where it really is, no link."""
    version: str
    """`3.12.1`."""
    abi: str
    """What its compiled modules are named by: `cpython-312-x86_64-linux-gnu`."""
    platform: str
    paths: tuple[str, ...]
    """Its own files: what a process of it must be able to read."""
    pip: bool = False
    """It has one of its own."""
    library: str = ""
    """Where what a function's process runs on is for it: funcrt's own modules, and msgspec. The
    host's packages are never on its path: they are of another ABI."""


class PythonRefused(SandboxError):
    """A function asks for a Python, and for something that does not go with another one."""

    def __init__(self, function: str, python: Interpreter, why: str) -> None:
        super().__init__(f"{function}: it runs in Python {python.version}, and {why}")

    @classmethod
    def at(cls, level: str, function: str, python: Interpreter, why: str) -> "PythonRefused":
        """It cannot be started at a level of isolation."""
        mend = GONE if os.strerror(errno.ENOENT) in why else CLOSED
        return cls(function, python, f"cannot at isolation {level!r}: {why}. {mend}")
