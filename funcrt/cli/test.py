"""`funcrt test`: a function's tests and sample events."""

import contextlib
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.options import Json, check_directories
from funcrt.cli.output import json_line, line, note

if TYPE_CHECKING:
    from funcrt.testing.update import Updated

__all__ = ["app", "test"]

app = typer.Typer()

OPTIONS = (
    "--import-mode=importlib", "--no-header", "--tb=short", "-q", "-rN",
    "--continue-on-collection-errors",
    # pytest rewrites the asserts of plugins' packages; this one is imported, and has none to show.
    "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
)  # fmt: skip
STATUSES = ("written", "changed", "same", "failed")
NO_TESTS = 5
"""pytest's exit code where it found none."""


@app.command()
def test(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Functions, or directories of them; after -- options of pytest.",
            show_default="./functions, or the function here",
        ),
    ] = None,
    *,
    expression: Annotated[
        str | None, typer.Option("-k", metavar="TEXT", help="Only tests whose names hold it.")
    ] = None,
    first: Annotated[bool, typer.Option("-x", help="Stop at the first that fails.")] = False,
    renew: Annotated[
        bool,
        typer.Option("--update", help="Write what samples do now as what is expected of them."),
    ] = False,
    json: Json = False,
) -> int:
    """Run a function's tests and sample events.

    Example: funcrt test functions/label -k large

    Example: funcrt test functions -- --pdb

    Example: funcrt test functions/label --update

    Runs pytest over tests/ and over every events/NAME.json that has NAME.expected.json beside it,
    in memory: no host is needed. With --json what pytest prints goes to standard error.

    --update runs no tests. It writes NAME.expected.json beside each events/NAME.json and shows what
    changed; where the function fails, or does something else in a second call, the file stays as it
    is and the exit code is 1. What is said of an output already is renewed, and nothing added.
    """
    words = list(paths or ())
    at = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    given, more = [Path(word) for word in words[:at]], words[at:]
    if renew:
        if more or first or expression is not None:
            raise CliError(
                "--update runs no tests, so it takes no -k, no -x and no options of pytest",
                "funcrt test functions/NAME --update",
                USAGE,
            )
        return _update(_functions(given or _default()), json)
    if importlib.util.find_spec("pytest") is None:
        raise CliError(
            "funcrt test needs pytest, which is not installed beside funcrt",
            f"{sys.executable} -m pip install 'pytest>=8.3'",
            USAGE,
        )
    directories, targets = _targets(given or _default())
    if expression is not None:
        more += ["-k", expression]
    if first:
        more.append("-x")
    return _run(directories, [*OPTIONS, *map(str, targets), *more], json)


def _default() -> list[Path]:
    here = Path()
    alone = any((here / name).is_file() for name in ("main.py", "funcrt.toml"))
    return [here] if alone or not Path("functions").is_dir() else [Path("functions")]


def _functions(given: Sequence[Path]) -> list[Path]:
    """The functions' directories. Raises CliError where there is none."""
    from funcrt.rollout import find_functions

    check_directories(given, "a function's directory, or one of functions", "funcrt test functions")
    directories, passed = find_functions(given)
    if not directories:
        where = ", ".join(map(str, given))
        hint = f"funcrt test {passed[0]}" if passed else ""
        message = f"no function in {where}; expected {given[0]}/NAME/main.py"
        raise CliError(message, hint, USAGE)
    return directories


def _targets(given: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The functions, and what pytest is to look at. Raises CliError where there is nothing."""
    from funcrt.rollout import TESTS
    from funcrt.testing.samples import sample_files

    directories = _functions(given)
    targets: list[Path] = []
    for directory in directories:
        tests = [directory / TESTS] if (directory / TESTS).is_dir() else []
        mine = [*tests, *sample_files(directory)]
        if not mine:
            note(f"! {directory} has no tests and no sample events")
        targets += mine
    beside = [path / TESTS for path in given if path not in directories]
    targets += [path for path in beside if path.is_dir()]
    if not targets:
        raise CliError(
            "there is nothing to test; write tests/test_main.py, or events/NAME.json with"
            " NAME.expected.json beside it",
            code=USAGE,
        )
    return directories, targets


def _run(directories: Sequence[Path], words: Sequence[str], json: bool) -> int:
    import msgspec
    import pytest

    from funcrt.testing.collect import Collector

    told = None
    out = 1
    sys.stdout.flush()
    if json:
        out = os.dup(1)
        os.dup2(2, 1)

        def told(row: dict[str, Any]) -> None:
            os.write(out, msgspec.json.encode(row) + b"\n")

    collector = Collector(directories, told)
    try:
        code = int(pytest.main(list(words), plugins=[collector]))
    finally:
        if json:
            sys.stdout.flush()
            os.dup2(out, 1)
            os.close(out)
    if collector.interrupted:
        return 130
    if code == NO_TESTS:
        raise CliError(
            "no test was found; what -k names, or a sample's expected output, is missing",
            code=USAGE,
        )
    return {0: 0, int(pytest.ExitCode.USAGE_ERROR): USAGE}.get(code, FAILED)


def _update(directories: Sequence[Path], json: bool) -> int:
    """Renew what is expected of the samples; what became of each file."""
    from funcrt.testing.samples import beside, sample_files
    from funcrt.testing.update import update

    told: list[Updated] = []
    for directory in directories:
        if not sample_files(directory):
            note(f"! {directory} has no sample events; write one into {directory}/events/NAME.json")
        with contextlib.redirect_stdout(sys.stderr):  # what handlers print is no data of ours
            told += update(directory)
    for one in told:
        target = one.file if one.file in directories else beside(one.file)
        if json:
            json_line(
                {"file": str(target), "outcome": one.status, "message": one.told,
                 "left_out": one.left_out}
            )  # fmt: skip
            continue
        if one.status != "same":
            mark = "✗" if one.status == "failed" else "✓"
            line(f"{mark} {target}: {one.status}\n{indent(one.told, '  ')}")
        for each in one.left_out:
            line(f"  ! {each} differs from call to call, and is not expected")
    counts: Counter[str] = Counter(one.status for one in told)
    if told and not json:
        line("samples: " + ", ".join(f"{n} {what}" for what in STATUSES if (n := counts[what])))
    return FAILED if counts["failed"] else 0
