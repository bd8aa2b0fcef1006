"""A ledger's file: one line of JSON a report, each as a reporter sent it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from mesh.ledger.entries import Entry, Record
from mesh.ledger.expectations import Expectations

__all__ = ["LedgerCorrupt", "Report", "decode", "entries", "expectations", "records", "whole"]


class LedgerCorrupt(ValueError):
    """A line that was written whole cannot be read."""

    def __init__(self, path: Path, number: int, reason: str) -> None:
        super().__init__(f"{path}:{number}: not a line of a ledger: {reason}")


class Report(msgspec.Struct, frozen=True, gc=False):
    """What one reporter said at once. `by` and `n` tell one that was sent twice."""

    by: str
    n: int
    records: list[Record]


decode = msgspec.json.Decoder(Report).decode


def whole(file: BinaryIO) -> int:
    """Where the last whole line ends: what is after it was torn, and never acknowledged."""
    end = file.seek(0, 2)
    while end > 0:
        start = max(end - (1 << 16), 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def records(path: Path) -> Iterator[Record]:
    """All that a file holds, each report once. Raises LedgerCorrupt; a torn last line is no error.

    A reporter numbers its reports and sends one again only until it is acknowledged, so a number
    that is not above the last is a repetition.
    """
    last: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                report = decode(line)
            except msgspec.DecodeError as error:
                if not file.read(1):
                    return
                raise LedgerCorrupt(path, number, str(error)) from None
            if report.n > last.get(report.by, 0):
                last[report.by] = report.n
                yield from report.records


def entries(path: Path) -> Iterator[Entry]:
    """What was seen."""
    return (each for each in records(path) if not isinstance(each, Expectations))


def expectations(path: Path) -> Expectations | None:
    """What was promised: the last that the file says."""
    found = None
    for each in records(path):
        if isinstance(each, Expectations):
            found = each
    return found
