"""The benchmarks' own arithmetic."""

from benchmarks.table import medians, percentile, ratios, render


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
