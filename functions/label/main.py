"""Label an order by its total."""

from funcrt import Event


def handler(event: Event) -> dict[str, str]:
    """One label event an order."""
    total = event.json()["total"]
    return {"label": "large" if total > 100 else "small"}
