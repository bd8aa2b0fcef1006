"""The terminal of `funcrt dev`, lent to functions that stand at a `breakpoint()`."""

import asyncio
import os
import signal
import sys
from collections import deque

from funcrt.dev.keys import Keys
from funcrt.dev.show import Screen
from funcrt.running import Ending
from funcrt.sandbox.lending import Borrower

__all__ = ["Lender"]


class Lender:
    """One instance at a time has it. Keys and lines wait meanwhile, and Ctrl-C is for pdb."""

    def __init__(self, screen: Screen, ending: Ending) -> None:
        self.screen = screen
        self.ending = ending
        self.keys: Keys | None = None
        self._waiting: deque[Borrower] = deque()
        self._has: Borrower | None = None

    def asked(self, borrower: Borrower) -> None:
        """As the sandbox says."""
        self._waiting.append(borrower)
        self._next()

    def returned(self, borrower: Borrower) -> None:
        """As the sandbox says."""
        if borrower in self._waiting:
            self._waiting.remove(borrower)
        elif borrower is self._has:
            self._has = None
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self.ending.ask)
            if self.keys is not None:
                self.keys.resume()
            self.screen.resume()
            self._next()

    def _next(self) -> None:
        if self._has is not None or not self._waiting:
            return
        self._has = borrower = self._waiting.popleft()
        self.screen.now(f"breakpoint() in {borrower.name}: c goes on, q ends the call")
        self.screen.pause()
        if self.keys is not None:
            self.keys.pause()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, borrower.interrupt)
        borrower.lend(sys.stdin.fileno(), os.environ.get("TERM", "dumb"))
