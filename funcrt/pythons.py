"""The Pythons of this machine, for functions that ask for another than the host's."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from funcrt.errors import DeployError, LoadError, Problem
from funcrt.manifest import Manifest
from funcrt.manifest_kinds import OLDEST_PYTHON
from funcrt.packages import Packages
from funcrt.requirements import PROJECT, Needs, allows
from funcrt.sandbox.interpreter import Interpreter
from funcrt.wrong import describe

__all__ = ["Looked", "PythonMissing", "find", "is_own", "look", "python_of"]

OWN = "{}.{}.{}".format(*sys.version_info[:3])
ALWAYS = ("/usr/local/bin", "/usr/bin")
ANSWER_S = 20.0
SHIMS = "shims"
"""What pyenv and the like put on PATH: scripts that start one or another Python."""
_NAME = re.compile(r"python3\.([0-9]{1,3})")
_PROBE = """
import json, os, site, sys, sysconfig
var = sysconfig.get_config_var
executable = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
paths = [executable, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
paths += [sys.base_prefix + "/lib", *sys.path]
with open("/proc/self/maps") as maps:  # its libraries: where it was built to look may be elsewhere
    paths += sorted({line.split(None, 5)[5].rstrip() for line in maps if ".so" in line})
python = {
    "executable": executable, "version": "%d.%d.%d" % sys.version_info[:3],
    "abi": str(var("SOABI")), "platform": sysconfig.get_platform(),
    "paths": [path for path in dict.fromkeys(paths) if path and os.access(path, os.R_OK)],
    "pip": any(os.path.isdir(each + "/pip") for each in site.getsitepackages()),
}
json.dump({
    "python": python, "final": sys.version_info[3] == "final",
    "implementation": sys.implementation.name, "free_threaded": bool(var("Py_GIL_DISABLED")),
}, sys.stdout)
"""


class _Probed(msgspec.Struct, frozen=True):
    """What an interpreter says of itself."""

    python: Interpreter
    final: bool
    implementation: str
    free_threaded: bool


class Looked(msgspec.Struct, frozen=True):
    """What there is on this machine."""

    found: tuple[Interpreter, ...]
    """The newest first."""
    passed: tuple[str, ...]
    """What was found and is no use, each with why."""
    closed: tuple[str, ...]
    """Directories that this process may not look into."""


class PythonMissing(DeployError):
    """A function asks for a version of Python that this machine does not have."""

    def __init__(self, function: str, asked: str, looked: Looked) -> None:
        there = ", ".join(f"{each.version} ({each.executable})" for each in looked.found)
        minor = ".".join(asked.split(".")[:2])
        told = [
            f'{function}: python = "{asked}", and this machine has no such Python; it has'
            f" {there or 'none that functions could run in'}",
            f"Install it (uv python install {asked}, pyenv install {asked}), or put the directory"
            f" of its python{minor} on the PATH of the host, or ask for one of those",
            *looked.passed,
        ]
        if looked.closed:
            where = ", ".join(looked.closed)
            told.append(f"User {os.geteuid()}, who runs this, may not look into {where}")
        super().__init__(". ".join(told))


def is_own(asked: str) -> bool:
    """Whether a version, `3.12` or `3.12.1`, is that of the Python that this runs in."""
    return _fits(asked, OWN)


def _fits(asked: str, version: str) -> bool:
    return version == asked or version.startswith(f"{asked}.")


async def python_of(manifest: Manifest, needs: Needs, packages: Packages) -> Interpreter | None:
    """What a function runs in, with what its process needs there installed; None for this Python.
    Raises PythonMissing, PythonUnusable, InstallerMissing, and LoadError where its project excludes
    that Python."""
    if not manifest.python or is_own(manifest.python):
        await _check(needs, OWN)
        return None
    found = await asyncio.to_thread(find, manifest.name, manifest.python, os.environ)
    await _check(needs, found.version)
    return await packages.library(manifest.name, found)


async def _check(needs: Needs, version: str) -> None:
    """Raises LoadError."""
    if allows(needs.python, version):
        return
    there = (await asyncio.to_thread(look, os.environ)).found
    fit = [each.version for each in there if allows(needs.python, each.version)]
    mend = "install one that fits, and ask for it by python in its manifest"
    if fit:
        minor = ".".join(fit[0].split(".")[:2])
        asked = minor if is_own(minor) is is_own(fit[0]) else fit[0]
        mend = f'python = "{asked}" in its manifest runs it in {fit[0]}, which is here'
    message = f"{describe(needs.python)}, and the function runs in Python {version}; {mend}"
    raise LoadError(
        Problem(
            file=PROJECT,
            line=needs.python_line,
            path="project.requires-python",
            message=message,
        )
    )


def find(function: str, asked: str, environ: Mapping[str, str]) -> Interpreter:
    """The newest Python of this machine that is `asked` for: `3.12`, or `3.12.1`. Raises
    PythonMissing."""
    looked = look(environ, int(asked.split(".")[1]))
    for each in looked.found:
        if _fits(asked, each.version):
            return each
    raise PythonMissing(
        function, asked, msgspec.structs.replace(look(environ), passed=looked.passed)
    )


def look(environ: Mapping[str, str], minor: int | None = None) -> Looked:
    """The Pythons on this machine, or those of one minor version: on PATH, in the usual places,
    pyenv's and uv's. Each is asked once what it is."""
    closed: list[str] = []
    found: dict[str, _Probed] = {}
    passed: dict[str, str] = {}
    for directory in _directories(environ, closed):
        for name, number in _names(directory, closed):
            if (3, number) >= OLDEST_PYTHON and minor in (None, number):
                real = os.path.realpath(directory / name)
                probed = _probed(real, _changed(real))
                why = probed if isinstance(probed, str) else _unfit(probed)
                if why and directory.name != SHIMS:  # which choose among what may not be there
                    passed[real] = f"{real} {why}"
                elif not why and isinstance(probed, _Probed):
                    found.setdefault(probed.python.executable, probed)
    newest = sorted(found.values(), key=_order, reverse=True)
    return Looked(tuple(each.python for each in newest), tuple(passed.values()), tuple(closed))


def _directories(environ: Mapping[str, str], closed: list[str]) -> Iterator[Path]:
    """Where interpreters are."""
    given = environ.get("PATH", os.defpath).split(os.pathsep)
    home = Path(environ.get("HOME") or "/")
    share = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    for each in dict.fromkeys((*filter(None, given), *ALWAYS)):
        if Path(each) != pyenv / SHIMS:  # of what is looked through below, and slow
            yield Path(each)
    for root in (
        pyenv / "versions", Path(environ.get("UV_PYTHON_INSTALL_DIR") or share / "uv/python")
    ):  # fmt: skip
        yield from (root / name / "bin" for name in _listed(root, closed))


def _names(directory: Path, closed: list[str]) -> Iterator[tuple[str, int]]:
    for name in _listed(directory, closed):
        if named := _NAME.fullmatch(name):
            yield name, int(named[1])


def _listed(directory: Path, closed: list[str]) -> Sequence[str]:
    try:
        return sorted(each.name for each in directory.iterdir())
    except PermissionError:
        closed.append(str(directory))
    except OSError:
        pass
    return ()


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _probed(executable: str, _changed: int) -> _Probed | str:
    """What it says of itself; or why it does not."""
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-c", _PROBE],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )  # fmt: skip
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"did not answer within {ANSWER_S:g} s"
    try:
        return msgspec.json.decode(done.stdout, type=_Probed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return f"does not start: {said[-1][:200] if said else f'it ended with {done.returncode}'}"


def _unfit(probed: _Probed) -> str:
    """Why functions cannot run in it; nothing where they can."""
    if probed.implementation != "cpython":
        return f"is {probed.implementation}; functions need CPython"
    if probed.free_threaded:
        return "is a free-threaded build, which functions cannot run in"
    return ""


def _order(probed: _Probed) -> tuple[bool, tuple[int, ...]]:
    return probed.final, tuple(int(part) for part in probed.python.version.split("."))
