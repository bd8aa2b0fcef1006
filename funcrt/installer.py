"""uv or pip in a sandbox: what it may see of the host, and what it says where it fails."""

import asyncio
import contextlib
import fcntl
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import msgspec

from funcrt.errors import DeployError, LoadError, Problem
from funcrt.indexes import FILES, passwords, places
from funcrt.privileges import unreadable
from funcrt.requirements import Needs, name_of
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.workshop import Job, Place, Workshop
from funcrt.tree import hold
from funcrt.wheels import versions

__all__ = [
    "CACHE",
    "HOME",
    "RUNTIME",
    "SITE",
    "DependencyError",
    "InstallerMissing",
    "PasswordExposed",
    "PipOnMusl",
    "compile_in",
    "installer",
    "pinned",
    "run_installer",
]

SITE = "site"
HOME = "home"
CACHE = ".cache"

MOST_S = 600.0
"""An installation that takes longer is given up."""
AGAIN_S = 0.05
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
CACHES = {"PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv"}
SYSTEM = ("/usr", "/bin", "/sbin", "/etc/alternatives", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
          "/etc/os-release", "/etc/debian_version")  # fmt: skip
"""What compilers and linkers read, besides what every function may."""
OF_PYTHON = ("bin", "lib", "lib64", "include", "pyvenv.cfg")
"""What belongs to a Python in its directory, in which there may be other things."""


class InstallerMissing(DeployError):
    """A function needs packages, and there is nothing to install them with."""

    def __init__(self) -> None:
        super().__init__(
            "there is no uv on PATH and no pip in funcrt's own environment, and dependencies need"
            f" one of them; {sys.executable} -m ensurepip, or install uv"
        )


class PasswordExposed(DeployError):
    """A package from a URL, by a uv whose environment holds passwords: it puts what a package's
    metadata asks for of that (`${UV_INDEX_URL}`) into the URLs that it names."""

    def __init__(self, line: str, variables: Sequence[str]) -> None:
        super().__init__(
            f"{line}: nothing is taken from a URL while {', '.join(variables)} of this host's"
            " environment holds a password, which uv would tell to whom that package names; keep"
            " it in a file that NETRC or UV_CONFIG_FILE names, or let pip install"
        )


class PipOnMusl(DeployError):
    """Only pip is there to install with, on a system with musl, where it cannot be held back."""

    def __init__(self, function: str) -> None:
        super().__init__(
            f"{function}: this system's C library is musl, whose version pip asks a program for,"
            " and where it takes only wheels it may start none. Install uv beside funcrt:"
            f" {sys.executable} -m pip install uv"
        )


class DependencyError(LoadError):
    """Dependencies that cannot be installed, with the package's name and the installer's words;
    `kind` is which of the things that can be wrong, or empty."""

    def __init__(self, problem: Problem, traceback: str = "", kind: str = "") -> None:
        self.kind = kind
        super().__init__(problem, traceback)


def pinned(python: Interpreter | None = None) -> list[str]:
    """What a function must have in just the version that its process runs on, if it has it at all,
    in another Python or this one: `msgspec==0.21.0`."""
    return versions(RUNTIME) if python else [f"{name}=={version(name)}" for name in RUNTIME]


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
    for name in names:
        place = (home if name.startswith(".") else config) / name
        with contextlib.suppress(PermissionError):  # another user's
            if place.is_file():
                return place
    return None


def environment(environ: Mapping[str, str], home: Path, cache: Path, *, uv: bool) -> dict[str, str]:
    """What the installer sees of the host's environment: nothing that only the other one reads."""
    other = "PIP_" if uv else "UV_"
    made = OWN | {name: environ[name] for name in PASSED if environ.get(name)}
    made |= {
        name: value
        for name, value in environ.items()
        if re.fullmatch(r"UV_INDEX_\w+_(USERNAME|PASSWORD)", name)
    }
    made = {name: value for name, value in made.items() if not name.startswith(other)}
    for name in [name for name in made if uv and name.endswith("_PROXY")]:
        made.setdefault(name.lower(), made[name])
        del made[name]  # whose value a package's metadata could ask uv for: only of capitals
    made |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    files = {
        "PIP_CONFIG_FILE": _user_file(environ, "pip/pip.conf", ".pip/pip.conf"),
        "UV_CONFIG_FILE": _user_file(environ, "uv/uv.toml"),
    }
    for name, value in files.items():
        if value is not None:
            made.setdefault(name, str(value))
    for name, kind in CACHES.items():
        made.setdefault(name, str(cache / kind))
    return made


async def run_installer(
    work: Path,
    needs: Needs,
    packages: Path,
    workshop: Workshop,
    place: Place,
    *,
    python: Interpreter | None = None,
) -> None:
    """Install what is needed into the empty directory `site` of `work`, for `python` or, without
    it, for this one. Downloads are kept in `packages`. Raises DependencyError, InstallerMissing,
    PipOnMusl, SandboxError."""
    command = _for(python, installer(os.environ))
    uv = _is_uv(command)
    if not (uv or place.builds) and _abi(python).endswith("-musl"):
        raise PipOnMusl(place.function)
    options = [*command, *_options(command, work / SITE, place.builds, python)]
    options += await asyncio.to_thread(_asked, needs, work, pinned(python))
    job = await asyncio.to_thread(_job, options, work, packages, place, uv=uv)
    secrets = passwords(job.env)
    exposed = sorted({name for name in secrets.values() if name.isupper()})
    for line in needs.lines:
        if uv and exposed and "://" in line and not place.builds:
            raise PasswordExposed(line, exposed)
    job = msgspec.structs.replace(
        job,
        readable=job.readable + _tools(command[0], python),
        # pip builds what is named by a URL, by a wheel's metadata too, whatever it is told: in a
        # process of its own.
        alone=not (place.builds or uv),
    )
    cached = await _kept(job.cache) if job.cache is not None else -1
    try:
        async with asyncio.timeout(MOST_S):
            code, said = await workshop.run(job, place)
    except TimeoutError:
        code, said = 1, f"error: given up after {MOST_S:g} s"
    finally:
        if cached >= 0:
            os.close(cached)
    if code:
        for secret in secrets:
            said = said.replace(secret, "****") if len(secret) > 3 else said
        raise _told(needs, said, place.builds, python)


async def _kept(cache: Path) -> int:
    """A descriptor that keeps downloads from being swept, as they became too many, while they are
    installed from; -1 where they cannot be looked at."""
    while (held := hold(cache, fcntl.LOCK_SH | fcntl.LOCK_NB)) < 0:
        cache.mkdir(exist_ok=True)  # noqa: ASYNC240 - at once
        if not os.access(cache, os.R_OK):
            break
        await asyncio.sleep(AGAIN_S)
    return held


def _for(python: Interpreter | None, command: list[str]) -> list[str]:
    """The installer's command for another Python: its own pip, if it has one, where pip installs,
    for a pip may not run in a Python that is newer than it."""
    if python is None or _is_uv(command):
        return command
    if python.pip:
        return [python.executable, "-I", "-m", "pip"]
    # As its --python does, which is one more process.
    pip = find_spec("pip")
    runner = Path(str(pip and pip.origin)).parent / "__pip-runner__.py"
    return [python.executable, "-I", str(runner)]


def _abi(python: Interpreter | None) -> str:
    return python.abi if python is not None else str(sysconfig.get_config_var("SOABI"))


def _is_uv(command: Sequence[str]) -> bool:
    return command[1:] == ["pip"]


async def compile_in(work: Path, python: Interpreter, workshop: Workshop, place: Place) -> None:
    """Compile what lies in the directory `site` of `work`, by the Python that is to run it. What
    cannot be compiled is, each time that it is imported."""
    job = Job(
        command=[python.executable, "-I", "-S", "-m", "compileall", "-q", str(work / SITE)],
        env=OWN,
        directory=work,
        work=work,
        readable=_tools(python.executable, python),
    )
    await workshop.run(job, place)


def _job(command: list[str], work: Path, packages: Path, place: Place, *, uv: bool) -> Job:
    """What is to run, with its home and what that holds."""
    home = work / HOME
    if place.user:
        work.chmod(0o755)  # as whom it is another's, and still to be looked at
    # A build could leave a wheel of its own for others, where it had the cache that they have; and
    # whoever installs as somebody else has another.
    shared = packages / (f"{CACHE}-{place.user}" if place.user else CACHE)
    cache = home / CACHE if place.builds else shared
    cache.mkdir(exist_ok=True)
    env = environment(os.environ, home, cache, uv=uv)
    if place.builds or place.user:
        env |= {name: str(cache / kind) for name, kind in CACHES.items()}
    others = [Path(env[name]) for name in CACHES if cache not in Path(env[name]).parents]
    for other in others:
        other.mkdir(parents=True, exist_ok=True)
    files = _handed(env, home, place)
    return Job(
        command=command,
        env=env,
        directory=home,
        work=work,
        cache=None if place.builds else cache,
        writable=tuple(str(other.absolute()) for other in others),
        readable=files,
        network=places(env).hosts,
    )


def _handed(env: dict[str, str], home: Path, place: Place) -> tuple[str, ...]:
    """The files that the environment and the configuration name. Those that the installer's user
    may not read, though the host may, are copied to its home, and named there."""
    files = []
    for path in places(env).files:
        names = [name for name in FILES if env.get(name) == path]
        if place.user and names and unreadable(place.user, [Path(path)]) and Path(path).is_file():
            copy = home / f"{names[0].lower()}"
            copy.write_bytes(Path(path).read_bytes())
            copy.chmod(0o600)
            env.update(dict.fromkeys(names, str(copy)))
        else:
            files.append(path)
    return tuple(files)


def _tools(program: str, python: Interpreter | None) -> tuple[str, ...]:
    """The installer itself, Python, and what builds with a compiler need."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    paths = [program, *SYSTEM]
    if python is not None:
        prefixes.add(str(Path(python.executable).parents[1]))
        paths += python.paths
    paths += [f"{prefix}/{name}" for prefix in sorted(prefixes) for name in OF_PYTHON]
    return tuple(path for path in paths if os.access(path, os.R_OK))


def _asked(needs: Needs, work: Path, pins: Sequence[str]) -> list[str]:
    """The options that say what is needed, in files of its home, which is made."""
    home = work / HOME
    home.mkdir()
    lines = "\n".join(needs.lines)
    files = {"-r": "requirements.txt"}
    (home / files["-r"]).write_text(f"{lines}\n")
    if "--hash" not in lines:  # where hashes are asked for, all must have one
        files["-c"] = "constraints.txt"
        (home / files["-c"]).write_text("\n".join(pins))
    return [str(word) for pair in files.items() for word in pair]


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
    (rf"may have tampered with them\. {_NAME}{_VERSION} from ", "hash"),
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
    "build": "it comes as a source{mend}",
    "": "the installer failed",
}
_BUILDS = re.compile(r"Operation not permitted while executing")
"""What pip says that may start no process."""
_TAKEN_UP = re.compile(
    r"(?:Collecting|Processing) (?:\S*/)?([A-Za-z0-9][A-Za-z0-9._-]*?)(?:-\d[^/\s]*)?(?: ?@|\s)"
)
"""`evil @ https://...`, or `./evil-1.0.tar.gz`."""
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
        if not builds and _BUILDS.search(flat):
            name, kind = name_of((_TAKEN_UP.findall(flat) or [""])[-1]), "build"
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
    return DependencyError(Problem(file=needs.file, line=line, message=message), words, kind)


def _line_of(needs: Needs, said: str) -> int | None:
    """Of the first package asked for that the installer speaks of."""
    named = [name for name in needs.places if re.search(rf"\b{re.escape(name)}\b", said)]
    return needs.places[named[0]] if named else None
