"""Breaks of idempotency keys."""

from collections.abc import Sequence

from mesh.transport import DoneKey, Gone, Settlement
from tests.mesh.broken.base import Broken, breaks, change


@breaks("a_done_key_is_remembered_for_its_time")
class RemembersAKeyForGood(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return await kept(self, settlements, 1e9)


@breaks("a_done_key_is_remembered_for_its_time")
class LosesKeys(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit([change(s, done_keys=()) for s in settlements])
        return found


@breaks("a_done_key_is_remembered_for_its_time")
class SharesKeys(Broken):
    """All subscriptions know those of any."""

    async def done_keys(self, name: str, keys: Sequence[bytes]) -> list[bool]:
        each = [await self.inner.done_keys(one, keys) for one in self.inner.engine.queues]
        return [any(found) for found in zip(*each, strict=True)]


class Apart(Broken):
    """Keeps keys beside the store, in memory."""

    def __init__(self, inner: object, opened: int) -> None:
        super().__init__(inner, opened)
        self.kept: set[tuple[str, bytes]] = set()

    def keep(self, settlements: Sequence[Settlement]) -> None:
        self.kept |= {(one.subscription, each.key) for one in settlements for each in one.done_keys}

    async def done_keys(self, name: str, keys: Sequence[bytes]) -> list[bool]:
        return [(name, key) in self.kept for key in keys]


@breaks("a_settle_without_effect_leaves_no_key", "a_removed_subscription_forgets_its_keys")
class KeepsKeysBeforeItSettles(Apart):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        self.keep(settlements)
        found: list[Gone] = await self.inner.commit(settlements)
        return found


@breaks("a_done_key_and_its_settle_are_one_over_a_crash")
class ForgetsKeysAtRestart(Apart):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        found: list[Gone] = await self.inner.commit(settlements)
        self.keep(settlements)
        return found


async def kept(broken: Broken, settlements: Sequence[Settlement], ttl_s: float) -> list[Gone]:
    """Commit with another time for each key."""
    anew = [
        change(one, done_keys=tuple(DoneKey(each.key, ttl_s) for each in one.done_keys))
        for one in settlements
    ]
    found: list[Gone] = await broken.inner.commit(anew)
    return found
