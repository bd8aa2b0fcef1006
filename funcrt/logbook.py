"""What functions said lately, in bounded memory: a restart forgets it.

Kept are each function's last lines, up to `LINES` and `BYTES`, and `ALL_BYTES` of all functions'
together: beyond that the longest book loses its older half.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

__all__ = ["LEVELS", "LINES", "MOST_IDS", "Follower", "Line", "Logbook"]

LINES = 2000
BYTES = 512 << 10
ALL_BYTES = 32 << 20
TEXT = 16 << 10
FOLLOWED = 1000
"""Lines that wait for one follower; what is more is dropped, and counted."""
OVERHEAD = 200
"""Bytes of a line beside its text, about."""
MOST_IDS = 50
"""Of a batch's events, that its lines are told with."""

LEVELS = {"debug": 10, "info": 20, "stdout": 20, "warning": 30, "stderr": 30, "error": 40}
"""What is printed passes for `info`, what goes to standard error for `warning`."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line that a function wrote, or how a call failed."""

    at: float
    """Wall-clock seconds at which the host had it."""
    level: str
    text: str
    """One line; of a failed call more: what comes next, and the author's frames."""
    instance: int
    """The process; 0 where that is not known."""
    version: str
    events: tuple[str, ...] = ()
    """Ids of the call's events: one, or those of its batch; empty outside of a call."""
    failed: bool = False
    """It tells of a call that failed."""

    def wanted(self, least: int, event: str, since: float) -> bool:
        """Whether it is at this level or above, of this event where one is named, and as young."""
        return (
            LEVELS.get(self.level, 20) >= least
            and (not event or event in self.events)
            and self.at >= since
        )


class Follower:
    """Somebody who is told each line as it comes."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.dropped = 0
        self.wake = asyncio.Event()

    def tell(self, line: Line) -> None:
        """A line came."""
        if len(self.lines) >= FOLLOWED:
            self.dropped += 1
            return
        self.lines.append(line)
        self.wake.set()

    async def take(self, seconds: float) -> tuple[list[Line], int]:
        """What has come, at the latest after `seconds`; and how many lines were dropped after
        it."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            pass
        self.wake.clear()
        taken, dropped = list(self.lines), self.dropped
        self.lines.clear()
        self.dropped = 0
        return taken, dropped


class _Book:
    __slots__ = ("bytes", "followers", "forgotten", "lines")

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.bytes = 0
        self.forgotten = 0
        self.followers: set[Follower] = set()


class Logbook:
    """All functions' lines, by function."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._books

    def add(self, name: str, line: Line) -> None:
        """Keep a line."""
        if len(line.text) > TEXT:
            line = msgspec.structs.replace(line, text=line.text[: TEXT - 1] + "…")
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = _Book()
        size = len(line.text) + OVERHEAD
        book.lines.append(line)
        book.bytes += size
        self._bytes += size
        while len(book.lines) > LINES or book.bytes > BYTES:
            self._forget(book)
        if self._bytes > ALL_BYTES:
            longest = max(self._books.values(), key=lambda each: each.bytes)
            for _ in range((len(longest.lines) + 1) // 2):
                self._forget(longest)
        for follower in book.followers:
            follower.tell(line)

    def _forget(self, book: _Book) -> None:
        size = len(book.lines.popleft().text) + OVERHEAD
        book.bytes -= size
        book.forgotten += 1
        self._bytes -= size

    def read(
        self, name: str, *, last: int, level: str = "debug", event: str = "", since: float = 0.0
    ) -> tuple[Sequence[Line], int]:
        """The last so many of the lines that are wanted; and how many of the function's lines are
        not kept any more. `event` is an id, `since` wall-clock seconds."""
        book = self._books.get(name)
        if book is None:
            return [], 0
        least = LEVELS[level]
        found: deque[Line] = deque(maxlen=last)
        found.extend(line for line in book.lines if line.wanted(least, event, since))
        return list(found), book.forgotten

    def follow(self, name: str) -> Follower:
        """Be told each line from now on; to be ended with `leave`."""
        follower = Follower()
        self._books.setdefault(name, _Book()).followers.add(follower)
        return follower

    def leave(self, name: str, follower: Follower) -> None:
        """Be told no more."""
        self._books[name].followers.discard(follower)
