"""What a system's adapter gives the driver. Imports nothing of funcrt and nothing of a peer's."""

import importlib
from collections.abc import AsyncIterator, Iterable
from types import ModuleType
from typing import Any, Protocol


class Client(Protocol):
    """One connection from outside, which publishes and sees the results."""

    threads: int
    """0: `publish` is awaited. More: the client has only a blocking `send`, called in so many."""

    async def publish(self, number: int, body: bytes) -> None:
        """Publish one event; returns once the system has confirmed it."""

    def send(self, number: int, body: bytes) -> None:
        """The same, blocking."""

    def results(self) -> AsyncIterator[Iterable[bytes]]:
        """The bodies of all results from the start on, some at a time."""

    async def close(self) -> None:
        """Let go of it."""


def adapter(module: str) -> ModuleType | Any:
    """The adapter of a system, by its module's name."""
    return importlib.import_module(f"benchmarks.systems.{module}")
