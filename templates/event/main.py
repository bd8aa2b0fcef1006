"""Size up an order."""

from funcrt import Context, Event


def handler(event: Event, ctx: Context) -> dict[str, object]:
    """What is returned is published to the output topic."""
    order = event.json()
    ctx.log.info("order %s", order["id"])
    return {"id": order["id"], "size": "large" if order["total"] > 100 else "small"}
