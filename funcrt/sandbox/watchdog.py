"""Names the line of a handler's code that blocks its event loop."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["BLOCKED_S", "Watchdog"]

BLOCKED_S = 0.1
"""A loop that has not come round for so long is blocked."""
_EVERY_S = 10.0
"""One line in so long, whatever happens."""


class Watchdog:
    """A thread that looks on while calls run. Made on the loop's thread.

    A busy loop pays one callback each 50 ms; an idle one nothing.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: Path, busy: Callable[[], bool]
    ) -> None:
        self.loop = loop
        self.root = f"{path}/"
        self.busy = busy
        self.watched = threading.get_ident()
        self.awake = False
        """Whether it is looking on: only then need `wake` not be called."""
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = -_EVERY_S

    def wake(self) -> None:
        """Calls run from now on."""
        self.awake = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        self._wake.set()

    def _look(self) -> None:
        while True:
            self._wake.wait()
            while self.busy():
                try:
                    self._once()
                except RuntimeError:  # the loop was closed
                    return
                time.sleep(BLOCKED_S / 2)
            self._wake.clear()
            self.awake = False
            if self.busy():  # a call came just now, and saw it awake
                self.awake = True
                self._wake.set()

    def _once(self) -> None:
        beat = threading.Event()
        self.loop.call_soon_threadsafe(beat.set)
        if beat.wait(BLOCKED_S / 2):
            return
        # The same call of the author's function both times: not a loop that is merely busy, nor a
        # machine on which this process had to wait.
        before = self._sample()
        if beat.wait(BLOCKED_S / 2) or before is None:
            return
        after = self._sample()
        if after is None or before[0] != after[0]:
            return
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            text = (
                f"{after[1]} blocks the event loop, for over {BLOCKED_S * 1000:.0f} ms: no other"
                " call of this instance goes on meanwhile; await, or asyncio.to_thread\n"
            )
            # At once, and by the loop's own channel not before it is free again.
            os.write(2, text.encode(errors="replace"))
        beat.wait()

    def _sample(self) -> tuple[int, str] | None:
        """The innermost frame of the author's: which one it is, and where."""
        frame = sys._current_frames().get(self.watched)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self.root):
                place = f"{file.removeprefix(self.root)}:{frame.f_lineno}"
                return id(frame), f"{place} in {frame.f_code.co_name}"
            frame = frame.f_back
        return None
