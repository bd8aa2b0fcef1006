"""Where a transport's time comes from."""

import time

from mesh.transport import Clock

__all__ = ["SteadyClock", "SystemClock"]


class SystemClock:
    """The machine's own time."""

    def time(self) -> float:
        """As Clock says."""
        return time.time()

    def monotonic(self) -> float:
        """As Clock says."""
        return time.monotonic()


class SteadyClock:
    """A wall clock that never goes back, for what is stored: when the machine's is set back, this
    one goes on by monotonic time until that has caught up; when it is set forward, it follows.

    So what is due in a minute is due in a minute, and no event is older than the one before it.
    `floor` is the latest time stored already.
    """

    def __init__(self, clock: Clock, floor: float = 0.0) -> None:
        self._clock = clock
        self._last = max(clock.time(), floor)
        self._at = clock.monotonic()

    def time(self) -> float:
        """Wall-clock seconds since the epoch, at least the last that was told."""
        at = self._clock.monotonic()
        self._last = max(self._clock.time(), self._last + at - self._at)
        self._at = at
        return self._last

    def monotonic(self) -> float:
        """As Clock says."""
        return self._clock.monotonic()
