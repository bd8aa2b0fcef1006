"""Whole hosts in simulation, seed by seed. `make soak` runs a hundred times as many."""

import pytest

from tests.sim.plan import KINDS, plan_of
from tests.sim.survey import survey
from tests.sim.world import simulate

SEEDS = 200


@pytest.mark.timeout(600)
def test_two_hundred_seeds_break_no_promise() -> None:
    told, sums = survey(range(SEEDS))
    assert not told, told
    assert all(sums[f"faults: {kind}"] for kind in KINDS)
    assert sums["times the host fell"] > SEEDS
    assert sums["calls recalled"] > SEEDS
    assert sums["writes lost or torn"] > SEEDS // 4


def test_one_seed_is_one_history() -> None:
    for seed in (7, 25):
        first, second = simulate(plan_of(seed)), simulate(plan_of(seed))
        assert first.digest() == second.digest()
        assert first.calls == second.calls
