"""Forking on demand: a process that forks for each message, and waits for what it forked."""

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from funcrt.sandbox import kernel
from funcrt.sandbox.groups import Group
from funcrt.tree import remove

__all__ = [
    "MAX_ASKED",
    "MAX_MESSAGE",
    "Forked",
    "Strays",
    "child",
    "heard",
    "introduce",
    "serve",
    "tell",
]

T = TypeVar("T")
MAX_MESSAGE = 64 << 10
MAX_ASKED = 192 << 10
"""Of what a zygote is to load, its environment with it."""
STRAYS_S = 2.0


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
    status: int = 0
    """Its wait status, once it has ended."""

    def over(self) -> "Forked | None":
        """It was waited for. Returns a process that removes what it has left, if it may have left
        anything: its parent does not wait for a disk."""
        if self.go >= 0:
            os.close(self.go)
        removing = _removing(Path(self.tmp)) if self.tmp else None
        self.after()
        return removing


def _removing(left: Path) -> "Forked | None":
    try:
        pid = os.fork()
    except OSError:
        remove(left)
        return None
    if pid == 0:
        child(partial(remove, left), [])
    return Forked(pid)


def serve(
    control: socket.socket,
    answer: Callable[[bytes, list[int]], Iterable[Forked]],
    *,
    patient: bool = False,
    host: int = -1,
) -> None:
    """Give each message and its descriptors to `answer`, until the host closes the socket, or the
    process of the descriptor `host` ends; then end what was forked or, where `patient`, wait until
    the last of it has ended. With a `host`, strays are looked for once a second."""
    fd = control.fileno()
    strays = Strays()
    children: dict[int, Forked] = {}
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if host >= 0:
        poll.register(host, select.POLLIN)
    while True:
        found = poll.poll(strays.wait_ms(1000 if host >= 0 and children else None))
        strays.end({each.pid for each in children.values()})
        for ready, _ in found:
            if ready not in (fd, host):
                poll.unregister(ready)
                ended = children.pop(ready)
                ended.status = os.waitpid(ended.pid, 0)[1]
                os.close(ready)
                strays.end({each.pid for each in children.values()})
                removing = ended.over()
                if removing is not None:
                    _watch(removing, children, poll)
                continue
            if fd < 0:
                continue
            gone = ready == host
            body, descriptors, _, _ = (
                (b"", [], 0, None) if gone else socket.recv_fds(control, MAX_MESSAGE, 3)
            )
            if not body:
                poll.unregister(fd)
                if host >= 0:
                    poll.unregister(host)
                fd = -1
                if not patient:
                    for watch in children:
                        signal.pidfd_send_signal(watch, signal.SIGKILL)
                continue
            for made in answer(body, descriptors):
                _watch(made, children, poll)
            for descriptor in descriptors:
                os.close(descriptor)
        if fd < 0 and not children:
            strays.end_all()
            return


def _watch(made: Forked, children: dict[int, Forked], poll: select.poll) -> None:
    """Have it waited for; where no descriptor is left for that, it has ended."""
    try:
        watch = os.pidfd_open(made.pid)
    except OSError:
        os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)
        made.over()
        return
    children[watch] = made
    poll.register(watch, select.POLLIN)


class Strays:
    """Processes whose parent has ended, and which were left to this one: nobody would end them.
    What is there at first is let be."""

    def __init__(self) -> None:
        self._there = set(_children())
        self._left = False

    def wait_ms(self, most: int | None) -> int | None:
        """How long to wait for other things: not long while some have yet to end."""
        return 20 if self._left else most

    def end(self, known: set[int]) -> None:
        """All but these."""
        _reap(known)
        strays = set(_children()) - known - self._there
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        self._left = bool(strays)

    def end_all(self) -> None:
        """As this process ends: one that forks may leave others, so again and again."""
        until = time.monotonic() + STRAYS_S
        self.end(set())
        while self._left and time.monotonic() < until:
            time.sleep(0.001)
            self.end(set())


def _children() -> list[int]:
    """Of this process; none where its /proc is out of reach."""
    pid = os.getpid()
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _reap(but: set[int]) -> None:
    """Let orphans go that were left to this process; its own children are waited for by name."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in but:
            return
        os.waitpid(found.si_pid, 0)


def child(run: Callable[[], None], keep: list[int] | None, parent: int = 0) -> None:
    """Run in a forked child and never return; it ends with the process `parent`, if given. Closes
    all descriptors but the streams and those to `keep`, and none where that is None."""
    code = 1
    try:
        if parent:
            kernel.tie_to_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)  # it ended before this could be said
        if keep is not None:
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


def heard(control: int, kind: type[T]) -> T:
    """What the host says on the socket of a process that was forked for it, before all else: no
    process above has had it. Ends this one where the host is gone."""
    with socket.socket(fileno=os.dup(control)) as sock:
        body = sock.recv(MAX_ASKED)
    if not body:
        os._exit(1)
    return msgspec.msgpack.decode(body, type=kind)


def tell(control: int, told: object, *descriptors: int) -> None:
    """A message to the host on a socket that this process hands on."""
    try:
        sock = socket.socket(fileno=control)  # and no copy: there may be no room for one
    except OSError:
        return  # what came is none
    try:
        socket.send_fds(sock, [msgspec.msgpack.encode(told)], descriptors)
    except OSError:
        pass  # the host has closed it, and does not want to know
    finally:
        sock.detach()


def introduce(pid: int, control: int, group: Group | None = None) -> None:
    """Hand the host what it can end a process by, and where what it uses is counted."""
    watch = os.pidfd_open(pid)
    tell(control, {"zygote": pid, "group": group}, watch)
    os.close(watch)
