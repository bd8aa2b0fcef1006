"""Printing: JSON lines, plain lines in a pipe, a Rich table on a terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from funcrt.text import RED, folded, paint, safe

__all__ = [
    "RED",
    "clock",
    "during",
    "folded",
    "json_line",
    "line",
    "marked",
    "moment",
    "note",
    "paint",
    "rows",
    "safe",
]

MARKS = {"✓": "32", "!": "33", "✗": RED}
"""And their colours."""

GAP = 2
"""Blanks between a table's columns."""


def json_line(value: Any) -> None:
    """One value as one line of JSON."""
    import msgspec

    line(msgspec.json.encode(value).decode())


def line(text: str) -> None:
    """One line, out at once where somebody watches or a program waits for it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def marked(text: str) -> str:
    """A line with the mark that it begins with in its colour."""
    mark = text.lstrip()[:1]
    return text.replace(mark, paint(MARKS[mark], mark), 1) if mark in MARKS else text


@contextmanager
def during(text: str) -> Iterator[None]:
    """A line that stands on a terminal while something is waited for; nothing for no text."""
    if not text or not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(text)
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def note(text: str) -> None:
    """A remark for people, beside the data."""
    print(text, file=sys.stderr, flush=True)


def rows(
    columns: Sequence[str],
    table: Iterable[Sequence[Any]],
    *,
    right: str = "",
    fold: str = "",
    drop: str = "",
) -> None:
    """A table on a terminal; else one line a row, columns parted by tabs, without a heading.

    `right` names the columns of numbers, parted by blanks; `fold` those that may be broken where a
    terminal is too narrow, by default the last; `drop` those that are left out before that, the
    first of them first.
    """
    texts = [[safe(str(cell)) for cell in row] for row in table]
    if not sys.stdout.isatty():
        for row in texts:
            sys.stdout.write("\t".join(row) + "\n")
        sys.stdout.flush()
        return
    if not texts:
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = {
        column: max(map(cell_len, [column, *(row[at] for row in texts)]))
        for at, column in enumerate(columns)
    }
    for column in drop.split():
        if sum(widths.values()) + GAP * (len(widths) - 1) > console.width:
            del widths[column]
    folded = fold.split() or columns[-1:]
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, GAP, 0, 0))
    for column in widths:
        shown.add_column(
            column,
            justify="right" if column in right.split() else "left",
            no_wrap=column not in folded,
            overflow="fold",
        )
    kept = [at for at, column in enumerate(columns) if column in widths]
    for row in texts:
        shown.add_row(*(Text(row[at]) for at in kept))
    console.print(shown)


def moment(seconds: float) -> str:
    """A moment in a table: local and to the second on a terminal, RFC 3339 in a pipe."""
    if not sys.stdout.isatty():
        return clock(seconds)
    return datetime.fromtimestamp(seconds).strftime("%m-%d %H:%M:%S")


def clock(seconds: float) -> str:
    """A moment as RFC 3339, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
