"""The host's end of a terminal that instances may borrow, for `breakpoint()`."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["Borrower", "Lending"]


class Lending(Protocol):
    """Who has a terminal to lend."""

    def asked(self, borrower: "Borrower") -> None:
        """An instance stands at a breakpoint. It waits for `lend`."""

    def returned(self, borrower: "Borrower") -> None:
        """It has gone on, or ended."""


class Borrower:
    """One instance, which may ask for the terminal again and again."""

    def __init__(
        self, name: str, sock: socket.socket, lending: Lending, held: Callable[[bool], None]
    ) -> None:
        self.name = name
        self.pid = 0
        self._sock = sock
        self._lending = lending
        self._held = held
        """Told that the instance's calls stand still, and that they go on."""
        self._asking = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            said = self._sock.recv(16)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self.close()
        elif said == b"?" and not self._asking:
            self._asking = True
            self._held(True)
            self._lending.asked(self)
        elif said == b".":
            self._over()

    def _over(self) -> None:
        if self._asking:
            self._asking = False
            self._held(False)
            self._lending.returned(self)

    def lend(self, fd: int, terminal: str) -> None:
        """It has the terminal now; `terminal` is what TERM says of it."""
        try:
            socket.send_fds(self._sock, [terminal.encode()], [fd])
        except OSError:
            self.close()

    def interrupt(self) -> None:
        """Ctrl-C was pressed while it had the terminal."""
        try:
            os.kill(self.pid, signal.SIGINT)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """The instance has ended. Twice is harmless."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._over()
