"""`funcrt explain`: which triggers take an event, and why others do not."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.events import read_events
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import folded, json_line, line, marked, note, safe
from funcrt.router import FEW, Router
from funcrt.verdict import FunctionVerdict, Plan, TriggerVerdict
from funcrt.why import as_json, told
from mesh.event import Event

__all__ = ["app", "explain"]

app = typer.Typer()


@app.command()
def explain(
    event: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-",
            help="A file with one event as JSON, or stdin. With --plan it may be left out.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The function; all where left out.")
    ] = None,
    *,
    topic: Annotated[
        str | None, typer.Option(help="The topic it is published to; else only filters count.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Also by what each filter is found among all others.")
    ] = False,
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

    Example: funcrt explain --plan

    Exits with 0 where a trigger takes it, and with 1 where none does.
    """
    asked = _asked(event, name, plan)
    if local:
        verdicts = _here(asked, name, topic or "", local)
    else:
        given = {
            "event": msgspec.Raw(asked.to_json()) if asked else None,
            "topic": topic,
            "function": name,
        }
        body = {key: value for key, value in given.items() if value}
        client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
        verdicts = msgspec.convert(
            client.post("explain", body=body)["functions"], list[FunctionVerdict]
        )
    for one in verdicts:
        _show(one, json, plan)
    if not verdicts:
        note("no function is deployed")
    taken = any(trigger.holds for one in verdicts for trigger in one.triggers)
    return 0 if taken or asked is None else FAILED


def _asked(event: str | None, name: str | None, plan: bool) -> Event | None:
    """The event that is asked about. Raises CliError."""
    if event is None and plan:
        return None
    again = f"funcrt explain event.json {name or ''}".rstrip()
    if event is None:
        raise CliError(
            "no event to explain", f"{again}   # or --plan, for how filters are found", USAGE
        )
    found = read_events(event)
    if len(found) != 1:
        raise CliError(
            f"{event} holds {len(found)} events, expected one",
            f"funcrt filter test {name or 'NAME'} {event}   # counts over many",
            USAGE,
        )
    return found[0]


def _here(
    event: Event | None, name: str | None, topic: str, local: Sequence[Path]
) -> list[FunctionVerdict]:
    from funcrt.cli.options import check_directories
    from funcrt.errors import FunctionUnknown
    from funcrt.manifest import load_manifest
    from funcrt.reach import filter_of, queued
    from funcrt.rollout import find_functions
    from funcrt.verdict import verdict
    from triggers import Filter

    check_directories(local, "a function's directory, or one of them", "--local ./functions")
    directories, _ = find_functions(local)
    manifests = [load_manifest(directory) for directory in directories]
    specs = {one.name: [(spec, filter_of(spec)) for spec in queued(one)] for one in manifests}
    if name is not None and name not in specs:
        raise FunctionUnknown(name, list(specs))
    topics: dict[str, dict[str, Filter]] = {}
    for function, some in specs.items():
        for spec, parsed in some:
            topics.setdefault(spec.topic, {})[f"{function}/{spec.name}"] = parsed
    router = Router(time.time)
    router.update(topics)
    return [
        FunctionVerdict(
            name=function,
            triggers=[
                verdict(spec, parsed, event, topic, router.plan(spec.topic, parsed))
                for spec, parsed in some
            ],
        )
        for function, some in specs.items()
        if name in (None, function)
    ]


def _show(one: FunctionVerdict, json: bool, plan: bool) -> None:
    if json:
        triggers = [_row(trigger, plan) for trigger in one.triggers]
        json_line({"function": one.name, "version": one.version, "triggers": triggers})
        return
    if not one.triggers:
        line(f"{one.name}  no trigger reads a topic")
    for trigger in one.triggers:
        for text in told(one.name, trigger):
            line(marked(text))
        if plan and trigger.plan is not None:
            line(folded(f"  {safe(_planned(trigger.plan))}", 4))


def _row(trigger: TriggerVerdict, plan: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"trigger": trigger.trigger, "topic": trigger.topic}
    if trigger.why is not None:
        row |= {"holds": trigger.holds, "why": as_json(trigger.why)}
    return {**row, "plan": msgspec.to_builtins(trigger.plan)} if plan else row


def _planned(plan: Plan) -> str:
    """In one line, such as `found by type (value), among 12 filters`."""
    how = "; or ".join(plan.found)
    if not plan.indexed:
        rest = "the only filter" if plan.filters == 1 else f"one of {plan.filters} filters"
        return f"tried with every event, as {rest}; among more than {FEW}, {how}"
    return f"{'found' if how.startswith('by') else 'tried'} {how}, among {plan.filters} filters"
