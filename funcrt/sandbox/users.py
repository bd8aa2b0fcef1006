"""Ids of users that nobody else is, for what a host that root started runs: in the range that
systemd keeps for such, and beside it."""

from pathlib import Path

__all__ = [
    "FIRST_BUILDER",
    "FIRST_USER",
    "INSTALLER",
    "MOST_BUILDERS",
    "MOST_USERS",
    "installs",
    "may_have",
    "user_of",
]

FIRST_USER = 61184
MOST_USERS = 4000
"""Functions."""
FIRST_BUILDER = 65184
MOST_BUILDERS = 335
"""What installs packages that are built by code of their own: another each time."""
INSTALLER = 61182
"""What installs wheels: always the same, for it keeps downloads from one time to the next."""


def installs(user: int) -> bool:
    """Whether it is one of those that install."""
    return user == INSTALLER or FIRST_BUILDER <= user < FIRST_BUILDER + MOST_BUILDERS


def may_have(user: int, host: int) -> bool:
    """Whether a process of that user may be made for a host that is the user `host`: it may be
    root's only where the host is, and else nobody's who is somebody."""
    functions = FIRST_USER <= user < FIRST_USER + MOST_USERS
    return host in (0, user) or functions or installs(user)


def user_of(pid: int) -> int:
    """Who a process is. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ProcessLookupError(f"no process {pid}")
