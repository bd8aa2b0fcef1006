"""`funcrt logs`: what a function wrote, and how its calls failed."""

import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import clock, json_line, line, note, paint, safe
from funcrt.cli.when import ago
from funcrt.logbook import LEVELS, LINES
from funcrt.text import frame

__all__ = ["app", "logs"]

app = typer.Typer()

COLOURS = {"debug": "2", "warning": "33", "stderr": "33", "error": "31"}
SHOWN_ID = 24


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what comes. Ctrl-C ends it.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="AGO|TIME", help="Only what is as young: 10m, or a time."),
    ] = None,
    level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="This level and above: debug, info, warning, error."),
    ] = "debug",
    event: Annotated[
        str | None, typer.Option("--id", metavar="EVENT", help="Only of this event's calls.")
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", min=0, max=LINES, metavar="N", help="At most the last N lines.")
    ] = 100,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Show what a function wrote, and how its calls failed.

    Example: funcrt logs resize -f --level warning

    Example: funcrt logs resize --id cat-1 --since 10m

    A line is: time, level, process, version, event, text. The event is that of the call it came
    in; what C code wrote, or a thread of the function's own, has none. A terminal shows neither
    process nor version. The host keeps the last 2000
    lines of each function in memory: a restart forgets them.
    """
    if level not in LEVELS:
        raise CliError(
            f"--level {level}: expected one of {', '.join(LEVELS)}", f"funcrt logs {name}", USAGE
        )
    query: dict[str, Any] = {"limit": limit, "level": level, "id": event or ""}
    if since is not None:
        query["since"] = ago("--since", since)
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    if follow:
        for row in client.stream("functions", name, "logs", follow=1, **query):
            _told(name, row, json)
        note(f"the host has stopped; {name} says no more")
        return
    found = client.get("functions", name, "logs", **query)
    for row in found["lines"]:
        _told(name, row, json)
    if not found["lines"] and not json:
        note(
            f"{name} has said nothing" + (" of that" if since or event or level != "debug" else "")
        )


def _told(name: str, row: dict[str, Any], json: bool) -> None:
    if json:
        json_line({"function": name, **row})
    elif "dropped" in row:
        note(f"({row['dropped']} lines dropped: they came faster than they were taken)")
    elif sys.stdout.isatty():
        for text in _shown(name, row):
            line(text)
    else:
        ids = ",".join(row["events"])
        head = [clock(row["at"]), row["level"], str(row["instance"]), row["version"], ids]
        for text in _texts(name, row):
            line("\t".join(safe(each) for each in (*head, text)))


def _texts(name: str, row: dict[str, Any]) -> Iterator[str]:
    """A line's own lines: of a failed call the author's frames too."""
    first, *rest = row["text"].split("\n")
    yield f"✗ {name} {first}" if row["failed"] else first
    for each in rest:
        yield f"  {frame(each)}" if row["failed"] else each


def _shown(name: str, row: dict[str, Any]) -> Iterator[str]:
    """For a terminal."""
    moment = datetime.fromtimestamp(row["at"]).strftime("%H:%M:%S.%f")[:-3]
    ids = row["events"]
    event = safe(ids[0]) + (f" +{len(ids) - 1}" if len(ids) > 1 else "") if ids else ""
    event = event if len(event) <= SHOWN_ID else f"{event[: SHOWN_ID - 1]}…"
    head = f"{moment}  {row['level']:<7}  {event:<5}  "
    first, *rest = _texts(name, row)
    yield _paint(row["level"], f"{head}{safe(first)}")
    for each in rest:
        yield f"  {safe(each)}"
    if row["failed"]:
        yield f"  event: funcrt replay {name} --id {shlex.quote(ids[0])} --local"


def _paint(level: str, text: str) -> str:
    return paint(COLOURS[level], text) if level in COLOURS else text
