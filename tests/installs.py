"""What installs packages, around a test's own `Packages`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from funcrt.packages import Packages
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox

__all__ = ["in_sandbox", "run_in_sandbox"]

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
