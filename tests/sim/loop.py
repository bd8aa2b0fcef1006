"""Virtual time: an event loop that jumps to its next timer instead of waiting for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from funcrt.testing.clock import FakeClock, FakeTimeLoop

__all__ = ["VirtualClock", "run"]

T = TypeVar("T")


class VirtualClock(FakeClock):
    """The simulation's: `now` may be set, and the wall clock jump by `skew`."""

    def __init__(self) -> None:
        super().__init__()
        self.skew = 0.0

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, seconds: float) -> None:
        self._now = seconds

    def time(self) -> float:
        return super().time() + self.skew


def run(clock: VirtualClock, main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in the clock's time."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(main)
