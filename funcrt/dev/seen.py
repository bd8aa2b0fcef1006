"""The last event that was published, and what the functions' filters say of it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter

from funcrt.dev.show import named
from funcrt.host import Host
from funcrt.manifest_kinds import OWN_NAMES
from funcrt.text import safe
from funcrt.why import told
from mesh.event import Event

__all__ = ["Seen"]

PAGE = 1000
OUTPUTS = "/funcrt/"
"""Sources of what functions return begin so."""


class Seen:
    """Looks on at a host's routing."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.last: tuple[str, Event] | None = None
        """Of the topics that a function reads: topic and event."""
        self.at = host.clock.time()
        """When that was; at first, since when there was none."""

    def route(self, topic: str, event: Event) -> list[str]:
        """As the host's router has it."""
        if not topic.startswith(OWN_NAMES):
            self.last, self.at = (topic, event), self.host.clock.time()
        return self.host.router.route(topic, event)

    async def why(self) -> list[str]:
        """Which functions' triggers take the last event, and on what condition others do not: first
        those that read its topic. Raises MeshError."""
        last = await self._unread() or self.last
        return ["no event was published yet"] if last is None else list(self._told(*last))

    async def _unread(self) -> tuple[str, Event] | None:
        """An event that came later, to a topic that no function reads. Outputs are none that
        somebody asks about: they would hide the event that led to them."""
        host = self.host
        found: list[tuple[float, str, Event]] = []
        start = datetime.fromtimestamp(self.at, UTC).isoformat()
        for topic in await host.mesh.topics():
            if not host.router.serves(topic) and not topic.startswith(OWN_NAMES):
                page = await host.mesh.read(topic, start, PAGE)
                theirs = [each for each in page if not each.event.source.startswith(OUTPUTS)]
                found += [(each.published_at, topic, each.event) for each in theirs[-1:]]
        _, topic, event = max(found, key=itemgetter(0), default=(0.0, "", None))
        return (topic, event) if event is not None else None

    def _told(self, topic: str, event: Event) -> Iterator[str]:
        verdicts = self.host.observation.explain(event, topic=topic)
        reading = [one for one in verdicts if any(t.topic == topic for t in one.triggers)]
        taking = sum(any(t.holds for t in one.triggers) for one in reading)
        yield (
            f"{named(event)} on {safe(topic)}: {len(reading)} of {len(verdicts)}"
            f" read the topic, {taking or 'none'} {'take' if taking > 1 else 'takes'} it"
        )
        for one in reading:
            for trigger in one.triggers:
                for line in told(one.name, trigger):
                    yield f"  {line}"
        others: dict[str, list[str]] = {}
        for one in verdicts:
            if one not in reading:
                topics = sorted({trigger.topic for trigger in one.triggers})
                others.setdefault(", ".join(topics), []).append(one.name)
        for theirs, names in others.items():
            reads = f"read {safe(theirs)}" if theirs else "read no topic"
            yield f"  ✗ {', '.join(names)}  {reads}"
