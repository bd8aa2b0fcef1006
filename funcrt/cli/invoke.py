"""`funcrt invoke`: call a function once, here or in a running host."""

import asyncio
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from funcrt.cli import invoked
from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.options import (
    DataDirOnly,
    Install,
    Json,
    SecretsDir,
    Socket,
    check_secrets,
    place,
)
from mesh.event import Event

__all__ = ["app", "directory_of", "invoke"]

app = typer.Typer()

TYPE = "funcrt.invoke"


@app.command()
def invoke(
    function: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="A function's name, or its directory.")
    ],
    event: Annotated[
        str | None,
        typer.Argument(metavar="@FILE|-", help="A file with an event, or stdin.", show_default=""),
    ] = None,
    *,
    sample: Annotated[
        str | None,
        typer.Option(metavar="SAMPLE", help="A sample event: events/SAMPLE.json, or its number."),
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="Type of an event made here.", show_default="the trigger's"),
    ] = None,
    payload: Annotated[
        str | None, typer.Option("--data", help="Its data: JSON, or else text.")
    ] = None,
    local: Annotated[
        bool | None,
        typer.Option(
            "--local/--remote",
            help="Here, or in the running host.",
            show_default="here where the directory is",
        ),
    ] = None,
    later: Annotated[
        bool, typer.Option("--async", help="Queue the call in the host; wait for nothing.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Call so many times.")] = 1,
    secrets: SecretsDir = None,
    install: Install = True,
    data_dir: DataDirOnly = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> int:
    """Call a function once.

    Example: funcrt invoke functions/label --sample large

    Example: funcrt invoke label --data '{"total": 12}' --remote

    Here it runs in the sandbox that a host would run it in, without a mesh: what it returns is
    shown, and published nowhere. In a host it is a call like any over HTTP.
    """
    directory = directory_of(function)
    if local and directory is None:
        raise CliError(
            f"no function's directory is named {function}, here or in ./functions",
            "funcrt invoke ./functions/NAME --local",
            USAGE,
        )
    if later and local:
        raise CliError("--async queues a call in a host, and cannot be --local", code=USAGE)
    here = (directory is not None and not later) if local is None else local
    events = _events(function, directory, event, sample=sample, type_=type_, payload=payload)
    if here:
        assert directory is not None
        check_secrets(secrets)
        packages = place(data_dir).data.packages if install else None
        return asyncio.run(
            invoked.here(directory, [events], repeat, json, secrets=secrets, packages=packages)
        )
    name = function
    if directory is not None:
        from funcrt.manifest import load_manifest

        name = load_manifest(directory).name
    socket = place(data_dir, admin_socket=admin_socket).admin_socket
    return invoked.there(socket, name, events, repeat, later=later, json=json)


def directory_of(function: str) -> Path | None:
    """The function's directory: a path, or a name in ./functions or here."""
    places = [Path(function)]
    if "/" not in function:
        places = [Path("functions") / function, Path(function)]
    for place_ in places:
        if (place_ / "main.py").is_file() or (place_ / "funcrt.toml").is_file():
            return place_
    if "/" in function or function in (".", ".."):
        raise CliError(
            f"{function} is no function's directory: it has no main.py",
            "funcrt invoke ./functions/NAME",
            USAGE,
        )
    return None


def _events(
    function: str,
    directory: Path | None,
    given: str | None,
    *,
    sample: str | None,
    type_: str | None,
    payload: str | None,
) -> list[Event]:
    """The one event, or those of a batch."""
    ways = {"an event's file": given, "--sample": sample, "--data or --type": payload or type_}
    named = [name for name, value in ways.items() if value is not None]
    if len(named) > 1:
        raise CliError(f"{named[0]} and {named[1]} are two events; give one", code=USAGE)
    if payload is not None or type_ is not None:
        return [_made(directory, type_, payload)]
    if given is not None:
        return _read(given)
    from funcrt.testing.samples import SampleInvalid, read_samples, sample_files

    files = sample_files(directory) if directory is not None else []
    try:
        samples = [each for file in files for each in read_samples(file)]
    except SampleInvalid as error:
        raise CliError(str(error), code=USAGE) from None
    names = [each.name for each in samples]
    if sample is None and len(samples) == 1:
        return samples[0].events
    if sample is None:
        first = f"--sample {names[0]}" if names else "--data '{\"n\": 1}'"
        there = f"; its samples: {', '.join(names)}" if names else ""
        raise CliError(f"no event is given{there}", f"funcrt invoke {function} {first}", USAGE)
    if sample.isdecimal() and sample not in names and 0 < int(sample) <= len(samples):
        return samples[int(sample) - 1].events
    if sample not in names:
        from funcrt.errors import nearest

        near = nearest(sample, names)
        mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise CliError(f"no sample is named {sample!r}; {mend}", code=USAGE)
    return samples[names.index(sample)].events


def _made(directory: Path | None, type_: str | None, payload: str | None) -> Event:
    import msgspec

    body: object = payload
    if payload is not None:
        try:
            body = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            if payload.lstrip()[:1] in ("{", "["):
                raise CliError("--data begins as JSON does, and is not JSON", code=USAGE) from None
    return Event.create(type_ or _wanted(directory), body, source="/cli", id=str(uuid.uuid4()))


def _wanted(directory: Path | None) -> str:
    """The type that a trigger asks for, where it asks for one."""
    if directory is not None:
        from funcrt.manifest import MeshTrigger, load_manifest

        for trigger in load_manifest(directory).triggers:
            for each in trigger.filters if isinstance(trigger, MeshTrigger) else ():
                wanted = each.get("exact", {}).get("type")
                if isinstance(wanted, str):
                    return wanted
    return TYPE


def _read(given: str) -> list[Event]:
    """`-`, `@file`, or a file."""
    import json

    from mesh.errors import EventError

    name = "<stdin>" if given == "-" else given.removeprefix("@")
    text = sys.stdin.buffer.read() if given == "-" else Path(name).read_bytes()
    try:
        value = json.loads(text.decode("utf-8-sig"))
        many: Sequence[object] = value if isinstance(value, list) else [value]
        found = [Event.from_json(json.dumps(one).encode()) for one in many]
    except (ValueError, RecursionError) as error:
        raise CliError(f"{name}: not JSON: {error}", code=USAGE) from None
    except EventError as error:
        raise CliError(f"{name}: {error}", code=USAGE) from None
    if not found:
        raise CliError(f"{name}: an empty array, expected events", code=FAILED)
    return found
