"""Installs wheels that attack, at one level, and prints what came of each.

`python -m tests.isolation.unpacking LEVEL KIND DIRECTORY`, as who the host is to be; KIND is pip,
uv, or naive, which believes what a wheel says."""

import asyncio
import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from funcrt.errors import FuncrtError
from funcrt.packages import Packages
from funcrt.requirements import Needs
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from tests.isolation import archives, naive
from tests.isolation.building import data_directory
from tests.wheels import offline, wheel

SECRET = "of the host"


def seen(root: Path) -> dict[str, str]:
    """What is there, but for what is being installed."""
    return {
        str(path): f"{path.lstat().st_mode:o} {_content(path)}"
        for path in root.rglob("*")
        if ".install-" not in str(path)
    }


def _content(path: Path) -> str:
    plain = path.is_file() and not path.is_symlink()
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8] if plain else ""


def odd(site: Path) -> list[str]:
    """What is neither a plain file nor a directory, or ran."""
    return [
        str(path)
        for path in site.rglob("*")
        if path.is_symlink()
        or path.lstat().st_mode & 0o6000
        or not (path.is_file() or path.is_dir())
        or path.name == "ran"
    ]


def undo(around: dict[str, Any], victim: Path) -> None:
    """What an attack did to others, before the next."""
    for path in Path(around["data"]).rglob("planted"):
        if ".cache" not in str(path):
            path.unlink()
    for path in (Path(around["mesh"]), Path(around["secret"])):
        path.write_text(SECRET)
    victim.write_text("another's download")


def be_naive(root: Path) -> None:
    """Be what is found as uv."""
    program = root / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{Path(str(naive.__file__)).read_text()}")
    program.chmod(0o755)
    os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"


async def main(level: str, kind: str, root: Path) -> None:
    around: dict[str, Any] = data_directory(root)
    packages = root / "data" / "packages"
    os.environ["PIP_RETRIES"] = "0"
    if kind == "naive":
        be_naive(root)
    sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
    await sandbox.start()
    store = Packages(packages, sandbox.workshop)
    wheel(root / "wheels", "plain", "1.0")
    os.environ |= offline(root / "wheels", "uv" if kind == "naive" else kind)
    await store.get("f", Needs(("plain",), "requirements.txt"))
    made = {each.name for each in packages.glob(".cache*")} - {".cache"}
    cache = min(made or {".cache"}) if kind != "naive" else "other"  # which writes to its own
    undo(around, packages / cache / "victim")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = {**around, "cache": cache, "port": listener.getsockname()[1]}
        for number, (name, attack) in enumerate(archives.ATTACKS.items()):
            wheels = root / f"wheels-{number}"
            archives.write(wheels, attack(asked))
            wheel(wheels, "plain", "1.0")
            os.environ |= offline(wheels, "uv" if kind == "naive" else kind)
            before = seen(root / "data")
            lines = ("evil", f"plain>=0.{number}")  # another environment each time
            try:
                found = await store.get("f", Needs(lines, "requirements.txt"))
                assert found is not None
                told, site, bad = f"installed {found.packages}", found.path, odd(found.path)
            except FuncrtError as error:
                told, site, bad = f"{type(error).__name__}: {error}", root / "none", []
            except Exception as error:
                told, site, bad = "failed", root / "none", [repr(error)]
            bad += [told] if SECRET in told or not told.replace("\n", "").isprintable() else []
            after = seen(root / "data")
            for path in sorted(before.keys() | after.keys()):
                own = path.startswith(str(site.parent)) and site.name == "site"
                kept = f"/{cache}/" in path and path not in before
                if before.get(path) != after.get(path) and not own and not kept:
                    bad.append(path)
            bad += [str(path) for path in packages.glob(f"{cache}/planted")]
            listener.settimeout(0.0)
            try:
                listener.accept()[0].close()
                bad.append("connected")
            except BlockingIOError:
                pass
            undo(around, packages / cache / "victim")
            print(json.dumps([name, f"open: {bad}" if bad else f"stopped: {told}"]), flush=True)
    await sandbox.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
