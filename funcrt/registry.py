"""Which functions are deployed: an ordered log of records, and a blob for each bundle.

The log lives in the mesh, so every host that reads it comes to the same set. A record says that a
version was put into service, or that a function was removed; the last one of a name counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Literal

import msgspec

from funcrt.bundle import Bundle
from funcrt.errors import DeployError, FunctionUnknown
from funcrt.manifest import Manifest
from mesh.failpoint import point
from mesh.transport import Transport

__all__ = [
    "KIND",
    "Deployment",
    "RecordInvalid",
    "deploy",
    "fold",
    "load",
    "remove",
    "versions",
]

KIND = "deployment"
"""The kind of record, in the mesh's log."""
FORMAT = 1


class RecordInvalid(DeployError):
    """A record that this version cannot read: the log is never used in part."""

    def __init__(self, seq: int, reason: str) -> None:
        self.seq = seq
        super().__init__(f"deployment record {seq}: {reason}")


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

    @property
    def version(self) -> str:
        """The digest cut short, for people."""
        return self.digest[:12]


class _Version(msgspec.Struct, frozen=True):
    """What every record has, in any format."""

    v: int


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record's body, as JSON."""

    v: int = FORMAT
    op: Literal["deploy", "remove"]
    name: str
    at: float
    digest: str = ""
    manifest: Manifest | None = None


def _decode(seq: int, body: bytes) -> _Record:
    try:
        version = msgspec.json.decode(body, type=_Version).v
        if version > FORMAT:
            reason = f"its format {version} is newer than this funcrt, which reads {FORMAT}"
            raise RecordInvalid(seq, reason)
        record = msgspec.json.decode(body, type=_Record)
    except msgspec.DecodeError as error:
        raise RecordInvalid(seq, str(error)) from None
    if record.op == "deploy" and (record.manifest is None or not record.digest):
        raise RecordInvalid(seq, "a deployment without a manifest or a digest")
    return record


def _steps(records: Iterable[tuple[int, bytes]]) -> Iterator[tuple[str, Deployment | None]]:
    """(name, the deployment that came into service, or None for a removal), in order."""
    for seq, body in records:
        record = _decode(seq, body)
        if record.manifest is None or record.op == "remove":
            yield record.name, None
        else:
            yield (
                record.name,
                Deployment(
                    name=record.name,
                    digest=record.digest,
                    manifest=record.manifest,
                    at=record.at,
                    seq=seq,
                ),
            )


def fold(
    records: Iterable[tuple[int, bytes]], before: Mapping[str, Deployment] | None = None
) -> dict[str, Deployment]:
    """Name -> the deployment in service, after these records on top of `before`.

    Raises RecordInvalid. Pure: every reader of the same log has the same result.
    """
    deployed = dict(before or {})
    for name, deployment in _steps(records):
        if deployment is None:
            deployed.pop(name, None)
        else:
            deployed[name] = deployment
    return deployed


async def load(transport: Transport) -> dict[str, Deployment]:
    """Name -> the deployment in service. Raises RecordInvalid."""
    return fold(await transport.records(KIND))


async def versions(transport: Transport, name: str) -> list[Deployment]:
    """Every deployment of a function, oldest first; also of one that was removed since.

    Raises FunctionUnknown where there never was one, and RecordInvalid.
    """
    records = await transport.records(KIND)
    found = [one for named, one in _steps(records) if one is not None and named == name]
    if not found:
        raise FunctionUnknown(name, sorted(fold(records)))
    return found


async def deploy(transport: Transport, manifest: Manifest, bundle: Bundle, at: float) -> Deployment:
    """Record that this version is in service from `at` (wall-clock seconds) on.

    What is in service already, the same bundle under the same manifest, adds no record and is
    returned as it is. The blob is kept before the record that names it, so a crash between them
    leaves the old version whole. Raises DeployError where the digest is not the body's.
    """
    if sha256(bundle.body).hexdigest() != bundle.digest:
        raise DeployError(f"{manifest.name}: the bundle is not what its digest says")
    current = (await load(transport)).get(manifest.name)
    if current and (current.digest, current.manifest) == (bundle.digest, manifest):
        return current
    point("deploy.before")
    await transport.put_blob(bundle.digest, bundle.body)
    point("deploy.blob")
    record = _Record(
        op="deploy", name=manifest.name, at=at, digest=bundle.digest, manifest=manifest
    )
    seq = await transport.append_record(KIND, msgspec.json.encode(record))
    point("deploy.after")
    return Deployment(name=manifest.name, digest=bundle.digest, manifest=manifest, at=at, seq=seq)


async def remove(transport: Transport, name: str, at: float) -> None:
    """Record that a function is out of service. Raises FunctionUnknown."""
    deployed = await load(transport)
    if name not in deployed:
        raise FunctionUnknown(name, sorted(deployed))
    record = _Record(op="remove", name=name, at=at)
    await transport.append_record(KIND, msgspec.json.encode(record))
