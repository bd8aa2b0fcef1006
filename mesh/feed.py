"""The embedded mesh's end of a subscription."""

import asyncio
from collections.abc import Sequence

from mesh.engine import Engine
from mesh.errors import MeshClosed, SubscriptionUnknown
from mesh.queue import Queue
from mesh.transport import Delivery

__all__ = ["QueueFeed"]


class QueueFeed:
    """This process's end of a subscription."""

    def __init__(self, engine: Engine, queue: Queue) -> None:
        self.engine = engine
        self.queue = queue
        queue.feeds += 1
        self.id = engine.fences.next()
        self.closed = False

    async def pull(self, max_n: int, max_wait_s: float, max_bytes: int = 8 << 20) -> list[Delivery]:
        """As the contract says."""
        queue, loop = self.queue, asyncio.get_running_loop()
        until = loop.time() + max_wait_s
        while True:
            if self.closed or self.engine.closing:
                raise MeshClosed
            if queue.gone:
                raise SubscriptionUnknown(queue.name)
            taken = queue.take(max_n, max_bytes, self.id, self.engine.fences)
            left = until - loop.time()
            if not taken and queue.stuck():
                self.engine.nudge(queue)
            if taken or left <= 0:
                return taken
            waiter: asyncio.Future[None] = loop.create_future()
            queue.waiters.append(waiter)
            timer = loop.call_later(min(left, max(queue.wait_s(), 0.001)), _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                if waiter in queue.waiters:
                    queue.waiters.remove(waiter)

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """As the contract says."""
        now = self.engine.clock.monotonic()
        deadline = now + seconds
        for delivery in deliveries:
            lease = self.engine.leased(delivery, now)
            if lease is not None:
                lease[1].deadline = deadline
        self.queue.soonest = min(self.queue.soonest, deadline)

    async def close(self) -> None:
        """As the contract says."""
        if not self.closed:
            self.closed = True
            self.queue.feeds -= 1
            mine = [e for e in self.queue.leased.values() if e.feed == self.id and not e.settling]
            self.queue.give_back(mine)
            self.queue.wake()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
