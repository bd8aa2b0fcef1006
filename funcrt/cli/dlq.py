"""`funcrt dlq`: the dead letters of a function."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import clock, json_line, line, note, rows, safe

__all__ = ["app", "ls", "replay", "show"]

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("ID", "FUNCTION", "DIED", "ATTEMPTS", "TYPE", "EVENT", "REASON")
PAGE = 500

Name = Annotated[str, typer.Argument(metavar="NAME", help="The function.")]


@app.callback()
def dlq() -> None:
    """List, show and replay dead letters.

    Example: funcrt dlq ls resize
    """


@app.command()
def ls(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The function; all where left out.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 1000,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first.

    Example: funcrt dlq ls resize --json | jq -r .event.id
    """
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    names = [name] if name else [each["name"] for each in client.get("functions")["functions"]]
    table = []
    left = limit
    for each in names:
        for letter in _letters(client, each, left):
            left -= 1
            if json:
                json_line({"function": each, **letter})
            else:
                table.append(_row(each, letter))
    if not json:
        rows(COLUMNS, table, right="ID ATTEMPTS")
        if not table:
            note("no dead letters")


@app.command()
def show(
    name: Name,
    *,
    id_: Annotated[int, typer.Option("--id", help="The dead letter's ID, from `dlq ls`.")],
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Show one dead letter whole: why it died, and its event.

    Example: funcrt dlq show resize --id 3
    """
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    found = client.get("functions", name, "dlq", after=max(0, id_ - 1), limit=1)["dead_letters"]
    if not found or found[0]["id"] != id_:
        raise CliError(f"{name} has no dead letter {id_}", f"funcrt dlq ls {name}")
    letter = found[0]
    if json:
        json_line({"function": name, **letter})
        return
    line(f"dead letter  {letter['id']} of {letter['subscription']}")
    line(f"died         {clock(letter['died_at'])}, after {letter['attempts']} attempts")
    line(f"kept in      {letter['letter_topic'] or '-'} {letter['letter_position']}")
    first, *rest = str(letter["reason"]).splitlines() or [""]
    line(f"reason       {safe(first)}")
    for each in rest:
        line(f"             {safe(each)}")
    line("event")
    pretty = msgspec.json.format(msgspec.json.encode(letter["event"]), indent=2)
    for each in pretty.decode().splitlines():
        line(f"  {safe(each)}")
    if sys.stdout.isatty():
        note(f"try: funcrt dlq replay {name} --id {id_}")


@app.command()
def replay(
    name: Name,
    *,
    id_: Annotated[
        list[int] | None, typer.Option("--id", help="A dead letter's ID; may be repeated.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead letters of the function.")] = False,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> int:
    """Queue dead letters again.

    Example: funcrt dlq replay resize --id 3 --id 4
    """
    if bool(id_) == all_:
        raise CliError(
            "say which dead letters: either --id (may be repeated) or --all",
            f"funcrt dlq replay {name} --all",
            USAGE,
        )
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    body = {"all": True} if all_ else {"ids": id_}
    count: int = client.post("functions", name, "dlq", "replay", body=body)["replayed"]
    if json:
        json_line({"function": name, "replayed": count})
    else:
        line(f"{name}: {count} replayed")
    missed = 0 if all_ else len(set(id_ or ())) - count
    if missed > 0:
        raise CliError(f"{missed} of them are no dead letters of {name}", f"funcrt dlq ls {name}")
    return 0


def _letters(client: AdminClient, name: str, limit: int) -> Iterator[dict[str, Any]]:
    """Page by page, so that a million of them need no memory."""
    after = 0
    while limit > 0:
        page = client.get("functions", name, "dlq", after=after, limit=min(PAGE, limit))
        found = page["dead_letters"]
        yield from found
        if not found:
            return
        limit -= len(found)
        after = found[-1]["id"]


def _row(name: str, letter: dict[str, Any]) -> tuple[Any, ...]:
    event = letter["event"]
    reason = str(letter["reason"]).strip().splitlines() or [""]
    return (
        letter["id"],
        name,
        clock(letter["died_at"]),
        letter["attempts"],
        event["type"],
        event["id"],
        reason[0],
    )
