"""The conformance suite on the embedded transport: every check, on a file and in memory."""

import asyncio
import re
from pathlib import Path

import pytest

from mesh.conformance import Check, checks
from tests.mesh.conforming import TRANSPORTS, maker

MAY_BE_LEFT_OUT = {
    "embedded-file": {"embedded lacks nothing that could be refused"},
    "embedded-memory": {
        "embedded lacks nothing that could be refused",
        "embedded does not survive a restart (features.survives_restart)",
        "embedded does not have survives_restart (features.survives_restart)",
        "the maker cannot open a second connection beside an open one",
    },
}
"""Why a check may be skipped on a transport; a skip for any other reason fails."""

MATRIX = [
    pytest.param(name, check, id=f"{name}-{check.name}")
    for name, features in TRANSPORTS.items()
    for check in checks(features, maker(name, "").can)
]


@pytest.mark.parametrize(("name", "check"), MATRIX)
def test_conformance(name: str, check: Check, tmp_path: Path) -> None:
    if check.left_out:
        assert check.left_out in MAY_BE_LEFT_OUT[name]
        pytest.skip(check.left_out)
    asyncio.run(check.run(maker(name, tmp_path)))


def test_every_guarantee_has_a_check() -> None:
    promises = " ".join(check.promise for check in checks(TRANSPORTS["embedded-file"]))
    assert {int(n) for n in re.findall(r"\bG(\d+)\b", promises)} == set(range(1, 13))


def test_every_check_says_what_it_promises() -> None:
    every = checks(TRANSPORTS["embedded-file"])
    assert len({check.name for check in every}) == len(every)
    assert [check.name for check in every if not re.match(r"[A-Z]\w+[,:]", check.promise)] == []
