"""A container stands still while nothing is to do in it."""

import asyncio
import contextlib

from funcrt.errors import SandboxError
from funcrt.sandbox.cgroup import Cgroup
from funcrt.sandbox.daemon import Daemon

__all__ = ["Pauses"]


class Pauses:
    """Of one container. What is to do is counted; some time after the last of it the container is
    paused, and it goes on with the first of what comes next: by its cgroup's freezer where this
    process may write that, and else by the Docker daemon."""

    def __init__(self, daemon: Daemon, container: str, cgroup: Cgroup, after_s: float) -> None:
        self.paused = False
        """As it was last asked for."""
        self._daemon = daemon
        self._container = container
        self._cgroup = cgroup
        self._after_s = after_s
        self._loop = asyncio.get_running_loop()
        self._work = 0
        self._idle_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._over = False

    def begin(self, count: int = 1) -> None:
        """There is more to do."""
        self._work += count
        if self.paused:
            self._turn(False)

    def end(self, count: int = 1) -> None:
        """So much of it is done."""
        self._work -= count
        if not self._work:
            # One timer that looks when the last work ended: calls come far more often than it.
            self._idle_since = self._loop.time()
            if self._timer is None and not self._over:
                self._timer = self._loop.call_later(self._after_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._work or self.paused:
            return
        left = self._idle_since + self._after_s - self._loop.time()
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._turn(True)

    def _turn(self, paused: bool) -> None:
        self.paused = paused
        if self._cgroup.freezes:
            (self._cgroup.freeze if paused else self._cgroup.thaw)()
        elif self._asking is None:
            self._asking = self._loop.create_task(self._follow(not paused))

    async def _follow(self, now: bool) -> None:
        """Have the daemon make it so, which takes a while; meanwhile it may be wanted otherwise."""
        with contextlib.suppress(SandboxError):  # it is gone
            while now != self.paused:
                now = self.paused
                await self._daemon.pause(self._container, now)
        self._asking = None

    def close(self) -> None:
        """Let it go on, for good. Twice is harmless."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.paused:
            self._turn(False)
