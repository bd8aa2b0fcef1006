"""`funcrt replay`: events that a function had before, once more."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import DataDirOnly, Install, Json, Socket, place
from funcrt.cli.output import json_line, line, note
from funcrt.cli.when import start
from mesh.event import Event

__all__ = ["app", "replay"]

app = typer.Typer()

LAST = 1000


@app.command()
def replay(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH", help="The function, or for --local its directory."),
    ],
    *,
    last: Annotated[
        int | None,
        typer.Option(min=1, max=LAST, metavar="N", help="The last N events that it took."),
    ] = None,
    event: Annotated[
        str | None, typer.Option("--id", metavar="EVENT", help="The event with this id.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="START",
            help="All from then on: 10m, a time, @ and a position, earliest; or dlq: all its dead"
            " letters.",
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="END", help="With --from: only those before then.")
    ] = "now",
    trigger: Annotated[str | None, typer.Option(help="Only what came by this trigger.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Here, in a sandbox; nothing is published.")
    ] = False,
    install: Install = True,
    data_dir: DataDirOnly = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> int:
    """Run a function again on events that it had before.

    Example: funcrt replay resize --last 10

    Example: funcrt replay resize --id cat-1 --local

    The events are taken from the topics its triggers read, as far as these are kept, and queued for
    this function alone; its filters count as they are now. They are not taken for duplicates, and
    what they lead to is published with new ids: consumers get it twice.
    """
    given = {"--last": last, "--id": event, "--from": from_}
    ways = [option for option, value in given.items() if value is not None]
    if len(ways) != 1:
        both = f"{ways[0]} and {ways[1]} are two ways to say it" if ways else "say which events"
        raise CliError(f"{both}: either --last, --id or --from", f"funcrt replay {name} --last 1",
                       USAGE)  # fmt: skip
    if to != "now" and from_ in (None, "dlq"):
        raise CliError("--to goes with --from and a start", code=USAGE)
    directory = _directory(name) if local else None
    where = place(data_dir, admin_socket=admin_socket)
    client, packages = AdminClient(where.admin_socket), where.data.packages if install else None
    if directory is not None:
        from funcrt.manifest import load_manifest

        name = load_manifest(directory).name
    if from_ == "dlq":
        if trigger is not None:
            raise CliError("--trigger does not go with --from dlq", code=USAGE)
        if directory is not None:
            return _here(
                directory, [each["event"] for each in _letters(client, name)], json, packages
            )
        count = client.post("functions", name, "dlq", "replay", body={"all": True})["replayed"]
        return _told(name, {"replayed": count}, json)
    which: dict[str, Any] = {"last": last} if last else {"id": event} if event is not None else {}
    if from_ is not None:
        which = {"from": start("--from", from_), "to": start("--to", to)}
    if trigger is not None:
        which["trigger"] = trigger
    if directory is not None:
        found = client.get("functions", name, "events", **which)
        if found["more"]:
            note("only the first 8 MiB of them")
        return _here(directory, [each["event"] for each in found["events"]], json, packages)
    return _told(name, client.post("functions", name, "replay", body=which), json)


def _told(name: str, done: dict[str, Any], json: bool) -> int:
    if json:
        json_line({"function": name, **done})
    else:
        as_id = f" as {done['replay_id']}" if done.get("replay_id") and done["replayed"] else ""
        line(f"{name}: {done['replayed']} replayed{as_id}")
    if not done["replayed"]:
        note(f"there was nothing that {name} takes")
    return 0


def _letters(client: AdminClient, name: str) -> list[dict[str, Any]]:
    from funcrt.cli.dlq import letters

    return list(letters(client, name, LAST))


def _directory(name: str) -> Path:
    from funcrt.cli.invoke import directory_of

    found = directory_of(name)
    if found is None:
        raise CliError(
            f"no function's directory is named {name}, here or in ./functions",
            "funcrt replay ./functions/NAME --local ...",
            USAGE,
        )
    return found


def _here(directory: Path, events: list[Any], json: bool, packages: Path | None) -> int:
    """Call the directory's function on each, in the sandbox."""
    from funcrt.cli.invoked import here

    if not events:
        note("there is nothing to replay")
        return 0
    found = [Event.from_json(msgspec.json.encode(each)) for each in events]

    calls = [[each] for each in found]
    return asyncio.run(here(directory, calls, 1, json, packages=packages))
