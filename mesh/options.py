"""What an embedded mesh is opened with."""

import msgspec

__all__ = ["Options"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an embedded mesh is opened with."""

    retention_s: float = 24 * 3600.0
    """A topic's events are kept this long, and longer while any is unsettled."""
    retention_bytes: int = 1 << 30
    """A topic keeps at most about this much, and more while any is unsettled."""
    dedupe_s: float = 3600.0
    dedupe_ids: int = 1_000_000
    idempotency_keys: int = 1_000_000
    """The most that a subscription remembers; those that would expire first are forgotten."""
    topics: int = 100_000
    """The most topics that publishing makes; of functions' outputs, dead letters and subscriptions
    more are made."""
    synchronous: str = "FULL"
    inline: bool = False
    """Commit on the event loop: for `:memory:` and for simulation."""
