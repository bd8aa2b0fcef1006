"""What a check plays on: the maker that a transport's author gives, and a few verbs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from mesh.errors import MeshError
from mesh.event import Event
from mesh.transport import (
    Delivery,
    Done,
    Features,
    Feed,
    Logged,
    Outcome,
    Output,
    Settled,
    Settlement,
    StateOp,
    Subscription,
    Transport,
)

__all__ = [
    "MOMENTS",
    "Maker",
    "Stage",
    "Unmet",
    "change",
    "cut_off",
    "event",
    "ids",
    "moment",
    "refused",
    "same",
    "settle",
    "sub",
]

T = TypeVar("T")
change = msgspec.structs.replace

MOMENTS = (0, 1, 2, 3, 4, 5, 7, 10, 0.0002, 0.0005, 0.001, 0.002, 0.005)
"""When to cut something off: whole numbers are turns of the loop, the rest seconds."""


class Unmet(Exception):
    """What a check saw that it should not have."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """One empty store and the ways to it. Make a new one for each check.

    Only `open` is needed; a check that needs more is left out with the reason. Where time can only
    be waited for, leave `wait` and `time` as they are and choose `tick_s` as small as the transport
    keeps leases and delays apart.
    """

    open: Callable[..., Awaitable[Transport]]
    """Open a transport on the store, to serve it; takes `namespace`, and `options`."""
    connect: Callable[..., Awaitable[Transport]] | None = None
    """Open a further one, beside an open one, that publishes and reads."""
    crash: Callable[[Transport], Awaitable[None]] | None = None
    """End a transport as SIGKILL would; the store is then opened again."""
    full: Callable[[Transport], AbstractAsyncContextManager[None]] | None = None
    """While entered, the store has no room."""
    step_wall: Callable[[float], None] | None = None
    """Move the wall clock alone, by seconds."""
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Let seconds pass, on all clocks."""
    time: Callable[[], float] = time.time
    """The wall clock that the transport goes by."""
    options: frozenset[str] = frozenset()
    """What `open` takes beside `namespace`: `retention_s`."""
    tick_s: float = 1.0
    quiet_s: float = 0.2
    """How long to wait for an event before believing that none comes."""
    patience_s: float = 10.0
    """How long to wait for one that must come."""
    limit_s: float = 60.0
    """A check that takes longer has failed."""

    @property
    def can(self) -> frozenset[str]:
        """What it can do beside opening, as `checks` wants to know it."""
        named = ("connect", "crash", "full", "step_wall")
        return frozenset(name for name in named if getattr(self, name) is not None) | self.options


class Stage:
    """One run of one check: what it opened, and what it says often."""

    def __init__(self, maker: Maker, features: Features) -> None:
        self.maker = maker
        self.features = features
        self.tick = maker.tick_s
        self.now = maker.time
        self.wait = maker.wait
        self._opened: list[Transport] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self, **options: Any) -> Transport:
        """A transport that serves."""
        transport = await self.maker.open(**options)
        self._opened.append(transport)
        return transport

    async def connect(self, **options: Any) -> Transport:
        """One beside it."""
        assert self.maker.connect is not None
        transport = await self.maker.connect(**options)
        self._opened.append(transport)
        return transport

    async def crash(self, transport: Transport, **options: Any) -> Transport:
        """End it as a kill would, and open the store again."""
        assert self.maker.crash is not None
        await self.maker.crash(transport)
        return await self.open(**options)

    def full(self, transport: Transport) -> AbstractAsyncContextManager[None]:
        """No room, while entered."""
        assert self.maker.full is not None
        return self.maker.full(transport)

    def go(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run it beside the check; it ends with the check at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def close(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in self._opened:
            await transport.close()

    # What checks do often

    async def take(self, feed: Feed, count: int) -> list[Delivery]:
        """Exactly `count` deliveries, in as many pulls as it takes."""
        got: list[Delivery] = []
        while len(got) < count:
            more = await feed.pull(count - len(got), self.maker.patience_s)
            if not more:
                ids = [delivery.event.id for delivery in got]
                raise Unmet(f"of {count} events that should come only {len(got)} did: {ids}")
            got += more
        return got

    async def nothing(self, feed: Feed, why: str) -> None:
        """No event comes."""
        got = await feed.pull(10, self.maker.quiet_s)
        same(f"deliveries ({why})", ids(got), [])

    async def done(self, transport: Transport, deliveries: Iterable[Delivery]) -> None:
        """Settle as done."""
        settlements = [settle(delivery) for delivery in deliveries]
        gone = await transport.commit(settlements)
        same("commit", gone, ["settled"] * len(settlements))

    async def settled(self, transport: Transport, *settlements: Settlement) -> None:
        """Commit; each must be settled."""
        gone = await transport.commit(settlements)
        same("commit", gone, ["settled"] * len(settlements))

    async def publish(self, transport: Transport, topic: str, *events: Event) -> list[str]:
        """Publish; each must be stored. Their positions."""
        receipts = await transport.publish(topic, events)
        same("receipts", [receipt.status for receipt in receipts], ["stored"] * len(events))
        return [receipt.position for receipt in receipts]

    async def logged(self, transport: Transport, topic: str) -> list[Logged]:
        """All that a topic holds."""
        if topic not in await transport.topics():
            return []
        return await transport.read(topic, "earliest", 100_000)

    async def ids_in(self, transport: Transport, topic: str) -> list[str]:
        """The ids of all that a topic holds, in order."""
        return [item.event.id for item in await self.logged(transport, topic)]

    async def drain(self, transport: Transport, feed: Feed, most: int = 1 << 30) -> list[str]:
        """Pull and settle until nothing comes, or `most` came; the ids."""
        seen: list[str] = []
        while len(seen) < most and (got := await feed.pull(100, self.maker.quiet_s)):
            await self.done(transport, got)
            seen += ids(got)
        return seen


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    """Their events' ids."""
    return [delivery.event.id for delivery in deliveries]


def event(name: object, data: bytes | None = b"{}", source: str = "/conformance") -> Event:
    """An event of that id."""
    return Event(str(name), source, "conformance.event", data=data)


def sub(**more: Any) -> Subscription:
    """A subscription to the topic `in`, `f/t` unless `more` says otherwise."""
    return Subscription(**{"function": "f", "trigger": "t", "topic": "in", **more})


def settle(
    delivery: Delivery,
    outcome: Outcome | None = None,
    *outputs: Output,
    state: Sequence[StateOp] = (),
) -> Settlement:
    """The settlement of one delivery; done, unless `outcome` says otherwise."""
    settled = (Settled(delivery, outcome or Done()),)
    return Settlement(delivery.subscription, settled, outputs, tuple(state))


def same(what: str, seen: object, wanted: object) -> None:
    """Raises Unmet where they differ."""
    if seen != wanted:
        raise Unmet(f"{what}: {_short(seen)}, not {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:250]} ... {text[-250:]}"


async def refused(what: str, work: Awaitable[object], kind: type[Exception] = MeshError) -> None:
    """It must raise an error of that kind."""
    try:
        value = await work
    except kind:
        return
    raise Unmet(f"{what} was not refused but gave {_short(value)}")


async def moment(when: float) -> None:
    """One of MOMENTS passes."""
    if isinstance(when, float):
        await asyncio.sleep(when)
    else:
        for _ in range(when):
            await asyncio.sleep(0)


async def cut_off(work: Coroutine[Any, Any, T], when: float) -> T | None:
    """Cancel it after one of MOMENTS; its result where it was done before, else None."""
    task = asyncio.get_running_loop().create_task(work)
    await moment(when)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None
