"""The first of a chain: add up an order."""

from typing import TypedDict


class Order(TypedDict):
    """What an event must hold."""

    id: str
    prices: list[float]


def handler(order: Order) -> dict[str, object]:
    """What goes to the topic `priced` reaches tell."""
    return {"id": order["id"], "total": sum(order["prices"])}
