"""Every morning, ask for a report."""

from funcrt import Event


def handler(tick: Event) -> dict[str, str]:
    """One event a tick; `scheduled` is the moment that the schedule names."""
    return {"report": "daily", "of": tick.json()["scheduled"][:10]}
