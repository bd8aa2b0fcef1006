"""What a function's processes write to standard output and error, by lines."""

import asyncio
import os
from typing import Any

from funcrt.sandbox.said import BYTES_A_SECOND as LOG_BYTES_A_SECOND
from funcrt.sandbox.said import LINE

__all__ = ["LogReader"]


class LogReader:
    """A function's standard output or error, by lines, within a budget: what is over it is
    counted and dropped, and the pipe is read on, so that nobody blocks."""

    def __init__(self, fd: int, level: str, said: Any) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.level = level
        self.said = said
        self.loop = asyncio.get_running_loop()
        self.rest = b""
        self.budget = LOG_BYTES_A_SECOND
        self.second = 0
        self.dropped = 0
        self.loop.add_reader(fd, self.read)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        now = int(self.loop.time())
        if now != self.second:
            self._tell_dropped()
            self.second, self.budget = now, LOG_BYTES_A_SECOND
        if len(data) > self.budget:
            self.dropped += len(data)
            return True
        self.budget -= len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE:
            lines.append(self.rest)
            self.rest = b""
        for line in lines:
            self.said(self.level, line[:LINE].rstrip(b"\r").decode(errors="replace"))
        return True

    def _tell_dropped(self) -> None:
        if self.dropped:
            self.said(self.level, f"({self.dropped} bytes of output dropped: too much a second)")
            self.dropped = 0

    def drain(self) -> None:
        """Read what an ended process left in the pipe."""
        for _ in range(32):
            if self.fd < 0 or not self.read():
                break

    def close(self) -> None:
        """Twice is harmless."""
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
            if self.rest:
                self.said(self.level, self.rest[:LINE].decode(errors="replace"))
                self.rest = b""
            self._tell_dropped()
