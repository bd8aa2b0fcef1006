"""A small host for the gateway's and the command line's tests: a real mesh, functions in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from funcrt.api import Answer, FunctionStatus, HostState, Kind, Reply, Route, TriggerStatus
from funcrt.calls import call_topic
from funcrt.errors import FunctionUnknown
from funcrt.gateway import GatewayConfig, make_admin_app, make_app, serve_http
from funcrt.sandbox.protocol import Failure, Http
from funcrt.sockets import bind_unix, unlink_unix
from mesh.event import Event
from mesh.schemes import connect
from mesh.transport import DeadLetter, Receipt, Transport

Function = Callable[[Event, float | None], Awaitable[Reply]]

LETTER_EVENT = Event("e-1", "/shop", "order.placed", datacontenttype="application/json", data=b"1")


class FakeHost:
    """Implements HostApi. `functions_by_name` and `receipts` decide what it answers."""

    def __init__(self, mesh: Transport) -> None:
        self.mesh = mesh
        self.state: HostState = "ready"
        self.recovering = False
        self.by_name: dict[str, Function] = {"echo": echo, "quiet": quiet, "slow": slow}
        self.routes: dict[str, Route] = {}
        self.calls: list[tuple[str, str, Event, float | None]] = []
        self.receipts: list[Receipt] | None = None
        self.cancelled: list[str] = []
        self.letters = [letter(number) for number in range(1, 4)]
        self.redriven: list[Sequence[int] | None] = []

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        if self.receipts is not None:
            return self.receipts
        return await self.mesh.publish(topic, events)

    def kind(self, function: str) -> Kind:
        return "event"

    async def call(
        self,
        function: str,
        event: Event,
        *,
        trigger: str = "http",
        timeout_s: float | None = None,
        http: Http | None = None,
        answer: Answer | None = None,
    ) -> Reply:
        if function not in self.by_name:
            raise FunctionUnknown(function, sorted(self.by_name))
        self.calls.append((function, trigger, event, timeout_s))
        try:
            return await self.by_name[function](event, timeout_s)
        except asyncio.CancelledError:
            self.cancelled.append(function)
            raise

    async def call_async(self, function: str, event: Event) -> Receipt:
        self._known(function)
        if self.receipts is not None:
            return self.receipts[0]
        (receipt,) = await self.mesh.publish(call_topic(function), [event])
        return receipt

    def route(self, path: str) -> Route | None:
        return self.routes.get(path)

    def names(self) -> tuple[list[str], list[str]]:
        return sorted(self.by_name), sorted(self.routes)

    def letters_of(self, topic: str) -> str | None:
        return "echo" if topic == "echo.dlq" else None

    async def functions(self) -> list[FunctionStatus]:
        return [status(name) for name in sorted(self.by_name)]

    async def dead_letters(
        self, function: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        self._known(function)
        if function != "echo":
            return []
        return [each for each in self.letters if each.id > after][:limit]

    async def redrive(self, function: str, ids: Sequence[int] | None) -> int:
        self._known(function)
        self.redriven.append(ids)
        there = {each.id for each in self.letters}
        return len(there if ids is None else there & set(ids))

    def _known(self, function: str) -> None:
        if function not in self.by_name:
            raise FunctionUnknown(function, sorted(self.by_name))


async def echo(event: Event, timeout_s: float | None) -> Reply:
    return Reply("ok", (event,))


async def quiet(event: Event, timeout_s: float | None) -> Reply:
    return Reply("ok")


async def slow(event: Event, timeout_s: float | None) -> Reply:
    await asyncio.sleep(30 if timeout_s is None else timeout_s)
    return Reply("timeout", (), Failure("TimeoutError", "over its time", "main.py:3 in handler"))


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        id=number,
        subscription="echo/orders",
        event=LETTER_EVENT,
        reason="KeyError: 'sku'\n  main.py:14 in handler",
        attempts=5,
        died_at=1_795_000_000.0,
        letter_topic="echo.dlq",
        letter_position=str(number),
    )


def status(name: str) -> FunctionStatus:
    return FunctionStatus(
        name=name,
        version="v1",
        state="ready",
        instances=1,
        busy=0,
        wanted=2,
        reason="depth 4",
        depth=4,
        done=10,
        failed=1,
        dead=3,
        outputs=9,
        triggers=[
            TriggerStatus(name="orders", kind="mesh", target="orders", filter="type = order.placed")
        ],
    )


@contextlib.asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[tuple[FakeHost, httpx.AsyncClient]]:
    """A host, and a client of its gateway on a real TCP port."""
    config = GatewayConfig(port=0, **settings)
    mesh = await connect("embedded::memory:")
    host = FakeHost(mesh)
    try:
        async with serve_http(make_app(host, config), config) as sock:
            base = f"http://127.0.0.1:{sock.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=10) as client:
                yield host, client
    finally:
        await mesh.close()


@contextlib.asynccontextmanager
async def admin_socket(path: Path) -> AsyncIterator[FakeHost]:
    """A host whose admin API answers on `path`."""
    config = GatewayConfig(port=0)
    mesh = await connect("embedded::memory:")
    host = FakeHost(mesh)
    sock = bind_unix(path)
    try:
        async with serve_http(make_admin_app(host, config), config, sock):
            yield host
    finally:
        unlink_unix(path)
        await mesh.close()
