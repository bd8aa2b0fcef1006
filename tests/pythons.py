"""Another Python for a function's processes: one of another version, where this machine has any,
and this one once more, which takes the same way and is everywhere."""

import os
import shutil
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

from funcrt.packages import Packages, PythonUnusable, _copy_own
from funcrt.privileges import unreadable
from funcrt.pythons import is_own, look
from funcrt.sandbox.interpreter import Interpreter
from tests.installs import run_in_sandbox

__all__ = ["KINDS", "another", "closed", "other", "same"]

KINDS = ["same", "other"]
"""Of `another`."""


def another(kind: str, directory: Path) -> Interpreter:
    """A Python with its library below `directory`."""
    return same(directory) if kind == "same" else other(directory)


def same(directory: Path) -> Interpreter:
    """This one, as if it were another."""
    name = f"python3.{sys.version_info[1]}"
    place = Path(sys.executable).resolve().parent
    found = [each for each in look({"PATH": str(place)}).found if is_own(each.version)]
    if not found:
        pytest.skip(f"no {name} beside {sys.executable}")
    library = directory / "library"
    shutil.copytree(Path(msgspec.__file__).parent, library / "msgspec")
    _copy_own(library)
    for each in (directory, library):
        each.chmod(0o755)
    return msgspec.structs.replace(found[0], library=str(library))


def other(directory: Path) -> Interpreter:
    """One of another version, the oldest of those there are; its msgspec comes from where packages
    come from."""
    python = _of_another_version()
    if python is None:
        pytest.skip("no Python of another version on this machine")
    packages = Packages(directory / "packages")
    try:
        made = run_in_sandbox(packages, lambda: packages.library("f", python))
    except PythonUnusable as error:
        if "cannot be reached" in str(error):
            pytest.skip(f"nothing can be installed here: {error}")
        raise
    (directory / "packages").chmod(0o755)
    return made


@cache
def _of_another_version() -> Interpreter | None:
    found = [
        each for each in look(os.environ).found if not is_own(".".join(each.version.split(".")[:2]))
    ]
    return found[-1] if found else None


def closed(python: Interpreter, level: str) -> str:
    """A directory that keeps the function's user from that Python at a level; "" for none."""
    if os.geteuid() != 0 or level in ("none", "sandbox"):
        return ""
    return unreadable(61184, [Path(python.executable), Path(python.library)])
