"""`funcrt versions`: the versions of a function."""

from typing import Annotated, Any

import typer

from funcrt.cli.client import client_of
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, moment, rows

__all__ = ["app", "came_from", "versions"]

app = typer.Typer()

COLUMNS = ("VERSION", "DIGEST", "DEPLOYED", "STATE", "FROM")


@app.command()
def versions(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """List a function's versions.

    Example: funcrt versions label

    The oldest first. Of a function that was removed too: `funcrt rollback` brings it back.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    found = client.get("functions", name, "versions")["versions"]
    if json:
        for each in found:
            json_line(each)
        return
    rows(COLUMNS, [_row(each) for each in found])


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    state = "in service" if each["in_service"] else "-"
    digest = each["digest"][:12]
    return f"v{each['number']}", digest, moment(each["at"]), state, came_from(each)


def came_from(each: dict[str, Any]) -> str:
    """Where a version came from, for people."""
    parts = [each["path"] or "-"]
    if each["profile"]:
        parts.append(f"profile {each['profile']}")
    if each["of"]:
        parts.append(f"rollback to v{each['of']}")
    parts.append(f"by {each['by']}" if each["by"] else "by serve")
    return ", ".join(parts)
