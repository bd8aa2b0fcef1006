"""What a deployment would change, for people: keys of the manifest, and files."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from funcrt.bundle import Bundle, files
from funcrt.manifest import Manifest
from funcrt.manifest_kinds import Duration, Size

__all__ = ["KeyChange", "changed_files", "changed_keys"]


class KeyChange(msgspec.Struct, frozen=True):
    """A key of the manifest, and what it is before and after; None where it is not there."""

    key: str
    before: str | None
    after: str | None


def changed_keys(before: Manifest | None, after: Manifest) -> list[KeyChange]:
    """The keys that differ, defaults counted, in the order of the manifest. Triggers go by their
    names: `trigger.images.filters`."""
    old = dict(_keys(before)) if before is not None else {}
    new = dict(_keys(after))
    names = [*new, *(key for key in old if key not in new)]
    return [
        KeyChange(key, old.get(key), new.get(key)) for key in names if old.get(key) != new.get(key)
    ]


def _keys(manifest: Manifest) -> Iterator[tuple[str, str]]:
    table: dict[str, Any] = msgspec.to_builtins(manifest)
    table.pop("profiles")
    triggers = table.pop("triggers")
    yield from _flat("", table)
    for trigger in triggers:
        yield from _flat(f"trigger.{trigger.pop('name')}.", trigger)


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if key in ("output", "retry", "dlq", "scale", "limits", "batch", "env") and value:
            yield from _flat(f"{prefix}{key}.", value)
        elif isinstance(value, float) and key.endswith("_s"):
            yield f"{prefix}{key.removesuffix('_s')}", Duration.write(value)
        elif isinstance(value, int) and key.endswith("_bytes"):
            yield f"{prefix}{key.removesuffix('_bytes')}", Size.write(value)
        else:
            yield f"{prefix}{key}", msgspec.json.encode(value).decode()


def changed_files(before: Bundle | None, after: Bundle) -> dict[str, list[str]]:
    """Paths that were `added`, `changed` and `removed`."""
    old = files(before) if before is not None else {}
    new = files(after)
    return {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(path for path in new.keys() & old.keys() if new[path] != old[path]),
        "removed": sorted(old.keys() - new.keys()),
    }
