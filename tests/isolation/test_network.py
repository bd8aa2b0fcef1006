"""What a function with `network` reaches and what not, in a world of its own around a host."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.isolation.connections import ATTACKS, LISTED_ONLY, WORKS
from tests.isolation.test_isolation import INSIDE, ROOT, USER, for_others, pytestmark, table

__all__ = ["pytestmark"]

LISTED = [
    "11.1.1.2:8080", "11.1.1.2:8081", "11.1.1.2:8083", "api.test:8080", "api.test:8443",
    "*.wild.test:8080", "10.9.9.2:8080", "evil.test:8080", "near.test:7000",
]  # fmt: skip
PRIVATE = "a private address, listed"
SLOW = {"an address that is swapped by a thread", "a descriptor that is swapped by a thread"}
needs_tools = pytest.mark.skipif(
    shutil.which("ip") is None or shutil.which("openssl") is None,
    reason="the world is made by ip, its certificate by openssl",
)


def told(level: str, directory: Path, user: int, network: list[str]) -> dict[str, Any]:
    for_others(level, user)
    directory.chmod(0o755)
    run = [sys.executable, "-m", "tests.isolation.world", level, str(user), str(directory)]
    done = subprocess.run(
        [*INSIDE, "--net", *run, *network], cwd=ROOT, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@needs_tools
@pytest.mark.parametrize(
    ("level", "user", "network"),
    [
        ("sandbox", 0, LISTED),
        ("sandbox", USER, ["outbound"]),
        ("process", USER, LISTED),
        ("process", 0, ["outbound"]),
        ("process@3", USER, ["outbound"]),
        ("sandbox@3", USER, ["outbound"]),
    ],
    ids=[
        *("sandbox-list", "sandbox-outbound", "process-list", "process-outbound"),
        *("process-before-landlock-4", "sandbox-before-landlock-4"),
    ],
)
def test_what_is_reached(tmp_path: Path, level: str, user: int, network: list[str]) -> None:
    found = told(level, tmp_path, user, network)
    reached = found.pop("reached")
    works = {name for name in found if name in WORKS or (name == PRIVATE and network == LISTED)}
    assert len(works) >= 12
    assert {name: found[name] for name in works if "got" not in found[name]} == {}
    attacks = found.keys() - works
    assert {name: found[name] for name in attacks if "error" not in found[name]} == {}
    assert {name: found[name] for name in attacks - SLOW if found[name]["s"] > 2} == {}
    # Else the threads had nothing to race for.
    assert int(found["an address that is swapped by a thread"]["error"].split()[1]) > 0
    asked = {"api.test", "a.wild.test", "evil.test", "near.test"}
    if network == LISTED:
        assert {line.removeprefix("asked ") for line in reached} <= asked
    assert not any("datagram" in line or line.startswith("b'") for line in reached)


def test_each_attack_is_in_the_table() -> None:
    expected = {name: ["stopped", "stopped"] for name in ATTACKS.keys() - {PRIVATE}}
    expected["thousands of sockets"] = ["bounded", "bounded"]
    assert table("## The network") == expected


@needs_tools
def test_the_attacks_work_where_nothing_is_in_their_way(tmp_path: Path) -> None:
    found = told("none", tmp_path, USER, ["outbound"])
    assert found.pop("reached")
    stopped = {name for name in found if "error" in found[name]}
    assert len(stopped & SLOW) < 2  # a race can be lost, on a busy machine
    assert stopped - SLOW <= {
        "raw sockets", "packet sockets",  # which only root has
        "another device", "cloud metadata, mapped into IPv6", "multipath TCP", "source routes",
    }  # fmt: skip
    assert len(found.keys() - LISTED_ONLY.keys()) > 40
