"""`python -m benchmarks NAME`: one table. Peers need the extra `bench`, in this environment or in
another whose interpreter `--peers-python` names; a missing one is skipped and said."""

import argparse
import json
import platform
import sys
from pathlib import Path

from benchmarks import host, job
from benchmarks.disk import kind_of
from benchmarks.processes import Options
from benchmarks.table import render

NAMES = ("job", "http", "cold", "idle", "backlog")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="one round, smaller")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    parser.add_argument("--peers", default="", help=f"of {', '.join(job.SYSTEMS[1:])}; or none")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synced", action="store_true", help="brokers sync each write too")
    asked = parser.parse_args()
    options = Options(
        peers_python=asked.peers_python,
        directory=asked.directory,
        quick=asked.quick,
        rounds=1 if asked.quick else asked.rounds,
        events=5000 if asked.quick else 20_000,
        seconds=3.0 if asked.quick else 10.0,
        peers=tuple(name for name in asked.peers.split(",") if name),
        synced=asked.synced,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    say(f"{platform.platform()}, Python {platform.python_version()}, {kind_of(asked.directory)}")
    disk = None
    if asked.name == "job":
        rows, disk = job.measure(options, say)
    else:
        rows = getattr(host, asked.name)(options)
    if asked.json:
        for row in rows:
            print(json.dumps(row))
        return
    columns = (
        job.COLUMNS if asked.name == "job" else tuple(dict.fromkeys(k for r in rows for k in r))
    )
    print(render(columns, rows))
    if disk is not None:
        print()
        print(render(("bare commit, ms", *disk.row()), [{"bare commit, ms": "", **disk.row()}]))


if __name__ == "__main__":
    main()
