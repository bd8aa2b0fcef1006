"""What a manifest says that is allowed and hardly meant: told whenever it is deployed."""

from collections.abc import Iterable, Iterator, Sequence

from funcrt.manifest import Manifest
from funcrt.reach import filter_of, queued
from funcrt.sandbox import HandlerInfo
from funcrt.sandbox.destinations import OUTBOUND, address_of
from funcrt.sandbox.levels import LEVELS, Level, contained, mend
from funcrt.text import several

__all__ = ["cautions", "lowered"]

LOWERED: dict[Level, str] = {
    "none": "nothing keeps them from the host's files, processes and network",
    "process": "Landlock and seccomp alone hold them back, in the host's own namespaces",
    "sandbox": "they see the host's Python and libraries, and those of no image",
}
"""What a level leaves open that a higher one does not."""


def lowered(served: Iterable[tuple[Manifest, HandlerInfo]]) -> Iterator[tuple[str, str]]:
    """Of functions that run at a lower level than their manifests ask for, for each level and
    reason: which, and what to do, which may be nothing."""
    found: dict[tuple[Level, Level, str], list[str]] = {}
    for manifest, info in served:
        asked = manifest.sandbox.isolation
        if LEVELS.index(info.isolation) < LEVELS.index(asked):
            found.setdefault((info.isolation, asked, info.lacking), []).append(manifest.name)
    for (had, wanted, why), names in found.items():
        where = "this container" if contained() else "this machine"
        because = f"{where} does not give it ({why})" if why else "--isolation says so"
        text = f"isolation {had!r} instead of {wanted!r} for {several(names)}: {because}"
        yield f"{text}; {LOWERED[had]}", mend(why)


def cautions(manifest: Manifest, grouped: Sequence[str] | None = None) -> Iterator[str]:
    """A line each: filters that no event or every event meets, or that no index can find; keys that
    keep nothing from running; limits that only a control group can keep, of which this machine
    gives those in `grouped`."""
    asked = manifest.sandbox.isolation
    if manifest.limits.cpu is not None and grouped is not None and "cpu" not in grouped:
        what = "start it as root, or in a unit with Delegate=yes"
        if contained():
            what = "bound its container as a whole: docker run --cpus"
        yield (
            f"{manifest.name}: limits.cpu is not kept: this host can make no control group; {what}"
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
