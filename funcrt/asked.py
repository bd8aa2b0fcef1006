"""HTTP requests without HTTP: of samples, tests and trials."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from funcrt.manifest import HttpTrigger, Manifest
from funcrt.paths import Paths
from funcrt.sandbox.protocol import Http
from funcrt.sandbox.web import REQUEST_TYPE, request_of
from mesh.event import Event

__all__ = ["asked_by", "requested", "routes"]


def routes(manifest: Manifest) -> Paths[str]:
    """The names of a manifest's HTTP triggers by their paths."""
    triggers = manifest.triggers
    return Paths((t.path, t.name) for t in triggers if isinstance(t, HttpTrigger))


def asked_by(manifest: Manifest, event: Event) -> tuple[str, Http] | None:
    """The request that was wrapped in an event: the trigger that has its path, and its head with
    the parameters; None for any other event."""
    if event.type != REQUEST_TYPE:
        return None
    http = request_of(event)
    found = routes(manifest).find(http.path)
    if found is None:
        return None
    trigger, params = found
    return trigger, msgspec.structs.replace(http, params=params)


def requested(  # noqa: PLR0917
    paths: Paths[Any],
    method: str,
    target: str,
    json: Any,
    body: bytes,
    headers: Mapping[str, str],
) -> tuple[Http, bytes, Any]:
    """A request of a test: its head, its body, and what is at its path."""
    raw, _, query = target.partition("?")
    path = unquote(raw)
    found = paths.find(path)
    named = {name.lower(): value for name, value in headers.items()}
    if json is not None:
        body = msgspec.json.encode(json)
        named.setdefault("content-type", "application/json")
    named.setdefault("host", "testserver")
    named.setdefault("content-length", str(len(body)))
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    route, params = found if found is not None else (None, [])
    head = Http(method, path, raw.encode(), query.encode("latin-1"), pairs, params)
    return head, body, route
