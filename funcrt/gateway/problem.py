"""Errors as RFC 9457 problem details, and the one table from exceptions to them."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from funcrt.errors import FuncrtError, FunctionPaused, FunctionUnknown, Overloaded
from funcrt.text import safe
from mesh.errors import (
    EventError,
    MeshClosed,
    MeshCorrupt,
    MeshError,
    MeshFull,
    NameInvalid,
    QueueFull,
    UnsupportedFeature,
)

__all__ = [
    "FULL_RETRY_S",
    "SAFE",
    "HttpProblem",
    "problem_of",
    "retry_after",
    "shown",
    "wrong_method",
]

SAFE: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
"""On every answer of the gateway's own: no page may run, frame or keep what it holds."""

TITLES = {
    "admission": "Too many requests at once",
    "busy": "Too much waits to be stored",
    "closed": "The host is not taking requests",
    "closing": "The host is stopping",
    "crash": "The function's instance died",
    "draining": "The host is stopping",
    "error": "The function failed",
    "event": "Not a valid event",
    "forbidden": "The token does not allow this",
    "full": "The mesh is full",
    "host": "Host not allowed",
    "internal": "Internal error",
    "origin": "Cross-origin request refused",
    "overloaded": "Too many calls wait already",
    "queue-full": "A queue is full",
    "paused": "The function is paused",
    "refused": "Refused",
    "reject": "The function refused the event",
    "reserved": "Not for publishing from outside",
    "retry": "The function asks to be called again",
    "timeout": "The function took too long",
    "too-large": "The body is too large",
    "unauthorized": "A token is needed",
    "unknown-function": "No such function",
    "unknown-path": "Nothing is there",
}

FULL_RETRY_S = 10
"""A full disk is not emptied in a second."""
PAUSED_RETRY_S = 30
"""Nor is a function paused for one."""


class HttpProblem(Exception):
    """A request that is answered with an error.

    `kind` ends the `type` URI, `urn:funcrt:problem:<kind>`, for programs; `detail` is for people;
    `members` are the extension members (RFC 9457 §3.2).
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        **members: Any,
    ) -> None:
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = list(headers)
        self.members = members
        super().__init__(detail)

    def body(self) -> bytes:
        """The JSON document."""
        return msgspec.json.encode(
            {
                "type": f"urn:funcrt:problem:{self.kind}",
                "title": TITLES.get(self.kind) or HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **self.members,
            }
        )

    def response(self, *, close: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two ASGI messages. `close` ends the connection after them."""
        body = self.body()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            *SAFE,
            *self.headers,
        ]
        if close:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        return start, {"type": "http.response.body", "body": body}


def shown(text: str, most: int = 200) -> str:
    """What a caller sent, for a message: cut short, control characters spelled out."""
    return safe(text[:most])


def wrong_method(path: str, allow: Sequence[str]) -> HttpProblem:
    """405 with its Allow header (RFC 9110 §15.5.6); HEAD goes with GET."""
    names = [*allow, "HEAD"] if "GET" in allow and "HEAD" not in allow else allow
    text = ", ".join(names)
    return HttpProblem(
        405, "method", f"{shown(path)} takes {text}", headers=[(b"allow", text.encode("latin-1"))]
    )


def retry_after(seconds: int) -> list[tuple[bytes, bytes]]:
    """The Retry-After header, in whole seconds."""
    return [(b"retry-after", b"%d" % max(1, seconds))]


def problem_of(error: Exception) -> HttpProblem | None:
    """The problem that an exception of ours stands for; None for one that is a bug."""
    match error:
        case HttpProblem():
            return error
        case EventError():
            return HttpProblem(
                error.status, "event", str(error), attribute=error.attribute, reason=error.reason
            )
        case FunctionUnknown():
            return HttpProblem(404, "unknown-function", str(error), nearest=error.nearest)
        case Overloaded():
            return HttpProblem(
                429, "overloaded", str(error), headers=retry_after(error.retry_after_s)
            )
        case FunctionPaused():
            return HttpProblem(503, "paused", str(error), headers=retry_after(PAUSED_RETRY_S))
        case QueueFull():
            return HttpProblem(429, "queue-full", str(error), headers=retry_after(1))
        case MeshFull():
            return HttpProblem(507, "full", str(error), headers=retry_after(FULL_RETRY_S))
        case MeshClosed():
            return HttpProblem(503, "closed", str(error), headers=retry_after(1))
        case MeshCorrupt():
            return HttpProblem(500, "corrupt", str(error))
        case NameInvalid():
            return HttpProblem(400, "name", str(error))
        case UnsupportedFeature():
            return HttpProblem(501, "unsupported", str(error))
        case MeshError() | FuncrtError():
            return HttpProblem(400, "refused", str(error))
    return None
