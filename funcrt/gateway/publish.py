"""Topics over HTTP: publishing events, and reading them back."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from funcrt.api import HostApi
from funcrt.gateway.call import CLOUDEVENTS, check_size, event_headers
from funcrt.gateway.limits import GatewayConfig, Head, Receive, Scope, Send, read_body
from funcrt.gateway.problem import SAFE, HttpProblem, retry_after
from mesh.codec import decode_http
from mesh.event import Event
from mesh.transport import Receipt, check_name

__all__ = ["Topics", "json_response", "logged_json", "number"]

READ_MAX = 1000
READ_BYTES = 8 << 20
"""A page of events ends early where it would be larger than this."""
_STEP = 16

_REFUSALS = (
    # (Receipt.error, status, kind), the gravest first
    ("closed", 503, "closed"),
    ("full", 507, "full"),
    ("queue_full", 429, "queue-full"),
)


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
        for event in events:
            check_size(event, self.config.event_bytes)
        receipts = await self.host.publish(topic, events) if events else []
        rows = _rows(events, receipts)
        if events and not any(receipt.status == "stored" for receipt in receipts):
            raise _nothing_stored(topic, receipts, rows)
        body = msgspec.json.encode({"receipts": rows})
        length = (b"content-length", b"%d" % len(body))
        headers_out = [(b"content-type", b"application/json"), length, *SAFE]
        await send({"type": "http.response.start", "status": 202, "headers": headers_out})
        await send({"type": "http.response.body", "body": body})

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
        """`GET /topics`: names, and how many events each holds."""
        return json_response({"topics": await self.host.mesh.topics()})


def after(position: str) -> str:
    """The start just after a position, where positions are numbers (the embedded mesh's are)."""
    text = position.removeprefix("@")
    return f"@{int(text) + 1}" if text.isdigit() else f"@{text}"


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


def _rows(events: Sequence[Event], receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    rows = []
    for event, receipt in zip(events, receipts, strict=True):
        row: dict[str, Any] = {
            "id": event.id,
            "status": receipt.status,
            "position": receipt.position,
            "duplicate": receipt.duplicate,
        }
        if receipt.reason or receipt.error:
            row["error"] = receipt.error
            row["reason"] = receipt.reason
        rows.append(row)
    return rows


def _nothing_stored(
    topic: str, receipts: Sequence[Receipt], rows: list[dict[str, Any]]
) -> HttpProblem:
    """The one problem that stands for all; the receipts say more."""
    if any(receipt.status == "ambiguous" for receipt in receipts):
        return HttpProblem(
            503,
            "ambiguous",
            f"{topic}: the events may be stored; publish them again with the same ids",
            headers=retry_after(1),
            receipts=rows,
        )
    reasons = Counter(receipt.error for receipt in receipts)
    reason = next((receipt.reason for receipt in receipts if receipt.reason), "no reason given")
    for error, status, kind in _REFUSALS:
        if error in reasons:
            headers = retry_after(1) if status in (429, 503) else []
            return HttpProblem(status, kind, f"{topic}: {reason}", headers=headers, receipts=rows)
    return HttpProblem(400, "event", f"{topic}: {reason}", receipts=rows)
