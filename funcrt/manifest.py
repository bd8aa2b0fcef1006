"""The manifest: what `funcrt.toml` may say, as types. Loading and checking are below them."""

from typing import Any, Literal

import msgspec

__all__ = [
    "BatchSpec",
    "CronTrigger",
    "DlqSpec",
    "HttpTrigger",
    "Limits",
    "Manifest",
    "MeshTrigger",
    "OutputSpec",
    "RetrySpec",
    "ScaleSpec",
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
    methods: list[str] = msgspec.field(default_factory=lambda: ["POST"])
    strict: bool = False
    """Refuse what is no CloudEvent, instead of wrapping it."""


class CronTrigger(msgspec.Struct, frozen=True, kw_only=True, tag="cron", tag_field="kind"):
    """A schedule. Reserved: refused with a message until cron triggers are built."""

    name: str
    schedule: str


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where returned events go, and what they are called."""

    topic: str | None = None
    topics: list[str] = []
    type: str | None = None
    """Default: `funcrt.<name>.result`."""
    allow_loop: bool = False
    keep_id: bool = False


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts in all, and the wait between them (full jitter over the backoff)."""

    attempts: int = 5
    backoff: Literal["exponential", "constant"] = "exponential"
    base_s: float = 1.0
    max_s: float = 300.0


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
    payload_bytes: int = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One function's manifest, defaults filled in."""

    name: str
    handler: str = ""
    concurrency: int | None = None
    timeout_s: float = 30.0
    triggers: list[MeshTrigger | HttpTrigger | CronTrigger] = []
    output: OutputSpec = OutputSpec()
    retry: RetrySpec = RetrySpec()
    dlq: DlqSpec | None = None
    """None drops what has failed for good (`dlq = false`)."""
    scale: ScaleSpec = ScaleSpec()
    limits: Limits = Limits()
    env: dict[str, str] = {}
