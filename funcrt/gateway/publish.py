"""Topics over HTTP: publishing events, and reading them back."""

import heapq
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from funcrt.api import HostApi
from funcrt.gateway.call import CLOUDEVENTS, check_size, event_headers
from funcrt.gateway.limits import GatewayConfig, Head, Receive, Scope, Send, read_body
from funcrt.gateway.problem import SAFE, HttpProblem, shown
from funcrt.gateway.receipts import send_receipts
from funcrt.manifest_kinds import OWN_NAMES
from funcrt.observation import after
from mesh.codec import decode_http
from mesh.event import Event
from mesh.transport import check_name

__all__ = ["Topics", "json_response", "logged_json", "number"]

READ_MAX = 1000
READ_BYTES = 8 << 20
"""A page of events ends early where it would be larger than this."""
_STEP = 16

OWN_SOURCES = "/funcrt/"
"""Outputs and dead letters come from below it. Their ids can be foretold: taken by somebody else
first, the real one would pass for a duplicate."""


class Topics:
    """`/topics` and what is below it."""

    def __init__(self, host: HostApi, config: GatewayConfig) -> None:
        self.host = host
        self.config = config

    async def publish(self, scope: Scope, receive: Receive, send: Send, topic: str) -> None:
        """`POST /topics/{topic}/events`: 202 with a receipt each, once they are durable.

        Raises HttpProblem, EventError, MeshError.
        """
        check_name("topic", topic)
        self.check_open(scope, topic)
        head: Head = scope["funcrt.head"]
        media = head.get(b"content-type", b"").lower()
        headers = event_headers(scope)
        if not media.startswith(CLOUDEVENTS) and len(headers) == (b"content-type" in head):
            raise HttpProblem(
                415,
                "media-type",
                "a publish takes CloudEvents: send ce- headers (binary), application/"
                "cloudevents+json (structured) or application/cloudevents-batch+json (batch)",
            )
        batch = media.startswith(b"application/cloudevents-batch")
        limit = self.config.event_bytes
        if media.startswith(CLOUDEVENTS):
            limit = self.config.batch_bytes if batch else 2 * limit
        events = decode_http(headers, await read_body(scope, receive, limit))
        trusted = "admin" in scope["funcrt.grant"].scopes
        for event in events:
            check_size(event, self.config.event_bytes)
            if not trusted and event.source.startswith(OWN_SOURCES):
                raise _forged(event)
        receipts = await self.host.publish(topic, events) if events else []
        await send_receipts(send, topic, events, receipts)

    def check_open(self, scope: Scope, topic: str) -> None:
        """Raises HttpProblem 403 for a topic that outsiders may not publish to."""
        if topic.startswith(OWN_NAMES):
            raise HttpProblem(
                403, "reserved", f"topics whose names begin with {OWN_NAMES} are the host's own"
            )
        function = self.host.letters_of(topic)
        if function is not None and "admin" not in scope["funcrt.grant"].scopes:
            raise HttpProblem(
                403,
                "reserved",
                f"{topic} takes the dead letters of {function}; publishing there needs the scope"
                " 'admin'",
                scope="admin",
            )

    async def read(self, request: Request) -> Response:
        """`GET /topics/{topic}/events?from=earliest|TIME|@POSITION&limit=N`: a page of events.

        `next` is where the following page starts: pass it as `from`.
        """
        topic = check_name("topic", request.path_params["topic"])
        start = request.query_params.get("from", "earliest")
        limit = number(request, "limit", 100, READ_MAX)
        rows: list[dict[str, Any]] = []
        size = 0
        while len(rows) < limit and size < READ_BYTES:
            asked = min(_STEP, limit - len(rows))
            found = await self.host.mesh.read(topic, start, asked)
            for logged in found:
                rows.append(logged_json(logged))
                size += len(logged.event.data or b"")
            if found:
                start = after(found[-1].position)
            if len(found) < asked:
                break
        return json_response({"events": rows, "next": start})

    async def list(self, request: Request) -> Response:
        """`GET /topics?after=NAME&limit=N`: a page of names, in order, and how many events each
        holds; the host's own for admins. `next` is what to pass as `after`, or null."""
        last = request.query_params.get("after", "")
        limit = number(request, "limit", READ_MAX, READ_MAX)
        found = await self.host.mesh.topics()
        admin = "admin" in request.scope["funcrt.grant"].scopes
        open_ = (n for n in found if n > last and (admin or not n.startswith(OWN_NAMES)))
        names = heapq.nsmallest(limit + 1, open_)
        rest = names[limit - 1] if len(names) > limit > 0 else None
        return json_response({"topics": {n: found[n] for n in names[:limit]}, "next": rest})


def _forged(event: Event) -> HttpProblem:
    return HttpProblem(
        403,
        "reserved",
        f"source: {shown(event.source)} is a function's own; publishing in its name needs the scope"
        " 'admin'",
        attribute="source",
        scope="admin",
    )


def logged_json(logged: Any) -> dict[str, Any]:
    """An event of a topic, as the API and `--json` show it."""
    return {
        "topic": logged.topic,
        "position": logged.position,
        "published_at": logged.published_at,
        "event": msgspec.Raw(logged.event.to_json()),
    }


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer of the gateway's own."""
    response = Response(msgspec.json.encode(value), status, media_type="application/json")
    response.raw_headers += SAFE
    return response


def number(request: Request, name: str, default: int, most: int) -> int:
    """A whole number from the query, 0 to `most`. Raises HttpProblem 400."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > most:
        raise HttpProblem(400, "query", f"{name}={text[:40]}: expected a number up to {most}")
    return int(text)
