"""The zygotes that are kept alive: a function's code stays loaded while it is used, and a while
after, up to a number of them."""

import asyncio
import logging
from collections import Counter, OrderedDict

from funcrt.errors import FuncrtError
from funcrt.sandbox import Code, Sandbox, Zygote

__all__ = ["Zygotes"]

log = logging.getLogger("funcrt.sandbox")

MOST_IDLE = 32
"""Zygotes without instances that stay: at about 3 MB each, what is idle costs 100 MB at most."""


class Zygotes:
    """Loads on demand, and evicts what was used longest ago and has no instances. Held by all that
    their code says: two profiles of one bundle are two."""

    def __init__(self, sandbox: Sandbox, most_idle: int = MOST_IDLE) -> None:
        self.sandbox = sandbox
        self.most_idle = most_idle
        self._held: OrderedDict[str, Zygote] = OrderedDict()
        self._codes: dict[str, Code] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    async def get(self, code: Code) -> Zygote:
        """The code's zygote, loaded now where it is not. Raises LoadError, SandboxError."""
        key = repr(code)
        async with self._locks.setdefault(key, asyncio.Lock()):
            zygote = self._held.get(key)
            if zygote is None or not zygote.alive:
                zygote = self._held[key] = await self.sandbox.load(code)
                self._codes[key] = code
            self._held.move_to_end(key)
        await self._evict(keep=key)
        return zygote

    async def _evict(self, keep: str) -> None:
        idle = [
            key
            for key, zygote in self._held.items()
            if key != keep and not zygote.busy and not self._locks[key].locked()
        ]
        for key in idle[: max(len(idle) + 1 - self.most_idle, 0)]:
            await self._drop(key)

    async def renew(self) -> None:
        """Load what was loaded and has ended, one after the other, so that no call waits for it."""
        for key, code in list(self._codes.items()):
            zygote = self._held.get(key)
            if zygote is not None and not zygote.alive:
                try:
                    await self.get(code)
                except FuncrtError as error:  # the next call tries again
                    log.error("%s cannot be loaded anew: %s", code.name, error)

    def use(self, code: Code) -> None:
        """The version goes into service; once more, where it comes back while it still drains."""
        self._users[repr(code)] += 1

    async def drop(self, code: Code) -> None:
        """The version is out of service."""
        key = repr(code)
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key]
            await self._drop(key)

    async def _drop(self, key: str) -> None:
        self._locks.pop(key, None)
        self._codes.pop(key, None)
        zygote = self._held.pop(key, None)
        if zygote is not None:
            await zygote.stop()
