"""Every error the mesh raises. Each builds its message from typed arguments."""

from collections.abc import Sequence

__all__ = [
    "DepthUnknown",
    "EventError",
    "FailpointUnknown",
    "MeshBusy",
    "MeshClosed",
    "MeshCorrupt",
    "MeshError",
    "MeshFull",
    "NameInvalid",
    "QueueFull",
    "SubscriptionBacklog",
    "SubscriptionUnknown",
    "TopicsFull",
    "UnsupportedFeature",
    "UrlInvalid",
]


class MeshError(Exception):
    """Base of everything the mesh raises on purpose."""


class EventError(MeshError, ValueError):
    """An event that is not a CloudEvents 1.0 event, or one outside the limits.

    `attribute` names what is wrong (`"id"`, `"data"`, `"ce-time"`, ...; None for the whole
    message), `reason` says why, `status` is the HTTP status a gateway answers (400, 413, 415).
    """

    def __init__(self, reason: str, *, attribute: str | None = None, status: int = 400) -> None:
        if attribute is not None and not attribute.isprintable():
            attribute = repr(attribute)[1:-1]  # a name that came from outside, on its way to a log
        self.attribute = attribute
        self.reason = reason
        self.status = status
        super().__init__(f"{attribute}: {reason}" if attribute else reason)


class FailpointUnknown(MeshError, ValueError):
    """`FUNCRT_FAILPOINT`, a setting for tests, names no place to end at."""

    def __init__(self, found: str, names: Sequence[str]) -> None:
        super().__init__(
            f"FUNCRT_FAILPOINT: {found!r} is no failpoint; expected NAME or NAME:COUNT, "
            f"NAME one of {', '.join(names)}"
        )


class MeshClosed(MeshError):
    """The transport was closed, or its host has gone away."""

    def __init__(self, what: str = "the transport is closed") -> None:
        super().__init__(what)


class MeshBusy(MeshError):
    """Another host already serves this mesh file."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path}: {who} already serves this mesh; stop it first, or use another file"
        )


class MeshFull(MeshError):
    """There is no room to store more: the disk is full, or a limit is reached."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where}: {reason}")


class QueueFull(MeshFull):
    """A subscription's queue is at its cap, and its policy is to refuse."""

    def __init__(self, subscription: str, cap: int) -> None:
        self.subscription = subscription
        self.cap = cap
        super().__init__(subscription, f"its queue is at its cap of {cap} events")


class TopicsFull(MeshFull):
    """The mesh has as many topics as it may, and was asked for another."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__(
            where,
            f"there are {most} topics, the most it may have; publish to those, wait until retention"
            f" has emptied some that nobody uses, or open it with more (embedded://...?topics=N)",
        )


class MeshCorrupt(MeshError):
    """The stored mesh cannot be trusted; nothing was changed.

    `mendable`: `funcrt doctor --repair` can save what is whole.
    """

    def __init__(self, path: str, found: str, *, mendable: bool = False) -> None:
        self.path = path
        self.mendable = mendable
        then = "; stop the host, `funcrt doctor --repair` saves what is whole into a copy"
        super().__init__(f"{path}: {found}{then if mendable else ''}")


class DepthUnknown(MeshError):
    """A queue's depth could not be read. Never replaced by a guess."""


class SubscriptionUnknown(MeshError):
    """No subscription of that name exists."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no subscription is named {name!r}")


class SubscriptionBacklog(MeshError):
    """A subscription with a backlog is removed only with `drain` or `purge`."""

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        super().__init__(
            f"{name} still has {depth} events waiting: drain them first, or purge to lose them"
        )


class UnsupportedFeature(MeshError):
    """The transport lacks a feature that was asked for, and cannot emulate it."""

    def __init__(self, transport: str, feature: str) -> None:
        self.transport = transport
        self.feature = feature
        super().__init__(f"the {transport} transport does not offer {feature}")


class NameInvalid(MeshError, ValueError):
    """A topic, function, trigger or namespace name outside the allowed characters."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(
            f"{name[:80]!r} is no {kind} name: "
            "1 to 200 characters, a-z A-Z 0-9 . _ -, starting with a letter or digit"
        )


class UrlInvalid(MeshError, ValueError):
    """A mesh URL that no transport understands."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"{url!r}: {reason}")
