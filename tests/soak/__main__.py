"""`python -m tests.soak`: the long runs one after the other, and a table of what they went through.
Exit 1 where a part broke a promise. `--scale 0.01` tries it out.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from tests.soak.summary import commit, machine, read


def parts(scale: float) -> Iterator[tuple[str, list[str]]]:
    """Each part's name and command line."""

    def of(count: int) -> str:
        return str(max(round(count * scale), 1))

    yield (
        "kills of processes",
        ["tests.faults.soak", "--instance-kills", of(10_000), "--events", of(1_000_000),
         "--host-kills", of(1000)],
    )  # fmt: skip
    yield "power cuts, simulated disk", ["tests.sim.power", "--cuts", of(500)]
    yield "simulated hosts", ["tests.sim", "--seeds", of(20_000)]
    if scale >= 1:  # these have one size
        yield "faults on real processes", ["tests.faults.real"]
        yield "10,000 connections", ["tests.faults.crowd"]
        yield "a million topics", ["tests.faults.many"]


def run(command: list[str]) -> tuple[int, dict[str, int]]:
    """Run a part, with what it says passed on; its exit code and the sums that it ended with."""
    sums: dict[str, int] = {}
    started = [sys.executable, "-m", *command]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := read(line):
                sums[found[0]] = found[1]
    return process.returncode, sums


def main() -> int:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each number")
    began = time.monotonic()
    codes = {}
    table = Table(title=f"soak of {commit()}, {machine()}")
    table.add_column("part")
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, command in parts(parser.parse_args().scale):
        print(f"== {name}: python -m {' '.join(command)}", flush=True)
        codes[name], sums = run(command)
        sums["exit code"] = codes[name]
        for row, (what, count) in enumerate(sums.items()):
            table.add_row("" if row else name, what, f"{count:,}", end_section=row == len(sums) - 1)
    Console().print(table)
    print(f"{time.monotonic() - began:.0f} s")
    for name, code in codes.items():
        print(f"{name}: {'kept' if code == 0 else f'BROKEN (exit code {code})'}")
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
