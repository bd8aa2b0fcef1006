"""What a ledger holds: one frozen record for each thing that somebody saw.

Every `at` is in seconds on one clock that all who report share. On one machine that is
`time.monotonic()`, which no jump of the wall clock moves; a simulation gives its own. A `seq` is
a place in a log (a topic's, a publisher's), where one is known; -1 where not.

Who saw a thing is not written down; when it was said is, and that decides which way a lost report
errs. Each class says so under *Reported*.
"""

from typing import Literal

import msgspec

from mesh.ledger.expectations import Expectations

__all__ = [
    "Called",
    "Dead",
    "Entry",
    "Fault",
    "FaultKind",
    "FlowEnded",
    "Output",
    "Published",
    "Record",
    "Replayed",
    "Returned",
    "Sampled",
    "Settled",
    "StateSeen",
    "Step",
    "decode",
    "encode",
]


class _Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="entry"):
    pass


class Published(_Entry, frozen=True, tag="published"):
    """One publish of an event, before (`sent`) or after it was tried.

    `ok`: the receipt says stored. `refused`: it says not stored. `unknown`: the receipt says
    ambiguous, or none came. An event that was ever `ok` must end; one that was only ever refused
    must not; of any other nobody knows, and it may end or not (Jepsen's three outcomes).

    *Reported*: `sent` before the publish, so that whatever is stored was announced; the receipt
    after it. A receipt that is lost leaves the event unknown: the ledger then asks for less than
    was promised, and never accuses the mesh of what it did not do.
    """

    topic: str
    source: str
    id: str
    outcome: Literal["sent", "ok", "refused", "unknown"]
    at: float = -1.0
    key: str = ""
    """The ordering key; "" for none."""
    seq: int = -1


class Called(_Entry, frozen=True, tag="called"):
    """A call of a function with this event began.

    *Reported* by the function before it does anything, and acknowledged: there is no effect of a
    call that is not in the ledger. A call that is there may have had no effect. `at` is after the
    delivery and before the work, so that the time between it and `Returned.at` lies within the
    time the call was in flight: an overlap seen is one, an overlap of microseconds may be missed.
    """

    subscription: str
    source: str
    id: str
    at: float
    attempt: int = 0
    instance: str = ""
    key: str = ""
    batch: str = ""
    """The same for events that are handed over in one call; "" for one event a call."""


class Returned(_Entry, frozen=True, tag="returned"):
    """The call of that instance with this event ended.

    *Reported* by the function before it hands over what it returns. One that is `ok` here may yet
    not have been settled (a host may die between the two), so it stands for an end only where a
    subscription has no outputs to show for it. Lost, the call counts as one whose end is unknown.
    """

    subscription: str
    source: str
    id: str
    at: float
    instance: str = ""
    outcome: Literal["ok", "fail"] = "ok"


class Output(_Entry, frozen=True, tag="output"):
    """An event that a function returned, as a topic holds it.

    *Reported* by who reads the topic at the end: one that is there is durable. An output that
    the reader missed makes the ledger accuse a mesh that kept its word, never the reverse.
    """

    topic: str
    source: str
    id: str
    cause_id: str
    cause_source: str = ""
    """"" where the output does not say: then `cause_id` must be unlike within the input topic."""
    subscription: str = ""
    """"" where it is the one subscription that has outputs on this topic."""
    at: float = -1.0
    seq: int = -1


class Dead(_Entry, frozen=True, tag="dead"):
    """A dead letter for this event. *Reported* as Output is."""

    subscription: str
    source: str
    id: str
    attempts: int = 0
    reason: str = ""
    letter: str = ""
    """The dead letter's own id."""
    seq: int = -1


class Settled(_Entry, frozen=True, tag="settled"):
    """The subscription is done with this event: an end that leaves no event behind.

    *Reported* by who knows that the settle was durable (a simulation, the mesh's own tests),
    after it. Lost, it makes the ledger accuse a mesh that kept its word, never the reverse.
    """

    subscription: str
    source: str
    id: str
    end: Literal["done", "dropped", "filtered"]
    at: float = -1.0
    seq: int = -1


class StateSeen(_Entry, frozen=True, tag="state"):
    """A counter in keyed state, read when all was over. The last by `at` counts."""

    scope: str
    key: str
    value: int
    at: float = -1.0


class Replayed(_Entry, frozen=True, tag="replayed"):
    """A replay or redrive, of one event, or of all that came before `at` (`id` "").

    *Reported* as `unknown` before it is asked for and as `ok` after: one that is unknown may have
    effects and need not. The same `replay` said again is the same replay (I10).
    """

    subscription: str
    replay: str
    outcome: Literal["ok", "unknown"] = "ok"
    at: float = -1.0
    source: str = ""
    id: str = ""


FaultKind = Literal["host-kill", "power-loss", "instance-kill", "pause", "resume", "disk", "other"]
"""`host-kill` and `power-loss` allow a call more (I6); they and `resume` leave calls behind that
the mesh has given to others (I5); the last fault of any kind starts the clock of I8."""


class Fault(_Entry, frozen=True, tag="fault"):
    """Something was broken on purpose. *Reported* before it is done."""

    kind: FaultKind
    at: float
    subject: str = ""


class Sampled(_Entry, frozen=True, tag="sampled"):
    """How much a process held, and how much was waiting. -1 for what was not looked at."""

    at: float
    process: str = "host"
    rss: int = -1
    """Bytes."""
    fds: int = -1
    depth: int = -1
    """Events that are not settled, over all subscriptions that are judged."""


class Step(_Entry, frozen=True, tag="step"):
    """A step of a flow took effect, or was compensated. `seq` orders the steps of one flow."""

    flow: str
    step: str
    what: Literal["completed", "compensated"]
    seq: int
    compensable: bool = True
    at: float = -1.0


class FlowEnded(_Entry, frozen=True, tag="flow-ended"):
    """A flow came to its end: all its steps stand, or all are compensated."""

    flow: str
    end: Literal["completed", "compensated"]
    at: float = -1.0


Entry = (
    Published | Called | Returned | Output | Dead | Settled
    | StateSeen | Replayed | Fault | Sampled | Step | FlowEnded
)  # fmt: skip
Record = Entry | Expectations
"""What a ledger's file holds. The last `Expectations` in it counts."""

decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode
