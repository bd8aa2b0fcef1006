"""HTTP: publish to a topic, call a function, look after the host.

`make_app` and `make_admin_app` make the ASGI applications of a host; `serve_http` runs one on a
socket in the loop that is already running.
"""

from funcrt.gateway.app import OPEN_NOTICE, RESERVED, make_admin_app, make_app
from funcrt.gateway.limits import GatewayConfig
from funcrt.gateway.server import PortTaken, bind_tcp, serve_http

__all__ = [
    "OPEN_NOTICE",
    "RESERVED",
    "GatewayConfig",
    "PortTaken",
    "bind_tcp",
    "make_admin_app",
    "make_app",
    "serve_http",
]
