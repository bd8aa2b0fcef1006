"""`python -m tests.planted`: plant each bug in a copy of the code and run its suites over it.
Prints which suite found which; exit 1 where one was found by none. Those of isolation are for root
to find."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.planted.bugs import BUGS, Bug

ROOT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
SUITES: dict[str, tuple[str, ...]] = {
    "conformance": (*PYTEST, "tests/mesh/test_conformance.py"),
    "simulation": ("-m", "tests.sim", "--seeds", "100"),
    "unit": (
        *PYTEST,
        "tests/mesh/test_embedded.py",
        "tests/funcrt/test_outcome.py",
        "tests/funcrt/test_pool.py",
    ),
    "isolation": (
        *PYTEST,
        "tests/funcrt/test_syscalls.py",
        "tests/funcrt/test_network.py",
        "tests/isolation/test_network.py::test_what_is_reached[sandbox-outbound]",
        "tests/isolation/test_isolation.py::test_a_level_stops_what_the_table_says[process-root]",
        "tests/isolation/test_isolation.py::test_a_level_stops_what_the_table_says[sandbox-root]",
    ),
}
TIMEOUT_S = 300


def found(suite: tuple[str, ...], tree: Path) -> bool:
    """Whether a suite fails over a tree. One that hangs has found it too."""
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *suite]
    try:
        ended = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return ended.returncode != 0


def try_one(bug: Bug | None, suites: Iterable[str]) -> dict[str, bool]:
    """Suite -> whether it found the bug; None plants nothing."""
    with tempfile.TemporaryDirectory(prefix="funcrt-planted-") as directory:
        tree = Path(directory)
        tree.chmod(0o755)  # functions run as other users
        for name in ("mesh", "triggers", "funcrt", "tests", "functions", "docs"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", tree)
        if bug is not None:
            file = tree / bug.file
            file.write_text(file.read_text().replace(bug.old, bug.new))
        return {name: found(SUITES[name], tree) for name in suites}


def main() -> int:
    """Run, print, say whether all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument(
        "name", nargs="?", default="", help="part of a bug's name, or a suite; default all"
    )
    asked = parser.parse_args()
    chosen = [bug for bug in BUGS if asked.name in bug.name or asked.name in bug.suites]
    suites = [name for name in SUITES if any(name in bug.suites for bug in chosen)]
    for bug in chosen:
        if (ROOT / bug.file).read_text().count(bug.old) != 1:
            sys.exit(f"{bug.name}: {bug.file} has changed; mend tests/planted/bugs.py")
    table = Table(title="Planted bugs, and which suite found them")
    table.add_column("bug")
    for name in SUITES:
        table.add_column(name, justify="center")
    missed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clean = pool.submit(try_one, None, suites)
        tried = pool.map(try_one, chosen, [bug.suites for bug in chosen])
        for bug, by in zip(chosen, tried, strict=True):
            said = {True: "found", False: "-", None: ""}
            table.add_row(bug.name, *(said[by.get(name)] for name in SUITES))
            print(bug.name, by, file=sys.stderr, flush=True)
            if not any(by.values()):
                missed.append(bug.name)
        noise = [name for name, failed in clean.result().items() if failed]
    Console().print(table)
    if noise:
        print(f"without any bug these fail: {', '.join(noise)}")
    for name in missed:
        print(f"found by none: {name}")
    return 1 if missed or noise else 0


if __name__ == "__main__":
    sys.exit(main())
