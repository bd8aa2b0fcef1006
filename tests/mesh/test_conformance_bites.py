"""The conformance suite finds what it is for: each break of the contract, by the check named."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.conformance import Check, ConformanceError, Maker, checks
from mesh.conformance.check import REFUSABLE
from tests.mesh.broken import BREAKS, Broken, HasOneNamespace
from tests.mesh.conforming import TRANSPORTS, full, maker

CHECKS = {
    check.name: check
    for check in checks(TRANSPORTS["embedded-file"], maker("embedded-file", "").can)
}
LACKS = "what_it_lacks_is_refused"
MATRIX = [
    pytest.param(broken, CHECKS[name], id=f"{broken.__name__}-{name}")
    for broken, names in BREAKS.items()
    for name in names
]


def broken_maker(broken: type[Broken], directory: Path, patience_s: float = 0.15) -> Maker:
    """A store that opens as a broken transport."""
    # A kill, which is all that the checks do, loses nothing that was not synced.
    sound = maker("embedded-file", directory, synchronous="NORMAL")
    count = 0

    async def open_(**options: Any) -> Any:
        nonlocal count
        if broken is HasOneNamespace:
            options.pop("namespace", None)
        count += 1
        return broken(await sound.open(**options), count - 1)

    async def connect(**options: Any) -> Any:
        assert sound.connect is not None
        if broken is HasOneNamespace:
            options.pop("namespace", None)
        return broken(await sound.connect(**options), 0)

    async def crash(transport: Any) -> None:
        assert sound.crash is not None
        await sound.crash(transport.inner)

    return replace(
        sound,
        open=open_,
        connect=connect,
        crash=crash,
        full=full,
        patience_s=patience_s,
        limit_s=5.0,
    )


@pytest.mark.parametrize(("broken", "check"), MATRIX)
def test_bites(broken: type[Broken], check: Check, tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=check.name):
        asyncio.run(check.run(broken_maker(broken, tmp_path)))


def test_a_sound_transport_in_the_same_wrapper_passes(tmp_path: Path) -> None:
    names = [
        "keys_keep_order_whatever_happens",
        "a_replay_survives_a_crash",
        "a_full_queue_refuses",
    ]
    for name in names:
        (tmp_path / name).mkdir()
        asyncio.run(CHECKS[name].run(broken_maker(Broken, tmp_path / name, 5.0)))


@pytest.mark.parametrize("feature", REFUSABLE)
def test_a_feature_that_is_absent_and_not_refused_is_found(feature: str, tmp_path: Path) -> None:
    claimed = msgspec.structs.replace(TRANSPORTS["embedded-file"], **{feature: False})
    sound = maker("embedded-file", tmp_path)
    (lacks,) = [one for one in checks(claimed, sound.can) if one.name == LACKS]
    with pytest.raises(ConformanceError, match=LACKS):
        asyncio.run(lacks.run(sound))


def test_every_check_can_fail() -> None:
    bitten = {LACKS, *(name for names in BREAKS.values() for name in names)}
    assert [name for name in CHECKS if name not in bitten] == []
