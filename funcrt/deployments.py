"""What the admin API and the command line see of deployments: plain data and one protocol."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from funcrt.api import FunctionStatus
from funcrt.bundle import Bundle
from funcrt.changes import KeyChange
from funcrt.upload import Head

__all__ = [
    "Deployed",
    "DeploymentsApi",
    "Description",
    "InstanceDetail",
    "Queue",
    "Removed",
    "TriggerDetail",
    "VersionRow",
]


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What came, or with a plan would come, of one function."""

    name: str
    state: Literal["new", "changed", "unchanged"]
    number: int
    digest: str
    before: int | None
    """The version that was in service."""
    handler: str
    signature: str
    import_ms: float
    packages: list[str] = []
    """What it needs, with versions: `pillow 11.3.0`."""
    install_s: float | None = None
    """What their installation took; None where they were there."""
    keys: list[KeyChange] = []
    """Of a plan: what changes in the manifest."""
    files: dict[str, list[str]] = {}
    """Of a plan: paths `added`, `changed` and `removed`."""
    swap_ms: float = 0.0
    in_flight: int = 0
    """Calls that ran on the version before as the new one came."""
    given_back: int | None = 0
    """Of those, how many were not done in time and run again; None where nobody waited."""
    paused: bool = False
    unbound: bool = False
    """Whether bounds set by `funcrt scale` ended with it."""
    of: int = 0
    """The version that a rollback brought back."""
    triggers: list[str] = []
    output: str | None = None
    dlq: str | None = None
    scale: tuple[int, int] = (0, 0)


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a function, as `funcrt versions` shows it."""

    name: str
    number: int
    digest: str
    at: float
    in_service: bool
    source: Literal["serve", "api"]
    path: str
    profile: str
    by: str
    of: int


class Queue(msgspec.Struct, frozen=True):
    """What a function that was removed leaves, or has lost, of one trigger."""

    trigger: str
    waiting: int
    dead: int


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of taking a function out of service."""

    name: str
    number: int | None
    """The version that was in service; None where none was."""
    purged: bool
    queues: list[Queue]
    comes_back: str = ""
    """The directory that the host was given, and deploys again when it starts."""


class TriggerDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger with what `funcrt ls` leaves out."""

    name: str
    pulled: int = 0
    pulled_at: float = 0.0
    """Wall-clock seconds of the last pull that brought something; 0 for none."""
    refused: int = 0
    """Of what was pulled: what the version in service did not match."""
    refused_id: str = ""
    trouble: str = ""
    """Why the last pull failed."""


class InstanceDetail(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a function, and what it uses; None where nobody counts."""

    pid: int
    """As the host sees it."""
    calls: int
    """That it holds."""
    answered: int
    cpu_s: float | None = None
    memory_bytes: int | None = None
    peak_bytes: int | None = None
    """The most memory that it has had at once."""
    throttled_s: float = 0.0
    """How long `limits.cpu` kept it from the CPU."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say of a function in service."""

    status: FunctionStatus
    details: list[TriggerDetail]
    """Of its queued triggers."""
    version: VersionRow | None
    """None where nothing is recorded, as in `funcrt dev`."""
    handler: str
    signature: str
    concurrency: int
    """Calls at once in one instance."""
    scale: tuple[int, int]
    bound: bool
    """Whether `scale` was set by `funcrt scale`, until the next version."""
    timeout_s: float
    attempts: int
    secrets: dict[str, str] = {}
    """By name, where the host finds each; no value."""
    trouble: str = ""
    """Why the last instance could not be started."""
    packages: list[str] = []
    """What it needs, with versions."""
    instances: list[InstanceDetail] = []


class DeploymentsApi(Protocol):
    """A host's deployments. Raises FunctionUnknown for a name that it does not have."""

    async def receive(
        self, head: Head, bundles: Sequence[Bundle], by: str, begun: Callable[[], None]
    ) -> list[Deployed]:
        """Deploy what was uploaded, or plan it: all or nothing. It may be cancelled until `begun`
        is called. Raises NotDeployed with every mistake, UploadInvalid, NotRecorded, MeshError."""

    async def rollback(self, name: str, asked: str, by: str, *, wait: bool) -> Deployed:
        """Put an earlier version into service, as a new one: `v3`, the beginning of a digest, or ""
        for the one before. Raises VersionUnknown, BlobGone, LoadError, MeshError."""

    async def versions(self, name: str) -> list[VersionRow]:
        """All versions, the oldest first."""

    async def pause(self, name: str) -> bool:
        """Take no more; False where it was paused already."""

    async def resume(self, name: str) -> bool:
        """Go on; False where it was not paused."""

    async def scale(self, name: str, bounds: tuple[int, int] | None) -> tuple[int, int]:
        """Scale within these bounds until the next version, or again within the manifest's; those
        that hold now."""

    async def remove(self, name: str, *, purge: bool, by: str) -> Removed:
        """Take it out of service; with `purge` its queues and dead letters are dropped too."""

    async def describe(self, name: str) -> Description:
        """All there is to say of it."""
