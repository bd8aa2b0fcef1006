"""The ASGI application: the hot paths by hand, the rest by Starlette's router, the guard in front.

Paths of our own come first; whatever else arrives is looked up among the functions' HTTP triggers.
"""

import logging
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from funcrt.api import HostApi
from funcrt.errors import nearest
from funcrt.gateway.admin import Admin
from funcrt.gateway.call import Calls
from funcrt.gateway.deployments import Deployments
from funcrt.gateway.guard import Guard, refuse
from funcrt.gateway.limits import ClientGone, GatewayConfig, Receive, Scope, Send
from funcrt.gateway.observe import Observe
from funcrt.gateway.problem import HttpProblem, problem_of, shown, wrong_method
from funcrt.gateway.publish import Topics, json_response
from funcrt.gateway.tail import MEDIA, Tails

__all__ = ["OPEN_NOTICE", "RESERVED", "make_admin_app", "make_app"]

RESERVED = ("admin", "functions", "healthz", "readyz", "topics", "ui")
"""First segments of paths that are the gateway's own. No trigger may take them."""

OPEN_NOTICE = (
    "no tokens are configured: whoever is on this machine may publish, call and read;"
    " administering needs the admin socket"
)

_LOG = logging.getLogger("funcrt.gateway")


def make_app(host: HostApi, config: GatewayConfig, *, extra: Sequence[BaseRoute] = ()) -> Guard:
    """The gateway of a host, for `serve_http`. `extra` adds routes below the reserved paths."""
    if not config.tokens:
        _LOG.info(OPEN_NOTICE)
    return Guard(_Front(host, config, extra), host, config)


def make_admin_app(
    host: HostApi, config: GatewayConfig, *, extra: Sequence[BaseRoute] = ()
) -> Guard:
    """The same for the admin socket: whoever can open the socket may do everything."""
    return Guard(_Front(host, config, extra), host, config, trusted=True)


class _Front:
    """Sends a request to its handler, and turns what that raises into a problem."""

    def __init__(self, host: HostApi, config: GatewayConfig, extra: Sequence[BaseRoute]) -> None:
        self.host = host
        self.config = config
        self.calls = Calls(host, config)
        self.topics = Topics(host, config)
        self.tails = Tails(host, config)
        self.rest = _router(host, self.topics, extra)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.dispatch(scope, receive, send)
        except ClientGone:
            return
        except HTTPException as error:
            path = scope["path"]
            if error.status_code == 405:
                problem = wrong_method(path, (error.headers or {}).get("Allow", "").split(", "))
            else:
                problem = self.no_such_path(path)
            await refuse(scope, receive, send, problem, self.config)
        except Exception as error:
            known = problem_of(error)
            if known is None:
                _LOG.exception("%s %r failed", scope["method"], scope["path"])
                known = HttpProblem(500, "internal", "the gateway failed; its log says how")
            # The frames below hold the request's body, and this one what was raised there: a
            # cycle, which would stay until the collector comes, for many megabytes too late.
            error.__traceback__ = known.__context__ = None
            await refuse(scope, receive, send, known, self.config)

    async def dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        first, _, rest = path[1:].partition("/")
        if first == "functions" and rest:
            if "/" in rest:
                raise self.no_such_path(path)
            if scope["method"] != "POST" and self.host.kind(rest) != "request":
                raise wrong_method(path, ["POST"])
            await self.calls.function(scope, receive, send, rest)
        elif first == "topics" and scope["method"] == "POST" and rest.endswith("/events"):
            await self.topics.publish(scope, receive, send, rest.removesuffix("/events"))
        elif (
            first == "topics"
            and scope["method"] == "GET"
            and rest.endswith("/events")
            and MEDIA in scope["funcrt.head"].get(b"accept", b"").lower()
        ):
            await self.tails.serve(scope, receive, send, rest.removesuffix("/events"))
        elif first in RESERVED:
            scope["app"] = self  # makes the router raise its 404 and 405, for us to answer
            await self.rest(scope, receive, send)
        else:
            route = self.host.route(path)
            if route is None:
                raise self.no_such_path(path)
            await self.calls.route(scope, receive, send, route)

    def no_such_path(self, path: str) -> HttpProblem:
        """404 with the paths of functions that are most like it."""
        functions, paths = self.host.names()
        near = nearest(path, paths)
        near += [f"/functions/{name}" for name in nearest(path.strip("/"), functions)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        detail = f"nothing is at {shown(path)}{hint}"
        return HttpProblem(404, "unknown-path", detail, nearest=near)


def _router(host: HostApi, topics: Topics, extra: Sequence[BaseRoute]) -> Router:
    async def health(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(request: Request) -> Response:
        state = "recovering" if host.recovering and host.state == "ready" else host.state
        return json_response({"state": state}, 200 if state == "ready" else 503)

    return Router(
        [
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/topics", topics.list),
            # A POST never comes so far; it is here for the Allow header.
            Route("/topics/{topic}/events", topics.read, methods=["GET", "POST"]),
            *Admin(host).routes(),
            *Observe(host).routes(),
            *Deployments(host).routes(),
            *extra,
        ],
        redirect_slashes=False,
    )
