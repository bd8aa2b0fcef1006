"""The host: what joins the mesh, the functions and the gateway.

As yet it serves the mesh alone: no function can be deployed to it, and it refuses to be given any
rather than take them and not run them.
"""

from collections.abc import Sequence
from pathlib import Path

from funcrt.api import FunctionStatus, HostState, Reply, Route
from funcrt.errors import DeployError, FunctionUnknown
from mesh.event import Event
from mesh.transport import DeadLetter, Receipt, Transport

__all__ = ["Host"]


class Host:
    """A running host on an open mesh, which it does not close."""

    def __init__(self, mesh: Transport) -> None:
        self.mesh = mesh
        self.state: HostState = "starting"

    def deploy(self, directories: Sequence[Path]) -> None:
        """Put functions into service. Raises DeployError for any: running them is not built."""
        for directory in directories:
            for found in (directory, *sorted(directory.iterdir())):
                if (found / "main.py").is_file() or (found / "funcrt.toml").is_file():
                    raise DeployError(
                        f"{found} is a function, and this version runs none yet; "
                        "give an empty directory to serve the mesh alone"
                    )

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        """As HostApi says."""
        return await self.mesh.publish(topic, events)

    async def call(
        self, function: str, event: Event, *, trigger: str = "http", timeout_s: float | None = None
    ) -> Reply:
        """As HostApi says."""
        raise FunctionUnknown(function)

    def route(self, path: str) -> Route | None:
        """As HostApi says."""
        return None

    async def functions(self) -> list[FunctionStatus]:
        """As HostApi says."""
        return []

    async def dead_letters(
        self, function: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """As HostApi says."""
        raise FunctionUnknown(function)

    async def redrive(self, function: str, ids: Sequence[int] | None) -> int:
        """As HostApi says."""
        raise FunctionUnknown(function)
