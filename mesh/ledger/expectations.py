"""What a run was promised: plain data, kept in the ledger beside what was seen."""

from typing import Literal

import msgspec

__all__ = ["Counter", "Expectations", "Expected"]

Named = tuple[str, str]
"""An event's source and id."""


class Expected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one subscription owes to each event of its topic."""

    subscription: str
    """`function/trigger`, as in `mesh.transport.Subscription.name`."""
    topic: str
    only: frozenset[Named] | None = None
    """The events that it matches; None for all. `judge` also takes a predicate."""
    outputs: dict[str, int] = {}
    """By topic, how many outputs each input has. Empty: calls and `Settled` stand for the end."""
    max_attempts: int = 0
    """0: not judged."""
    order: Literal["none", "key"] = "none"
    drops: bool = False
    """`dlq = false`: an event that has used up its attempts may vanish."""
    dies: frozenset[Named] = frozenset()
    """Poison: each must become a dead letter after exactly `max_attempts`."""


class Counter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A counter that the function adds one to for each event that it settles (I4)."""

    scope: str
    subscription: str
    key: str = ""
    """The state key of the one counter; "" where each ordering key has one of its own name."""


class Expectations(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="entry", tag="expected"
):
    """What a run is judged by."""

    subscriptions: tuple[Expected, ...]
    atomic_settle: bool = True
    """`Features.atomic_settle`. False: outputs and dead letters may be repeated under the same
    id, counters may count too much, never too little, and an event with an output may yet die after
    a fault between its calls."""
    dedupe_s: float = 3600.0
    """The deduplication window in seconds: an event published again within it has one effect.
    0: each publish may have one."""
    counters: tuple[Counter, ...] = ()
    max_rss: int = 0
    """Bytes, for each process that is sampled. 0: not judged."""
    max_fds: int = 0
    drain_s: float | None = None
    """How long the backlog takes to drain without faults, in seconds. None: I8 is not judged."""
    grace_s: float = 1.0
    """How long after a `host-kill`, `power-loss` or `resume` an instance of before may still make
    calls. I5 leaves calls that touch such a time out (no mesh can call them back); the order of
    ends it never does."""
