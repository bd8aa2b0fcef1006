"""`funcrt dev`: a host beside the editor."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import (
    AllowIsolation,
    Data,
    Install,
    Isolation,
    SecretsDir,
    check_directories,
    check_secrets,
    place,
)
from funcrt.config import DevConfig, ServeConfig
from funcrt.sandbox.levels import Policy

__all__ = ["app", "dev"]

app = typer.Typer()
DEBUG_PORT = 5678
"""debugpy's own default, which editors suggest."""
DRAIN_S = 5.0
"""For calls in flight at the end: nobody waits for them but the author."""


class DevCommand(TyperCommand):
    """`--debug` takes a port, or none; what `--ui` would open does not exist."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's own."""
        if "--ui" in args:
            raise CliError(
                "there is no dashboard: dev has no --ui",
                "funcrt stats   # or logs NAME --follow, dlq ls NAME, and dev's key f",
                USAGE,
            )
        if "--debug" in args:
            after = args.index("--debug") + 1
            if not "".join(args[after : after + 1]).lstrip("-").isdecimal():
                args.insert(after, str(DEBUG_PORT))
        return super().parse_args(ctx, args)


@app.command(cls=DevCommand)
def dev(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...",
            help="Functions, or directories of them.",
            show_default="./functions, or .",
        ),
    ] = None,
    *,
    port: Annotated[
        int, typer.Option(help="Port of the gateway; 0 for any.", min=0, max=65535)
    ] = 8080,
    env_file: Annotated[
        Path | None,
        typer.Option(
            help="NAME=value lines for all functions' environment.",
            show_default="./.env",
            metavar="FILE",
        ),
    ] = None,
    debug: Annotated[
        int | None,
        typer.Option(
            help="Wait for a debugger on this port, 5678 where none is given and any where 0 is,"
            " before the first call. Needs funcrt[debug].",
            metavar="[PORT]",
            min=0,
            max=65535,
        ),
    ] = None,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="Leave changes alone.")] = False,
    secrets: SecretsDir = None,
    isolation: Isolation = None,
    allow_isolation: AllowIsolation = None,
    install: Install = True,
    data: Data = None,
) -> int:
    """Run functions here, and put each save into service at once. Ctrl-C stops it.

    Example: funcrt dev functions/resize

    Publish to it from another terminal: the mesh in ./.funcrt is the one that `funcrt publish`,
    `tail`, `ls` and `dlq` find there, and is kept from one run to the next.
    """
    from funcrt import dev as runtime

    found = tuple(paths or [Path("functions") if Path("functions").is_dir() else Path()])
    check_directories(
        found, "a function's directory, or one of functions", "funcrt dev ./functions"
    )
    check_secrets(secrets)
    where = place(data)
    serve = ServeConfig(
        functions=found,
        data=where.data,
        mesh_url=where.mesh_url,
        port=port,
        admin_socket=where.admin_socket,
        secrets=secrets,
        drain_s=DRAIN_S,
        policy=Policy.of(isolation, allow_isolation),
        install=install,
        keeps_user=True,
    )
    return runtime.run(
        DevConfig(
            serve=serve,
            reload=not no_reload,
            env_file=env_file,
            debug=debug,
        )
    )
