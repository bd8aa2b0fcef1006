"""A plain `breakpoint()` in a function: pdb on the terminal of `funcrt dev`, and elsewhere an error
that says where it would work."""

import asyncio
import inspect
import os
import signal
import socket
import sys
import threading
from bdb import BdbQuit
from collections.abc import Callable
from pathlib import Path
from pdb import Pdb
from types import FrameType
from typing import Any

from funcrt.sandbox.hook import chosen

__all__ = ["Terminal"]

RESUMED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
"""Such code returns at each of its pauses, as a debugger sees it."""


class Terminal:
    """The instance's end of the terminal, which the host lends to one instance at a time.

    From the first prompt to `continue`, `quit` or the end of the call, the terminal is standard
    input, output and error.
    """

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.sock = sock
        self.path = path
        self.taken: Callable[[], None] = lambda: None
        """Called when the terminal was lent."""
        self.holder: Any = None
        self.thread = 0
        self.lock = threading.Lock()
        self.before: list[int] = []
        self.streams: Any = None
        signal.signal(signal.SIGINT, self._interrupted)
        sys.breakpointhook = chosen(self.breakpoint)

    def breakpoint(self, *_: Any, **__: Any) -> None:
        """sys.breakpointhook."""
        frame = sys._getframe(1)
        self.take()  # first: pdb takes the streams as they are
        _Prompt(self, frame).set_trace(frame)

    def take(self) -> None:
        """Wait for the terminal, which others may have."""
        who = _who()
        if self.holder is who:
            return
        self.lock.acquire()
        self.sock.sendall(b"?")
        terminal, descriptors, _, _ = socket.recv_fds(self.sock, 256, 1)
        if not descriptors:
            self.lock.release()
            raise BdbQuit
        os.environ.setdefault("TERM", terminal.decode())
        sys.stdout.flush()
        sys.stderr.flush()
        self.before = [os.dup(number) for number in range(3)]
        for number in range(3):
            os.dup2(descriptors[0], number)
        os.close(descriptors[0])
        self.streams = sys.stdin, sys.stdout, sys.stderr
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        self.holder, self.thread = who, threading.get_ident()
        self.taken()

    def release(self) -> None:
        """Give it back. Again is harmless."""
        if self.holder is None:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(self.before):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = self.streams
        self.holder, self.thread = None, 0
        self.sock.sendall(b".")
        self.lock.release()

    def over(self) -> None:
        """The call ended; with it what was stepped through."""
        if self.holder is not None and self.holder is _who():
            sys.settrace(None)
            self.release()

    def _interrupted(self, number: int, frame: object) -> None:
        if self.holder is None:
            return
        if self.thread != threading.main_thread().ident:
            os._exit(1)  # no other thread can be interrupted
        raise BdbQuit


def _who() -> object:
    """The task, or the thread, that runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.current_thread()


def _ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("funcrt.")


class _Prompt(Pdb):
    """pdb, which stays out of what calls the handler."""

    def __init__(self, terminal: Terminal, frame: FrameType) -> None:
        super().__init__(nosigint=True)
        self.terminal = terminal
        self.leaving = self.ended = False
        while frame.f_back is not None and not _ours(frame.f_back):
            frame = frame.f_back
        self.outermost = frame

    def stop_here(self, frame: FrameType) -> bool:
        at: FrameType | None = frame
        while at is not self.outermost:
            if at is None:
                return False
            at = at.f_back
        return super().stop_here(frame)

    def interaction(self, *arguments: Any) -> None:
        self.leaving = False
        self.terminal.take()
        super().interaction(*arguments)
        if self.ended:  # what comes now is none of the author's
            self.set_continue()
        if self.leaving:
            self.terminal.release()

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        self.ended = frame is self.outermost and not frame.f_code.co_flags & RESUMED
        super().user_return(frame, return_value)

    def set_continue(self) -> None:
        self.leaving = True
        super().set_continue()

    def set_quit(self) -> None:
        self.leaving = True
        super().set_quit()

    def format_stack_entry(self, frame_lineno: Any, lprefix: str = ": ") -> str:
        text: str = super().format_stack_entry(frame_lineno, lprefix)
        return text.replace(f"{self.terminal.path}/", "")
