"""The second of a chain: tell of large orders."""

from funcrt import Event


def handler(event: Event) -> str:
    """Only what costs more than 100 comes here: see funcrt.toml."""
    order = event.json()
    return f"order {order['id']} is large: {order['total']:.2f}"
