"""Printing: JSON lines, plain lines in a pipe, a Rich table on a terminal."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from funcrt.text import safe

__all__ = ["clock", "json_line", "line", "note", "rows", "safe"]


def json_line(value: Any) -> None:
    """One value as one line of JSON."""
    import msgspec

    line(msgspec.json.encode(value).decode())


def line(text: str) -> None:
    """One line, out at once where somebody watches or a program waits for it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark for people, beside the data."""
    print(text, file=sys.stderr, flush=True)


def rows(columns: Sequence[str], table: Iterable[Sequence[Any]], *, right: str = "") -> None:
    """A table on a terminal; else one line a row, columns parted by tabs, without a heading.

    `right` names the columns of numbers, parted by blanks.
    """
    texts = [[safe(str(cell)) for cell in row] for row in table]
    if not sys.stdout.isatty():
        for row in texts:
            sys.stdout.write("\t".join(row) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in right.split() else "left")
    for row in texts:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)


def clock(seconds: float) -> str:
    """A moment as RFC 3339, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
