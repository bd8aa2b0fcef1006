"""What installs packages, around a test's own `Packages`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from funcrt.packages import Packages
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox

__all__ = ["in_sandbox", "run_in_sandbox", "running"]

T = TypeVar("T")


async def in_sandbox(
    packages: Packages, do: Callable[[], Awaitable[T]], policy: Policy | None = None
) -> T:
    """What `do` returns, where packages can be installed meanwhile."""
    sandbox = ProcessSandbox(policy=policy)
    await sandbox.start()
    packages.workshop = sandbox.workshop
    try:
        return await do()
    finally:
        await sandbox.close()


def run_in_sandbox(packages: Packages, do: Callable[[], Awaitable[T]]) -> T:
    """The same, in a loop of its own."""
    return asyncio.run(in_sandbox(packages, do))


def running(argument: object) -> list[str]:
    """The processes that have it among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(argument).encode() in file.read_bytes().split(b"\0"):
                found.append(file.parent.name)
        except OSError:
            pass
    return found
