"""Settling: what calls led to, committed with whatever else has come by then."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from mesh.errors import MeshClosed, MeshError, MeshFull
from mesh.failpoint import point
from mesh.transport import Dead, Settlement, Transport

__all__ = ["Settler"]

log = logging.getLogger("funcrt.host")

MOST_BYTES = 32 << 20
MOST_SETTLEMENTS = 20_000
"""What may wait to be committed; beyond it nothing more is pulled until it is."""
WAIT_S, MOST_WAIT_S = 0.1, 5.0
"""Between tries, while the mesh is full."""


class Settler:
    """A host's settlements on their way into the mesh."""

    def __init__(self, mesh: Transport) -> None:
        self.mesh = mesh
        self.room = asyncio.Event()
        """Set while what waits is little enough to pull more."""
        self.room.set()
        self._waiting: list[Settlement] = []
        self._told: list[Callable[[], None]] = []
        """Of those of `_waiting` whose commit somebody waits for."""
        self._committing: Sequence[Settlement] = ()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._given = self._kept = 0
        """How many settlements came, and how many of them are committed."""
        self._passed = asyncio.Event()
        """Set, and replaced, at each commit."""
        self._over = False

    def soon(self, settlement: Settlement, committed: Callable[[], None] | None = None) -> None:
        """Commit it with what else has come by the next commit; then call `committed`, whether it
        took effect or was stale."""
        self._waiting.append(settlement)
        if committed is not None:
            self._told.append(committed)
        self._bytes += _bytes(settlement)
        self._given += 1
        self._wake.set()
        if self._bytes > MOST_BYTES or len(self._waiting) > MOST_SETTLEMENTS:
            self.room.clear()

    async def run(self) -> None:
        """Commit, until cancelled or the mesh is closed. A full mesh is tried again until there is
        room: the deliveries are still leased, or come again when their leases run out."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    self._committing, self._waiting, self._bytes = self._waiting, [], 0
                    told, self._told = self._told, []
                    if not await self._commit(self._committing):
                        return
                    for committed in told:
                        committed()
                    self._kept += len(self._committing)
                    self._committing = ()
                    self.room.set()
                    self._pass()
        finally:
            self._over = True
            self._pass()
            self.room.set()

    def _pass(self) -> None:
        passed, self._passed = self._passed, asyncio.Event()
        passed.set()

    async def _commit(self, settlements: Sequence[Settlement]) -> bool:
        wait = WAIT_S
        while True:
            try:
                point("settle.begun")
                await self.mesh.commit(settlements)
                point("settle.after")
                return True
            except MeshClosed:
                return False
            except MeshFull as error:
                log.error("cannot settle: %s; trying again", error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, MOST_WAIT_S)

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until what came by now is committed, whatever comes meanwhile."""
        until = self._given
        try:
            async with asyncio.timeout(seconds):
                while self._kept < until and not self._over:
                    await self._passed.wait()
        except TimeoutError:
            pass

    async def last(self) -> None:
        """After `run` has ended: one more try for what it left."""
        left = [*self._committing, *self._waiting]
        self._committing, self._waiting, self._bytes = (), [], 0
        if not left:
            return
        try:
            await self.mesh.commit(left)
        except MeshError as error:
            log.error("what finished last is not settled and will run again: %s", error)


def _bytes(settlement: Settlement) -> int:
    """About what it holds in memory that its deliveries do not."""
    total = 0
    for output in settlement.outputs:
        if output.event.data:
            total += len(output.event.data)
    for settled in settlement.settled:
        outcome = settled.outcome
        if type(outcome) is Dead and outcome.letter is not None:
            total += len(outcome.letter.event.data or b"")
    return total
