"""`funcrt dlq`: the dead letters of a function."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import clock, json_line, line, moment, note, rows, safe

__all__ = ["app", "drop", "letters", "ls", "replay", "show"]

app = typer.Typer(no_args_is_help=True)

GROUPS = ("FUNCTION", "COUNT", "ERROR", "WHERE", "FIRST", "LAST", "IDS")
IDS_SHOWN = 3
COLUMNS = ("ID", "FUNCTION", "DIED", "ATTEMPTS", "TYPE", "EVENT", "REASON")
PAGE = 500

Name = Annotated[str, typer.Argument(metavar="NAME", help="The function.")]


@app.callback()
def dlq() -> None:
    """List, show, replay and drop dead letters.

    Example: funcrt dlq ls resize
    """


@app.command()
def ls(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The function; all where left out.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 1000,
    group: Annotated[
        bool, typer.Option("--group", help="One row for all that failed alike, at one line.")
    ] = False,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first.

    Example: funcrt dlq ls resize --json | jq -r .event.id

    Example: funcrt dlq ls resize --group

    With --group a row tells how many failed alike, most first.
    """
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    names = [name] if name else [each["name"] for each in client.get("functions")["functions"]]
    if group:
        _grouped(client, names, limit, json)
        return
    table = []
    left = limit
    for each in names:
        for letter in letters(client, each, left):
            left -= 1
            if json:
                json_line({"function": each, **letter})
            else:
                table.append(_row(each, letter))
    if not json:
        rows(COLUMNS, table, right="ID ATTEMPTS", fold="EVENT REASON", drop="ATTEMPTS")
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
    return _done(client, name, "replay", "replayed", id_, json)


@app.command()
def drop(
    name: Name,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", help="Dead letters' IDs, of `dlq ls`.")
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All dead letters of the function.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> int:
    """Forget dead letters: they can be replayed no more. The host's audit keeps who did it.

    Example: funcrt dlq drop resize 3 4

    Example: funcrt dlq drop resize --all --yes

    The letters stay in the dead-letter topic for as long as that is kept.
    """
    if bool(ids) == all_:
        raise CliError(
            "say which dead letters: either their IDs or --all", f"funcrt dlq ls {name}", USAGE
        )
    some = f"{len(set(ids))} dead letter{'s' * (len(set(ids)) > 1)}" if ids else "all dead letters"
    if not yes:
        if not sys.stdin.isatty():
            words = "--all" if all_ else " ".join(map(str, ids or ()))
            raise CliError(
                f"{some} of {name} would be dropped for good, and nobody is here to ask",
                f"funcrt dlq drop {name} {words} --yes",
                USAGE,
            )
        sys.stderr.write(f"Drop {some} of {name}, for good? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was dropped")
            return FAILED
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    return _done(client, name, "drop", "dropped", ids, json)


def _done(  # noqa: PLR0917
    client: AdminClient, name: str, act: str, past: str, ids: list[int] | None, json: bool
) -> int:
    """Do it to these dead letters, or to all, and say to how many; the exit code."""
    body = {"ids": ids} if ids else {"all": True}
    count: int = client.post("functions", name, "dlq", act, body=body)[past]
    if json:
        json_line({"function": name, past: count})
    else:
        line(f"{name}: {count} {past}")
    missed = len(set(ids)) - count if ids else 0
    if missed > 0:
        raise CliError(f"{missed} of them are no dead letters of {name}", f"funcrt dlq ls {name}")
    return 0


def _grouped(client: AdminClient, names: list[str], limit: int, json: bool) -> None:
    """What failed with the same exception at the same line, together."""
    table = []
    for name in names:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for letter in letters(client, name, limit, causes=1):
            groups.setdefault((letter["error"], letter["where"]), []).append(letter)
        for (error, where), alike in sorted(groups.items(), key=lambda item: -len(item[1])):
            ids = [letter["id"] for letter in alike]
            died = [letter["died_at"] for letter in alike]
            if json:
                json_line(
                    {"function": name, "count": len(ids), "error": error, "where": where,
                     "reason": alike[-1]["reason"], "first": min(died), "last": max(died),
                     "ids": ids}
                )  # fmt: skip
                continue
            more = f" +{len(ids) - IDS_SHOWN}" if len(ids) > IDS_SHOWN else ""
            shown = ",".join(map(str, ids[:IDS_SHOWN])) + more
            table.append((name, len(ids), error, where or "-", moment(min(died)), moment(max(died)),
                          shown))  # fmt: skip
    if not json:
        rows(GROUPS, table, right="COUNT", fold="ERROR WHERE", drop="FIRST")
        if not table:
            note("no dead letters")


def letters(client: AdminClient, name: str, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
    """A function's dead letters, page by page, so that a million of them need no memory."""
    after = 0
    while limit > 0:
        page = client.get("functions", name, "dlq", after=after, limit=min(PAGE, limit), **query)
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
        moment(letter["died_at"]),
        letter["attempts"],
        event["type"],
        event["id"],
        reason[0],
    )
