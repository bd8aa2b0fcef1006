"""`funcrt explain`: which triggers take an event, and why others do not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.events import read_events
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import json_line, line, note, safe
from funcrt.cli.verdicts import as_json, shown
from funcrt.verdict import FunctionVerdict
from mesh.event import Event

__all__ = ["app", "explain"]

app = typer.Typer()


@app.command()
def explain(
    event: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A file with one event as JSON, or stdin.")
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The function; all where left out.")
    ] = None,
    *,
    topic: Annotated[
        str | None, typer.Option(help="The topic it is published to; else only filters count.")
    ] = None,
    local: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Not the host's functions but those of a directory; may be repeated.",
        ),
    ] = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> int:
    """Show which triggers take an event, and why others do not.

    Example: funcrt explain events/cat.json resize --topic images

    Example: funcrt tail images --limit 1 --json | jq .event | funcrt explain - --local functions

    Exits with 0 where a trigger takes it, and with 1 where none does.
    """
    found = read_events(event)
    if len(found) != 1:
        raise CliError(
            f"{event} holds {len(found)} events, expected one",
            f"funcrt filter test {name or 'NAME'} {event}   # counts over many",
            USAGE,
        )
    if local:
        verdicts = _here(found[0], name, topic or "", local)
    else:
        asked = {"event": msgspec.Raw(found[0].to_json()), "topic": topic, "function": name}
        body = {key: value for key, value in asked.items() if value}
        client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
        verdicts = msgspec.convert(
            client.post("explain", body=body)["functions"], list[FunctionVerdict]
        )
    taken = [each for one in verdicts for each in one.triggers if each.holds]
    for one in verdicts:
        _show(one, json)
    if not verdicts:
        note("no function is deployed")
    return 0 if taken else FAILED


def _here(
    event: Event, name: str | None, topic: str, local: Sequence[Path]
) -> list[FunctionVerdict]:
    from funcrt.cli.options import check_directories
    from funcrt.errors import FunctionUnknown
    from funcrt.manifest import load_manifest
    from funcrt.reach import filter_of, queued
    from funcrt.rollout import find_functions
    from funcrt.verdict import verdict

    check_directories(local, "a function's directory, or one of them", "--local ./functions")
    directories, _ = find_functions(local)
    manifests = [load_manifest(directory) for directory in directories]
    if name is not None:
        names = [manifest.name for manifest in manifests]
        manifests = [manifest for manifest in manifests if manifest.name == name]
        if not manifests:
            raise FunctionUnknown(name, names)
    return [
        FunctionVerdict(
            name=manifest.name,
            triggers=[verdict(spec, filter_of(spec), event, topic) for spec in queued(manifest)],
        )
        for manifest in manifests
    ]


def _show(one: FunctionVerdict, json: bool) -> None:
    if json:
        triggers = [
            {"trigger": t.trigger, "topic": t.topic, "holds": t.holds, "why": as_json(t.why)}
            for t in one.triggers
        ]
        json_line({"function": one.name, "version": one.version, "triggers": triggers})
        return
    if not one.triggers:
        line(f"{one.name}  no trigger reads a topic")
    for trigger in one.triggers:
        named = f" ({trigger.trigger})" if trigger.trigger != trigger.topic else ""
        head = f"mesh {trigger.topic}{named}"
        line(f"{'✓' if trigger.holds else '✗'} {one.name}  {safe(head)}")
        for text in shown(trigger.why):
            line(text)
