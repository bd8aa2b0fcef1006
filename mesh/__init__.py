"""Where topics live: events, the transport contract, and the transports.

Kept light on purpose: a function's worker imports `mesh.event`, and so runs this file.
Everything but the event is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from mesh.errors import EventError, MeshError
from mesh.event import Event

if TYPE_CHECKING:
    from mesh.schemes import connect
    from mesh.transport import Delivery, Features, Receipt, Settlement, Subscription, Transport

__all__ = [
    "Delivery",
    "Event",
    "EventError",
    "Features",
    "MeshError",
    "Receipt",
    "Settlement",
    "Subscription",
    "Transport",
    "connect",
]

_LAZY = {
    "Delivery": "mesh.transport",
    "Features": "mesh.transport",
    "Receipt": "mesh.transport",
    "Settlement": "mesh.transport",
    "Subscription": "mesh.transport",
    "Transport": "mesh.transport",
    "connect": "mesh.schemes",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mesh' has no attribute {name!r}")
