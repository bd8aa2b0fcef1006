"""Sum up what happened, a batch of events at a time."""

from collections import Counter

from funcrt import Event


def handler(events: list[Event]) -> dict[str, object]:
    """One summary a batch, however many events came within the trigger's `batch.wait`."""
    types = Counter(event.type.removeprefix("com.github.") for event in events)
    sources = {event.source.rpartition("/repos/")[2] for event in events}
    return {"events": len(events), "types": dict(types.most_common()), "from": sorted(sources)}
