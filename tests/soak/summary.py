"""What a long run ends with: its sums, one a line, and what it was made of."""

import os
import platform
import subprocess
import time
from collections import Counter
from pathlib import Path

__all__ = ["commit", "machine", "read", "summary"]

WIDTH = 24


def commit() -> str:
    """The commit that is checked out."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def machine() -> str:
    """What it ran on: cores, memory, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def summary(sums: Counter[str], began: float, seeds: str) -> str:
    """The sums with their duration since the monotonic `began`, the seeds and the commit."""
    rows = [f"{name:{WIDTH}}{count:>14,}" for name, count in sums.items()]
    seconds = f"{'seconds':{WIDTH}}{round(time.monotonic() - began):>14,}"
    return "\n".join([*rows, seconds, f"seeds {seeds}; commit {commit()}; {machine()}"])


def read(line: str) -> tuple[str, int] | None:
    """A line of sums, as `summary` and the simulation write it; None for any other."""
    name, number = line[:WIDTH].strip(), line[WIDTH:].strip().replace(",", "")
    if name and line[WIDTH - 1 : WIDTH + 1].isspace() and number.isdecimal():
        return name, int(number)
    return None
