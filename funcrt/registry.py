"""Which functions are deployed: an ordered log of records, and a blob for each bundle.

The log lives in the mesh, so every host that reads it comes to the same set. A record says that a
version was put into service, that a function was removed, or how it is kept meanwhile: paused, or
with other bounds of scaling. What changes together is one record.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal, TypeVar

import msgspec

from funcrt.bundle import Bundle
from funcrt.errors import DeployError, FunctionUnknown
from funcrt.manifest import Manifest
from mesh.failpoint import point
from mesh.transport import Transport

__all__ = [
    "KIND",
    "Change",
    "Deployment",
    "Line",
    "RecordInvalid",
    "Source",
    "append",
    "deploy",
    "deploy_all",
    "fold",
    "history",
    "keep",
    "load",
    "remove",
    "versions",
]

KIND = "deployment"
"""The kind of record, in the mesh's log."""
FORMAT = 1
T = TypeVar("T")


class RecordInvalid(DeployError):
    """A record that this version cannot read: the log is never used in part."""

    def __init__(self, seq: int, reason: str) -> None:
        self.seq = seq
        super().__init__(f"deployment record {seq}: {reason}")


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a version, or another change, came from."""

    kind: Literal["serve", "api"] = "serve"
    """`serve`: from a directory that the host was given, and out of service without it."""
    path: str = ""
    """The directory, as whoever deployed it named it."""
    profile: str = ""
    by: str = ""
    """Whose token it was."""
    of: int = 0
    """For a rollback: the version that came back."""


SERVED = Source()


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a function, as it was put into service."""

    name: str
    digest: str
    """Of its bundle, and the name of the blob that holds it."""
    manifest: Manifest
    at: float
    """Wall-clock seconds."""
    seq: int
    """Its place in the log."""
    number: int = 1
    """1 for the function's first; people read `v1`."""
    source: Source = SERVED
    paused: bool = False
    scale: tuple[int, int] | None = None
    """Bounds that hold instead of the manifest's until the next version: least and most."""

    @property
    def version(self) -> str:
        """The digest cut short, for people."""
        return self.digest[:12]

    def same(self, digest: str, manifest: Manifest) -> bool:
        """Whether this is what would be deployed."""
        return (self.digest, self.manifest) == (digest, manifest)


class Line(msgspec.Struct):
    """All that the log says of one function."""

    versions: list[Deployment]
    """Oldest first, each as it came into service."""
    current: Deployment | None = None
    """What is in service, as it is kept now."""
    removed: Source | None = None
    """Where it was taken out of service from, if it is out."""


class _Version(msgspec.Struct, frozen=True):
    """What every record has, in any format."""

    v: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One function's part of a record, as JSON."""

    v: int = FORMAT
    op: Literal["deploy", "remove", "pause", "resume", "scale"]
    name: str
    at: float
    digest: str = ""
    manifest: Manifest | None = None
    source: Source = SERVED
    scale: tuple[int, int] | None = None
    """Of op `scale`: the bounds, or None for the manifest's."""

    def __post_init__(self) -> None:
        if self.v == FORMAT and self.op == "deploy" and not (self.manifest and self.digest):
            raise ValueError("a deployment without a manifest or a digest")


def _decode(seq: int, body: bytes) -> list[Change]:
    """One change, or an array of those that came together."""
    try:
        version = max(one.v for one in _many(body, _Version))
        if version > FORMAT:
            reason = f"its format {version} is newer than this funcrt, which reads {FORMAT}"
            raise RecordInvalid(seq, reason)
        return _many(body, Change)
    except (msgspec.DecodeError, ValueError) as error:
        raise RecordInvalid(seq, str(error)) from None


def _many(body: bytes, kind: type[T]) -> list[T]:
    if body[:1] == b"[":
        return msgspec.json.decode(body, type=list[kind])  # type: ignore[valid-type]
    return [msgspec.json.decode(body, type=kind)]


def history(records: Iterable[tuple[int, bytes]]) -> dict[str, Line]:
    """Name -> what these records say of it, from the log's beginning on.

    Raises RecordInvalid. Pure: every reader of the same log has the same result.
    """
    lines: dict[str, Line] = {}
    for seq, body in records:
        for change in _decode(seq, body):
            _step(lines.setdefault(change.name, Line([])), change, seq)
    return lines


def _step(line: Line, change: Change, seq: int) -> None:
    now = line.current
    if change.op == "deploy":
        assert change.manifest is not None
        line.current = Deployment(
            name=change.name,
            digest=change.digest,
            manifest=change.manifest,
            at=change.at,
            seq=seq,
            number=len(line.versions) + 1,
            source=change.source,
            paused=now is not None and now.paused,
        )
        line.versions.append(line.current)
        line.removed = None
    elif change.op == "remove":
        line.current, line.removed = None, change.source
    elif now is not None:
        kept = {"scale": change.scale} if change.op == "scale" else {"paused": change.op == "pause"}
        line.current = msgspec.structs.replace(now, **kept)


def fold(records: Iterable[tuple[int, bytes]]) -> dict[str, Deployment]:
    """Name -> the deployment in service. Raises RecordInvalid."""
    lines = history(records)
    return {name: line.current for name, line in lines.items() if line.current is not None}


async def load(transport: Transport) -> dict[str, Deployment]:
    """Name -> the deployment in service. Raises RecordInvalid."""
    return fold(await transport.records(KIND))


async def versions(transport: Transport, name: str) -> Line:
    """Every deployment of a function, also of one that was removed since.

    Raises FunctionUnknown where there never was one, and RecordInvalid.
    """
    lines = history(await transport.records(KIND))
    line = lines.get(name)
    if line is None or not line.versions:
        raise FunctionUnknown(name, sorted(name for name, each in lines.items() if each.current))
    return line


async def keep(transport: Transport, bundles: Sequence[Bundle]) -> None:
    """Keep the blobs of what is to be deployed; their records follow, so a crash between them
    leaves the old versions whole. Raises DeployError where a digest is not the body's."""
    for bundle in bundles:
        if sha256(bundle.body).hexdigest() != bundle.digest:
            raise DeployError("the bundle is not what its digest says")
    point("deploy.before")
    for bundle in bundles:
        await transport.put_blob(bundle.digest, bundle.body)
    point("deploy.blob")


async def append(transport: Transport, changes: Sequence[Change]) -> None:
    """Record what changes together: a reader sees all of it or nothing."""
    body = msgspec.json.encode(changes[0] if len(changes) == 1 else list(changes))
    await transport.append_record(KIND, body)


async def deploy_all(
    transport: Transport, made: Sequence[tuple[Manifest, str, Source]], at: float
) -> dict[str, Deployment]:
    """Record that these versions, each a manifest and a digest whose blob is kept, are in service
    from `at` (wall-clock seconds) on; what is in service then, by name. What is already adds no
    record."""
    current = await load(transport)
    changes = [
        Change(
            op="deploy", name=manifest.name, at=at, digest=digest, manifest=manifest, source=source
        )
        for manifest, digest, source in made
        if manifest.name not in current or not current[manifest.name].same(digest, manifest)
    ]
    if changes:
        await append(transport, changes)
        point("deploy.after")
        current = await load(transport)
    return current


async def deploy(
    transport: Transport, manifest: Manifest, bundle: Bundle, at: float, source: Source = SERVED
) -> Deployment:
    """Keep one version and record it, as `keep` and `deploy_all`."""
    current = (await load(transport)).get(manifest.name)
    if current is not None and current.same(bundle.digest, manifest):
        return current
    await keep(transport, [bundle])
    return (await deploy_all(transport, [(manifest, bundle.digest, source)], at))[manifest.name]


async def remove(transport: Transport, name: str, at: float, source: Source = SERVED) -> None:
    """Record that a function is out of service. Raises FunctionUnknown."""
    deployed = await load(transport)
    if name not in deployed:
        raise FunctionUnknown(name, sorted(deployed))
    await append(transport, [Change(op="remove", name=name, at=at, source=source)])
