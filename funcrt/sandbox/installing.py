"""What installs a function's packages: a program, and what it starts, confined as functions are.

R forks it (`runtime.py`), for the host that asks (`workshop.py`). It may start programs, write to
one directory, and connect to where packages come from.
"""

import os
import signal
from collections.abc import Sequence

import msgspec

from funcrt.sandbox import kernel
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.syscalls import childless, program
from funcrt.tree import entries

__all__ = ["Hand", "Install", "hand", "install"]

NICENESS = 10
"""Calls of functions go first."""
NOT_STARTED = 127
"""What a shell exits with where a program cannot be started."""


class Install(msgspec.Struct, frozen=True):
    """A program to be run; the second descriptor is for what it writes."""

    command: Sequence[str]
    env: dict[str, str]
    directory: str
    """Where it begins."""
    confine: Confinement
    alone: bool = False
    """It may start no process of its own."""


class Hand(msgspec.Struct, frozen=True, tag="hand"):
    """Make what is the host's in a directory, whose descriptor comes with it, the user's, who is
    one that the host has claimed; or, `back`, what is the user's the host's."""

    user: int
    back: bool


def install(asked: Install, control: int, out: int) -> None:
    """Run the program in this process's confinement, and end as it does, with all that it started
    where this is the first process of a pid namespace."""
    os.close(control)  # R tells how it ended
    kernel.adopt_orphans()
    kernel.set_dumpable(False)
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be(asked, out, own)
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _be(asked: Install, out: int, parent: int) -> None:
    """Become the program, which ends with its parent, as that does with R: without a namespace of
    its own nothing else would end it where R was killed."""
    try:
        kernel.tie_to_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        held = asked.confine
        kernel.set_dumpable(True)  # who makes its connections looks into it
        env = dict(asked.env)
        if held.level == "process" and held.supervised:
            kernel.traced_by_any()
            env["RES_OPTIONS"] = "use-vc"  # it has no datagrams to ask a nameserver by
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, stream in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(descriptor, stream)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.nice(NICENESS)
        os.chdir(asked.directory)
        if asked.alone:
            kernel.seccomp(program(kernel.MACHINE, list(childless())))
        os.execvpe(asked.command[0], list(asked.command), env)
    except OSError as error:
        os.write(2, f"error: {asked.command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def hand(directory: int, giver: int, taker: int) -> None:
    """Make what is the giver's in an open directory the taker's, unless that is itself not the
    giver's. By descriptors: who looks on may swap names, but not what was looked at. Raises
    OSError."""
    if os.fstat(directory).st_uid != giver:
        return
    for parent, name, _ in entries(directory):
        opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if os.fstat(opened).st_uid == giver:
                kernel.give(opened, taker)
        finally:
            os.close(opened)
    kernel.give(directory, taker)
