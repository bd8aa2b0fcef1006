"""`funcrt describe`: all there is to say of a function."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from funcrt.cli.client import client_of
from funcrt.cli.deployed import handler
from funcrt.cli.options import Data, HostUrl, Json, Socket, place
from funcrt.cli.output import RED, clock, folded, json_line, line, paint, safe
from funcrt.cli.versions import came_from

__all__ = ["app", "describe"]

app = typer.Typer()
MOST_SHOWN = 10
"""Instances; there may be a thousand."""


@app.command()
def describe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function.")],
    host: HostUrl = None,
    data: Data = None,
    admin_socket: Socket = None,
    json: Json = False,
) -> None:
    """Show all there is to say of a function.

    Example: funcrt describe label

    Its version, triggers and what waits for them, its scale with the scaler's reason, and what its
    instances use. Counts are since the host started.
    """
    client = client_of(host, place(data, admin_socket=admin_socket).admin_socket)
    found = client.get("functions", name)
    if json:
        json_line(found)
        return
    for key, text in _lines(found):
        line(folded(f"{key:<12} {text}".rstrip(), 13))


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    status = found["status"]
    yield "function", safe(status["name"])
    yield from _version(found["version"])
    yield (
        "state",
        f"{status['state']}: {_many(status['instances'], 'instance')}, {status['busy']} busy",
    )
    if found["trouble"]:
        yield "", paint(RED, safe(found["trouble"].partition("\n")[0]))
    yield "handler", handler(found)
    yield "python", safe(status["python"])
    least, most = found["scale"]
    slots = found["concurrency"]
    yield (
        "concurrency",
        f"{_many(most, 'instance')} × {slots} = {_many(most * slots, 'call')} at once at most",
    )
    bound = "; set by `funcrt scale` until the next version" if found["bound"] else ""
    yield "scale", f"{least}–{most}{bound}"
    if status["reason"]:
        yield "", f"wants {status['wanted']}: {safe(status['reason'])}"
    yield (
        "calls",
        f"{status['done']} done, {status['failed']} failed, {_many(status['dead'], 'dead letter')}"
        + (f", {status['deduplicated']} deduplicated" if status["deduplicated"] else ""),
    )
    over = ", ".join(f"{count} over {limit}" for limit, count in status["limited"].items())
    if over:
        yield "limits", paint(RED, over)
    yield from _used(found)
    yield "retry", f"{found['attempts']} attempts, timeout {found['timeout_s']:g} s"
    for at, (name, source) in enumerate(found["secrets"].items()):
        yield "" if at else "secrets", f"{name} from {source}"
    if found["packages"]:
        yield "deps", safe(", ".join(found["packages"]))
    yield "output", safe(status["output_topic"] or "-")
    if status["dlq_topic"]:
        yield "dlq", safe(status["dlq_topic"])
    else:
        yield "dlq", paint(RED, "off: what fails for good is dropped")
    yield from _triggers(found)


def _used(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What it has used in all, and each instance that there is."""
    status, instances = found["status"], found["instances"]
    if status["cpu_s"] or status["peak_bytes"]:
        now = f", {_mib(status['memory_bytes'])} of memory" if instances else ""
        most = _mib(status["peak_bytes"])
        yield "used", f"{status['cpu_s']:.1f} s of CPU{now}, an instance at most {most}"
    for each in instances[:MOST_SHOWN]:
        parts = [_many(each["calls"], "call") if each["calls"] else "idle"]
        if each["cpu_s"] is not None:
            parts.append(f"{each['cpu_s']:.1f} s of CPU")
        if each["throttled_s"]:
            parts.append(f"{each['throttled_s']:.1f} s kept from it by limits.cpu")
        if each["memory_bytes"] is not None:
            most = f", at most {_mib(each['peak_bytes'])}" if each["peak_bytes"] else ""
            parts.append(f"{_mib(each['memory_bytes'])} of memory{most}")
        yield "instance", f"process {each['pid']}: {', '.join(parts)}"
    if (more := len(instances) - MOST_SHOWN) > 0:
        yield "", f"and {more} more; --json has all"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _version(version: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if version is None:
        yield "version", "not recorded: a host of `funcrt dev`"
        return
    yield "version", f"v{version['number']} ({version['digest'][:12]})"
    yield "deployed", f"{clock(version['at'])} from {safe(came_from(version))}"


def _triggers(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    details = {each["name"]: each for each in found["details"]}
    for trigger in found["status"]["triggers"]:
        which = f" [{trigger['filter']}]" if trigger["filter"] else ""
        yield "trigger", safe(f"{trigger['name']}: {trigger['kind']} {trigger['target']}{which}")
        if trigger["kind"] == "http":
            continue
        each = details[trigger["name"]]
        fetched = clock(each["pulled_at"]) if each["pulled_at"] else "none yet"
        waits = ", ".join(f"{trigger[key]} {key}" for key in ("ready", "leased", "delayed"))
        yield "", f"{waits}; last fetch {fetched}"
        if refusal := trigger["refusal"]:
            last = f"refused {refusal['type']} {refusal['id']} at {clock(refusal['at'])}"
            yield "", safe(f"{last}: {refusal['clause']}")
        if each["trouble"]:
            yield "", paint(RED, safe(f"cannot pull: {each['trouble']}"))
