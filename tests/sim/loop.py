"""Virtual time: an event loop that jumps to its next timer instead of waiting for it."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualClock", "run"]

T = TypeVar("T")
START = 1_700_000_000.0


class VirtualClock:
    """`mesh.transport.Clock` under the simulation's control. The wall clock can be set to jump."""

    def __init__(self) -> None:
        self.now = 0.0
        self.skew = 0.0

    def time(self) -> float:
        return START + self.now + self.skew

    def monotonic(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    """Never waits: what the loop would sleep is added to the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.clock.now += max(timeout, 0.0)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.now


def run(clock: VirtualClock, main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in the clock's time."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(main)
