"""Who looks on while a host works, such as `funcrt dev`."""

from typing import TYPE_CHECKING, Protocol

from funcrt.api import Reply
from funcrt.sandbox.protocol import Result
from mesh.event import Event
from mesh.transport import Settlement

if TYPE_CHECKING:
    from funcrt.function import Function

__all__ = ["Observer"]


class Observer(Protocol):
    """Told of calls on the host's event loop, between two of its steps: it must be quick."""

    def settled(self, function: "Function", result: Result, settlement: Settlement) -> None:
        """A call of deliveries ended, and will be settled so."""

    def deduplicated(self, function: "Function", event: Event) -> None:
        """An event ends without a call: one has succeeded with its idempotency key."""

    def called(self, function: "Function", event: Event, reply: Reply, took_us: int) -> None:
        """A call that somebody waits for ended."""
