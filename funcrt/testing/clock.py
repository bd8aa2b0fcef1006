"""Time for tests: a clock that stands still until it is moved, and a loop that moves it."""

import asyncio
import selectors
from typing import Any

__all__ = ["FakeClock", "FakeTimeLoop"]

START = 1_700_000_000.0
"""2023-11-14T22:13:20Z: the wall clock's first moment."""


class FakeClock:
    """A `mesh.transport.Clock` that only `advance` moves."""

    def __init__(self, start: float = START) -> None:
        self._start = start
        self._now = 0.0

    def time(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._start + self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for less than none."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds:g} s")
        self._now += seconds


class _Selector(selectors.SelectSelector):
    """Never waits: what the loop would sleep is added to the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.clock.advance(max(timeout, 0.0))
        return []


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in a fake clock's time: it jumps to its next timer instead of waiting."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock

    def time(self) -> float:
        """The clock's."""
        return self._clock.monotonic()
