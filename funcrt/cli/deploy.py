"""`funcrt deploy`: put functions into service in a running host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from funcrt.cli.client import client_of
from funcrt.cli.deployed import show, show_plan
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Data, HostUrl, Json, Socket, check_directories, place
from funcrt.cli.output import during, json_line, note, safe
from funcrt.text import several

__all__ = ["app", "deploy"]

app = typer.Typer()


@app.command()
def deploy(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Functions, or directories of them.")
    ],
    *,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would change, after the import check.")
    ] = False,
    profile: Annotated[
        str, typer.Option(help="What [profile.NAME] of the manifests changes.", metavar="NAME")
    ] = "",
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Until the versions before have ended what they ran."
        ),
    ] = True,
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Put functions into service in a running host.

    Example: funcrt deploy ./functions/label --plan

    Example: FUNCRT_TOKEN=... funcrt deploy ./functions --host https://mesh.example

    All of them come into service, or none: it exits with 0, or with 1 where the host refused, 2
    where a function has mistakes, 3 where no host answers, and what was in service still is.
    """
    from funcrt.upload import MEDIA_TYPE, encode

    check_directories(paths, "a function, or a directory of them", "funcrt deploy ./functions/NAME")
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    client.timeout_s = None  # it ends with the slowest call of the version before
    head, bundles, configs, needed = _read(paths, profile, plan=plan, wait=wait)
    with during(f"  deps       {several(needed)} …" if needed else ""):
        found = client.upload(encode(head, bundles), MEDIA_TYPE, "deployments")["functions"]
    if json:
        for each in found:
            json_line(each)
    elif plan:
        show_plan(found)
    else:
        show(found, configs)


def _read(paths: Sequence[Path], profile: str, *, plan: bool, wait: bool) -> tuple[Any, ...]:
    """What to send, of each function the line on its manifest, and the packages that they need.
    Raises CliError with every
    mistake that can be found here."""
    from funcrt.bundle import pack
    from funcrt.cautions import cautions
    from funcrt.errors import FuncrtError, mistakes
    from funcrt.manifest import needs_of
    from funcrt.rollout import find_functions, read_manifests
    from funcrt.upload import Head, Upload

    found, passed = find_functions(paths)
    directories = list(dict.fromkeys(found))
    for directory in passed:
        note(f"! {directory} was passed over: it has no main.py of its own")
    if not directories:
        where = ", ".join(map(str, paths))
        raise CliError(
            f"no function in {where}; expected {paths[0]}/main.py or {paths[0]}/NAME/main.py",
            "funcrt new hello   # makes one",
            USAGE,
        )
    manifests, errors = read_manifests(directories, profile)
    uploads, bundles, configs = [], [], {}
    needed: dict[str, None] = {}
    for directory in directories:
        try:
            packed = pack(directory)
        except FuncrtError as error:
            errors.append(error)
            continue
        bundles.append(packed)
        folder = directory.absolute().resolve().name if directory.name in ("", "..") else ""
        uploads.append(
            Upload(
                folder=folder or directory.absolute().name,
                path=str(directory),
                digest=packed.digest,
                size=len(packed.body),
            )
        )
        if directory in manifests:
            for caution in cautions(manifests[directory]):
                note(f"! {safe(caution)}")
            needed |= dict.fromkeys(needs_of(directory, manifests[directory]).names)
            configs[manifests[directory].name] = _config(directory, manifests[directory])
    if errors:
        first, *more = mistakes(errors)
        many = f"{len(more) + 1} mistakes, all of them above" if more else "1 mistake"
        raise CliError(first, code=USAGE, more=more, then=f"{many}; nothing was sent to the host")
    head = Head(functions=uploads, profile=profile, plan=plan, wait=wait)
    return head, bundles, configs, [*needed]


def _config(directory: Path, manifest: Any) -> str:
    names = ("funcrt.toml", "pyproject.toml")
    file = next((name for name in names if (directory / name).exists()), "no manifest")
    count = len(manifest.triggers)
    triggers = "1 trigger" if count == 1 else f"{count} triggers"
    return f"{file} · {triggers} · output {manifest.output.topic or '-'}"
