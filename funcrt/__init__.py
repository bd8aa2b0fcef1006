"""What a function imports. Loaded on first use: the command line imports this package too."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcrt.context import Context, Failed, Reject, Retry
    from mesh.event import Event

__all__ = ["Context", "Event", "Failed", "Reject", "Retry"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'funcrt' has no attribute {name!r}")
    from importlib import import_module

    module = import_module("mesh.event" if name == "Event" else "funcrt.context")
    value = globals()[name] = getattr(module, name)
    return value
