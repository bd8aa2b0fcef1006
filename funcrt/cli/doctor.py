"""`funcrt doctor`: what this machine and its host can be relied on for."""

import asyncio
import errno
import os
import platform
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import FAILED, CliError, explain
from funcrt.cli.options import Data, Json, Mesh, Namespace, Place, SecretsDir, Socket, place
from funcrt.cli.output import folded, json_line, line, marked, safe
from funcrt.pythons import look
from funcrt.sandbox.levels import (
    STOPS,
    IsolationMissing,
    Level,
    NotLinux,
    Policy,
    choose,
    mend,
    system,
)
from funcrt.secrets import exposed
from mesh.schemes import connect

__all__ = ["app", "doctor"]

app = typer.Typer()

MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}
SYNCS = 30
SLOW_SYNC_MS = 10.0
FILES_WANTED = 4096


class Check(msgspec.Struct, frozen=True):
    """One thing looked at."""

    check: str
    status: Literal["ok", "warn", "fail"]
    found: str
    hint: str = ""


@app.command()
def doctor(
    *,
    data: Data = None,
    mesh: Mesh = None,
    namespace: Namespace = "default",
    admin_socket: Socket = None,
    secrets: SecretsDir = None,
    check_file: Annotated[
        bool,
        typer.Option("--check", help="Read all of the mesh's file, no host running."),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Save what is whole of it into FILE.repaired.")
    ] = False,
    json: Json = False,
) -> int:
    """Check this machine and the host on it. Changes nothing.

    Example: funcrt doctor --data /var/lib/funcrt

    Exits with 1 where something is wrong; a host that does not run is no fault.
    """
    if check_file or repair:
        from funcrt.cli.mend import mend

        return mend(place(data, mesh, namespace, admin_socket).mesh_url, write=repair, json=json)
    failed = False
    for check in _checks(place(data, mesh, namespace, admin_socket), secrets):
        failed = failed or check.status == "fail"
        if json:
            json_line(check)
            continue
        said = f"{MARKS[check.status]} {check.check:<11} {safe(check.found)}"
        line(marked(folded(said, 14)))
        if check.hint:
            line(folded(f"  try: {check.hint}", 7))
    return FAILED if failed else 0


def _checks(where: Place, secrets: Path | None) -> Iterator[Check]:
    yield _python()
    yield _pythons()
    yield _sqlite()
    yield _disk(where)
    yield _files()
    host = _host(where)
    yield host
    yield _mesh(where)
    if secrets is not None:
        yield _secrets(secrets)
    yield from _isolation()


def _python() -> Check:
    version = f"{platform.python_version()} on {platform.system()} {platform.release()}"
    return Check("python", "ok", version)


def _pythons() -> Check:
    """Those that a function may ask for."""
    looked = look(os.environ)
    found = ", ".join(f"{each.version} ({each.executable})" for each in looked.found)
    told = [found or "none", *looked.passed, *(f"{each} is closed" for each in looked.closed)]
    return Check("pythons", "ok", f"a function may ask for: {'; '.join(told)}")


def _sqlite() -> Check:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 35):
        return Check("sqlite", "fail", version, "a Python with SQLite 3.35 or newer")
    return Check("sqlite", "ok", version)


def _disk(where: Place) -> Check:
    """How long the data directory's disk takes to make an event durable."""
    root = where.data.root
    while not root.is_dir():
        root = root.parent
    try:
        took = sorted(_sync_times(root))
    except OSError as error:
        return Check("disk", "fail", f"{root}: {error.strerror}", "--data DIR, one you may write")
    half, most = took[len(took) // 2], took[-1]
    found = f"sync of 1 KB: {half:.2f} ms median, {most:.2f} ms worst of {len(took)} ({root})"
    return Check("disk", "warn" if half > SLOW_SYNC_MS else "ok", found)


def _sync_times(root: Path) -> Iterator[float]:
    """Milliseconds of an append and its fdatasync, several times."""
    with tempfile.TemporaryFile(dir=root) as file:
        fd = file.fileno()
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(fd, bytes(1024))
            if hasattr(os, "fdatasync"):
                os.fdatasync(fd)
            else:  # macOS
                os.fsync(fd)
            yield (time.perf_counter() - began) * 1000


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files allowed"
    if soft < FILES_WANTED:
        return Check("files", "warn", found, f"ulimit -n {min(hard, FILES_WANTED)}")
    return Check("files", "ok", found)


def _host(where: Place) -> Check:
    try:
        status: dict[str, Any] = AdminClient(where.admin_socket).get("status")
    except CliError as error:
        return Check("host", "warn", error.what, error.hint)
    found = (
        f"process {status['pid']}, {status['state']}, {status['functions']} functions"
        f" ({where.admin_socket})"
    )
    return Check("host", "ok" if status["state"] == "ready" else "warn", found)


def _mesh(where: Place) -> Check:
    if where.default_mesh_missing:
        found = f"none yet; a host makes {where.data.mesh_file}"
        return Check("mesh", "warn", found, "funcrt serve DIR")
    try:
        return Check("mesh", "ok", asyncio.run(_durability(where)))
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        return Check("mesh", "fail", known.what, known.hint)


async def _durability(where: Place) -> str:
    transport = await connect(where.mesh_url, namespace=where.namespace)
    try:
        return await transport.durability()
    finally:
        await transport.close()


def _secrets(directory: Path) -> Check:
    """Whether its owner alone can come to a directory of secrets."""
    try:
        found = directory.stat()
    except OSError as error:
        hint = f"mkdir -m 700 {directory}"
        return Check("secrets", "fail", f"{directory}: {error.strerror}", hint)
    if not directory.is_dir():
        return Check("secrets", "fail", f"{directory} is no directory", "a directory")
    mode = f"{directory}, mode {found.st_mode & 0o7777:04o}"
    files = [path for path in directory.rglob("*") if path.is_file()]
    seen = [path for path in files if exposed(directory, str(path.relative_to(directory)))]
    if seen:
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        told = f"{mode}: other users can read {seen[0]}{more}"
        return Check("secrets", "warn", told, f"chmod 700 {directory}")
    if found.st_mode & 0o077:
        return Check("secrets", "warn", f"{mode}: not its owner's alone", f"chmod 700 {directory}")
    if not os.access(directory, os.R_OK | os.X_OK):
        return Check("secrets", "fail", f"{mode}: not yours to read", "as the host's user")
    return Check("secrets", "ok", f"{mode}: its owner's alone")


def _isolation() -> Iterator[Check]:
    """The levels of isolation: which can be had here, what each stops, and what is missing."""
    if system() != "Linux":
        yield Check("isolation", "fail", str(NotLinux(system())))
        return
    missing, primitives = asyncio.run(_probed())
    hints = {""}
    for level, stops in STOPS.items():
        if level not in missing:
            yield Check(level, "ok", f"isolation: {stops}")
            continue
        hint = mend(missing[level])
        yield Check(level, "warn", f"isolation: {missing[level]}{_instead(level, missing)}", hint)
        hints.add(hint)
    lacking: dict[tuple[int, str], list[str]] = {}
    for name, number, text in primitives:
        if number:
            why = text.rpartition(": ")[2]  # each control group names a directory of its own
            lacking.setdefault((number, why), []).append(name)
    for (number, text), names in lacking.items():
        what = f"{', '.join(names)}: {errno.errorcode.get(number, number)}, {text}"
        new = [hint for hint in dict.fromkeys(map(mend, names)) if hint not in hints]
        yield Check("lacks", "warn", what, "; ".join(new))


def _instead(level: Level, missing: Mapping[Level, str]) -> str:
    """Where a host of this environment has functions that ask for it run at another level."""
    try:
        found = choose("", level, missing, Policy.of_environment())
    except IsolationMissing:
        return ""
    return f"; functions that ask for it run at {found!r}, as FUNCRT_ALLOW_ISOLATION says"


async def _probed() -> tuple[dict[Level, str], list[tuple[str, int, str]]]:
    """What this machine lacks: levels, each with why, and (primitive, errno, text)."""
    from funcrt.sandbox.process import ProcessSandbox

    sandbox = ProcessSandbox()
    await sandbox.start()
    try:
        missing = await sandbox.probed()
        return missing, await sandbox.primitives()
    finally:
        await sandbox.close()
