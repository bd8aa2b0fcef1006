"""`funcrt rollback`: an earlier version into service again."""

from typing import Annotated

import typer

from funcrt.cli.client import client_of
from funcrt.cli.deployed import show
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line

__all__ = ["app", "rollback"]

app = typer.Typer()


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="v3, or the beginning of a digest.",
            show_default="the one before",
        ),
    ] = "",
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until the version before has ended its calls.")
    ] = True,
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Put an earlier version into service again.

    Example: funcrt rollback label v3

    It comes as a new version with the code and the manifest of the old one. Without VERSION it is
    the last one that differs from what is in service, so twice leads back.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    client.timeout_s = None
    found = client.post("functions", name, "rollback", body={"version": version, "wait": wait})
    if json:
        json_line(found)
    else:
        show([found], {})
