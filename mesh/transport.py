"""The contract every transport keeps, and the plain data that crosses it.

What must hold is named G1 to G12 here and checked, one by one, by `mesh.conformance`. A transport
is bound to one namespace by `mesh.connect`; every name below lives inside it.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import msgspec

from mesh.errors import NameInvalid
from mesh.event import Event

__all__ = [
    "Check",
    "Clock",
    "Coming",
    "Dead",
    "DeadLetter",
    "Delivery",
    "Depth",
    "Done",
    "DoneKey",
    "Features",
    "Feed",
    "Filtered",
    "Gone",
    "JournalRow",
    "KeyOf",
    "Logged",
    "Outcome",
    "Output",
    "Receipt",
    "Released",
    "Retry",
    "Router",
    "Settled",
    "Settlement",
    "StateOp",
    "Subscription",
    "Timer",
    "Transport",
    "check_name",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)


@lru_cache(maxsize=4096)
def check_name(kind: str, name: str) -> str:
    """Return `name` if it may name a topic, function, trigger or namespace; else NameInvalid."""
    if not _NAME.fullmatch(name):
        raise NameInvalid(kind, name)
    return name


class Clock(Protocol):
    """Time, passed in so that a whole host runs under a simulated one."""

    def time(self) -> float:
        """Wall-clock seconds since the epoch: for what is stored and shown."""

    def monotonic(self) -> float:
        """Seconds that never jump: for leases and timeouts (G12)."""


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport does natively. Tests and deploy read it; it never hides a failure: what is
    absent here raises UnsupportedFeature where it is asked for."""

    name: str
    atomic_settle: bool
    """Outputs, state and acknowledgement take effect together, once."""
    atomic_batch: bool
    """The settlements of a whole batch are one unit."""
    routed: bool
    """The host's router fills queues; else the broker gives each subscription its own group."""
    order_key: bool
    replay: bool
    broadcast: bool
    delayed_retry: bool
    dedupe: bool
    depth: Literal["exact", "upper", "unknown"]
    state: bool
    idempotency: bool
    """A settlement leaves idempotency keys that are remembered for their time."""
    request: bool
    queue_cap: bool
    shared: bool
    """More than one host may serve the same subscriptions."""
    survives_restart: bool
    """False for `:memory:`: durability checks are then left out."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """What the mesh keeps for one trigger of one function."""

    function: str
    trigger: str
    topic: str
    mode: Literal["cluster", "broadcast"] = "cluster"
    host: str = ""
    """Broadcast only: the persisted id of the host this copy of the queue belongs to."""
    start: str = "new"
    """`new`, `earliest`, an RFC 3339 time, or `@` and a position. Used when first created."""
    order: Literal["none", "key"] = "none"
    cap: int | None = None
    """The most events the queue may hold; None for no cap."""
    overflow: Literal["refuse", "dead-letter"] = "refuse"
    dlq: str | None = None
    """The topic that takes what overflows, and the dead letters."""
    lease_s: float = 60.0

    @property
    def name(self) -> str:
        """The subscription's name within the namespace: `function/trigger[@host]`."""
        base = f"{self.function}/{self.trigger}"
        return f"{base}@{self.host}" if self.mode == "broadcast" else base


KeyOf = Callable[[Event], str | None]
"""The ordering key of an event; None means it is ordered with nothing."""

Router = Callable[[str, Event], Sequence[str]]
"""(topic, event) -> names of the subscriptions it goes to. Pure; must not raise."""


Coming = Callable[[str], bool]
"""(subscription) -> whether something was begun that is to get on meanwhile. Must not raise."""


Check = Callable[[str, Event], str]
"""(topic, event) -> why it may not be published there, or "". Pure; must not raise."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of one published event.

    `stored`: as durable as `durability()` says (G1). `ambiguous`: it may be stored; publish again
    with the same id. `refused`: it is not stored, for `reason`.
    """

    status: Literal["stored", "ambiguous", "refused"]
    position: str = ""
    duplicate: bool = False
    """Stored before, within the deduplication window: this publish added nothing."""
    reason: str = ""
    error: str = ""
    """For `refused`, for programs: `full` (no room), `queue_full` (at its cap), `busy` (too much
    waits to be stored at this moment), `invalid` or `closed`."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One attempt to hand an event to a function."""

    event: Event
    subscription: str
    topic: str
    position: str
    published_at: float
    """Wall-clock seconds at which the mesh stored it."""
    attempt: int
    """1 for the first; counts only attempts that were charged."""
    fence: int
    """Stands for the lease; a settle with a lost one is stale (G6)."""
    hops: int = 0
    replay: str = ""
    """The replay id, for a replayed or redriven event."""
    reply_to: str = ""
    key: str | None = None
    partition: int = 0


class Output(msgspec.Struct, frozen=True, gc=False):
    """An event to store with a settlement. `hops` is the hop count it carries."""

    topic: str
    event: Event
    hops: int = 0
    reply_to: str = ""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The call succeeded."""


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Deliver again after `after_s` seconds, by the transport's own clock: the host's may be set
    back or forth. `charge` counts this attempt as used."""

    after_s: float
    error: str = ""
    charge: bool = True


class Dead(msgspec.Struct, frozen=True, tag=True):
    """No more attempts. `letter` is the dead letter, stored with the settle (G5).

    `letter` None drops the event: a third, counted end, only where the manifest says `dlq = false`.
    """

    reason: str
    letter: Output | None


class Released(msgspec.Struct, frozen=True, tag=True):
    """Give it back, at once and uncharged (G11)."""


class Filtered(msgspec.Struct, frozen=True, tag=True):
    """The version in service no longer matches it."""


Outcome = Done | Retry | Dead | Released | Filtered


class Settled(msgspec.Struct, frozen=True, gc=False):
    """One delivery and how it ended."""

    delivery: Delivery
    outcome: Outcome


class StateOp(msgspec.Struct, frozen=True):
    """One write to keyed state. `value` None deletes. `if_etag`: None any, "" must be absent."""

    scope: str
    key: str
    value: bytes | None
    if_etag: str | None = None
    expires_at: float | None = None


class Timer(msgspec.Struct, frozen=True):
    """An event to publish at `at` (wall-clock seconds)."""

    at: float
    output: Output


class JournalRow(msgspec.Struct, frozen=True):
    """One row of a flow's journal."""

    flow: str
    seq: int
    body: bytes


class DoneKey(msgspec.Struct, frozen=True):
    """An idempotency key that a subscription is to remember, at most 64 bytes, for `ttl_s` seconds
    from the commit, by the transport's own clock; one that it remembers, anew."""

    key: bytes
    ttl_s: float


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What one call (or one batch) leads to, committed as one unit where the transport can."""

    subscription: str
    settled: tuple[Settled, ...]
    outputs: tuple[Output, ...] = ()
    state: tuple[StateOp, ...] = ()
    timers: tuple[Timer, ...] = ()
    journal: tuple[JournalRow, ...] = ()
    done_keys: tuple[DoneKey, ...] = ()
    """Of its subscription; remembered if it takes effect."""


Gone = Literal["settled", "stale", "conflict"]
"""What commit says of a settlement. `stale`: a lease was lost, nothing of it took effect (G6).
`conflict`: a state etag did not hold, nothing of it took effect, the deliveries stay leased."""


class Depth(msgspec.Struct, frozen=True):
    """A queue's length. `ready` may be delivered now, `leased` is out, `delayed` is not due."""

    ready: int
    leased: int
    delayed: int
    oldest_age_s: float
    kind: Literal["exact", "upper", "unknown"]


class Logged(msgspec.Struct, frozen=True, gc=False):
    """An event as a topic holds it."""

    event: Event
    topic: str
    position: str
    published_at: float
    hops: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter that waits for someone's decision."""

    id: int
    subscription: str
    event: Event
    """The original."""
    reason: str
    attempts: int
    died_at: float
    letter_topic: str
    letter_position: str


class Feed(Protocol):
    """One host's end of a subscription. `pull` is the only flow control."""

    async def pull(self, max_n: int, max_wait_s: float, max_bytes: int = 8 << 20) -> list[Delivery]:
        """At most `max_n` deliveries, leased (G8); waits up to `max_wait_s` for the first.

        Returns as soon as there is one; an empty list after the wait. One event larger than
        `max_bytes` still comes, alone. With `order = "key"` at most one delivery of a key is out
        at a time (G7). Cancelling it loses nothing. Raises MeshClosed once the feed or the
        transport is closed, SubscriptionUnknown once the subscription is removed.
        """

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Let these leases last `seconds` from now, on monotonic time (G12)."""

    async def close(self) -> None:
        """Stop; what is leased and unsettled is ready again at once. Twice is harmless."""


class Transport(Protocol):
    """One connection to a mesh, bound to one namespace. Close it twice without harm."""

    features: Features

    async def publish(self, topic: str, events: Sequence[Event], *, hops: int = 0) -> list[Receipt]:
        """Store events in order; returns a receipt each when they are durable (G1).

        Never raises for one event's sake. Cancelled, its outcome is ambiguous.
        """

    def set_router(self, router: Router) -> None:
        """Swap the router of a routed transport as one reference. Others ignore it.

        It speaks for the subscriptions that were subscribed to since the transport was opened;
        one that was not gets every event of its topic.
        """

    def set_check(self, check: Check) -> None:
        """Swap what each published event must pass, e.g. its topic's schema, as one reference.

        It holds for what is published through this transport, and through a host for its clients;
        an event that does not pass is refused as `invalid`. Outputs of functions are not asked.
        """

    def set_coming(self, coming: Coming) -> None:
        """Swap what is told that a subscription is about to get events, as one reference: before
        they are durable, so they may yet come to nothing, and nobody may be given one. It is for
        what takes its time, as starting an instance does. A transport may leave it out.
        """

    async def subscribe(self, subscription: Subscription, *, key_of: KeyOf | None = None) -> Feed:
        """Create the subscription where it is new, take up its queue where not.

        Where it has changed, the change counts for what is pulled from then on: with another order
        nothing is lost, and another topic is taken only once nothing of the old one waits
        (SubscriptionBacklog). What is parked behind a key keeps that key, whatever `key_of` now is.
        """

    async def unsubscribe(self, name: str, *, purge: bool = False) -> None:
        """Remove it. With a backlog: SubscriptionBacklog, unless `purge`."""

    async def subscriptions(self) -> list[Subscription]:
        """All that the mesh keeps in this namespace."""

    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        """Settle many at once; each is atomic where `features.atomic_settle`.

        Returns when the effects are as durable as a publish (G3). Raises MeshFull when nothing
        could be stored: all deliveries are then still leased, and commit may be tried again; and
        NameInvalid for a topic that can be none, before anything took effect.
        """

    async def done_keys(self, name: str, keys: Sequence[bytes]) -> list[bool]:
        """Of each key, whether the subscription remembers it: some settlement that took effect left
        it, and its time is not over. They are as durable as the settlement. Of very many those that
        would expire first may be forgotten; a subscription that is removed forgets all."""

    async def depth(self, name: str) -> Depth:
        """The queue's length. Raises DepthUnknown, never guesses (G10)."""

    async def share(self, name: str) -> float:
        """This host's part of the subscription, above 0 and at most 1."""

    async def replay(self, name: str, start: str, end: str, replay_id: str) -> int:
        """Queue the topic's events from `start` to `end` once more; how many. Same forms as
        `Subscription.start`; `end` may be `now`. Again under the same id, within the deduplication
        window, it queues only what that id has not queued yet: a replay that was cut off can be
        made again, and what it leads to is made once (output ids derive from it too)."""

    async def read(self, topic: str, start: str, limit: int) -> list[Logged]:
        """Up to `limit` events of a topic from `start` on. Leaves no trace."""

    def tail(self, topic: str, start: str = "new") -> AsyncIterator[Logged]:
        """A topic's events from `start` on, then each new one as it becomes durable."""

    async def topics(self) -> dict[str, int]:
        """Topic names and how many events each holds."""

    async def dead_letters(
        self, name: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """A page of a subscription's dead letters that were neither redriven nor dropped, oldest
        first: at most `limit`, and fewer where they are large. Only an empty page is the last."""

    async def redrive(self, name: str, ids: Sequence[int], replay_id: str) -> int:
        """Put dead letters back in their queue, under a replay id; how many."""

    async def discard(self, name: str, ids: Sequence[int]) -> int:
        """Forget dead letters; how many."""

    async def request(self, topic: str, event: Event, timeout_s: float) -> list[Event]:
        """Publish, and wait for what the call returns. TimeoutError after `timeout_s`; MeshError
        for an event that the topic has already: its reply is another's."""

    async def state(self, scope: str, key: str) -> tuple[bytes, str] | None:
        """A value and its etag."""

    async def append_record(self, kind: str, body: bytes) -> int:
        """Append to the ordered log of deployments; its sequence number."""

    async def records(self, kind: str, after: int = 0) -> list[tuple[int, bytes]]:
        """The ordered log of deployments, from just after `after`."""

    async def put_blob(self, digest: str, body: bytes) -> None:
        """Keep a content-addressed blob; again is harmless."""

    async def get_blob(self, digest: str) -> bytes | None:
        """A blob by its digest."""

    async def durability(self) -> str:
        """One sentence, read from the live broker: what `stored` means here."""

    async def close(self) -> None:
        """Release everything. Twice is harmless."""
