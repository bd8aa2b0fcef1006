"""`python -m benchmarks NAME`: a table a benchmark. The peers live in an environment of their own
(`make peers`), or in that of `--peers-python`; what is missing is skipped and said."""

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.backlog import backlog
from benchmarks.cold import cold
from benchmarks.disk import kind_of
from benchmarks.http import http
from benchmarks.idle import idle
from benchmarks.job import SYSTEMS, job
from benchmarks.levels import levels
from benchmarks.processes import ROOT, Options
from benchmarks.reload import reload
from benchmarks.retention import retention
from benchmarks.rules import rules
from benchmarks.table import COLUMNS, Row, render
from benchmarks.wide import wide

BENCHMARKS: dict[str, Callable[[Options, Callable[[str], None]], list[Row]]] = {
    "job": job,
    "http": http,
    "cold": cold,
    "idle": idle,
    "backlog": backlog,
    "retention": retention,
    "reload": reload,
    "rules": rules,
    "wide": wide,
    "levels": levels,
}
PEERS = ROOT / ".peers" / "bin" / "python"


def options() -> tuple[list[str], bool, Options]:
    """The command line: which benchmarks, whether as JSON, and how."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*BENCHMARKS, "all"))
    parser.add_argument("--quick", action="store_true", help="one round, smaller")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    parser.add_argument("--peers", default="", help=f"of {', '.join(SYSTEMS[1:])}; or none")
    parser.add_argument("--peers-python", default=str(PEERS) if PEERS.exists() else sys.executable)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="job: at 200 a second; http: of load")
    parser.add_argument("--synced", action="store_true", help="brokers sync each write too")
    parser.add_argument("--profile", action="store_true", help="job: py-spy on the host")
    parser.add_argument("--real-time", action="store_true", help="retention: take the hour")
    parser.add_argument(
        "--quiet", type=float, default=100.0, metavar="PERCENT",
        help="job, http: repeat a turn while other things take more than this of all cores",
    )  # fmt: skip
    asked = parser.parse_args()
    names = [*BENCHMARKS] if asked.name == "all" else [asked.name]
    return (
        names,
        asked.json,
        Options(
            peers_python=asked.peers_python,
            directory=asked.directory,
            quick=asked.quick,
            rounds=1 if asked.quick else asked.rounds,
            events=5000 if asked.quick else 20_000,
            seconds=asked.seconds or (3.0 if asked.quick else 10.0),
            peers=tuple(name for name in asked.peers.split(",") if name),
            synced=asked.synced,
            real_time=asked.real_time,
            profile=asked.profile,
            quiet=asked.quiet,
        ),
    )


def say(line: str) -> None:
    """How far it is, for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    names, as_json, how = options()
    # So that a benchmark that is told to end stops what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(
        f"{platform.platform()}, Python {platform.python_version()}, {kind_of(how.directory)},"
        f" {time.strftime('%Y-%m-%d %H:%M')}"
    )
    for name in names:
        rows = BENCHMARKS[name](how, say)
        if as_json:
            for row in rows:
                print(json.dumps({"benchmark": name, **row}), flush=True)
            continue
        columns = tuple(dict.fromkeys((*COLUMNS, *(key for row in rows for key in row))))
        print(f"\n{name}\n{render(columns, rows)}", flush=True)


if __name__ == "__main__":
    main()
