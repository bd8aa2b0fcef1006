"""What a wheel reaches as it is unpacked: real attacks, and the table of docs/dependencies.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.isolation.archives import ATTACKS
from tests.isolation.test_isolation import ROOT, USER, WORD, by, for_others, pytestmark

__all__ = ["pytestmark"]


def told(level: str, kind: str, directory: Path, user: int) -> dict[str, str]:
    """What came of each attack."""
    for_others(level, user)
    directory.chmod(0o755)
    run = [sys.executable, "-m", "tests.isolation.unpacking", level, kind, str(directory)]
    run = by(user, directory, run)
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def own_table() -> dict[str, list[str]]:
    here = (ROOT / "docs/dependencies.md").read_text().split("## What a wheel reaches")[1]
    rows = re.findall(rf"^\| (.+?) \| {WORD} \| {WORD} \|$", here.split("\n## ")[0], re.M)
    return {row[0]: list(row[1:]) for row in rows}


WAYS = [
    (level, kind, user)
    for level in ("process", "sandbox")
    for kind in ("uv", "naive", "pip")
    for user in (0, USER)
    if kind != "pip" or (level == "sandbox") == (user == 0)  # it is slow
]


@pytest.mark.parametrize(("level", "kind", "user"), WAYS)
def test_a_wheel_is_stopped_as_the_table_says(
    tmp_path: Path, level: str, kind: str, user: int
) -> None:
    """By what unpacks it; and where that believes all that a wheel says, by what holds it."""
    found = told(level, kind, tmp_path, user)
    column = ["process", "sandbox"].index(level)
    expected = {name: row[column] for name, row in own_table().items()}
    assert {name: text for name, text in found.items() if text[:7] != expected[name][:7]} == {}
    assert found.keys() == expected.keys() == ATTACKS.keys()


def test_they_work_where_nothing_is_in_their_way(tmp_path: Path) -> None:
    found = told("none", "naive", tmp_path, USER)
    reached = {name for name, text in found.items() if text.startswith("open")}
    ways = ("`..`", "absolute name", "a link to a", "a record of")
    assert reached == {name for name in ATTACKS if any(way in name for way in ways)}
