"""The admin API: `/admin/...`, on the admin socket, or over TCP with an admin token.

Each act is written to the logger `funcrt.audit`, one line, with who asked, and kept in the mesh.
"""

import logging
import os
import re
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from funcrt.api import HostApi
from funcrt.gateway.limits import read_body
from funcrt.gateway.problem import HttpProblem
from funcrt.gateway.publish import json_response, number
from mesh.transport import DeadLetter

__all__ = ["IDS_MAX", "Admin", "Redrive", "audit", "json_body"]

AUDIT = "audit"
"""The kind of the mesh's records that keep what admins did."""

_AUDIT = logging.getLogger("funcrt.audit")
IDS_MAX = 10_000
_BODY = 1 << 20
T = TypeVar("T")
_JSON = re.compile(rb"application/json\s*(;.*)?", re.IGNORECASE)


class Redrive(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters: `{"ids": [1, 2]}` or `{"all": true}`."""

    ids: list[int] | None = None
    all: bool = False


class Admin:
    """What an operator asks of a host."""

    def __init__(self, host: HostApi) -> None:
        self.host = host

    def routes(self) -> list[Route]:
        """Each path below `/admin`."""
        return [
            Route("/admin/status", self.status),
            Route("/admin/functions", self.functions),
            Route("/admin/functions/{name}/dlq", self.dead_letters),
            Route("/admin/functions/{name}/dlq/replay", self.redrive, methods=["POST"]),
            Route("/admin/audit", self.acts),
        ]

    async def status(self, request: Request) -> Response:
        """The host itself."""
        mesh = self.host.mesh
        return json_response(
            {
                "state": self.host.state,
                "pid": os.getpid(),
                "transport": mesh.features.name,
                "durability": await mesh.durability(),
                "functions": len(await self.host.functions()),
            }
        )

    async def functions(self, request: Request) -> Response:
        """Every deployed function."""
        return json_response({"functions": await self.host.functions()})

    async def dead_letters(self, request: Request) -> Response:
        """A page of a function's dead letters, oldest first; `after` is the last page's last id.
        With `causes=1` each with the exception's class and the author's line."""
        found = await self.host.dead_letters(
            request.path_params["name"],
            after=number(request, "after", 0, 2**63 - 1),
            limit=number(request, "limit", 100, 1000),
        )
        rows = [_letter_json(letter) for letter in found]
        if request.query_params.get("causes") in ("1", "true"):
            causes = await self.host.observation.causes(found)
            for row, (error, where) in zip(rows, causes, strict=True):
                row |= {"error": error, "where": where}
        return json_response({"dead_letters": rows})

    async def acts(self, request: Request) -> Response:
        """A page of what admins did, oldest first; `after` is the last page's last seq."""
        limit = number(request, "limit", 100, 1000)
        rows = await self.host.mesh.records(AUDIT, number(request, "after", 0, 2**63 - 1))
        acts = [{"seq": seq, **msgspec.json.decode(body)} for seq, body in rows[:limit]]
        return json_response({"acts": acts})

    async def redrive(self, request: Request) -> Response:
        """Queue dead letters again."""
        name = request.path_params["name"]
        asked = await json_body(request, Redrive)
        if asked.all == (asked.ids is not None):
            raise HttpProblem(400, "body", 'expected either {"ids": [...]} or {"all": true}')
        if asked.ids is not None and len(asked.ids) > IDS_MAX:
            raise HttpProblem(400, "body", f"more than {IDS_MAX} ids; replay them in parts")
        count = await self.host.redrive(name, asked.ids)
        ids = "all" if asked.all else asked.ids
        await audit(self.host, request, "dlq.replay", function=name, ids=ids, replayed=count)
        return json_response({"replayed": count})


async def audit(host: HostApi, request: Request, act: str, **what: Any) -> None:
    """Record one admin act: a line of the log, and a row of the mesh's append-only records."""
    row = {"act": act, "by": request.scope["funcrt.grant"].name, **what}
    body = msgspec.json.encode(row)
    _AUDIT.info("%s", body.decode())
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await host.mesh.append_record(AUDIT, msgspec.json.encode({"at": moment, **row}))


async def json_body(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Raises HttpProblem 415 for what is not sent as JSON, 400 for bad JSON.

    Only `application/json` is taken: a web page cannot send that across origins unasked.
    """
    if not _JSON.fullmatch(request.headers.get("content-type", "").encode("latin-1")):
        raise HttpProblem(415, "media-type", "expected application/json")
    body = await read_body(request.scope, request.receive, _BODY)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise HttpProblem(400, "body", str(error)) from None


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "subscription": letter.subscription,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at": letter.died_at,
        "letter_topic": letter.letter_topic,
        "letter_position": letter.letter_position,
        "event": msgspec.Raw(letter.event.to_json()),
    }
