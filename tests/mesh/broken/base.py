"""Transports that break the contract on purpose, each in one way, around the embedded one.

`BREAKS` says which checks must fail on which; one module a noun fills it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mesh.transport import (
    Delivery,
    Feed,
    Gone,
    Settled,
    Settlement,
    Subscription,
)

BREAKS: dict[type["Broken"], tuple[str, ...]] = {}


def breaks(*checks: str) -> Callable[[type["Broken"]], type["Broken"]]:
    """The checks that must fail on a transport."""

    def register(broken: type["Broken"]) -> type["Broken"]:
        BREAKS[broken] = checks
        return broken

    return register


change = msgspec.structs.replace


class Broken:
    """Hands everything on; a subclass breaks one thing."""

    def __init__(self, inner: Any, opened: int) -> None:
        self.inner = inner
        self.opened = opened
        """How often the store was opened before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def subscribe(self, subscription: Subscription, **more: Any) -> Feed:
        return BrokenFeed(self, await self.inner.subscribe(subscription, **more))

    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got: list[Delivery] = await feed.pull(max_n, wait, size)
        return got

    async def extend(self, feed: Any, deliveries: Sequence[Delivery], seconds: float) -> None:
        await feed.extend(deliveries, seconds)

    async def close_feed(self, feed: Any) -> None:
        await feed.close()


class BrokenFeed:
    """Its transport says how."""

    def __init__(self, transport: Any, inner: Any) -> None:
        self.transport, self.inner = transport, inner

    async def pull(self, max_n: int, max_wait_s: float, max_bytes: int = 8 << 20) -> list[Delivery]:
        got: list[Delivery] = await self.transport.pull(self.inner, max_n, max_wait_s, max_bytes)
        return got

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        await self.transport.extend(self.inner, deliveries, seconds)

    async def close(self) -> None:
        await self.transport.close_feed(self.inner)


async def outcomes(
    broken: Broken, settlements: Sequence[Settlement], changed: Callable[[Settled], Settled]
) -> list[Gone]:
    anew = [change(one, settled=tuple(changed(each) for each in one.settled))
            for one in settlements]  # fmt: skip
    found: list[Gone] = await broken.inner.commit(anew)
    return found
