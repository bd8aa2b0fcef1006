"""`python -m tests.faults.real [NAME ...]`: the larger versions of the faults on real processes.

One after the other, each in a directory of its own; it says of each what was seen. Exit code 1
where one failed.
"""

import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.faults import (
    test_backlog,
    test_clock_jumps,
    test_migration,
    test_neighbours,
    test_repeats,
    test_stops,
)

SOAKS: dict[str, Callable[[Path], str]] = {
    "backlog": test_backlog.soak,
    "clock-jumps": test_clock_jumps.soak,
    "migration": test_migration.soak,
    "neighbours": test_neighbours.soak,
    "repeats": test_repeats.soak,
    "stops": test_stops.soak,
}


def main(names: list[str]) -> int:
    """Run those named, or all."""
    failed = 0
    for name in names or SOAKS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="funcrt-") as directory:
            try:
                said = SOAKS[name](Path(directory))
            except Exception:
                failed += 1
                said = f"FAILED\n{traceback.format_exc()}"
        print(f"{name} ({time.monotonic() - started:.0f} s): {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
