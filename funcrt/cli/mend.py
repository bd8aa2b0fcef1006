"""`funcrt doctor --check` and `--repair`: what a mesh's file has lost, and the rest saved."""

from funcrt.cli.errors import FAILED
from funcrt.cli.output import json_line, line, safe
from mesh.embedded import file_of
from mesh.repair import Report, check, repair

__all__ = ["mend"]


def mend(url: str, *, write: bool, json: bool) -> int:
    """Look, or save what is whole; 1 where anything is damaged. Raises MeshError."""
    path = file_of(url)
    report = repair(path) if write else check(path)
    if json:
        json_line(report)
    else:
        _say(report)
    return 0 if report.whole else FAILED


def _say(report: Report) -> None:
    rows = ", ".join(f"{table} {count}" for table, count in report.saved.items() if count)
    line(f"{report.path}: {'whole' if report.whole else 'damaged'}; whole rows: {rows or 'none'}")
    for each in report.structure:
        line(f"\u2717 structure: {safe(each)}")
    for loss in report.lost:
        line(f"\u2717 lost: {safe(loss.table)}, {safe(loss.where)}: {safe(loss.why)}")
    if report.copy:
        line(f"saved into {report.copy}; to serve it, move {report.path}, its -wal and its -shm"
             f" away and {report.copy} into its place")  # fmt: skip
    elif not report.whole:
        line("  try: funcrt doctor --repair")
