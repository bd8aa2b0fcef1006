"""Below `/admin`: what functions said and did, why, and their events once more."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from funcrt.api import HostApi
from funcrt.gateway.admin import IDS_MAX, Redrive, audit, json_body
from funcrt.gateway.problem import HttpProblem, shown
from funcrt.gateway.publish import json_response, logged_json, number
from funcrt.logbook import LEVELS, LINES
from mesh.event import Event

__all__ = ["Observe"]

LAST_MAX = 1000
LOOK_S = 1.0
"""Between looks at whether the host stops, while nothing is said."""
SILENT_S = 15.0
"""A follower who is told nothing gets an empty line, so that one who left is noticed."""


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """Which events to replay: `{"last": 10}`, `{"id": "cat-1"}`, or `{"from": "@12"}` with `to`;
    of one trigger where it is named."""

    last: int = 0
    id: str = ""
    start: str = msgspec.field(default="", name="from")
    end: str = msgspec.field(default="now", name="to")
    trigger: str = ""


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """An event to judge, as JSON, and where it is published and for whom, where that counts.
    Without one, only how filters are come to."""

    event: msgspec.Raw = msgspec.Raw()
    topic: str = ""
    function: str = ""


class Observe:
    """The routes."""

    def __init__(self, host: HostApi) -> None:
        self.host = host

    def routes(self) -> list[Route]:
        """Each path."""
        return [
            Route("/admin/stats", self.all_stats),
            Route("/admin/explain", self.explain, methods=["POST"]),
            Route("/admin/functions/{name}/stats", self.stats),
            Route("/admin/functions/{name}/logs", self.logs),
            Route("/admin/functions/{name}/events", self.events),
            Route("/admin/functions/{name}/replay", self.replay, methods=["POST"]),
            Route("/admin/functions/{name}/dlq/drop", self.drop, methods=["POST"]),
        ]

    async def all_stats(self, request: Request) -> Response:
        """What every function did lately."""
        return json_response({"functions": await self.host.observation.stats()})

    async def stats(self, request: Request) -> Response:
        """What one did."""
        (found,) = await self.host.observation.stats(request.path_params["name"])
        return json_response(found)

    async def explain(self, request: Request) -> Response:
        """What the triggers in service say of an event."""
        asked = await json_body(request, Asked)
        event = Event.from_json(text) if (text := bytes(asked.event)) else None
        found = self.host.observation.explain(event, name=asked.function, topic=asked.topic)
        return json_response({"functions": found})

    async def logs(self, request: Request) -> Response:
        """What a function wrote: `?limit=N&since=SECONDS&level=L&id=EVENT`, and with `follow=1`
        what it writes from now on, a JSON line each."""
        query, observation = request.query_params, self.host.observation
        name = observation.said(request.path_params["name"])
        level, event = query.get("level", "debug"), query.get("id", "")
        if level not in LEVELS:
            raise HttpProblem(
                400, "query", f"level={shown(level)}: expected one of {', '.join(LEVELS)}"
            )
        try:
            since = float(query.get("since", "0"))
        except ValueError:
            raise HttpProblem(
                400, "query", f"since={shown(query['since'])}: expected seconds since the epoch"
            ) from None
        limit = number(request, "limit", 100, LINES)
        book = observation.logbook
        if query.get("follow", "") in ("1", "true"):
            told = self._follow(name, limit, level, event, since)
            return StreamingResponse(told, media_type="application/x-ndjson")
        lines, forgotten = book.read(name, last=limit, level=level, event=event, since=since)
        return json_response({"lines": lines, "forgotten": forgotten})

    async def _follow(
        self, name: str, limit: int, level: str, event: str, since: float
    ) -> AsyncIterator[bytes]:
        book, encode = self.host.observation.logbook, msgspec.json.encode
        follower = book.follow(name)
        try:
            lines, _ = book.read(name, last=limit, level=level, event=event, since=since)
            dropped, silent, first = 0, 0.0, True
            while first or self.host.state == "ready":
                first = False
                wanted = [line for line in lines if line.wanted(LEVELS[level], event, since)]
                told = [encode(line) for line in wanted]
                if dropped:
                    told.append(encode({"dropped": dropped}))
                silent = 0.0 if told else silent + LOOK_S
                if told or silent >= SILENT_S:
                    yield b"".join(each + b"\n" for each in told or [b""])
                    silent = 0.0
                lines, dropped = await follower.take(LOOK_S)
        finally:
            book.leave(name, follower)

    async def events(self, request: Request) -> Response:
        """The events that a replay would queue: `?last=N`, `?id=EVENT` or `?from=START&to=END`,
        `&trigger=NAME`."""
        query = request.query_params
        which = Which(
            last=number(request, "last", 0, LAST_MAX) if "last" in query else 0,
            id=query.get("id", ""),
            start=query.get("from", ""),
            end=query.get("to", "now"),
            trigger=query.get("trigger", ""),
        )
        _check(which, "query", "expected one of last=N, id=EVENT and from=START")
        found, more = await self.host.observation.find(
            request.path_params["name"],
            last=which.last,
            event=which.id,
            start=which.start,
            end=which.end,
            trigger=which.trigger,
        )
        rows: list[dict[str, Any]] = [
            {"trigger": each.trigger, **logged_json(each.logged)} for each in found
        ]
        return json_response({"events": rows, "more": more})

    async def replay(self, request: Request) -> Response:
        """Queue events of a function's topics once more, for it alone."""
        name = request.path_params["name"]
        which = await json_body(request, Which)
        _check(which, "body", 'expected one of {"last": N}, {"id": "..."} and {"from": "..."}')
        done = await self.host.observation.replay(
            name,
            last=which.last,
            event=which.id,
            start=which.start,
            end=which.end,
            trigger=which.trigger,
        )
        asked = {key: value for key, value in msgspec.to_builtins(which).items() if value}
        if not which.start:
            del asked["to"]
        await audit(
            self.host, request, "replay", function=name, asked=asked, **msgspec.to_builtins(done)
        )
        return json_response(done)

    async def drop(self, request: Request) -> Response:
        """Forget dead letters: `{"ids": [1, 2]}` or `{"all": true}`."""
        name = request.path_params["name"]
        asked = await json_body(request, Redrive)
        if asked.all == (asked.ids is not None):
            raise HttpProblem(400, "body", 'expected either {"ids": [...]} or {"all": true}')
        if asked.ids is not None and len(asked.ids) > IDS_MAX:
            raise HttpProblem(400, "body", f"more than {IDS_MAX} ids; drop them in parts")
        count = await self.host.observation.drop(name, asked.ids)
        ids = "all" if asked.all else asked.ids
        await audit(self.host, request, "dlq.drop", function=name, ids=ids, dropped=count)
        return json_response({"dropped": count})


def _check(which: Which, kind: str, expected: str) -> None:
    """One way to choose, and no more. Raises HttpProblem."""
    given = [bool(which.last), bool(which.id), bool(which.start)]
    if sum(given) != 1 or not 0 <= which.last <= LAST_MAX:
        raise HttpProblem(400, kind, f"{expected}, with at most {LAST_MAX} for last")
