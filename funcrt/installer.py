"""uv or pip as a child process: what it may see of the host, and what it says where it fails."""

import asyncio
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from funcrt.errors import DeployError, LoadError, Problem
from funcrt.requirements import Needs, name_of
from funcrt.sandbox.interpreter import Interpreter

__all__ = [
    "DependencyError",
    "InstallerMissing",
    "compile_in",
    "installer",
    "pinned",
    "run_installer",
]

MOST_S = 600.0
"""An installation that takes longer is given up."""
MOST_SAID = 12
"""Lines of the installer's own words that are told."""
RUNTIME = ("msgspec",)
"""What is loaded in every function's process before its own code, and cannot be loaded twice."""
OWN = {
    "LANG": "C.UTF-8",
    "NO_COLOR": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}
PASSED = (
    *("PATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NETRC"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"),
    *("PIP_TRUSTED_HOST", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_CONFIG_FILE"),
    *("PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_KEYRING_PROVIDER", "PIP_PRE"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY"),
    *("UV_FIND_LINKS", "UV_CONSTRAINT", "UV_INSECURE_HOST", "UV_CONFIG_FILE"),
    *("UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"),
    *("UV_OFFLINE", "UV_KEYRING_PROVIDER", "UV_EXCLUDE_NEWER", "UV_PRERELEASE"),
)
"""What an operator sets for indexes, proxies and certificates; nothing else of the host's
environment reaches what is run here."""
PLACES = ("INDEX_URL", "EXTRA_INDEX_URL", "NO_INDEX", "FIND_LINKS", "CONFIG_FILE")
"""Settings of pip, each as PIP_NAME, that say where packages come from."""
_LAUNCH = (
    # Its own process group, and no life after the host's: nothing goes on writing what is swept.
    "import ctypes, os, sys; os.setsid(); os.umask(0o022);"
    "ctypes.CDLL(None).prctl(1, 9);"
    "os.getppid() == int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


class InstallerMissing(DeployError):
    """A function needs packages, and there is nothing to install them with."""

    def __init__(self) -> None:
        super().__init__(
            "there is no uv on PATH and no pip in funcrt's own environment, and dependencies need"
            f" one of them; {sys.executable} -m ensurepip, or install uv"
        )


class DependencyError(LoadError):
    """Dependencies that cannot be installed, with the package's name and the installer's words."""


def pinned() -> list[str]:
    """What a function must have in just this version, if it has it at all: `msgspec==0.21.0`."""
    found = []
    for name in RUNTIME:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            pass
    return found


def installer(environ: Mapping[str, str]) -> list[str]:
    """The command of what installs: uv where it is there (on PATH, or beside this Python), but for
    a host where only pip was told where packages come from; else pip. Raises InstallerMissing."""
    beside = str(Path(sys.executable).parent)
    uv = shutil.which("uv", path=f"{environ.get('PATH', os.defpath)}:{beside}")
    pip = [sys.executable, "-I", "-m", "pip"] if find_spec("pip") else []
    if uv is not None and not (pip and _only_pip(environ)):
        return [uv, "pip"]
    if not pip:
        raise InstallerMissing
    return pip


def _only_pip(environ: Mapping[str, str]) -> bool:
    given = [name for name, value in environ.items() if value and name in PASSED]
    if any(name.startswith("UV_") and name != "UV_CACHE_DIR" for name in given):
        return False
    told = any(environ.get(f"PIP_{name}") for name in PLACES)
    return told or _user_file(environ, "pip/pip.conf", ".pip/pip.conf") is not None


def _user_file(environ: Mapping[str, str], *names: str) -> Path | None:
    """A file of the operator's configuration, which a HOME of its own would hide."""
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [(home if name.startswith(".") else config) / name for name in names]
    return next((place for place in places if place.is_file()), None)


def environment(environ: Mapping[str, str], home: Path, cache: Path) -> dict[str, str]:
    """What the installer sees of the host's environment."""
    made = OWN | {name: environ[name] for name in PASSED if environ.get(name)}
    made |= {
        name: value
        for name, value in environ.items()
        if re.fullmatch(r"UV_INDEX_\w+_(USERNAME|PASSWORD)", name)
    }
    pip = _user_file(environ, "pip/pip.conf", ".pip/pip.conf")
    uv = _user_file(environ, "uv/uv.toml")
    made |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    for name, value in (("PIP_CONFIG_FILE", pip), ("UV_CONFIG_FILE", uv)):
        if value is not None:
            made.setdefault(name, str(value))
    made.setdefault("PIP_CACHE_DIR", str(cache / "pip"))
    made.setdefault("UV_CACHE_DIR", str(cache / "uv"))
    return made


async def run_installer(
    needs: Needs, target: Path, cache: Path, *, builds: bool, python: Interpreter | None = None
) -> None:
    """Install what is needed into the empty directory `target`, for `python` or, without it, for
    this one. Raises DependencyError, InstallerMissing."""
    command = _for(python, installer(os.environ))
    with tempfile.TemporaryDirectory(prefix="funcrt-install-") as home:
        options = _options(command, target, builds, python) + _asked(needs, Path(home))
        env = environment(os.environ, Path(home), cache)
        code, said = await _child([*command, *options], env, home)
    if code:
        raise _told(needs, said, builds, python)


def _for(python: Interpreter | None, command: list[str]) -> list[str]:
    """The installer's command for another Python: its own pip, if it has one, where pip installs,
    for a pip may not run in a Python that is newer than it."""
    if python is None or _is_uv(command):
        return command
    if python.pip:
        return [python.executable, "-I", "-m", "pip"]
    return [*command, "--python", python.executable]


def _is_uv(command: Sequence[str]) -> bool:
    return command[1:] == ["pip"]


async def compile_in(directory: Path, python: Interpreter) -> None:
    """Compile what lies in a directory, by the Python that is to run it. What cannot be compiled
    is, each time that it is imported."""
    command = [python.executable, "-I", "-S", "-m", "compileall", "-q", str(directory)]
    await _child(command, OWN, str(directory))


def _asked(needs: Needs, home: Path) -> list[str]:
    """The options that say what is needed, in files below `home`."""
    lines = "\n".join(needs.lines)
    files = {"-r": "requirements.txt"}
    (home / files["-r"]).write_text(f"{lines}\n")
    if "--hash" not in lines:  # where hashes are asked for, all must have one
        files["-c"] = "constraints.txt"
        (home / files["-c"]).write_text("\n".join(pinned()))
    return [word for pair in files.items() for word in pair]


def _options(
    command: Sequence[str], target: Path, builds: bool, python: Interpreter | None
) -> list[str]:
    only = [] if builds else ["--only-binary", ":all:"]
    found = ["install", "--target", str(target), *only]
    if not _is_uv(command):
        return [*found, "--progress-bar", "off", "--no-color", "--no-warn-conflicts"]
    executable = python.executable if python is not None else sys.executable
    # Copied: a link into the cache would let what a function writes reach others.
    return [*found, "--python", executable, "--link-mode", "copy", "--compile-bytecode",
            "--no-progress", "--color", "never"]  # fmt: skip


async def _child(command: Sequence[str], env: Mapping[str, str], cwd: str) -> tuple[int, str]:
    """Its exit code, and what it wrote; ended where nobody waits any more."""
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command]
    child = await asyncio.create_subprocess_exec(
        *launch, env=env, cwd=cwd, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(MOST_S):
            out, _ = await child.communicate()
    except TimeoutError:
        return 1, f"error: given up after {MOST_S:g} s"
    finally:
        if child.returncode is None:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                child.kill()
            await child.wait()
    return child.returncode or 0, out.decode(errors="replace")


# What it says where it fails

_UNREACHED = re.compile(
    r"Failed to fetch|error sending request|Connection\w*Error|Max retries|ConnectTimeout"
    r"|ProxyError|SSLError|tls handshake|dns error|Network is unreachable",
    re.IGNORECASE,
)
_NAME = r"`?([A-Za-z0-9][A-Za-z0-9._-]*?)`?"
_VERSION = r"(?:(?:==|>=|<=|>|<|~=|!=)\S+)?"
_WORDS: tuple[tuple[str, str], ...] = (
    (rf"{_NAME}{_VERSION} was not found", "not found"),
    (rf"Because {_NAME}{_VERSION} has no (?:usable )?wheels", "no wheel"),
    (rf"{_NAME}{_VERSION} depends on Python", "python"),
    (rf"no versions? of {_NAME}{_VERSION} ", "no version"),
    (rf"[Hh]ash mismatch for {_NAME}{_VERSION}\W", "hash"),
    (rf"No matching distribution found for {_NAME}(?:[\[=<>!~;,@ (]|$)", "no match"),
    (rf"(?:all versions of )?{_NAME}{_VERSION} depends? on ", "conflict"),
    (rf"{_NAME} \S+ depends on ", "conflict"),
    (rf"only {_NAME}{_VERSION} is available", "no version"),
)
_WHY = {
    "not found": "no package of that name where packages come from",
    "no wheel": "it has no wheel for Python {python} on this machine{mend}",
    "python": "it needs another version of Python than this one, {python}",
    "no version": "no version of it fits",
    "hash": "what was downloaded does not have its hash",
    "no match": "no package of that name, or none with a wheel for Python {python}{mend}",
    "conflict": "what is asked for contradicts itself",
    "": "the installer failed",
}
_NOISE = re.compile(
    r"(INFO|WARNING|Collecting|Downloading|Looking in|Processing|Using cached|Using CPython|"
    r"Resolved|Prepared|Requirement already|\[notice\]|\s+(Downloading|Using cached)) ?"
)


def _told(needs: Needs, said: str, builds: bool, other: Interpreter | None) -> DependencyError:
    """What a user is told of an installer's failure."""
    flat = " ".join(said.split())
    name, kind = "", ""
    if not _UNREACHED.search(said):
        for pattern, meaning in _WORDS:
            if found := re.search(pattern, flat):
                name, kind = name_of(found[1]), meaning
                break
        if kind == "no match" and re.search(r"from versions: (?!none)", flat):
            kind = "no version"
    version = other.version if other is not None else platform.python_version()
    python = ".".join(version.split(".")[:2])
    mend = "" if builds else "; source_builds = true would let it be built, by code of its own"
    why = _WHY[kind].format(python=python, mend=mend)
    if _UNREACHED.search(said):
        why = "where packages come from cannot be reached"
    message = f"cannot install {name or ', '.join(needs.names[:4])}: {why}"
    kept = [line.rstrip() for line in said.splitlines() if line.strip() and not _NOISE.match(line)]
    words = "\n".join(f"  {line}" for line in kept[-MOST_SAID:])
    line = needs.places.get(name) or _line_of(needs, said)
    return DependencyError(Problem(file=needs.file, line=line, message=message), words)


def _line_of(needs: Needs, said: str) -> int | None:
    """Of the first package asked for that the installer speaks of."""
    named = [name for name in needs.places if re.search(rf"\b{re.escape(name)}\b", said)]
    return needs.places[named[0]] if named else None
