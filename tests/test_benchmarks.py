"""The benchmarks' own arithmetic, and that they still drive a host."""

from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.job import SYSTEMS, once
from benchmarks.processes import Options, Run, undisturbed
from benchmarks.reload import EDITS, app_code, function_code
from benchmarks.stacks import shares
from benchmarks.systems import funcrt
from benchmarks.table import medians, percentile, ratios, render
from tests.levels import sandboxed


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7


def test_medians_and_ratios_are_taken_over_rounds_and_losses_added() -> None:
    rounds = [{"n": "a", "r": 1.0, "lost": 1}, {"n": "a", "r": 5.0, "lost": 0}]
    assert medians([*rounds, {"n": "a", "r": 2.0, "lost": 2}]) == {"n": "a", "r": 2.0, "lost": 3}
    results = {"x": [{"r": 2.0}, {"r": 9.0}, {"r": 4.0}], "y": [{"r": 1.0}, {"r": 3.0}, {"r": 4.0}]}
    assert ratios("x", results, "y", "r") == 2.0


def test_a_table_lines_up() -> None:
    text = render(("name", "n"), [{"name": "a", "n": 12345.6}, {"name": "long", "n": None}])
    assert text == "name       n\na     12,346\nlong       -"


def test_shares_of_a_profile_are_by_function_and_leave_out_waiting_threads() -> None:
    idle = "Thread;_worker (concurrent/futures/thread.py:81) 60"
    rows = shares(["main (a.py:1);f (a.py:2) 30", "main (a.py:1) 10", idle])
    assert [(row["function"], row["own %"], row["with callees %"]) for row in rows] == [
        ("f (a.py:2)", 75, 75),
        ("main (a.py:1)", 25, 100),
    ]


@sandboxed  # whose processes may be looked into by their own user
def test_the_job_counts_every_result_of_a_host(tmp_path: Path) -> None:
    assert SYSTEMS[0] == "funcrt"
    with Run(Options(directory=tmp_path, events=300, seconds=0.5)) as run:
        row, _ = once(run, "funcrt", funcrt)
    assert (row["lost"], row["doubled"]) == (0, 0)
    assert row["events/s"] > 100
    assert row["PSS MB"] > 10


def test_a_disturbed_turn_is_repeated_whatever_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WAIT_S", 0.0)
    turns = iter([(60.0, 9), (5.0, 1), (1.0, 5)])

    def turn() -> tuple[dict[str, float], list[dict[str, float]]]:
        others, rate = next(turns)
        return {"others %": others, "events/s": rate}, []

    row, _ = undisturbed(Options(quiet=10), lambda line: None, turn)
    assert row["events/s"] == 1, "the first quiet one, not the fastest"
    turns = iter([(60.0, 9), *[(70.0, 20)] * 20])
    row, _ = undisturbed(Options(quiet=10), lambda line: None, turn)
    assert row["events/s"] == 9, "the least disturbed where none was quiet"
    turns = iter([(60.0, 9)])
    assert undisturbed(Options(), lambda line: None, turn)[0]["events/s"] == 9


def test_no_edit_passes_for_the_one_before_by_its_size() -> None:
    """Python compiles nothing anew whose size and whole second are as they were."""
    for code in (app_code, lambda version: function_code(version, "pandas")):
        sizes = [len(code(version)) for version in range(EDITS + 1)]
        assert sizes == sorted(set(sizes))
