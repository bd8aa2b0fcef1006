"""Putting function directories into service together: all of them, or none and every mistake."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from funcrt.bundle import ignored
from funcrt.deployer import Done, Prepared
from funcrt.errors import DeployError, FuncrtError, FunctionsRefused, LoadError
from funcrt.manifest import FILE, HttpTrigger, Manifest, load_manifest
from funcrt.manifest_kinds import nearest
from funcrt.paths import clash, taken
from funcrt.registry import Source

if TYPE_CHECKING:
    from funcrt.host import Host

__all__ = [
    "TESTS",
    "clashes",
    "find_functions",
    "is_function",
    "no_profile",
    "placed",
    "read_manifests",
    "roll_out",
]

TESTS = "tests"
"""A directory beside functions that holds tests of them together, and is passed over in silence."""
MARKS = ("main.py", FILE)
"""What makes a directory a function's, whatever these are: a broken link is told, not skipped."""


def find_functions(directories: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The function directories among these and right below them, and what was passed over: the
    other directories, where they hold Python files."""
    found: list[Path] = []
    passed: list[Path] = []
    for directory in directories:
        if is_function(directory):
            found.append(directory)
            continue
        for below in sorted(directory.iterdir()):
            if below.name.startswith(".") or ignored(below.name) or not below.is_dir():
                continue
            if is_function(below):
                found.append(below)
            elif below.name == TESTS:
                continue
            elif any(below.glob("*.py")) or any(below.glob("*/main.py")):
                passed.append(below)
    return found, passed


def is_function(directory: Path) -> bool:
    """Whether a directory is meant to be a function's."""
    return any(os.path.lexists(directory / mark) for mark in MARKS)


def read_manifests(
    directories: Sequence[Path], profile: str = ""
) -> tuple[dict[Path, Manifest], list[FuncrtError]]:
    """The manifests that can be read, with a profile, and every mistake."""
    errors: list[FuncrtError] = []
    manifests: dict[Path, Manifest] = {}
    for directory in directories:
        try:
            manifests[directory] = load_manifest(directory, profile)
        except FuncrtError as error:
            errors.append(error)
    errors += clashes(manifests)
    errors += no_profile(manifests.values(), profile)
    return manifests, errors


def no_profile(manifests: Collection[Manifest], profile: str) -> list[DeployError]:
    """A profile that none of them has is none that was meant."""
    known = sorted({name for manifest in manifests for name in manifest.profiles})
    if not profile or not manifests or profile in known:
        return []
    near = nearest(profile, known) or f"; there are: {', '.join(known) or 'none'}"
    return [DeployError(f"no function has the profile {profile!r}{near}")]


async def roll_out(host: "Host", directories: Sequence[Path], profile: str = "") -> list[Done]:
    """Put these directories into service, those that have it with a profile. Raises
    FunctionsRefused; then none was.

    Every manifest is read and all code imported before the first changes what is in service.
    """
    manifests, errors = read_manifests(directories, profile)
    names = {manifest.name for manifest in manifests.values()}
    prepared: list[Prepared] = []
    for directory, manifest in manifests.items():
        try:
            one = await host.prepare(manifest, directory, together=names, beside=prepared)
            used = profile if profile in manifest.profiles else ""
            source = Source(path=str(directory), profile=used)
            prepared.append(msgspec.structs.replace(one, source=source))
        except LoadError as error:
            errors.append(placed(error, directory))
        except FuncrtError as error:
            errors.append(error)
    if errors:
        raise FunctionsRefused(errors)
    done = await host.deploys.put(prepared)
    await host.deploys.retired(done)
    return done


def clashes(manifests: dict[Path, Manifest]) -> Iterator[DeployError]:
    """Two functions of one name, or with one HTTP path."""
    names: dict[str, Path] = {}
    paths: dict[str, Path] = {}
    for directory, manifest in manifests.items():
        first = names.setdefault(manifest.name, directory)
        if first != directory:
            message = f"{first} is named {manifest.name!r} too; set name in one {FILE}"
            yield DeployError(f"{directory}: {message}")
            continue
        for trigger in manifest.triggers:
            if isinstance(trigger, HttpTrigger):
                for path, first in paths.items():
                    if first != directory and clash(path, trigger.path):
                        yield DeployError(taken(str(directory), trigger.path, str(first), path))
                        break
                paths.setdefault(trigger.path, directory)


def placed(error: LoadError, directory: Path) -> LoadError:
    """With paths as the author knows them; the sandbox's begin in the function's directory."""
    file = str(directory / error.problem.file)
    frames = re.sub(
        r'^  File "(?!/)', lambda _: f'  File "{directory}/', error.traceback, flags=re.M
    )
    problem = msgspec.structs.replace(error.problem, file=file)
    return LoadError(problem, frames)
