"""The admin API's part that changes what is in service: `/admin/deployments`, and each function."""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from funcrt.api import HostApi
from funcrt.errors import mistakes
from funcrt.gateway.admin import audit, json_body
from funcrt.gateway.call import WATCH_AFTER_S, Watch
from funcrt.gateway.limits import read_body
from funcrt.gateway.problem import HttpProblem
from funcrt.gateway.publish import json_response
from funcrt.manifest import SCALE_MOST
from funcrt.receive import NotDeployed
from funcrt.timeouts import Timeouts
from funcrt.upload import MEDIA_TYPE, decode

__all__ = ["Deployments"]


class _Rollback(msgspec.Struct, forbid_unknown_fields=True):
    version: str = ""
    wait: bool = True


class _Bounds(msgspec.Struct, forbid_unknown_fields=True):
    min: int | None = None
    max: int | None = None
    reset: bool = False


class _Remove(msgspec.Struct, forbid_unknown_fields=True):
    purge: bool = False


class Deployments:
    """What an operator changes. Each act is recorded once it was done, and a refusal is none."""

    def __init__(self, host: HostApi) -> None:
        self.host = host
        self.watches = Timeouts(WATCH_AFTER_S)

    def routes(self) -> list[Route]:
        """Each path."""
        post = ["POST"]
        one = "/admin/functions/{name}"
        return [
            Route("/admin/deployments", self.deploy, methods=post),
            Route(one, self.describe),
            Route(f"{one}/versions", self.versions),
            Route(f"{one}/rollback", self.rollback, methods=post),
            Route(f"{one}/pause", self.pause, methods=post),
            Route(f"{one}/resume", self.resume, methods=post),
            Route(f"{one}/scale", self.scale, methods=post),
            Route(f"{one}/remove", self.remove, methods=post),
        ]

    async def deploy(self, request: Request) -> Response:
        """Take an upload: all its functions, or none."""
        if request.headers.get("content-type", "").lower() != MEDIA_TYPE:
            raise HttpProblem(415, "media-type", f"expected {MEDIA_TYPE}")
        limit = request.scope["funcrt.config"].deploy_bytes
        head, bundles = decode(await read_body(request.scope, request.receive, limit))
        by = request.scope["funcrt.grant"].name
        # Who leaves while it installs gives it up; what is imported by then comes into service.
        watch = Watch(request.receive, self.watches)
        try:
            found = await self.host.operations.receive(head, bundles, by, watch.close)
        except NotDeployed as error:
            told = mistakes(error.errors)
            raise HttpProblem(422, "refused", told[0], mistakes=told, then=error.then) from None
        except asyncio.CancelledError:
            raise watch.told("the host stopped during the deployment") from None
        finally:
            watch.close()
        if not head.plan:
            for each in found:
                if each.state != "unchanged":
                    await self._audit(request, "deploy", each.name, version=each.number,
                                      digest=each.digest)  # fmt: skip
        return json_response({"plan": head.plan, "functions": found})

    async def rollback(self, request: Request) -> Response:
        """Put an earlier version into service again."""
        asked = await json_body(request, _Rollback)
        name, by = request.path_params["name"], request.scope["funcrt.grant"].name
        found = await self.host.operations.rollback(name, asked.version, by, wait=asked.wait)
        if found.state != "unchanged":
            await self._audit(request, "rollback", name, version=found.number, of=found.of)
        return json_response(found)

    async def versions(self, request: Request) -> Response:
        """All versions of a function, the oldest first."""
        found = await self.host.operations.versions(request.path_params["name"])
        return json_response({"versions": found})

    async def describe(self, request: Request) -> Response:
        """All there is to say of a function."""
        return json_response(await self.host.operations.describe(request.path_params["name"]))

    async def pause(self, request: Request) -> Response:
        """Stop a function from taking more."""
        await json_body(request, dict)
        name = request.path_params["name"]
        changed = await self.host.operations.pause(name)
        if changed:
            await self._audit(request, "pause", name)
        return json_response({"name": name, "paused": True, "changed": changed})

    async def resume(self, request: Request) -> Response:
        """Let it go on."""
        await json_body(request, dict)
        name = request.path_params["name"]
        changed = await self.host.operations.resume(name)
        if changed:
            await self._audit(request, "resume", name)
        return json_response({"name": name, "paused": False, "changed": changed})

    async def scale(self, request: Request) -> Response:
        """Set other bounds of scaling, or take the manifest's again."""
        asked = await json_body(request, _Bounds)
        given = asked.min is not None and asked.max is not None
        if asked.reset == given or (asked.min is None) != (asked.max is None):
            raise HttpProblem(400, "body", 'expected {"min": 0, "max": 8} or {"reset": true}')
        bounds = None
        if asked.min is not None and asked.max is not None:
            bounds = asked.min, asked.max
            if not 0 <= asked.min <= asked.max or not 1 <= asked.max <= SCALE_MOST:
                raise HttpProblem(
                    400,
                    "body",
                    f"expected 0 <= min <= max and 1 <= max <= {SCALE_MOST}, found min"
                    f" {asked.min} and max {asked.max}; to stop a function, pause it",
                )
        name = request.path_params["name"]
        least, most = await self.host.operations.scale(name, bounds)
        await self._audit(request, "scale", name, min=least, max=most, reset=asked.reset)
        return json_response({"name": name, "min": least, "max": most, "reset": asked.reset})

    async def remove(self, request: Request) -> Response:
        """Take a function out of service."""
        asked = await json_body(request, _Remove)
        name, by = request.path_params["name"], request.scope["funcrt.grant"].name
        found = await self.host.operations.remove(name, purge=asked.purge, by=by)
        await self._audit(request, "remove", name, version=found.number, purge=asked.purge)
        return json_response(found)

    async def _audit(self, request: Request, act: str, name: str, **what: Any) -> None:
        await audit(self.host, request, act, function=name, **what)
