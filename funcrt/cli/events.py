"""Events as commands are given them: in a file or on standard input, one or many."""

import asyncio
import os
import sys

from funcrt.cli.reading import batches
from mesh.event import Event

__all__ = ["read_events"]


def read_events(*files: str, jsonl: bool = False) -> list[Event]:
    """All events of files, `-` for standard input: JSON, an array of it, or JSON lines. Raises
    CliError, which names the place."""
    return asyncio.run(_all(files, jsonl))


async def _all(files: tuple[str, ...], jsonl: bool) -> list[Event]:
    found: list[Event] = []
    for file in files:
        name = file.removeprefix("@")
        fd = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY)
        try:
            async for some in batches(fd, "<stdin>" if name == "-" else name, jsonl=jsonl):
                found += some
        finally:
            if name != "-":
                os.close(fd)
    return found
