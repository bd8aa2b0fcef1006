"""Add up an order: its data comes decoded and checked, and so goes out."""

from dataclasses import dataclass


@dataclass
class Order:
    """What an event must hold; one that does not becomes a dead letter."""

    id: str
    prices: list[float]


@dataclass
class Receipt:
    """What is published."""

    order: str
    total: float


async def handler(order: Order) -> Receipt:
    """One receipt an order."""
    return Receipt(order.id, round(sum(order.prices), 2))
