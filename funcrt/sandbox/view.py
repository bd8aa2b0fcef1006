"""What of the machine a function can read: the interpreter it runs in, the libraries below that,
and what each function adds. All of it read-only."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from funcrt.sandbox.interpreter import Interpreter

__all__ = [
    "DEVICES",
    "NAMES",
    "covering",
    "interpreter_paths",
    "name_files",
    "resolved",
    "runtime_paths",
]

SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",
    "/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/ssl",
    "/etc/ca-certificates", "/etc/pki/tls", "/etc/pki/ca-trust", "/etc/services", "/etc/gai.conf",
)  # fmt: skip
"""Shared libraries, time zones and the certificates of authorities."""
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf")
"""How this machine looks names up."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PACKAGES = ("funcrt", "mesh", "triggers")


def runtime_paths(root: str) -> list[str]:
    """Files and directories that every function of this interpreter can read. `root` is the
    directory that holds funcrt's own packages; of what else is there nothing is shown."""
    here = Path(root).resolve()
    paths = list(SYSTEM)
    paths += [str(here / name) for name in PACKAGES]
    paths += [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    paths.append(f"{sys.base_prefix}/lib")
    paths += [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    if Path(sysconfig.get_path("purelib")).resolve() == here:
        paths.append(str(here))  # installed among the other packages
    return covering(path for path in paths if path and Path(path).exists())


def interpreter_paths(python: Interpreter) -> list[str]:
    """The same for a function of another one: of this one's own there is nothing."""
    paths = (*SYSTEM, *python.paths, python.library)
    return covering(path for path in paths if Path(path).exists())


def name_files(nameserver: str, host: str) -> Iterator[tuple[str, str]]:
    """Files for a function that asks one nameserver of its own, with what they say. `host` is the
    host's resolv.conf: what short names stand for there, they do here."""
    kept = [
        line
        for line in host.splitlines()
        if line.split()[:1] in (["search"], ["domain"], ["options"])
    ]
    yield "/etc/resolv.conf", "\n".join([f"nameserver {nameserver}", *kept, ""])
    yield "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"
    yield "/etc/nsswitch.conf", "hosts: files dns\n"


def covering(paths: Iterable[str]) -> list[str]:
    """The paths, in order, without those that lie beneath another."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == above or path.startswith(f"{above.rstrip('/')}/") for above in kept):
            kept.append(path)
    return kept


def resolved(paths: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Where these really are, and the links that lead there from the names given."""
    named = {path: os.path.realpath(path) for path in paths}
    real = covering(named.values())
    links = [
        (path, target)
        for path, target in sorted(named.items())
        if path != target and covering([*real, path]) != real
    ]
    return real, links
