"""`funcrt rm`: take a function out of service."""

from typing import Annotated, Any

import typer

from funcrt.cli.client import client_of
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import json_line, line, note

__all__ = ["app", "rm"]

app = typer.Typer()


@app.command()
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Drop its queues and dead letters too, for good.")
    ] = False,
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Take a function out of service.

    Example: funcrt rm label

    What runs finishes first. Its queues and dead letters stay, and the queues take no more:
    deployed again, it goes on with what waits. With --purge they are dropped, also of a function
    that was removed before.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    client.timeout_s = None
    found = client.post("functions", name, "remove", body={"purge": purge})
    if json:
        json_line(found)
        return
    was = f"{name} v{found['number']}" if found["number"] else name
    line(f"{was} is out of service")
    for queue in found["queues"]:
        line(f"  {_queue(queue, purge)}")
    if not purge and any(queue["waiting"] or queue["dead"] for queue in found["queues"]):
        note(f"try: funcrt rm {name} --purge   # drops what is left")
    if found["comes_back"]:
        note(f"! the host serves {found['comes_back']}: {name} comes back when it starts again")


def _queue(queue: dict[str, Any], purge: bool) -> str:
    events = "1 event" if queue["waiting"] == 1 else f"{queue['waiting']} events"
    letters = "1 dead letter" if queue["dead"] == 1 else f"{queue['dead']} dead letters"
    what = "dropped" if purge else "kept"
    return f"queue {queue['trigger']}: {events}, {letters} {what}"
