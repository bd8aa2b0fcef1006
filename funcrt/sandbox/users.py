"""Ids of users that nobody else is, for what a host that root started runs: in the range that
systemd keeps for such, and beside it. Hosts of one machine share them out by `claims.py`."""

from pathlib import Path

__all__ = [
    "BUILDERS",
    "FUNCTIONS",
    "INSTALLERS",
    "MOST_BUILDERS",
    "MOST_FUNCTIONS",
    "user_of",
]

FUNCTIONS = range(61184, 65184)
MOST_FUNCTIONS = 1000
"""Of one host: one that was taken over leaves the others theirs."""
INSTALLERS = range(65184, 65216)
"""What installs wheels: of one host always the same, for it keeps downloads from one time to the
next."""
BUILDERS = range(65216, 65519)
"""What installs packages that are built by code of their own: another each time."""
MOST_BUILDERS = 64
"""Of one host."""


def user_of(pid: int) -> int:
    """Who a process is. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ProcessLookupError(f"no process {pid}")
