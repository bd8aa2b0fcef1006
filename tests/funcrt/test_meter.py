"""What a function's meter counts, and how right its percentiles are."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcrt.meter import Meter


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200))
def test_percentiles_are_right_to_six_percent(took: list[int]) -> None:
    meter = Meter(0.0)
    for us in took:
        meter.ran(1.0, us)
        meter.waited(us)
    seen = meter.window(1.0, 60.0)
    ordered = sorted(took)
    for part, found in ((0.5, seen.run_ms.p50), (0.99, seen.run_ms.p99)):
        at = max(math.ceil(len(took) * part), 1)
        assert found == pytest.approx(ordered[at - 1] / 1000, rel=0.0625, abs=0.0005)
    assert seen.wait_ms == seen.run_ms


def call(meter: Meter, now: float, *, bad: bool = False) -> None:
    meter.ran(now, 1000)
    meter.failed += bad
    meter.done += not bad
    meter.outputs += 2


def counts(seen: Any) -> tuple[int, int, int]:
    return seen.done, seen.failed, seen.outputs


def test_what_is_long_past_counts_no_more() -> None:
    meter = Meter(0.0)
    for second in range(400):
        call(meter, float(second), bad=second % 4 == 0)
    minute, five = (meter.window(400.0, seconds) for seconds in (60.0, 300.0))
    assert 60 <= minute.seconds <= 70
    assert counts(minute) == (minute.seconds * 0.75, minute.seconds * 0.25, minute.seconds * 2)
    assert minute.per_s == 1.0
    assert minute.error_pct == 25.0
    assert minute.run_ms.p50 == pytest.approx(1.0, rel=0.0625)
    assert 300 <= five.seconds <= 310
    assert five.done + five.failed == five.seconds
    call(meter, 410.0)
    assert counts(meter.window(465.0, 60.0)) == (1, 0, 2)
    late = meter.window(2000.0, 300.0)
    assert counts(late) == (0, 0, 0)
    assert (late.error_pct, late.run_ms.p50, late.per_s) == (None, None, 0.0)
    assert (meter.done, meter.failed) == (301, 100)


def test_a_young_function_s_rate_is_of_its_own_age() -> None:
    meter = Meter(100.0)
    for n in range(20):
        call(meter, 100.0 + n / 10)
    assert meter.window(102.0, 60.0).per_s == 10.0


def test_a_call_costs_little_beside_the_common_job_s_sixty_microseconds() -> None:
    """Two additions: under 2 %, even where the machine is ten times as busy."""
    meter = Meter(0.0)
    took = []
    for _ in range(5):
        began = time.process_time()
        for us in range(10_000, 20_000):
            meter.ran(1.0, us)
            meter.waited(us)
        took.append((time.process_time() - began) / 10_000 * 1e6)
    assert min(took) < 6.0, took
