"""The isolation that this machine gives to functions that tests deploy. In a chroot and in most
containers there is no level `sandbox`: hosts do with `process` then, as their operators would."""

import asyncio

import pytest

from funcrt.sandbox.levels import Level, NotLinux, Policy
from funcrt.sandbox.process import ProcessSandbox

__all__ = ["MISSING", "needs", "sandboxed"]


async def missing() -> dict[Level, str]:
    """The levels that cannot be had, and why."""
    sandbox = ProcessSandbox(policy=Policy())
    try:
        await sandbox.start()
        return dict(await sandbox.probed())
    except NotLinux as error:
        return {"process": str(error), "sandbox": str(error)}
    finally:
        await sandbox.close()


MISSING: dict[str, str] = {**asyncio.run(missing())}


def needs(level: str) -> None:
    """Skip the test where the level cannot be had."""
    if why := MISSING.get(level):
        pytest.skip(f"isolation {level!r} cannot be had here: {why}")


sandboxed = pytest.mark.skipif(
    "sandbox" in MISSING,
    reason=f"isolation 'sandbox' cannot be had here: {MISSING.get('sandbox', '')}",
)
