"""What a manifest says, as types: what the rest of funcrt sees, defaults filled in, in seconds and
bytes."""

from typing import Any, Literal

import msgspec

from funcrt.schedule import Missed

__all__ = [
    "BatchSpec",
    "CronTrigger",
    "DlqSpec",
    "HttpTrigger",
    "IdempotencySpec",
    "Limits",
    "Manifest",
    "MeshTrigger",
    "OutputSpec",
    "RetrySpec",
    "SandboxSpec",
    "ScaleSpec",
    "Trigger",
]


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Events a call takes at once: at most `size`, waiting at most `wait_s` for them."""

    size: int
    wait_s: float = 0.2


class MeshTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="mesh", tag_field="kind"):
    """A topic plus filters. The three filter forms are ANDed."""

    name: str
    topic: str
    filters: list[dict[str, Any]] = []
    pattern: dict[str, Any] | None = None
    jsonpath: list[dict[str, Any]] = []
    mode: Literal["cluster", "broadcast"] = "cluster"
    start: str = "new"
    order: Literal["none", "key"] = "none"
    key: str | None = None
    batch: BatchSpec | None = None
    cap: int | None = None
    overflow: Literal["refuse", "dead-letter"] = "refuse"


class HttpTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="http", tag_field="kind"):
    """An HTTP route of the gateway."""

    name: str
    path: str
    methods: list[str] | None = None
    """None: POST, or any where the handler takes a Request."""
    strict: bool = False
    """Refuse what is no CloudEvent, instead of wrapping it."""


class CronTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="cron", tag_field="kind"):
    """A schedule (`funcrt.schedule`), each of whose ticks is an event."""

    name: str
    schedule: str
    timezone: str = "UTC"
    missed: Missed = "latest"


Trigger = MeshTrigger | HttpTrigger | CronTrigger


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where returned events go, and what they are called."""

    topic: str | None = None
    topics: list[str] = []
    type: str | None = None
    """Default: `funcrt.<name>.result`."""
    allow_loop: bool = False
    keep_id: bool = False
    stream: bool = False
    """Publish each item of a generator as it is made."""


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts in all, and the wait between them (full jitter over the backoff)."""

    attempts: int = 5
    backoff: Literal["exponential", "constant"] = "exponential"
    base_s: float = 1.0
    max_s: float = 300.0


class IdempotencySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one key are called for once, as long as the key is remembered."""

    key: str = "id"
    """`id` for source and id, another attribute, or a JSONPath on the data."""
    ttl_s: float = 86400.0
    """From the call that succeeded on."""


class DlqSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The dead-letter topic."""

    topic: str


class ScaleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and aims of scaling."""

    min: int = 0
    max: int = 8
    target_lag_s: float = 5.0
    idle_s: float | None = None
    """Idle time before zero; None lets the gaps between events decide (15 to 120 s)."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance may use."""

    memory_bytes: int | None = None
    cpu: float | None = None
    """CPU seconds a second."""
    payload_bytes: int = 1 << 20
    tmp_bytes: int = 64 << 20
    """Of its private /tmp, which its instances share."""


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a function is held to, and what of the machine it may see."""

    isolation: Literal["process", "sandbox", "container"] = "sandbox"
    image: str = ""
    """What its containers are made of."""
    network: tuple[str, ...] = ()
    """Each `host:port` that it may connect to, `outbound` for any public one; empty for none."""
    files: list[str] = []
    """Paths of the host that it may read."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One function's manifest, defaults filled in."""

    name: str
    handler: str = ""
    concurrency: int | None = None
    timeout_s: float = 30.0
    triggers: list[Trigger] = []
    output: OutputSpec = OutputSpec()
    retry: RetrySpec = RetrySpec()
    dlq: DlqSpec | None = None
    """None drops what has failed for good (`dlq = false`)."""
    scale: ScaleSpec = ScaleSpec()
    limits: Limits = Limits()
    sandbox: SandboxSpec = SandboxSpec()
    idempotency: IdempotencySpec | None = None
    """None calls for every event."""
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    """By name, where the host finds each (`funcrt.secrets`)."""
    dependencies: list[str] = []
    """What is to be installed, where no other file says it (`manifest.needs_of`)."""
    python: str = ""
    """The version that it runs in, `3.12` or `3.12.1`; empty for the host's own."""
    source_builds: bool = False
    """What has no wheel may be built, by code of its own, as it is installed."""
    profiles: list[str] = []
    """Names of those that the file has."""

    @property
    def batches(self) -> bool:
        """Whether a trigger hands over several events at once."""
        return any(isinstance(each, MeshTrigger) and each.batch for each in self.triggers)
