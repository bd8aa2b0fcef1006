"""What installs packages is held to what it needs, as this machine can: builds and wheels, by pip
and by uv. `tests/isolation/test_building.py` attacks it, as root."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import msgspec
import pytest

from funcrt.errors import SandboxError
from funcrt.installer import DependencyError, PipOnMusl
from funcrt.packages import Installed, Packages
from funcrt.requirements import Needs
from funcrt.sandbox import workshop
from funcrt.sandbox.asking import claimed
from funcrt.sandbox.levels import IsolationMissing, Level, Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.users import BUILDERS, INSTALLERS
from funcrt.sandbox.workshop import Workshop
from funcrt.tree import Taken
from tests.installs import in_sandbox, running
from tests.pythons import same
from tests.users import CLOSED
from tests.wheels import built, offline, sdist, wheel

KINDS = ["pip", "uv"]
TRIES = """
import os, socket, subprocess, sys

def tried(do):
    try:
        return f"got {do()!r}"
    except BaseException as error:
        return f"{type(error).__name__}"

def run():
    secret, port = ASKED
    program = [sys.executable, "-c", "print(7)"]
    return {
        "read": tried(lambda: open(secret).read()),
        "write": tried(lambda: open(os.path.dirname(secret) + "/planted", "w")),
        "connect": tried(lambda: socket.create_connection(("127.0.0.1", port), 5)),
        "metadata": tried(lambda: socket.create_connection(("169.254.169.254", 80), 5)),
        "environ": "host-secret" in repr(os.environ),
        "program": subprocess.run(program, capture_output=True).stdout.decode(),
        "user": os.getuid(),
    }
"""


def at_level(level: str) -> None:
    if level == "process" and os.geteuid() == 0 and CLOSED:
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")


def get(
    packages: Packages, *lines: str, policy: Policy | None = None, builds: bool = False
) -> Installed:
    async def main() -> Installed | None:
        try:
            return await packages.get("f", Needs(lines, "requirements.txt"), builds=builds)
        except IsolationMissing as error:
            pytest.skip(str(error))

    found = asyncio.run(in_sandbox(packages, main, policy))
    assert found is not None
    return found


def only_wheels_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages come from its `wheels`, and whoever installs may enter it."""
    opened(tmp_path)
    for name, value in offline(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)


def opened(tmp_path: Path) -> Path:
    """Where other users may go."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_build_reaches_what_it_needs_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, kind: str
) -> None:
    at_level(level)
    opened(tmp_path)
    (tmp_path / "secrets").mkdir(mode=0o777)
    (tmp_path / "secrets").chmod(0o777)
    (tmp_path / "secrets" / "key").write_text("s")
    for name, value in {**offline(tmp_path / "wheels", kind), "SECRET": "host-secret"}.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = (str(tmp_path / "secrets" / "key"), listener.getsockname()[1])
        built(tmp_path / "wheels", "made", "1.0", f"ASKED = {asked!r}\n{TRIES}")
        packages = Packages(tmp_path / "packages")
        found = get(packages, "made", policy=Policy(forced=level), builds=True)  # type: ignore[arg-type]
    told = json.loads((found.path / "made" / "found.json").read_text())
    user = told.pop("user")
    assert user in BUILDERS if os.geteuid() == 0 else user == os.getuid()
    assert told.pop("read") in ("FileNotFoundError", "PermissionError")
    assert told.pop("write") in ("FileNotFoundError", "PermissionError")
    assert told == {
        "connect": "PermissionError", "metadata": "PermissionError", "environ": False,
        "program": "7\n",
    }  # fmt: skip
    assert {path.stat().st_uid for path in found.path.rglob("*")} == {os.geteuid()}
    assert [each.name for each in found.path.parent.iterdir()] != []
    assert not (found.path.parent / "home").exists()
    caches = [each for each in packages.root.glob(".cache*") if any(each.rglob("*.*"))]
    assert caches == [], "what a build had for downloads is no one else's"


GROWS = """
import os, time

def run():
    with open(os.environ["HOME"] + "/large", "wb") as file:
        file.write(bytes(3 << 20))
    time.sleep(60)
"""


def test_one_that_takes_too_much_disk_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_wheels_of(tmp_path, monkeypatch)
    monkeypatch.setattr(workshop, "MOST", Taken(2 << 20, 1000))
    monkeypatch.setattr(workshop, "COUNT_S", 0.2)
    built(tmp_path / "wheels", "grows", "1.0", GROWS)
    packages = Packages(tmp_path / "packages")
    with pytest.raises(DependencyError) as caught:
        get(packages, "grows", builds=True)
    assert "error: given up: it took more than" in caught.value.traceback
    assert list(packages.root.glob(".install-*")) == []


def test_downloads_and_files_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("work", "cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(700))
    places = [tmp_path / "work", tmp_path / "cache"]
    monkeypatch.setattr(workshop, "MOST", Taken(1400, 2))
    assert workshop._too_much(places) == ""
    (tmp_path / "cache" / "empty").write_text("")
    assert workshop._too_much(places) == "it made more than 2 files"
    (tmp_path / "cache" / "empty").write_text("x")
    assert workshop._too_much(places) == "it took more than 0 GiB of disk"


def test_one_that_leaves_its_disk_too_little_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little, much = Taken(100 << 20, 5000), Taken(1 << 30, 100_000)
    few = Taken(1 << 30, 5000)
    assert workshop._too_little(little, much) == "its disk has less than 256 MiB left"
    assert workshop._too_little(few, much) == "its disk has room for less than 10,000 more files"
    assert workshop._too_little(much, much) == workshop._too_little(little, little) == ""
    assert workshop._too_little(Taken(1 << 30, 0), Taken(1 << 30, 0)) == "", "it counts no files"
    only_wheels_of(tmp_path, monkeypatch)
    built(tmp_path / "wheels", "grows", "1.0", GROWS)
    found = iter([much, *[little] * 1000])
    monkeypatch.setattr(workshop, "free", lambda _: next(found))
    began = time.monotonic()
    with pytest.raises(DependencyError) as caught:
        get(Packages(tmp_path / "packages"), "grows", builds=True)
    assert "error: given up: its disk has less" in caught.value.traceback
    assert time.monotonic() - began < 20, "long before it would have ended"


def test_it_is_the_best_level_that_the_machine_gives() -> None:
    async def chosen(policy: Policy, *missing: Level) -> str:
        async def probed() -> dict[Level, str]:
            return dict.fromkeys(missing, "not here")

        made = Workshop(policy, probed, lambda *_: None, lambda _: None)
        made._root = False  # nobody is there to claim a user's id
        try:
            return (await made.place("f", builds=True)).level
        except IsolationMissing as error:
            return str(error)

    async def main() -> None:
        assert await chosen(Policy()) == "sandbox"
        assert await chosen(Policy(), "sandbox") == "process"
        assert (await chosen(Policy(), "sandbox", "process")).startswith(
            "f, to install what it needs: isolation 'process' cannot be had here: not here"
        )
        assert await chosen(Policy(allowed="none"), "sandbox", "process") == "none"
        assert await chosen(Policy(forced="process")) == "process"
        assert "isolation 'sandbox' cannot" in await chosen(Policy(forced="sandbox"), "sandbox")
        assert await chosen(Policy(forced="none")) == "none"
        assert await chosen(Policy(forced="container"), "container") == "sandbox"

    asyncio.run(main())


EATS = """
def run():
    held = []
    while True:
        held.append(bytearray(b"x") * (16 << 20))
"""


def test_one_that_takes_too_much_memory_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_wheels_of(tmp_path, monkeypatch)
    monkeypatch.setattr(workshop, "_memory_bytes", lambda: 400 << 20)
    built(tmp_path / "wheels", "eats", "1.0", EATS)
    with pytest.raises(DependencyError) as caught:
        get(Packages(tmp_path / "packages"), "eats", builds=True)
    words = caught.value.traceback
    assert "it took more than 400 MiB of memory" in words or "MemoryError" in words


SLEEPS = """
import os, sys, time

def run():
    open(os.environ["HOME"] + "/begun", "w").close()
    if os.fork() == 0:
        os.setsid()
        os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(60)", MARK])
    time.sleep(60)
"""


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_who_waits_no_longer_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    at_level(level)
    only_wheels_of(tmp_path, monkeypatch)
    mark = f"mark-{os.urandom(8).hex()}"
    built(tmp_path / "wheels", "sleeps", "1.0", f"MARK = {mark!r}\n{SLEEPS}")
    packages = Packages(tmp_path / "packages")

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
        await sandbox.start()
        packages.workshop = sandbox.workshop
        if level in await sandbox.probed():
            await sandbox.close()
            pytest.skip(f"no level {level} here")
        needs = Needs(("sleeps",), "requirements.txt")
        getting = asyncio.ensure_future(packages.get("f", needs, builds=True))
        while not running(mark):
            assert not getting.done(), getting.exception()
            await asyncio.sleep(0.05)
        began = time.monotonic()
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        assert time.monotonic() - began < 5
        assert list(packages.root.glob(".install-*")) == []
        async with asyncio.timeout(5):
            while running(mark):
                await asyncio.sleep(0.02)
        await sandbox.close()

    asyncio.run(main())


UNWATCHED = """
import asyncio, errno, sys
from pathlib import Path
from funcrt.packages import Packages
from funcrt.requirements import Needs
from funcrt.sandbox import kernel
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.syscalls import Rule, program

async def main(root, allowed, line, builds):
    kernel.no_new_privileges()
    kernel.seccomp(program(kernel.MACHINE, [Rule((438, 438), errno.EPERM)]))  # pidfd_getfd
    sandbox = ProcessSandbox(policy=Policy.of(None, allowed))
    await sandbox.start()
    try:
        packages = Packages(Path(root) / "packages", sandbox.workshop)
        found = await packages.get("f", Needs((line,), "requirements.txt"), builds=bool(builds))
        print(found.packages)
    except Exception as error:
        print(type(error).__name__, error)
    finally:
        await sandbox.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_where_nothing_holds_its_connections_it_must_be_allowed(tmp_path: Path) -> None:
    if os.geteuid() == 0 and CLOSED:
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")
    opened(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    built(tmp_path / "wheels", "made", "1.0", "def run(): ...\n")
    env = {**os.environ, **offline(tmp_path / "wheels")}

    def tried(allowed: str, line: str, builds: str = "") -> str:
        run = [sys.executable, "-c", UNWATCHED, str(tmp_path), allowed, line, builds]
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    refused = tried("", "paint")
    if "IsolationMissing" in refused:
        pytest.skip(refused)
    assert re.match(r"InstallUnconfined f: what it needs is not installed, as nothing .*"
                    r"--allow-isolation process", refused)  # fmt: skip
    assert tried("process", "paint") == "('paint 1.0',)\n"
    assert "InstallUnconfined" in (found := tried("process", "made", "b"))
    assert "--allow-isolation none" in found
    assert tried("none", "made", "b") == "('made 1.0',)\n"


def test_a_host_takes_nothing_but_what_an_installer_has(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only a host that root started hands anything over")

    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        hand = sandbox.workshop._hand
        (tmp_path / "file").write_text("")
        os.chown(tmp_path / "file", 12345, 12345)
        for user in (0, 12345, 61184, INSTALLERS[0]):
            for back in (False, True):
                with pytest.raises(SandboxError, match=f"user {user} installs nothing"):
                    await hand(tmp_path, user, back=back)
        user = await claimed(sandbox._send, "builder")
        await hand(tmp_path, user)
        assert tmp_path.stat().st_uid == user
        assert (tmp_path / "file").stat().st_uid == 12345, "which was not the host's"
        await hand(tmp_path, user, back=True)
        assert tmp_path.stat().st_uid == 0
        await sandbox.close()

    asyncio.run(main())


def test_settings_that_only_the_host_may_read_are_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    for name, value in offline(tmp_path / "none").items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name)
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {tmp_path}/wheels\n")
    (closed / "pip.conf").chmod(0o600)
    closed.chmod(0o700)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(closed / "pip.conf"))
    found = get(Packages(tmp_path / "packages"), "paint")
    assert found.packages == ("paint 1.0",)
    assert not list((tmp_path / "packages").rglob("pip_config_file"))


def test_downloads_that_have_become_too_many_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    for name, value in offline(tmp_path / "wheels", "uv").items():
        monkeypatch.setenv(name, value)
    packages = Packages(tmp_path / "packages")
    found = get(packages, "paint")
    (cache,) = packages.root.glob(".cache*")
    assert {each.stat().st_uid for each in (cache, *cache.rglob("*"))} == {os.geteuid()}

    async def sweep() -> None:
        await Packages(packages.root).swept([found.path])

    asyncio.run(in_sandbox(packages, sweep))
    assert cache.is_dir(), "there is room for them"
    with monkeypatch.context() as patched:
        patched.setattr("funcrt.packages.MOST_CACHED", Taken(1, 1_000_000))
        asyncio.run(in_sandbox(packages, sweep))
    assert not cache.exists()
    get(packages, "paint==1.0")
    asyncio.run(in_sandbox(packages, sweep))
    assert cache.is_dir()
    monkeypatch.setattr("funcrt.packages.free", lambda _: Taken(100 << 20, 1_000_000))
    asyncio.run(in_sandbox(packages, sweep))
    assert not cache.exists(), "there is no room for them"
    assert get(packages, "paint>0").packages == ("paint 1.0",)


def test_an_operators_own_directory_of_downloads_is_used_by_a_host_that_root_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    built(tmp_path / "wheels", "made", "1.0", "def run(): ...\n")
    for name, value in offline(tmp_path / "wheels", "uv").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "own" / "uv"))
    packages = Packages(tmp_path / "packages")
    get(packages, "made", builds=True)
    assert not (tmp_path / "own").exists(), "a build has none but its own"
    get(packages, "paint")
    assert (tmp_path / "own").exists() == (os.geteuid() != 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["setup", "backend"])
@pytest.mark.parametrize("level", ["none", "process", "sandbox"])
def test_what_a_wheel_names_by_a_url_is_not_built_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, kind: str, by: str
) -> None:
    """It is found by no index, so no --only-binary is asked of it; and it would be built with the
    downloads of others at hand."""
    at_level(level)
    opened(tmp_path)
    for name, value in offline(tmp_path / "wheels", kind).items():
        monkeypatch.setenv(name, value)
    if by == "setup":
        sdist(tmp_path / "wheels", "evil", "1.0", "open('/tmp/built', 'w')\n")
    else:
        built(tmp_path / "wheels", "evil", "1.0", "def run():\n    return 1\n")
    source = f"evil @ file://{tmp_path}/wheels/evil-1.0.tar.gz"
    wheel(tmp_path / "wheels", "paint", "1.0", needs=[source])
    policy = Policy(forced=level)  # type: ignore[arg-type]
    with pytest.raises(DependencyError) as caught:
        get(Packages(tmp_path / "packages"), "paint", policy=policy)
    if kind == "pip":
        assert caught.value.problem.message.startswith(
            "cannot install evil: it comes as a source; source_builds = true would let it be built"
        )
    packages = Packages(tmp_path / "packages")
    if kind == "pip" and by == "backend":
        found = get(packages, "paint", builds=True, policy=policy)
        assert found.packages == ("evil 1.0", "paint 1.0")


def test_a_python_without_pip_has_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process: nothing that it starts would be let."""
    only_wheels_of(tmp_path, monkeypatch)
    wheel(tmp_path / "wheels", "paint", "1.0")
    python = msgspec.structs.replace(same(tmp_path), pip=False)
    packages = Packages(tmp_path / "packages")
    needs = Needs(("paint",), "requirements.txt")
    got = asyncio.run(in_sandbox(packages, lambda: packages.get("f", needs, python=python)))
    assert got is not None
    assert got.packages == ("paint 1.0",)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pip_is_not_tried_where_it_would_start_a_program_to_ask_for_musl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, other: bool
) -> None:
    only_wheels_of(tmp_path, monkeypatch)
    for name, value in offline(tmp_path / "wheels", kind).items():
        monkeypatch.setenv(name, value)
    wheel(tmp_path / "wheels", "paint", "1.0")
    abi = "cpython-311-x86_64-linux-musl"
    python = msgspec.structs.replace(same(tmp_path), abi=abi) if other else None
    if not other:
        own = sysconfig.get_config_var
        monkeypatch.setattr(
            sysconfig, "get_config_var", lambda name: abi if name == "SOABI" else own(name)
        )
    needs, packages = Needs(("paint",), "requirements.txt"), Packages(tmp_path / "packages")

    def got(*, builds: bool) -> Installed | None:
        return asyncio.run(
            in_sandbox(packages, lambda: packages.get("f", needs, builds=builds, python=python))
        )

    if kind == "pip":
        with pytest.raises(PipOnMusl, match=r"^f: .* Install uv beside funcrt: .* install uv$"):
            got(builds=False)
    else:
        assert got(builds=False) is not None
    assert got(builds=True) is not None, "which may start programs"
