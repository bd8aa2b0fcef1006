"""`funcrt stats`: what functions did in the last minutes."""

from typing import Annotated, Any

import typer

from funcrt.cli.client import AdminClient
from funcrt.cli.options import Data, Json, Socket, place
from funcrt.cli.output import json_line, line, note, rows

__all__ = ["app", "stats"]

app = typer.Typer()

COLUMNS = (
    "FUNCTION", "STATE", "INSTANCES", "DEPTH", "OLDEST", "PER_S", "DONE", "FAILED", "ERROR_%",
    "DEAD", "OUTPUTS", "RUN_P50", "RUN_P99", "WAIT_P50", "WAIT_P99",
)  # fmt: skip
RIGHT = " ".join(COLUMNS[2:])
NARROW = "OUTPUTS WAIT_P50 ERROR_% STATE OLDEST DONE RUN_P50"
"""Left out where a terminal is too narrow, the first of them first."""


@app.command()
def stats(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The function; all where left out.")
    ] = None,
    *,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Show what functions did in the last minutes.

    Example: funcrt stats resize --json | jq '.windows[0].run_ms.p99'

    All functions are shown over the last minute, one function over the last five, too. FAILED is of
    attempts. RUN is how long calls took, WAIT how long events waited from being stored to their
    first call; in milliseconds, right to 6 %. OLDEST is the age of the oldest event not settled. A
    narrow terminal shows fewer columns, a pipe all.
    """
    client = AdminClient(place(data, admin_socket=admin_socket).admin_socket)
    if name is None:
        found = client.get("stats")["functions"]
    else:
        found = [client.get("functions", name, "stats")]
    if json:
        for each in found:
            json_line(each)
        return
    if name is None:
        rows(COLUMNS, [_row(each, each["windows"][0]) for each in found], right=RIGHT,
             drop=NARROW)  # fmt: skip
        if not found:
            note("no function is deployed")
        return
    _one(found[0])


def _row(each: dict[str, Any], window: dict[str, Any]) -> tuple[Any, ...]:
    return (
        each["name"],
        each["state"],
        f"{each['busy']}/{each['instances']}",
        each["depth"],
        _seconds(each["oldest_s"]),
        *_figures(window),
    )


def _figures(window: dict[str, Any]) -> tuple[Any, ...]:
    run, wait = window["run_ms"], window["wait_ms"]
    return (
        f"{window['per_s']:g}",
        window["done"],
        window["failed"],
        "-" if window["error_pct"] is None else f"{window['error_pct']:g}",
        window["dead"],
        window["outputs"],
        *(_ms(value) for value in (run["p50"], run["p99"], wait["p50"], wait["p99"])),
    )


def _one(each: dict[str, Any]) -> None:
    line(
        f"{each['name']}  {each['state']}, version {each['version'][:7]},"
        f" {each['busy']} of {each['instances']} instances busy"
    )
    line(f"depth {each['depth']}, oldest {_seconds(each['oldest_s'])}")
    since = [each[key] for key in ("done", "failed", "dead", "outputs")]
    repeats = f", {each['deduplicated']} deduplicated" if each["deduplicated"] else ""
    if each["limited"]:
        repeats += "".join(f", {count} over {limit}" for limit, count in each["limited"].items())
    line("since the host started: {} done, {} failed, {} dead, {} outputs".format(*since) + repeats)
    rows(
        ("LAST", *COLUMNS[5:]),
        [(_seconds(window["seconds"]), *_figures(window)) for window in each["windows"]],
        right=RIGHT,
        drop="OUTPUTS WAIT_P50",
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f}s" if value < 10 else f"{value:.0f}s"
    return f"{value / 60:.0f}m" if value < 7200 else f"{value / 3600:.1f}h"
