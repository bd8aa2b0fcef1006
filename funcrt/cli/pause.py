"""`funcrt pause`: stop a function from taking events."""

from typing import Annotated

import typer

from funcrt.cli.client import client_of
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, line

__all__ = ["app", "pause"]

app = typer.Typer()


@app.command()
def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Stop a function from taking events.

    Example: funcrt pause label

    What runs finishes; its queues go on filling, and calls over HTTP get 503 with Retry-After. It
    stays paused over restarts and new versions, until `funcrt resume`. A schedule's ticks meanwhile
    count as missed.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    found = client.post("functions", name, "pause", body={})
    if json:
        json_line(found)
    else:
        line(
            f"{name} is paused: what runs finishes, its queues fill"
            if found["changed"]
            else f"{name} was paused already"
        )
