"""What a package's code reaches as it is built: real attacks, and the table of
docs/dependencies.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.isolation.builds import ATTACKS, BUILDS
from tests.isolation.test_isolation import (
    INSIDE,
    ROOT,
    USER,
    WORD,
    by,
    for_others,
    pytestmark,
    table,
)

__all__ = ["pytestmark"]


def told(level: str, kind: str, directory: Path, user: int) -> dict[str, str]:
    """What came of each attack."""
    for_others(level, user)
    directory.chmod(0o755)
    run = [sys.executable, "-m", "tests.isolation.building", level, kind, str(directory)]
    run = by(user, directory, run)
    later = 'echo 300 > /proc/sys/kernel/ns_last_pid; "$@"; exit $?'
    done = subprocess.run(
        [*INSIDE, "--kill-child", "sh", "-c", later, "sh", *run], cwd=ROOT, capture_output=True,
        text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def own_table() -> dict[str, list[str]]:
    here = (ROOT / "docs/dependencies.md").read_text().split("## What a build reaches")[1]
    rows = re.findall(rf"^\| (.+?) \| {WORD} \| {WORD} \|$", here.split("\n## ")[0], re.M)
    return {row[0]: list(row[1:]) for row in rows}


@pytest.mark.parametrize("kind", ["pip", "uv"])
@pytest.mark.parametrize("user", [0, USER], ids=["root", "a-user"])
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_build_is_stopped_as_the_tables_say(
    tmp_path: Path, level: str, user: int, kind: str
) -> None:
    found = told(level, kind, tmp_path, user)
    # The first by the name of a directory that the build made, whatever that holds.
    assert found.pop("installed") == "evil 1, evil 1.0, plain 1.0"
    assert found.pop("owners") == f"[{user}]"
    assert found.pop("the neighbour") == "alive"
    column = ["process", "sandbox"].index(level)
    tables = table() | own_table()
    expected = {name: tables[name][column] for name in (*ATTACKS, *BUILDS)}
    wrong = {name: text for name, text in found.items() if text.split(":")[0] != expected[name]}
    assert wrong == {}
    assert found.keys() == expected.keys()
    network = {name: found[name] for name in ("cloud metadata", "a private network")}
    assert all("PermissionError" in text for text in network.values()), "else nothing held it back"


def test_each_attack_is_in_the_table() -> None:
    assert own_table().keys() == BUILDS.keys()


def test_the_attacks_work_where_nothing_is_in_their_way(tmp_path: Path) -> None:
    found = told("none", "pip", tmp_path, USER)
    for name in ("installed", "owners", "the neighbour"):
        found.pop(name)
    stopped = {name for name, text in found.items() if text.startswith("stopped")}
    assert len(found) > 30
    assert stopped <= {"a user namespace", "a setuid program", "bind the host to a processor"}
