"""Breaks of dead letters and replays."""

from collections.abc import Sequence
from typing import Any

from mesh.transport import (
    Dead,
    Delivery,
    Gone,
    Settled,
    Settlement,
)
from tests.mesh.broken.base import Broken, breaks, change, outcomes


@breaks(
    "a_dead_letter_is_kept_and_listed",
    "a_dead_letter_survives_a_crash",
)
class LosesDeadLetters(Broken):
    async def commit(self, settlements: Sequence[Settlement]) -> list[Gone]:
        return await outcomes(self, settlements, self._dropped)

    def _dropped(self, each: Settled) -> Settled:
        if isinstance(each.outcome, Dead):
            return change(each, outcome=Dead(each.outcome.reason, None))
        return each


@breaks("a_redriven_event_passes_deduplication", "a_redriven_event_may_die_again")
class RedrivesIntoTheTopic(Broken):
    """So deduplication swallows it."""

    async def redrive(self, name: str, ids: Sequence[int], replay_id: str) -> int:
        letters = [one for one in await self.inner.dead_letters(name) if one.id in ids]
        for letter in letters:
            await self.inner.publish("in", [letter.event])
        count: int = await self.inner.discard(name, ids)
        return count


@breaks("a_replay_queues_a_range_again", "a_replay_survives_a_crash")
class LosesTheReplayId(Broken):
    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        return [change(d, replay="") for d in await super().pull(feed, max_n, wait, size)]


@breaks("a_replay_made_twice_counts_once", "a_replay_survives_a_crash")
class ReplaysAgainUnderTheSameId(Broken):
    async def replay(self, name: str, start: str, end: str, replay_id: str) -> int:
        self.count = self.__dict__.get("count", self.opened * 100) + 1
        fresh = f"{replay_id}\0{self.count}" if replay_id else ""
        count: int = await self.inner.replay(name, start, end, fresh)
        return count

    async def pull(self, feed: Any, max_n: int, wait: float, size: int) -> list[Delivery]:
        got = await super().pull(feed, max_n, wait, size)
        return [change(d, replay=d.replay.split("\0")[0]) for d in got]
