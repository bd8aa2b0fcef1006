"""A call on its way, and an instance with the calls that it holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from funcrt.sandbox import Instance
from funcrt.sandbox.protocol import Aside, Call, Recall, Result
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from mesh.transport import Delivery

__all__ = ["Member", "Pending"]


class Pending(msgspec.Struct, eq=False):
    """A call on its way."""

    call: Call
    deliveries: Sequence[Delivery]
    ended: Callable[["Pending", Result], None]
    released: Callable[["Pending"], None]
    size: int = 1
    said: Callable[[Instance, Aside], None] | None = None
    """Told of what it sends before its result; None where it may send nothing."""
    started: float = 0.0
    """Monotonic; 0 while other calls of the instance are before it."""
    timed_out: bool = False
    held: Callable[[], None] = lambda: None
    """Called where it stands at a prompt: nobody's time counts any more."""
    untimed: bool = False
    left: bool = False
    """Its caller has, and its instance was told."""
    bytes: int = 0
    """Of its events' data."""

    def __post_init__(self) -> None:
        for event in self.call.events:
            if event.data is not None:
                self.bytes += len(event.data)


@dataclass(slots=True, eq=False)
class Member:
    """An instance, and the calls it holds in the order they were sent."""

    instance: Instance
    secrets: Secrets = NO_SECRETS
    calls: dict[int, Pending] = field(default_factory=dict)
    events: int = 0
    answered: int = 0
    """Calls that it has answered."""
    heard: float = 0.0
    """When it answered last, or was given its first call since."""
    halts: int = 0
    halted: bool = False
    stuck: bool = False
    """It has had calls taken back, and has not answered since."""
    retiring: bool = False
    held: bool = False
    """It stands at a prompt."""

    def ahead(self) -> list[Pending]:
        """Its calls that have not begun, by its own count. Never the first: what begins nothing at
        all is not to end as if it had nothing. Nor those whose caller left: they may be answered
        already."""
        begun = self.instance.begun()
        if begun is None:
            return []
        first = max(begun - self.answered, 1)
        return [pending for pending in list(self.calls.values())[first:] if not pending.left]

    def halt(self) -> None:
        """Have it begin nothing more until `recall`."""
        self.halted = True
        self.halts += 1
        self.instance.halt(self.halts)

    def recall(self, calls: Sequence[Pending]) -> None:
        """Take these back, of those ahead, and have it go on without them."""
        for pending in calls:
            del self.calls[pending.call.id]
            self.events -= pending.size
            pending.started, pending.timed_out = 0.0, False
        self.halted = False
        self.stuck = bool(calls)
        self.instance.send([Recall(self.halts, [pending.call.id for pending in calls])])
