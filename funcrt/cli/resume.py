"""`funcrt resume`: let a paused function go on."""

from typing import Annotated

import typer

from funcrt.cli.client import client_of
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, line

__all__ = ["app", "resume"]

app = typer.Typer()


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Let a paused function go on.

    Example: funcrt resume label

    Events that waited are taken up again.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    found = client.post("functions", name, "resume", body={})
    if json:
        json_line(found)
    else:
        line(f"{name} goes on" if found["changed"] else f"{name} was not paused")
