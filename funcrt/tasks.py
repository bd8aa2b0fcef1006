"""Background tasks with an owner: none is forgotten, and none ends in silence."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["OnFailure", "Tasks"]

OnFailure = Callable[[BaseException], None]
"""Told of what a task raised unexpectedly: a bug of ours, so whoever runs the host ends it."""


class Tasks:
    """The tasks of one owner, cancelled and awaited together."""

    def __init__(self, failed: OnFailure) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` until it ends or `cancel` ends it. `name` is for whoever debugs."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def __bool__(self) -> bool:
        return bool(self._running)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def finish(self, seconds: float) -> None:
        """Wait so long for them to end, and end what has not."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        await self.cancel()

    async def cancel(self) -> None:
        """End them all; returns when they have ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
