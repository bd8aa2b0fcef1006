"""The wheels that a function's process of another Python is made of, by what is in them: a file
that is handed out under the name of one is taken for it where its hash says so."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["FILE", "hashed", "versions"]

FILE = Path(__file__).with_suffix(".sha256")
"""As sha256sum writes it, one version of a package; by docs/make_wheels.py."""


@cache
def _known() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Version and hashes, by package."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in FILE.read_text().splitlines():
        digest, _, file = line.partition("  ")
        name, version, _ = file.split("-", 2)
        found[name] = version, (*found.get(name, ("", ()))[1], digest)
    return found


def versions(names: Sequence[str]) -> list[str]:
    """Packages in the version that they are taken in: `msgspec==0.22.0`."""
    return [f"{name}=={_known()[name][0]}" for name in names]


def hashed(names: Sequence[str]) -> list[str]:
    """The same, as requirements that only these wheels satisfy."""
    return [
        " ".join([asked, *(f"--hash=sha256:{digest}" for digest in _known()[name][1])])
        for name, asked in zip(names, versions(names), strict=True)
    ]
