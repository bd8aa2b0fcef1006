"""Count what happened, a batch at a time."""

from collections import Counter

from funcrt import Event


def handler(events: list[Event]) -> dict[str, object]:
    """One summary a batch."""
    counts = Counter(event.type.removeprefix("com.github.") for event in events)
    return {"events": len(events), "types": dict(counts.most_common())}
