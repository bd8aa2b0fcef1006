"""Whole hosts in simulation, seed by seed. `make soak` runs a hundred times as many."""

import multiprocessing
import os

import pytest

from tests.sim.plan import plan_of
from tests.sim.world import simulate, survey

SEEDS = 200


@pytest.mark.timeout(600)
def test_two_hundred_seeds_break_no_promise() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, 4)) as pool:
        told = [line for line in pool.imap_unordered(survey, range(SEEDS)) if line]
    assert not told, "\n".join(told)


def test_one_seed_is_one_history() -> None:
    for seed in (7, 25):
        first, second = simulate(plan_of(seed)), simulate(plan_of(seed))
        assert first.digest() == second.digest()
        assert first.calls == second.calls
