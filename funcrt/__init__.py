"""What a function imports. Light: a worker's start depends on it."""

from funcrt.context import Context, Failed, Reject, Retry
from mesh.event import Event

__all__ = ["Context", "Event", "Failed", "Reject", "Retry"]
