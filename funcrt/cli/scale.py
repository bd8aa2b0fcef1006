"""`funcrt scale`: the bounds of a function's scaling."""

from typing import Annotated

import typer

from funcrt.cli.client import client_of
from funcrt.cli.errors import USAGE, CliError
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, line

__all__ = ["app", "scale"]

app = typer.Typer()


@app.command()
def scale(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    *,
    least: Annotated[int | None, typer.Option("--min", help="Instances there always are.")] = None,
    most: Annotated[int | None, typer.Option("--max", help="Instances at most.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="The manifest's bounds again.")] = False,
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Set the bounds of a function's scaling.

    Example: funcrt scale label --min 1 --max 20

    They hold until its next version or --reset, also over a restart of the host. Instances above a
    new --max end once their calls have.
    """
    both = least is not None and most is not None
    if reset == both or (least is None) != (most is None):
        raise CliError(
            "expected --min and --max, or --reset", f"funcrt scale {name} --min 0 --max 8", USAGE
        )
    body = {"reset": True} if reset else {"min": least, "max": most}
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    found = client.post("functions", name, "scale", body=body)
    if json:
        json_line(found)
        return
    until = "the manifest's" if reset else "until its next version, or --reset"
    line(f"{name} scales {found['min']}–{found['max']}: {until}")
