"""Who looks on while a host works, such as `funcrt dev`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from funcrt.api import Reply
from funcrt.sandbox.protocol import Result
from mesh.event import Event
from mesh.transport import Output, Settlement

if TYPE_CHECKING:
    from funcrt.function import Function

__all__ = ["Observer", "Sent"]

KEPT = 2


class Sent(msgspec.Struct):
    """What a call sent before its result, for a line about it."""

    first: list[Output] = msgspec.field(default_factory=list)
    """Of its outputs, the first few."""
    count: int = 0
    """Of all its outputs."""
    status: int = 0
    """Of the HTTP response that it began; 0 for none."""

    def add(self, outputs: Sequence[Output]) -> None:
        """More outputs."""
        self.first += outputs[: max(KEPT - len(self.first), 0)]
        self.count += len(outputs)


class Observer(Protocol):
    """Told of calls on the host's event loop, between two of its steps: it must be quick."""

    def settled(
        self, function: "Function", result: Result, settlement: Settlement, sent: Sent
    ) -> None:
        """A call of deliveries ended, and will be settled so."""

    def deduplicated(self, function: "Function", event: Event) -> None:
        """An event ends without a call: one has succeeded with its idempotency key."""

    def called(
        self, function: "Function", event: Event, reply: Reply, took_us: int, sent: Sent
    ) -> None:
        """A call that somebody waits for ended."""
