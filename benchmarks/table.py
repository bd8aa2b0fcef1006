"""Numbers to tables: percentiles, medians over rounds, aligned text."""

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
COLUMNS = ("name", "events/s", "p50 ms", "p99 ms", "CPU s/1,000", "PSS MB")
"""What every table has; a benchmark may add its own."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that `percent` of all are at most."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def medians(rounds: Sequence[Row]) -> Row:
    """The median of each number over rounds; of what is no number, the last."""
    return {
        key: statistics.median(row[key] for row in rounds)
        if isinstance(value, float)
        else sum(row[key] for row in rounds)
        if isinstance(value, int)
        else value
        for key, value in rounds[-1].items()
    }


def ratios(name: str, results: dict[str, list[Row]], first: str, key: str) -> float | None:
    """The median over rounds of what a system did in terms of what `first` did in that round."""
    pairs = [
        (mine[key], theirs[key])
        for mine, theirs in zip(results[name], results.get(first, ()), strict=False)
        if theirs[key]
    ]
    return statistics.median(mine / theirs for mine, theirs in pairs) if pairs else None


def text(value: Any) -> str:
    """A cell: three digits that count."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def render(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows under the headings; names to the left, numbers to the right."""
    cells = [list(columns), *([text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
