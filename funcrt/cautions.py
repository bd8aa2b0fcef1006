"""What a manifest says that is allowed and hardly meant: told whenever it is deployed."""

from collections.abc import Iterator, Sequence

from funcrt.manifest import Manifest
from funcrt.reach import filter_of, queued
from funcrt.sandbox.destinations import OUTBOUND, address_of
from funcrt.sandbox.levels import LEVELS

__all__ = ["cautions"]


def cautions(
    manifest: Manifest, isolation: str = "", grouped: Sequence[str] | None = None
) -> Iterator[str]:
    """A line each: filters that no event or every event meets, or that no index can find; keys that
    keep nothing from running; an `isolation` that is not what was asked for; limits that only a
    control group can keep, of which this machine gives those in `grouped`."""
    asked = manifest.sandbox.isolation
    if isolation in LEVELS[: LEVELS.index(asked)]:
        what = "nothing keeps it from the host's files, processes and network"
        if isolation == "process":
            what = "it shares the host's namespaces"
        yield (
            f"{manifest.name}: runs at isolation {isolation!r} where it asks for {asked!r}: {what}"
        )
    if manifest.limits.cpu is not None and grouped is not None and "cpu" not in grouped:
        yield (
            f"{manifest.name}: limits.cpu is not kept: this host can make no control group; start"
            " it as root, or in a unit with Delegate=yes"
        )
    for entry in manifest.sandbox.network:
        address = address_of(entry.rpartition(":")[0].strip("[]"))
        if address is not None and (address.is_loopback or address.is_link_local):
            what = "a service of the host's own"
            if address.is_link_local:
                what = "on the host's link, where clouds keep metadata and keys"
            yield f"{manifest.name}: may connect to {entry}, {what}, by sandbox.network"
    if asked == "container" and OUTBOUND in manifest.sandbox.network:
        yield (
            f"{manifest.name}: in a container network = {OUTBOUND!r} is all that Docker's bridge"
            " leads to, private addresses and the host's, too"
        )
    for spec in queued(manifest):
        for warning in filter_of(spec).warnings():
            yield f"{manifest.name}: trigger {spec.name}: {warning}"
    if manifest.idempotency is not None and manifest.triggers and not queued(manifest):
        yield (
            f"{manifest.name}: [idempotency] is for what comes over the mesh and for queued calls;"
            " a call over HTTP that is waited for runs each time"
        )
