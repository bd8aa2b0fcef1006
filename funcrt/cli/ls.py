"""`funcrt ls`: the deployed functions."""

from typing import Any

import typer

from funcrt.cli.client import client_of
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, note, rows

__all__ = ["app", "ls"]

app = typer.Typer()

COLUMNS = ("FUNCTION", "STATE", "INSTANCES", "DEPTH", "DONE", "FAILED", "DEAD", "TRIGGERS")


@app.command()
def ls(
    host: HostUrl = None, data: Data = None, admin_socket: Socket = None, json: Json = False
) -> None:
    """List the deployed functions.

    Example: funcrt ls --json | jq .depth

    INSTANCES is busy/running, and the number that the scaler wants where that differs.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    functions = client.get("functions")["functions"]
    if json:
        for function in functions:
            json_line(function)
        return
    rows(COLUMNS, [_row(each) for each in functions], right="INSTANCES DEPTH DONE FAILED DEAD")
    if not functions:
        note("no function is deployed")


def _row(function: dict[str, Any]) -> tuple[Any, ...]:
    running, wanted = function["instances"], function["wanted"]
    return (
        function["name"],
        function["state"],
        f"{function['busy']}/{running}" + (f"→{wanted}" if wanted != running else ""),
        function["depth"],
        function["done"],
        function["failed"],
        function["dead"],
        ", ".join(_trigger(each) for each in function["triggers"]),
    )


def _trigger(trigger: dict[str, Any]) -> str:
    filtered = f" [{trigger['filter']}]" if trigger["filter"] else ""
    return f"{trigger['kind']} {trigger['target']}{filtered}"
