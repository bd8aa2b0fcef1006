"""What each level stops: real attacks from inside a function, and the table of docs/isolation.md.

They run in mount and pid namespaces of their own, where the machine lets us make those."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import pytest

from funcrt.sandbox.interpreter import Interpreter
from tests.isolation.attacks import BOMBS
from tests.pythons import KINDS, another, closed
from tests.users import CLOSED

ROOT = Path(__file__).parents[2]
INSIDE = [
    "unshare",
    "--mount",
    "--pid",
    "--ipc",
    "--fork",
    "--mount-proc",
    "--propagation",
    "private",
]
USER = 61000
WORD = "(stopped|bounded|open)"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None,
    reason="attacks run in a pid namespace made by unshare, as root",
)


def for_others(level: str, user: int) -> None:
    if CLOSED and (user or level != "sandbox"):  # which mounts a view of its own
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")


def by(user: int, directory: Path, run: list[str]) -> list[str]:
    """A command as a user, whose the directory is; 0 for root, as which it is."""
    if not user:
        return run
    os.chown(directory, user, user)
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *run]


def told(
    level: str,
    directory: Path,
    *,
    user: int = 0,
    network: Sequence[str] = (),
    python: Interpreter | None = None,
) -> dict[str, str]:
    """What came of each attack."""
    for_others(level, user)
    directory.chmod(0o755)
    if python is not None:
        (directory / "python.json").write_bytes(msgspec.json.encode(python))
    run = [sys.executable, "-m", "tests.isolation.run", level, str(directory), "", *network]
    run = by(user, directory, run)
    # Numbers of processes that a namespace made inside has not, too.
    later = 'echo 300 > /proc/sys/kernel/ns_last_pid; "$@"; exit $?'
    done = subprocess.run(
        [*INSIDE, "sh", "-c", later, "sh", *run], cwd=ROOT, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def table(section: str = "## What is stopped") -> dict[str, list[str]]:
    text = (ROOT / "docs/isolation.md").read_text()
    here = text.split(section)[1].split("\n## ")[0]
    rows = re.findall(rf"^\| (.+?) \| {WORD} \| {WORD} \|$", here, re.M)
    return {row[0].replace("`", ""): list(row[1:]) for row in rows}


@pytest.mark.parametrize("user", [0, USER], ids=["root", "a-user"])
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_level_stops_what_the_table_says(tmp_path: Path, level: str, user: int) -> None:
    found = told(level, tmp_path, user=user)
    compare(level, found)


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_function_with_the_network_gets_no_further(tmp_path: Path, level: str) -> None:
    compare(level, told(level, tmp_path, user=USER, network=["outbound"]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_function_in_another_python_gets_no_further(
    tmp_path: Path, level: str, kind: str
) -> None:
    (tmp_path / "python").mkdir()
    python = another(kind, tmp_path / "python")
    if above := closed(python, level):
        pytest.skip(f"{above} is closed to the users of functions")
    compare(level, told(level, tmp_path, python=python))


@pytest.mark.parametrize("abi", [1, 3, 5])
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_an_older_landlock_is_made_up_for(tmp_path: Path, level: str, abi: int) -> None:
    """As a user who is the host's own: Landlock and seccomp are all that is between them."""
    found = told(f"{level}@{abi}", tmp_path, user=USER)
    if level == "sandbox":  # of its own function: it may signal what is in its pid namespace
        assert found.pop("signal its zygote").startswith("open")
    compare(level, found, without=BOMBS.keys() | {"signal its zygote"} - found.keys())


def compare(level: str, found: dict[str, str], without: Collection[str] = ()) -> None:
    assert found.pop("the neighbour") == "alive"
    column = ["process", "sandbox"].index(level)
    expected = {attack: row[column] for attack, row in table().items() if attack not in without}
    verdicts = {attack: text.partition(":")[0] for attack, text in found.items()}
    wrong = {a: found.get(a) for a in verdicts | expected if verdicts.get(a) != expected.get(a)}
    assert wrong == {}


def test_the_attacks_work_where_nothing_is_in_their_way(tmp_path: Path) -> None:
    found = told("none", tmp_path)
    stopped = {attack: text for attack, text in found.items() if text.startswith("stopped")}
    assert len(found) > 15
    assert stopped.keys() <= {"a user namespace"}  # which a machine may refuse to anybody
