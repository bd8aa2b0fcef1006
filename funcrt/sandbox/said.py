"""What a function's code prints, with the call that it came in.

`print` and whatever else writes to `sys.stdout` and `sys.stderr` goes through the pipe of standard
error line by line, tagged with its call, and is there whatever becomes of the process. Each call
has a context of its own, which tasks and `asyncio.to_thread` inherit. What is written to the
descriptors themselves, by C code or another process, by a thread that the author started or outside
any call, goes through the pipes as it is, and nobody can say which call it is of.
"""

import io
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TextIO

__all__ = ["CALL", "LINE", "NEWLINE", "TAG_BYTES", "Printed", "tagged"]

CALL: ContextVar[int] = ContextVar("call", default=0)
"""The number of the call that runs here; 0 outside of any."""

LINE = 8192
TAG_BYTES = 64
"""At the most."""
NEWLINE = "\0"
"""In a tagged line, of which the newline is the end."""
MOST_OPEN = 64
"""Calls whose last line has no end yet."""


class Printed(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`."""

    def __init__(self, file: TextIO, level: str) -> None:
        self.file = file
        self.level = level
        self.say: Callable[[int, str, str], None] | None = None
        """Takes (call, level, line) in an instance; None while a version is imported."""
        self.rest: dict[int, str] = {}

    def write(self, text: str) -> int:
        """As any text file."""
        call = CALL.get()
        if not call or self.say is None:
            return self.file.write(text)
        if "\n" not in text:
            text, written = self.rest.pop(call, "") + text, len(text)
            if len(text) > LINE or len(self.rest) >= MOST_OPEN:
                self.say(call, self.level, text)
            else:
                self.rest[call] = text
            return written
        *lines, rest = (self.rest.pop(call, "") + text).split("\n")
        for line in lines:
            self.say(call, self.level, line.rstrip("\r"))
        if rest:
            self.rest[call] = rest
        return len(text)

    def ended(self, call: int) -> None:
        """What it wrote last, though the line has no end."""
        if self.rest and self.say is not None and (rest := self.rest.pop(call, "")):
            self.say(call, self.level, rest)

    def flush(self) -> None:
        """As any text file. A line that has no end yet waits for it."""
        self.file.flush()

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor of the pipe."""
        return self.file.fileno()

    def isatty(self) -> bool:
        """It never is one."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the file below says."""
        return self.file.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """As the file below says."""
        return self.file.errors

    def __getattr__(self, name: str) -> Any:
        """`buffer` and what else a text file may have: of the file below."""
        return getattr(self.file, name)


def tagged(call: int, level: str, text: str) -> bytes:
    """A line as it goes through the pipe: a NUL, the call, the level, and the text, whose own
    newlines are NULs there."""
    if "\n" in text or NEWLINE in text:
        text = text.replace(NEWLINE, "\ufffd").replace("\n", NEWLINE)
    return b"\0%d %s %s\n" % (call, level.encode(), text.encode("utf-8", "replace")[:LINE])
