"""Ids of users, which no two hosts that root started on one machine have in common."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from funcrt.privileges import HOST_USER
from funcrt.sandbox.asking import Unclaimed, Users
from funcrt.sandbox.claims import Claims, Kind
from funcrt.sandbox.confine import Refused
from funcrt.sandbox.users import (
    BUILDERS,
    FUNCTIONS,
    INSTALLERS,
    MOST_BUILDERS,
    MOST_FUNCTIONS,
)
from tests.serving import Serving
from tests.users import others
from tests.wheels import offline, wheel

ROOT = Path(__file__).parents[2]
CLAIMS = """
import json, sys
from funcrt.sandbox.claims import Claims
claims = Claims(sys.argv[1])
print(json.dumps([claims.claim(kind) for kind in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""
WHO = "import os\ndef handler(event):\n    return os.getuid()\n"
PAINTS = WHO + "import paint\n---dependencies = ['paint']\n"


@contextmanager
def another(file: Path, *kinds: Kind) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Another process with claims, and what they are."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMS, str(file), *kinds],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users"


def test_a_host_has_its_share_and_leaves_the_rest(file: Path) -> None:
    greedy = Claims(str(file))
    first = [greedy.claim("function") for _ in range(MOST_FUNCTIONS)]
    with pytest.raises(
        ValueError, match=f"no function's user id is left: this host has the {MOST_FUNCTIONS}"
    ):
        greedy.claim("function")
    assert len(FUNCTIONS) >= 4 * MOST_FUNCTIONS
    with another(file, *["function"] * MOST_FUNCTIONS) as (_, second):
        assert len(set(first + second)) == 2 * MOST_FUNCTIONS
        assert set(first + second) <= set(FUNCTIONS)
        assert all(greedy.holds(user) for user in first)
        assert not any(greedy.holds(user) for user in second)


def test_builders_take_turns(file: Path) -> None:
    claims = Claims(str(file))
    turns = [claims.claim("builder") for _ in range(2 * MOST_BUILDERS)]
    assert len(set(turns)) == MOST_BUILDERS
    assert turns[MOST_BUILDERS:] == turns[:MOST_BUILDERS]
    assert set(turns) <= set(BUILDERS)


def test_a_claim_ends_with_the_process_that_has_it(file: Path) -> None:
    claims = Claims(str(file))
    with another(file, "installer", "installer") as (process, (installer, again)):
        assert installer == again == INSTALLERS[0], "downloads are kept under its number"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert claims.claim("installer") == INSTALLERS[0]
    with another(file, "installer") as (_, (installer,)):
        assert installer == INSTALLERS[1]
    assert claims.claim("installer") == INSTALLERS[0], "it stays its own"


def test_where_all_are_taken_there_is_none(file: Path) -> None:
    every = ["function"] * MOST_FUNCTIONS
    hosts = len(FUNCTIONS) // MOST_FUNCTIONS
    with ExitStack() as held:
        for _ in range(hosts):
            held.enter_context(another(file, *every))
        with pytest.raises(ValueError, match="other hosts that root started here have all"):
            Claims(str(file)).claim("function")


@pytest.mark.parametrize("made", ["link", "open to others", "fifo", "hard link", "directory"])
def test_a_file_that_another_made_is_not_trusted(file: Path, made: str) -> None:
    elsewhere = file.with_name("elsewhere")
    elsewhere.touch(mode=0o600)
    if made == "link":
        file.symlink_to(elsewhere)
    elif made == "open to others":
        file.touch()
        file.chmod(0o666)
    elif made == "fifo":
        os.mkfifo(file, 0o600)
    elif made == "hard link":
        file.hardlink_to(elsewhere)
    else:
        file.parent.chmod(0o777)
    with pytest.raises(ValueError, match=r"is not (root's alone|a plain file of root's alone)"):
        Claims(str(file)).claim("function")
    assert elsewhere.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another's")
def test_a_file_of_another_users_is_not_trusted(file: Path) -> None:
    file.touch(mode=0o600)
    os.chown(file, HOST_USER, HOST_USER)
    with pytest.raises(ValueError, match="remove it"):
        Claims(str(file)).claim("function")


def test_where_no_file_can_be_made_the_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"user ids of its own: .*none.*: No such file"):
        Claims(str(tmp_path / "none" / "users")).claim("function")


def test_the_id_of_a_function_without_processes_goes_to_another() -> None:
    left = [1, 2]
    alive = {"a"}

    async def claim() -> int:
        if not left:
            raise Unclaimed("all are taken")
        return left.pop()

    async def main() -> None:
        users = Users(claim)
        users.alive.append(lambda: alive)
        users._root = True

        async def of(name: str) -> int:
            async with users.of(name, "process") as user:
                return user

        assert [await of(name) for name in ("a", "b", "a", "b")] == [2, 1, 2, 1]
        async with users.of("b", "process"):
            with pytest.raises(Unclaimed, match="c: all are taken"):
                await of("c")
        assert await of("c") == 1
        alive.add("c")
        with pytest.raises(Unclaimed):
            await of("b")
        alive.clear()
        assert await of("b") == 2, "a was loaded longest ago"

    asyncio.run(main())


@pytest.fixture
def apart() -> Iterator[list[str]]:
    """What a program is started with so that its /run is another: hosts claim nothing here."""
    if shutil.which("nsenter") is None or shutil.which("unshare") is None:
        pytest.skip("util-linux is not there")
    hide = "mount -t tmpfs -o mode=755 none /run && echo there && exec sleep 600"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hide],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "there\n":
                pytest.skip("this root may not mount")
            yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={ROOT}", "--"]
        finally:
            holder.kill()


@others
def test_two_hosts_of_root_have_no_user_in_common(tmp_path: Path, apart: list[str]) -> None:
    wheel(tmp_path / "wheels", "paint", "1.0")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    env = offline(tmp_path / "wheels")
    names = ("who", "paints")
    hosts: list[Serving] = []
    try:
        users: list[int] = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            data = tmp_path / name / "data"
            hosts.append(Serving(data, env=env, within=apart, who=WHO, paints=PAINTS))
            calls = [
                httpx.post(f"{hosts[-1].url}/functions/{each}", json={}, timeout=30)
                for each in names
            ]
            users += [int(call.text) for call in calls]
        assert len(set(users)) == 4, users
        assert set(users) <= set(FUNCTIONS)
        # Downloads are the host's own while nothing is installed.
        caches = [list((tmp_path / name / "data").rglob(".cache-*")) for name in ("one", "two")]
        kept = [f".cache-{user}" for user in INSTALLERS[:2]]
        assert [[each.name for each in found] for found in caches] == [[name] for name in kept]
        for (cache,) in caches:
            owners = {each.lstat().st_uid for each in (cache, *cache.rglob("*"))}
            assert owners == {HOST_USER}
    finally:
        for host in hosts:
            host.stop(signal.SIGTERM)


@others
def test_a_host_whose_run_is_not_roots_alone_says_so(tmp_path: Path, apart: list[str]) -> None:
    subprocess.run([*apart, "sh", "-c", "echo > /run/funcrt-users"], check=True)
    done = subprocess.run(
        [*apart, sys.executable, "-m", "funcrt", "doctor", "--data", str(tmp_path / "data")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = " ".join(done.stdout.split())
    assert "/run/funcrt-users is not a plain file of root's alone" in said, done.stdout
