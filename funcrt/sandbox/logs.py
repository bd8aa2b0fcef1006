"""What a function's processes write to standard output and error, by lines.

Lines of calls come through the pipe of standard error, each tagged with its call and level
(`said.py`); the rest of what is in the pipes is of no call. A tag is the function's to write: a
forged one mislabels a line of its own instance.
"""

import asyncio
import os
import re
from collections.abc import Callable, Sequence

from funcrt.sandbox.protocol import Log
from funcrt.sandbox.said import LINE, NEWLINE, TAG_BYTES

__all__ = ["BYTES_A_SECOND", "Budget", "LogReader"]

BYTES_A_SECOND = 256 << 10
"""Of a process's log; what is more is counted and dropped."""
READ = 64 << 10
DRAINED = 32
"""Reads of a pipe at once: what the kernel keeps of one is less."""
_TAG = re.compile(rb"\0(\d{1,19}) ([a-z]{1,10}) ")
_LEVELS = {
    level.encode(): level for level in ("debug", "info", "warning", "error", "stdout", "stderr")
}


class Budget:
    """How much a process may still log this second."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.second = -1
        self.left = BYTES_A_SECOND
        self.dropped = 0
        self.call = 0
        """The call that the first line dropped was of."""
        self.told = -1

    def turn(self) -> None:
        """The clock may have gone on."""
        second = int(self.now())
        if second != self.second:
            self.second, self.left = second, BYTES_A_SECOND

    def remark(self) -> list[Log]:
        """A line on what was dropped, once a second."""
        if not self.dropped or self.told == self.second:
            return []
        text = f"({self.dropped} bytes of output dropped: too much a second)"
        self.dropped, self.told = 0, self.second
        return [Log(self.call, "warning", text)]


class LogReader:
    """One pipe, by lines, within a budget: what is over it is counted and dropped, and the pipe is
    read on, so that nobody blocks."""

    def __init__(
        self, fd: int, level: str, said: Callable[[Sequence[Log]], None], budget: Budget
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.level = level
        self.said = said
        self.budget = budget
        self.loop = asyncio.get_running_loop()
        self.rest = b""
        self.skipping = False
        """In a line of which the first part was dropped."""
        self._telling: asyncio.TimerHandle | None = None
        self.loop.add_reader(fd, self.read)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        try:
            data = os.read(self.fd, READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self.budget.turn()
        self._say(self._lines(data))
        return True

    def _lines(self, data: bytes) -> list[bytes]:
        """Those that may be said; the rest is dropped, by the chunk where there is much of it."""
        budget = self.budget
        data, self.rest = self.rest + data, b""
        if self.skipping or budget.left <= 0:
            end = len(data) if budget.left <= 0 else data.find(b"\n") + 1 or len(data)
            self._drop(data[:end])
            self.skipping = not data.endswith(b"\n", 0, end)
            data = data[end:]
            if not data:
                return []
        *lines, self.rest = data.split(b"\n")
        if len(self.rest) > LINE + TAG_BYTES:
            lines.append(self.rest)
            self.rest = b""
        for at, line in enumerate(lines):
            if len(line) > budget.left:
                self._drop(b"\n".join([*lines[at:], self.rest]))
                self.skipping, self.rest, budget.left = bool(self.rest), b"", 0
                return lines[:at]
            budget.left -= len(line)
        return lines

    def _drop(self, data: bytes) -> None:
        budget = self.budget
        if not data:
            return
        if not budget.dropped:
            tag = _TAG.search(data)
            budget.call = int(tag[1]) if tag is not None else 0
            if self._telling is None:
                self._telling = self.loop.call_later(1.0, self._tell)
        budget.dropped += len(data)

    def _say(self, lines: Sequence[bytes]) -> None:
        """A log each; and where a tag follows what has no end of its own, one of that too."""
        logs = []
        for line in lines:
            tag = _TAG.search(line)
            if tag is None:
                logs.append(Log(0, self.level, _text(line)))
                continue
            start, end = tag.span()
            if start:
                logs.append(Log(0, self.level, _text(line[:start])))
            call, level = tag.groups()
            text = _text(line[end:])
            if NEWLINE in text:
                text = text.replace(NEWLINE, "\n")
            logs.append(Log(int(call), _LEVELS.get(level, "info"), text))
        if logs:
            self.said(logs)

    def _tell(self) -> None:
        self._telling = None
        self.budget.turn()
        self.tell()

    def tell(self) -> None:
        """Say what was dropped, if that was not said a moment ago."""
        if logs := self.budget.remark():
            self.said(logs)

    def drain(self) -> None:
        """Read what is in the pipe: an ended process left it, or what follows is of later."""
        for _ in range(DRAINED):
            if self.fd < 0 or not self.read():
                break

    def close(self) -> None:
        """Twice is harmless."""
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
            if self._telling is not None:
                self._telling.cancel()
            rest, self.rest = self.rest, b""
            self._say([rest] if rest else [])
            self.tell()


def _text(line: bytes) -> str:
    return line[:LINE].rstrip(b"\r").decode(errors="replace")
