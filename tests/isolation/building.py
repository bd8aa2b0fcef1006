"""Installs a package that attacks as it is built, at one level, and prints what came of it.

`python -m tests.isolation.building LEVEL KIND DIRECTORY`, in a pid namespace of its own, as who the
host is to be; KIND is pip or uv."""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from funcrt.packages import Packages
from funcrt.requirements import Needs
from funcrt.sandbox import Code
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from tests.isolation import attacks, builds
from tests.isolation.run import Calls, environment, victims
from tests.wheels import built, offline, wheel

HARMLESS = [
    *(name for name in attacks.HARMLESS if name in builds.ATTACKS),
    "read the mesh's file", "change the mesh's file", "read a secret of the host",
    "list the data directory", "write to the data directory", "change another function's code",
    "read another function's packages", "change another function's packages",
    "leave something among the downloads of others", "the admin socket",
    "the host's loopback, by name",
]  # fmt: skip
"""Those that leave nothing behind where they work, but in a directory of the test's."""


def data_directory(root: Path) -> dict[str, object]:
    """What is around an installation: a host's files, and what belongs to others."""
    data, secrets = root / "data", root / "secrets"
    other = data / "packages" / "other" / "site"
    for each in (data, secrets, other, data / "packages" / ".cache"):
        each.mkdir(parents=True, exist_ok=True)
    for path in (data / "mesh.db", secrets / "key", other / "other.py"):
        path.write_text("of the host")
    admin = socket.socket(socket.AF_UNIX)
    admin.bind(str(data / "admin.sock"))
    admin.listen()
    return {
        "kept": admin, "data": str(data), "mesh": str(data / "mesh.db"),
        "secret": str(secrets / "key"), "packages": str(data / "packages"),
        "admin": str(data / "admin.sock"), "mark": f"left-{os.urandom(8).hex()}",
    }  # fmt: skip


def left(mark: str) -> list[str]:
    """The processes with this among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in file.read_bytes():
                found.append(file.parent.name)
        except OSError:
            pass
    return found


def verdicts(found: dict[str, str], site: Path, asked: dict[str, object]) -> dict[str, str]:
    """`stopped` or `open`, and why; of what a build leaves behind, by what of it is there."""
    told = {
        name: f"open: {text}" if text.startswith("got ") else f"stopped: {text}"
        for name, text in found.items()
    }
    there = {
        "leave a process behind": left(str(asked["mark"])),
        "leave a setuid file": [each for each in site.rglob("*") if each.lstat().st_mode & 0o6000],
        "leave a link to a secret": [each for each in site.rglob("*") if each.is_symlink()],
        "leave a pipe that its host is to read": [
            each for each in site.rglob("*") if not (each.is_file() or each.is_dir())
        ],
        "leave directories too deep to remove": [
            each for each in site.rglob("*") if len(each.relative_to(site).parts) > 70
        ],
        "leave a directory that cannot be entered": list(
            Path(str(asked["packages"])).glob(".install-*")
        ),
    }
    for name, remains in there.items():
        if name in found:
            told[name] = f"open: {remains[:2]}" if remains else f"stopped: {found[name]}"
            if not found[name].startswith("got "):
                told[name] = f"open: it was not tried: {found[name]}"
    # Beneath a /tmp of its own it may seem to work.
    outside = {
        "write to the data directory": Path(str(asked["data"]), "planted"),
        "leave something among the downloads of others": Path(
            str(asked["packages"]), ".cache", "planted"
        ),
    }
    for name, path in outside.items():
        if name in found:
            told[name] = f"{'open' if path.exists() else 'stopped'}: {found[name]}"
    return told


async def main(level: str, kind: str, root: Path) -> None:
    os.environ["SECRET"] = "host-secret"
    os.environ |= offline(root / "wheels", kind)
    victim = victims(root)
    around = data_directory(root)
    sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
    await sandbox.start()
    neighbour = root / "other"
    neighbour.mkdir()
    neighbour.chmod(0o755)
    (neighbour / "main.py").write_bytes(Path(attacks.__file__).read_bytes())
    code = Code(name="other", version="1", path=neighbour, env=environment())
    other = Calls(await sandbox.load(code))
    await other.call(1, {"attack": "bpf"})
    asked = {name: each for name, each in (victim["asked"] | around).items() if name != "kept"}
    asked |= {"neighbour": other.instance.pid, "other": str(neighbour / "main.py")}
    if level == "none":
        asked["only"] = HARMLESS
    texts = {each.__name__.rpartition(".")[2]: Path(str(each.__file__)).read_text()
             for each in (attacks, builds)}  # fmt: skip
    built(
        root / "wheels", "evil", "1.0", texts["builds"], attacks=texts["attacks"],
        asked=json.dumps(asked),
    )  # fmt: skip
    wheel(root / "wheels", "plain", "1.0")
    packages = Packages(root / "data" / "packages", sandbox.workshop)
    found = await packages.get("f", Needs(("evil", "plain"), "requirements.txt"), builds=True)
    assert found is not None
    told = json.loads((found.path / "evil" / "found.json").read_text())
    for name, verdict in verdicts(told, found.path, asked).items():
        print(json.dumps([name, verdict]), flush=True)
    print(json.dumps(["installed", ", ".join(found.packages)]))
    owners = {path.lstat().st_uid for path in (found.path.parent, *found.path.rglob("*"))}
    print(json.dumps(["owners", str(sorted(owners))]))
    still = await other.call(2, {"attack": "bpf"})
    print(json.dumps(["the neighbour", "alive" if not isinstance(still, str) else still]))
    await sandbox.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
