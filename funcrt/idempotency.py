"""Idempotency keys of one version's trigger: an event whose key a call has succeeded for is not
called for again, and one whose key is with a call waits for what becomes of it.

The mesh remembers the keys, with the settlements that left them. What is in flight is known to the
host alone, over all versions of a function.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from funcrt.manifest import IdempotencySpec
from mesh.errors import MeshCorrupt, MeshError
from mesh.event import Event
from mesh.transport import Delivery, Done, DoneKey, Released, Retry, Settlement
from triggers import values_of

if TYPE_CHECKING:
    from funcrt.function import Function, Served

__all__ = ["HELD", "HELD_BYTES", "Gate", "InFlight", "key_reader"]

HELD = 256
"""Events of a trigger that wait in memory for the call with their key; what comes then is given
back, to come again."""
HELD_BYTES = 4 << 20
BACK_S = 1.0
"""How long it stays away."""
MISSING_S = 60.0
"""Events without a key are told of no more often."""

KeyReader = Callable[[Event], str | None]


def key_reader(key: str) -> KeyReader:
    """What reads an event's key as text: `id` is source and id, another name that attribute, a path
    the value in the data, or the values, as JSON. None where there is none, or null."""
    if key == "id":
        return lambda event: f"{event.source}\0{event.id}"
    if not key.startswith("$"):
        return lambda event: _text([event.attribute(key)])
    find = values_of(key)
    return lambda event: _text(find(event))


def _text(values: Sequence[object]) -> str | None:
    if all(value is None for value in values):
        return None
    return json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)


class InFlight:
    """The keys of a subscription that are with calls, or whose settlements are on their way."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[Callable[[], None]]] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    def take(self, key: bytes) -> bool:
        """Have it, until it is freed; False where another does."""
        if key in self._waiting:
            return False
        self._waiting[key] = []
        return True

    def wait(self, key: bytes, freed: Callable[[], None]) -> None:
        """Be told once it is free."""
        self._waiting[key].append(freed)

    def free(self, key: bytes) -> None:
        """Another may have it."""
        for freed in self._waiting.pop(key):
            freed()


class Gate:
    """What of a trigger's deliveries is called for, and when."""

    def __init__(self, function: "Function", served: "Served", spec: IdempotencySpec) -> None:
        self.function = function
        self.served = served
        self.spec = spec
        self.closed = False
        """Whether what waits is about to be given back."""
        self._read = key_reader(spec.key)
        self._salt = f"{served.name}\0{spec.key}\0".encode()
        self._running = function.host.in_flight.setdefault(served.name, InFlight())
        self._keys: dict[int, tuple[bytes, bool]] = {}
        """Of what was admitted, by its fence; and whether it has the key in flight."""
        self._held: dict[int, Delivery] = {}
        self._bytes = 0
        self._freed: list[Delivery] = []
        """Held before: their keys are free."""
        self._told, self._untold = float("-inf"), 0

    # In

    async def admit(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those to be called for now. The others are settled, or kept until their key is free."""
        admitted: list[Delivery] = []
        asked: list[tuple[Delivery, bytes]] = []
        for delivery in deliveries:
            text = self._read(delivery.event)
            if text is None:
                self._unkeyed(delivery.event)
                admitted.append(delivery)
                continue
            key = hashlib.blake2b(
                self._salt + text.encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()
            if delivery.replay:  # on purpose: it asks nobody, and leaves its key all the same
                self._keys[delivery.fence] = key, self._running.take(key)
                admitted.append(delivery)
            elif self._running.take(key):
                asked.append((delivery, key))
            else:
                self._hold(delivery, key)
        if not asked:
            return admitted
        try:
            mesh = self.function.host.mesh
            known = await mesh.done_keys(self.served.name, [key for _, key in asked])
        except BaseException:
            for delivery in (*admitted, *(each for each, _ in asked)):
                self.function.settle_as(delivery, Released())
            for _, key in asked:
                self._running.free(key)
            raise
        for (delivery, key), done in zip(asked, known, strict=True):
            if done:
                self.function.deduplicated(delivery)
                self._running.free(key)
            else:
                self._keys[delivery.fence] = key, True
                admitted.append(delivery)
        return admitted

    def _unkeyed(self, event: Event) -> None:
        now = self.function.host.clock.monotonic()
        if now - self._told < MISSING_S:
            self._untold += 1
            return
        self.function.diary.unkeyed(event, self.spec.key, self._untold)
        self._told, self._untold = now, 0

    def _hold(self, delivery: Delivery, key: bytes) -> None:
        size = len(delivery.event.data or b"")
        if len(self._held) >= HELD or self._bytes + size > HELD_BYTES:
            self.function.settle_as(delivery, Retry(BACK_S, charge=False))
            return
        self._held[delivery.fence] = delivery
        self._bytes += size
        self._running.wait(key, lambda: self._wake(delivery))

    def _wake(self, delivery: Delivery) -> None:
        if self._held.pop(delivery.fence, None) is None:
            return  # given back meanwhile
        self._bytes -= len(delivery.event.data or b"")
        self._freed.append(delivery)
        if len(self._freed) == 1 and not self.closed:
            self.function.start_task(self._again(), f"keys {self.served.name}")

    async def _again(self) -> None:
        """In order, so that the first of a key is the next to have it."""
        some, self._freed = self._freed, []
        try:
            admitted = await self.admit(some)
        except MeshCorrupt:
            raise
        except MeshError as error:
            self.served.trouble = str(error)  # they went back
            return
        self.function.submit(self.served, admitted)

    # Out

    def settling(self, settlement: Settlement) -> tuple[Settlement, Callable[[], None] | None]:
        """What it is to be committed as; and what is to be called once it is."""
        left: list[DoneKey] = []
        over: list[bytes] = []
        for settled in settlement.settled:
            key, owned = self._keys.pop(settled.delivery.fence, (b"", False))
            if key and type(settled.outcome) is Done:
                left.append(DoneKey(key, self.spec.ttl_s))
            if owned:
                over.append(key)
        if left:
            settlement = msgspec.structs.replace(settlement, done_keys=tuple(left))
        if not over:
            return settlement, None

        def committed() -> None:
            for key in over:
                self._running.free(key)

        return settlement, committed

    def held(self) -> Iterator[Delivery]:
        """What waits here, and whose leases are to last."""
        yield from self._held.values()
        yield from self._freed

    def give_back(self) -> None:
        """Give back what waits. By who has ended the tasks that admit."""
        waiting = list(self.held())
        self._held.clear()
        self._freed.clear()
        self._bytes = 0
        for delivery in waiting:
            self.function.settle_as(delivery, Released())
