"""Calling a function over HTTP and waiting for its result. The gateway's hottest path."""

import asyncio
import logging
import math
import re
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from funcrt.api import HostApi, Reply, Route
from funcrt.gateway.answer import Flow
from funcrt.gateway.connection import answered
from funcrt.gateway.limits import (
    ClientGone,
    GatewayConfig,
    Head,
    Receive,
    Scope,
    Send,
    read_body,
)
from funcrt.gateway.prefer import APPLIED_ASYNC, preferences
from funcrt.gateway.problem import HttpProblem, retry_after, wrong_method
from funcrt.gateway.receipts import send_receipts
from funcrt.sandbox.protocol import Http
from funcrt.sandbox.web import REQUEST_TYPE
from funcrt.timeouts import Timeouts
from mesh.codec import decode_http, encode_http, validate
from mesh.errors import EventError
from mesh.event import AttributeValue, Event

__all__ = ["CLOUDEVENTS", "WATCH_AFTER_S", "Calls", "Watch", "check_size", "event_headers"]

CLOUDEVENTS = b"application/cloudevents"
BATCH = b"application/cloudevents-batch"

_LOG = logging.getLogger("funcrt.gateway")

WATCH_AFTER_S = 0.05
"""A call shorter than this is not worth watching for a client that leaves."""

RETRY_MOST_S = 86400
"""A function's own wish beyond this is not passed on."""

_TIMEOUT = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)?", re.ASCII)
_UNITS = {None: 1.0, "s": 1.0, "ms": 0.001, "m": 60.0}

STATUS = {
    "error": 500,
    "reject": 422,
    "retry": 503,
    "timeout": 504,
    "crash": 502,
    "closing": 503,
}


class Calls:
    """`POST /functions/{name}`, and the HTTP-route triggers."""

    def __init__(self, host: HostApi, config: GatewayConfig) -> None:
        self.host = host
        self.limit = config.event_bytes
        self.most = config.request_bytes
        self.watches = Timeouts(WATCH_AFTER_S)

    async def function(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        """Call a function by its name. Raises HttpProblem and the host's errors."""
        timeout_s = _query_timeout(scope["query_string"]) if scope["query_string"] else None
        await self._call(scope, receive, send, Route(name, "http", (), False), timeout_s)

    async def route(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        """Call the function behind an HTTP trigger. Raises as `function`."""
        method, allowed = scope["method"], route.methods
        if allowed and method not in allowed and not (method == "HEAD" and "GET" in allowed):
            raise wrong_method(scope["path"], allowed)
        await self._call(scope, receive, send, route, None)

    async def _call(
        self, scope: Scope, receive: Receive, send: Send, route: Route, timeout_s: float | None
    ) -> None:
        name = route.function
        kind = self.host.kind(name)
        head: Head = scope["funcrt.head"]
        later = False
        if b"prefer" in head:
            prefer = preferences(scope)
            # Never binding: there is nowhere to keep a request's head, or its path's parameters.
            later = prefer.respond_async and kind != "request" and not route.params
            if prefer.wait_s is not None:
                timeout_s = prefer.wait_s if timeout_s is None else min(prefer.wait_s, timeout_s)
        if kind == "request":
            event = _request_event(scope, await read_body(scope, receive, self.most, encoded=True))
            asked = http_of(scope, route)
            await self._flow(scope, receive, send, route, event, asked, timeout_s)
            return
        structured = head.get(b"content-type", b"")[:23].lower() == CLOUDEVENTS
        body = await read_body(scope, receive, self.limit * 2 if structured else self.limit)
        event = _event(scope, head, body, route.strict)
        if structured:
            check_size(event, self.limit)
        http = http_of(scope, route) if route.params else None
        if later:
            receipt = await self.host.call_async(name, event)
            await send_receipts(send, name, [event], [receipt], [APPLIED_ASYNC])
            return
        if kind == "stream":
            await self._flow(scope, receive, send, route, event, http, timeout_s)
            return
        watch = Watch(receive, self.watches)
        try:
            reply = await self.host.call(
                name, event, trigger=route.trigger, timeout_s=timeout_s, http=http
            )
            start, content = _response(reply, name, scope)
            if not answered(send, start["status"], start["headers"], content["body"]):
                await send(start)
                await send(content)
        except asyncio.CancelledError:
            raise watch.told("the host stopped during the call") from None
        finally:
            watch.close()

    async def _flow(  # noqa: PLR0917
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route,
        event: Event,
        http: Http | None,
        timeout_s: float | None,
    ) -> None:
        """A call whose answer begins before it ends. Where it fails then, the connection is closed
        without the response's end, which tells the client that it is not whole."""
        flow = Flow(scope, send)
        name = route.function
        watch = Watch(receive, self.watches)
        try:
            reply = await self.host.call(
                name, event, trigger=route.trigger, timeout_s=timeout_s, http=http, answer=flow
            )
            if not flow.begun:
                start, content = _response(reply, name, scope)
                await send(start)
                await send(content)
            elif reply.status == "ok":
                await flow.end(reply.outputs)
            elif reply.failure is not None:
                why = f"{reply.failure.error}: {reply.failure.message}"
                _LOG.warning("%s: its response was cut off: %s", name, why)
        except asyncio.CancelledError:
            gone = watch.told("the host stopped during the call")
            if not flow.begun or isinstance(gone, ClientGone):
                raise gone from None
        finally:
            watch.close()


class Watch:
    """Cancels the running request when its client leaves.

    It starts to listen only once the call has lasted for a while: one timer is all that a short
    call pays.
    """

    __slots__ = ("gone", "listener", "receive", "task", "timer")

    def __init__(self, receive: Receive, watches: Timeouts) -> None:
        self.receive = receive
        self.gone = False
        self.listener: asyncio.Task[None] | None = None
        self.task = asyncio.current_task()
        self.timer = watches.start(self._start)

    def _start(self) -> None:
        self.listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self.task is not None:
            self.task.cancel()

    def told(self, otherwise: str) -> Exception:
        """What to raise where the request was cancelled."""
        if not self.gone:
            return HttpProblem(503, "closed", otherwise)
        if self.task is not None:
            self.task.uncancel()
        return ClientGone()

    def close(self) -> None:
        """Stop; whatever happens to the client now is not the call's business."""
        self.timer.cancel()
        if self.listener is not None:
            self.listener.cancel()


def check_size(event: Event, limit: int) -> None:
    """Raises EventError 413 for more data than `limit` bytes."""
    if event.data is not None and len(event.data) > limit:
        raise EventError(
            f"over the limit of {limit} bytes (id {event.id!r})", attribute="data", status=413
        )


def event_headers(scope: Scope) -> list[tuple[str, str]]:
    """The headers that make an event: `ce-*` and Content-Type."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name[:3] == b"ce-" or name == b"content-type"
    ]


def _event(scope: Scope, head: Head, body: bytes, strict: bool) -> Event:
    """The event that a request carries or, where it is none and `strict` is off, is wrapped in."""
    media = head.get(b"content-type", b"").lower()
    if media.startswith(BATCH):
        raise HttpProblem(
            415, "media-type", "a call takes one event; publish a batch to a topic instead"
        )
    headers = event_headers(scope)
    if media.startswith(CLOUDEVENTS) or len(headers) > (b"content-type" in head):
        return decode_http(headers, body)[0]
    if strict:
        raise HttpProblem(
            415,
            "media-type",
            "only CloudEvents are taken here: send ce- headers, or application/cloudevents+json",
        )
    event = _request_event(scope, body)
    validate(event)
    return event


def _request_event(scope: Scope, body: bytes) -> Event:
    """The event that a plain request is wrapped in. Not validated: any request has one."""
    head: Head = scope["funcrt.head"]
    extensions: dict[str, AttributeValue] = {"httpmethod": scope["method"]}
    if scope["query_string"]:
        extensions["httpquery"] = scope["query_string"].decode("latin-1")
    media = head.get(b"content-type")
    return Event(
        id=str(uuid.uuid4()),
        source="/http" + quote(scope["raw_path"], safe="/%:@!$&'()*+,;=-._~"),
        type=REQUEST_TYPE,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        datacontenttype=media.decode("latin-1") if media else None,
        extensions=extensions,
        data=body or None,
    )


def http_of(scope: Scope, route: Route) -> Http:
    """The request's head for the function. The gateway's own token is not for it."""
    headers = scope["headers"]
    if scope["funcrt.config"].tokens:
        headers = [each for each in headers if each[0] != b"authorization"]
    return Http(
        scope["method"],
        scope["path"],
        scope["raw_path"],
        scope["query_string"],
        list(headers),
        route.params,
        scope["http_version"],
        scope["client"] or None,
        scope["server"] or None,
    )


def _response(reply: Reply, name: str, scope: Scope) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two ASGI messages that answer a call."""
    head: Head = scope["funcrt.head"]
    if reply.status != "ok":
        raise _failed(reply, name, admin="admin" in scope["funcrt.grant"].scopes)
    outputs = reply.outputs
    if not outputs:
        start = {"type": "http.response.start", "status": 204, "headers": _NOSNIFF}
        return start, {"type": "http.response.body", "body": b""}
    try:
        if len(outputs) > 1:
            named, body = encode_http(outputs, "batch")
        elif b"application/cloudevents+json" in head.get(b"accept", b""):
            named, body = encode_http(outputs[0], "structured")
        else:
            named, body = encode_http(outputs[0], "binary")
    except EventError as error:
        raise HttpProblem(
            500, "error", f"{name} returned what is no valid event: {error}"
        ) from None
    headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in named]
    headers.append((b"content-length", b"%d" % len(body)))
    headers += _NOSNIFF
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


_NOSNIFF = [(b"x-content-type-options", b"nosniff")]


def _failed(reply: Reply, name: str, *, admin: bool) -> HttpProblem:
    """The problem for a call that failed. Only an admin is shown the traceback."""
    failure = reply.failure
    status = STATUS[reply.status]
    headers = []
    if status == 503:
        after_s = reply.retry_after_s or 0.0
        headers = retry_after(math.ceil(after_s) if 1 <= after_s <= RETRY_MOST_S else 1)
    if failure is None:
        return HttpProblem(status, reply.status, f"{name}: {reply.status}", headers=headers)
    place = f" ({failure.where})" if failure.where else ""
    members = {"traceback": failure.traceback} if admin and failure.traceback else {}
    return HttpProblem(
        status,
        reply.status,
        f"{name}: {failure.error}: {failure.message}{place}",
        headers=headers,
        error=failure.error,
        message=failure.message,
        where=failure.where,
        **members,
    )


def _query_timeout(query: bytes) -> float | None:
    for part in query.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        if name == "timeout":
            found = _TIMEOUT.fullmatch(value)
            seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
            if seconds <= 0:
                raise HttpProblem(
                    400, "timeout", f"timeout={value[:40]}: expected seconds, e.g. 2, 0.5, 500ms"
                )
            return seconds
    return None
