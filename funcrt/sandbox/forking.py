"""Forking on demand: a process that forks for each message, and waits for what it forked."""

import os
import resource
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from funcrt.sandbox import kernel
from funcrt.sandbox.groups import Group

__all__ = [
    "MAX_MESSAGE",
    "Forked",
    "child",
    "introduce",
    "reap",
    "serve",
    "tell",
]

MAX_MESSAGE = 64 << 10


@dataclass
class Forked:
    """A child, and what its parent keeps for it."""

    pid: int
    go: int = -1
    """Held open while this process lives."""
    tmp: str = ""
    """Removed once the child has ended."""
    after: Callable[[], None] = lambda: None
    """Called once it has ended."""

    def over(self) -> None:
        """It was waited for."""
        if self.go >= 0:
            os.close(self.go)
        if self.tmp:
            shutil.rmtree(self.tmp, ignore_errors=True)
        self.after()


def serve(
    control: socket.socket,
    answer: Callable[[bytes, list[int]], Forked | None],
    *,
    patient: bool = False,
) -> None:
    """Give each message and its descriptors to `answer`, until the host closes the socket; then end
    what was forked or, where `patient`, wait until the last of it has ended."""
    fd = control.fileno()
    children: dict[int, Forked] = {}
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != fd:
                poll.unregister(ready)
                ended = children.pop(ready)
                os.waitpid(ended.pid, 0)
                os.close(ready)
                ended.over()
                reap({each.pid for each in children.values()})
                continue
            body, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 3)
            if not body:
                poll.unregister(fd)
                fd = -1
                if not patient:
                    for watch in children:
                        signal.pidfd_send_signal(watch, signal.SIGKILL)
                continue
            made = answer(body, descriptors)
            if made is not None:
                watch = os.pidfd_open(made.pid)
                children[watch] = made
                poll.register(watch, select.POLLIN)
            for descriptor in descriptors:
                os.close(descriptor)
        if fd < 0 and not children:
            return


def reap(but: set[int]) -> None:
    """Let orphans go that were left to this process; its own children are waited for by name."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in but:
            return
        os.waitpid(found.si_pid, 0)


def child(run: Callable[[], None], keep: list[int], parent: int = 0) -> None:
    """Run in a forked child and never return; it ends with the process `parent`, if given."""
    code = 1
    try:
        if parent:
            kernel.tie_to_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)  # it ended before this could be said
        _close_all_but(keep)
        run()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            pass
        os._exit(code)


def _close_all_but(keep: list[int]) -> None:
    start = 3
    for fd in sorted(keep):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def tell(control: int, told: object, *descriptors: int) -> None:
    """A message to the host on a socket that this process hands on."""
    with socket.socket(fileno=os.dup(control)) as sock:
        try:
            socket.send_fds(sock, [msgspec.msgpack.encode(told)], descriptors)
        except OSError:
            pass  # the host has closed it, and does not want to know


def introduce(pid: int, control: int, group: Group | None = None) -> None:
    """Hand the host what it can end a process by, and where what it uses is counted."""
    watch = os.pidfd_open(pid)
    tell(control, {"zygote": pid, "group": group}, watch)
    os.close(watch)
