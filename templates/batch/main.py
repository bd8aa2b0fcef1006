"""Mean of readings, a batch of events at a time."""

from funcrt import Event


def handler(events: list[Event]) -> dict[str, float]:
    """One output a batch, of as many events as came within the trigger's `batch.wait`."""
    values = [float(event.json()["value"]) for event in events]
    return {"count": len(values), "mean": sum(values) / len(values)}
