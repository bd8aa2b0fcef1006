"""Many timeouts of the same length, of which hardly one comes to pass."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["Timeout", "Timeouts"]


class Timeout:
    """One that was started."""

    __slots__ = ("_among", "callback", "due")

    def __init__(
        self, among: dict["Timeout", None], due: float, callback: Callable[[], None]
    ) -> None:
        self.due = due
        """By `time.monotonic()`."""
        self.callback: Callable[[], None] | None = callback
        """None once it was called or cancelled: it may hold on to who holds this, and such a ring
        would stay until the collector comes."""
        self._among = among
        among[self] = None

    def cancel(self) -> None:
        """It is not called; nothing, where it was."""
        self._among.pop(self, None)
        self.callback = None


class Timeouts:
    """Calls back what was started `after_s` before and not cancelled since.

    The loop has one timer for all of them: with uvloop one for each, made and cancelled, takes
    3 us, as long as reading an event.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._waiting: dict[Timeout, None] = {}
        """In the order in which they were started, which is that in which they are due."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self, callback: Callable[[], None]) -> Timeout:
        """Have it called in time, by the running loop."""
        started = Timeout(self._waiting, time.monotonic() + self._after_s, callback)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._tick)
        return started

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = time.monotonic()
        over = []
        for each in self._waiting:
            if each.due > now:
                self._timer = loop.call_later(each.due - now, self._tick)
                break
            over.append(each)
        for each in over:
            if each.callback is not None:
                loop.call_soon(each.callback)
            each.cancel()
