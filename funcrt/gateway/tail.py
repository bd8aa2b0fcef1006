"""A topic's events as server-sent events (html.spec.whatwg.org, 9.2): `id` is the position, `data`
the event in structured mode. A client that comes back with Last-Event-ID goes on just after it."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from funcrt.api import HostApi
from funcrt.gateway.call import WATCH_AFTER_S, Watch
from funcrt.gateway.limits import GatewayConfig, Head, Receive, Scope, Send
from funcrt.gateway.problem import SAFE, HttpProblem, retry_after
from funcrt.observation import after
from funcrt.text import safe
from funcrt.timeouts import Timeouts
from mesh.errors import MeshClosed, MeshError
from mesh.transport import Logged, check_name

__all__ = ["KEEPALIVE_S", "MEDIA", "Tails"]

MEDIA = b"text/event-stream"
KEEPALIVE_S = 15.0
"""A comment goes out where nothing else has for so long, so that no proxy takes it for dead."""
_LOOK_S = 0.25
_RETRY = b"retry: 1000\n\n"


class Tails:
    """All that are open."""

    def __init__(self, host: HostApi, config: GatewayConfig) -> None:
        self.host = host
        self.most = config.tails
        self.open = 0
        self._ending = asyncio.Event()
        self.watches = Timeouts(WATCH_AFTER_S)
        self._looking: asyncio.Task[None] | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send, topic: str) -> None:
        """`GET /topics/{topic}/events` with `Accept: text/event-stream`. Raises HttpProblem,
        MeshError, ClientGone."""
        check_name("topic", topic)
        start, types = _asked(scope)
        if self.open >= self.most:
            why = f"{self.open} topics are being tailed already"
            raise HttpProblem(429, "admission", why, headers=retry_after(1))
        self.open += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        watch = Watch(receive, self.watches)
        try:
            # Read once before the head goes out: a start that there cannot be is a 400.
            await self.host.mesh.read(topic, start, 1)
            headers = [(b"content-type", MEDIA), *SAFE]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
            await self._follow(self.host.mesh.tail(topic, start), types, send)
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            raise watch.told("the host stopped") from None
        finally:
            watch.close()
            self.open -= 1

    async def _follow(self, tail: AsyncIterator[Logged], types: list[str], send: Send) -> None:
        """Send what comes, until the host ends. A client that is slow holds up the reading."""
        loop = asyncio.get_running_loop()
        ending = loop.create_task(self._ending.wait())
        coming: asyncio.Task[Logged] | None = None
        skipped = ""
        try:
            while not ending.done():
                coming = coming or loop.create_task(_next(tail))
                done, _ = await asyncio.wait(
                    (coming, ending), timeout=KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED
                )
                if coming in done:
                    logged, coming = coming.result(), None
                    if types and logged.event.type not in types:
                        skipped = logged.position
                        continue
                    text = b"id: %b\ndata: %b\n\n" % (
                        logged.position.encode(), logged.event.to_json(),
                    )  # fmt: skip
                elif not done:
                    # An id alone moves on what a client would come back with, and nothing else.
                    text = b"id: %b\n\n" % skipped.encode() if skipped else b":\n\n"
                else:
                    break
                skipped = ""
                await send({"type": "http.response.body", "body": text, "more_body": True})
        except (MeshClosed, StopAsyncIteration):
            pass
        finally:
            ending.cancel()
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])

    async def _look(self) -> None:
        """See the host's end coming, for as long as somebody tails: it is told by a word alone."""
        while self.open and self.host.state == "ready":  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        if self.host.state != "ready":
            self._ending.set()


async def _next(tail: AsyncIterator[Logged]) -> Logged:
    try:
        return await anext(tail)
    except StopAsyncIteration:
        raise MeshClosed("the mesh was closed") from None


def _asked(scope: Scope) -> tuple[str, list[str]]:
    """Where to start, and the types that are wanted, if not all. Raises HttpProblem."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    head: Head = scope["funcrt.head"]
    last = head.get(b"last-event-id", b"").decode("latin-1")
    try:
        start = after(last) if last else query.get("from", ["new"])[0]
    except MeshError as error:
        raise HttpProblem(400, "query", f"Last-Event-ID: {safe(str(error))}") from None
    return start, query.get("type", [])
