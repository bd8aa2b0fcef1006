"""`funcrt tail`: a topic's events as they come."""

import asyncio
import shutil
import sys
from typing import Annotated

import msgspec
import typer

from funcrt.cli.errors import UNREACHABLE, CliError
from funcrt.cli.options import Data, Json, Mesh, Namespace, Place, place
from funcrt.cli.output import clock, line, moment, safe
from mesh.event import Event
from mesh.schemes import connect
from mesh.transport import Logged, check_name

__all__ = ["app", "tail"]

app = typer.Typer()

DATA_SHOWN = 2000
"""Bytes of an event's data that a line shows in a pipe; `--json` has them all."""


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    *,
    start: Annotated[
        str,
        typer.Option("--from", help="earliest, new, a time (RFC 3339), or @ and a position."),
    ] = "new",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")] = None,
    data: Data = None,
    mesh: Mesh = None,
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Show a topic's events as they come. Ctrl-C ends it.

    Example: funcrt tail thumbs --from earliest --limit 10 --json

    A line is: time, type, id, source, data; on a terminal source and data are on a second where one
    is too short.
    """
    check_name("topic", topic)
    where = place(data, mesh, namespace)
    if where.default_mesh_missing:
        raise CliError(
            f"there is no mesh at {where.data.mesh_file}",
            "funcrt serve DIR\nfuncrt tail TOPIC --data DIR   # where the host runs",
            UNREACHABLE,
        )
    asyncio.run(_tail(where, topic, start, limit, json))


async def _tail(where: Place, topic: str, start: str, limit: int | None, json: bool) -> None:
    transport = await connect(where.mesh_url, namespace=where.namespace)
    try:
        left = limit
        async for logged in transport.tail(topic, start):
            line(as_json(logged) if json else as_line(logged))
            if left is not None:
                left -= 1
                if left == 0:
                    return
    finally:
        await transport.close()


def as_json(logged: Logged) -> str:
    """One line of `--json`: topic, position, published_at, event."""
    row = {
        "topic": logged.topic,
        "position": logged.position,
        "published_at": logged.published_at,
        "event": msgspec.Raw(logged.event.to_json()),
    }
    return msgspec.json.encode(row).decode()


def as_line(logged: Logged) -> str:
    """One line for people, two where a terminal is too narrow: nothing is cut."""
    event = logged.event
    parts = [clock(logged.published_at), event.type, event.id, event.source, _shown(event)]
    if not sys.stdout.isatty():
        return "\t".join(safe(part) for part in parts)
    parts[0] = moment(logged.published_at)
    width = shutil.get_terminal_size().columns
    text = "  ".join(safe(part) for part in parts).rstrip()
    if len(text) <= width:
        return text
    head, rest = ("  ".join(safe(part) for part in some) for some in (parts[:3], parts[3:]))
    return f"{head}\n    {rest}".rstrip()


def _shown(event: Event) -> str:
    if event.data is None:
        return ""
    try:
        text = event.data[:DATA_SHOWN].decode()
    except UnicodeDecodeError:
        return f"<{len(event.data)} bytes of {event.datacontenttype or 'unknown type'}>"
    return text if len(event.data) <= DATA_SHOWN else text + "…"
