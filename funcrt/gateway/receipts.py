"""What became of stored events, for callers: a row each, or the one problem that stands for all."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from funcrt.gateway.limits import Send
from funcrt.gateway.problem import FULL_RETRY_S, SAFE, HttpProblem, retry_after
from mesh.event import Event
from mesh.transport import Receipt

__all__ = ["send_receipts"]

_REFUSALS = (
    # (Receipt.error, status, kind, Retry-After), the gravest first
    ("closed", 503, "closed", 1),
    ("full", 507, "full", FULL_RETRY_S),
    ("queue_full", 429, "queue-full", 1),
    ("busy", 429, "busy", 1),
)


async def send_receipts(
    send: Send,
    topic: str,
    events: Sequence[Event],
    receipts: Sequence[Receipt],
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer 202 with a receipt an event, in order, where at least one was stored.

    Raises HttpProblem, which holds the same receipts, where none was.
    """
    rows = _rows(events, receipts)
    if events and not any(receipt.status == "stored" for receipt in receipts):
        raise _nothing_stored(topic, receipts, rows)
    body = msgspec.json.encode({"receipts": rows})
    length = (b"content-length", b"%d" % len(body))
    headers = [(b"content-type", b"application/json"), length, *SAFE, *headers]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
    for error, status, kind, seconds in _REFUSALS:
        if error in reasons:
            headers = retry_after(seconds)
            return HttpProblem(status, kind, f"{topic}: {reason}", headers=headers, receipts=rows)
    return HttpProblem(400, "event", f"{topic}: {reason}", receipts=rows)
