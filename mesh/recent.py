"""The newest chunks of all topics, at hand for those that tail them."""

from collections import deque

from mesh.records import Chunk

__all__ = ["Recent"]

MOST_BYTES = 8 << 20
COST = 1000  # of a chunk, perhaps the only one of its topic, beside its body


class Recent:
    """As many as there is room for; the oldest of any topic goes first."""

    def __init__(self) -> None:
        self._topics: dict[str, deque[Chunk]] = {}
        self._order: deque[str] = deque()
        self._bytes = 0

    def add(self, topic: str, chunk: Chunk) -> None:
        """Keep the topic's newest."""
        kept = self._topics.get(topic)
        if kept is None:
            kept = self._topics[topic] = deque()
        kept.append(chunk)
        self._order.append(topic)
        self._bytes += len(chunk.body) + COST
        while self._bytes > MOST_BYTES:
            oldest = self._order.popleft()
            self._bytes -= len(self._topics[oldest].popleft().body) + COST
            if not self._topics[oldest]:
                del self._topics[oldest]

    def read(self, topic: str, offset: int, limit: int) -> list[Chunk] | None:
        """Up to `limit` of the topic's from the one that holds `offset` on; None where that is
        older."""
        kept = self._topics.get(topic)
        if not kept or kept[0].first > offset:
            return None
        found: list[Chunk] = []
        for chunk in reversed(kept):
            found.append(chunk)
            if chunk.first <= offset:
                break
        found.reverse()
        return found[:limit]
