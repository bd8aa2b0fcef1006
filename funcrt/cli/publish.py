"""`funcrt publish`: events to a topic."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.options import DataDirOnly, Json, Mesh, Namespace, Place, place
from funcrt.cli.output import json_line, line, note, safe
from funcrt.cli.reading import batches
from funcrt.manifest_kinds import OWN_NAMES
from mesh.event import Event
from mesh.schemes import connect
from mesh.transport import Receipt, check_name

__all__ = ["app", "publish"]

app = typer.Typer()


@app.command()
def publish(
    topic: Annotated[str, typer.Argument(help="The topic; made where it is new.")],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-",
            help="An event as JSON, an array of events, or one event a line; - is stdin.",
        ),
    ] = None,
    *,
    type_: Annotated[
        str | None, typer.Option("--type", help="Type of one event, made from these options.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Its source.", show_default="/cli")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Its id.", show_default="a new UUID")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Its subject.")] = None,
    payload: Annotated[str | None, typer.Option("--data", help="Its data.")] = None,
    content_type: Annotated[
        str, typer.Option("--content-type", help="What the data is.")
    ] = "application/json",
    jsonl: Annotated[bool, typer.Option("--jsonl", help="FILE holds one event a line.")] = False,
    data_dir: DataDirOnly = None,
    mesh: Mesh = None,
    namespace: Namespace = "default",
    json: Json = False,
) -> int:
    """Publish events to a topic.

    Example: funcrt publish images --type image.uploaded --data '{"size": 3}'

    Example: tail -f events.jsonl | funcrt publish images - --jsonl

    Prints a receipt for each event once it is durable. Exits with 1 where any was refused.
    """
    check_name("topic", topic)
    if topic.startswith(OWN_NAMES):
        raise CliError(
            f"{topic}: topics whose names begin with {OWN_NAMES} are the host's own",
            "a name of your own",
            USAGE,
        )
    made = {"--type": type_, "--source": source, "--id": id_, "--subject": subject,
            "--data": payload}  # fmt: skip
    given = [name for name, value in made.items() if value is not None]
    if file is not None and given:
        raise CliError(
            f"{given[0]} makes an event of its own, and cannot be used with a file of events",
            f"funcrt publish {topic} {file}",
            USAGE,
        )
    if given:
        events = _one(
            _made(
                type_=type_,
                source=source,
                id_=id_,
                subject=subject,
                payload=payload,
                content_type=content_type,
                topic=topic,
            )
        )
    elif file is None and sys.stdin.isatty():
        raise CliError(
            "nothing to publish",
            f"funcrt publish {topic} FILE\n"
            f"funcrt publish {topic} --type TYPE --data '{{\"n\": 1}}'",
            USAGE,
        )
    elif file in (None, "-"):
        events = batches(sys.stdin.fileno(), "<stdin>", jsonl=jsonl)
    else:
        events = _file(str(file), jsonl)
    where = place(data_dir, mesh, namespace)
    return asyncio.run(_publish(where, topic, events, json))


def _made(
    *,
    type_: str | None,
    source: str | None,
    id_: str | None,
    subject: str | None,
    payload: str | None,
    content_type: str,
    topic: str,
) -> Event:
    """The one event that the options describe, checked as any other."""
    if not type_:
        raise CliError(
            "an event needs a type", f"funcrt publish {topic} --type com.example.created", USAGE
        )
    content = None if payload is None else payload.encode(errors="surrogateescape")
    if content is not None and content_type.partition(";")[0].strip().endswith("json"):
        try:
            msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise CliError(
                f"--data: not JSON: {error}", "--content-type text/plain", USAGE
            ) from None
    event = Event(
        id=str(uuid.uuid4()) if id_ is None else id_,
        source="/cli" if source is None else source,
        type=type_,
        subject=subject,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        datacontenttype=None if content is None else content_type,
        data=content,
    )
    return Event.from_json(event.to_json())


async def _one(event: Event) -> AsyncIterator[list[Event]]:
    yield [event]


async def _file(name: str, jsonl: bool) -> AsyncIterator[list[Event]]:
    fd = os.open(name, os.O_RDONLY)
    try:
        async for some in batches(fd, name, jsonl=jsonl):
            yield some
    finally:
        os.close(fd)


async def _publish(where: Place, topic: str, events: AsyncIterator[list[Event]], json: bool) -> int:
    """Publish batch after batch: the next is read when the last is durable."""
    new = where.default_mesh_missing
    if new:
        where.data.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    stored = failed = 0
    transport = await connect(where.mesh_url, namespace=where.namespace)
    try:
        async for some in events:
            receipts = await transport.publish(topic, some)
            stored += sum(receipt.status == "stored" for receipt in receipts)
            failed += sum(receipt.status != "stored" for receipt in receipts)
            _show(some, receipts, json)
    finally:
        await transport.close()
        if stored + failed > 1 and not json:
            note(f"{stored} stored" + (f", {failed} not" if failed else ""))
        if new and stored:
            note(f"note: this made a new mesh, {where.data.mesh_file}; no host runs on it yet")
    return FAILED if failed else 0


def _show(events: Sequence[Event], receipts: Sequence[Receipt], json: bool) -> None:
    for event, receipt in zip(events, receipts, strict=True):
        if json:
            json_line({"id": event.id, **msgspec.structs.asdict(receipt)})
            continue
        words = [receipt.status, safe(event.id)]
        if receipt.position:
            words.append(f"@{receipt.position.removeprefix('@')}")
        if receipt.duplicate:
            words.append("duplicate: it was stored before")
        if receipt.status == "ambiguous":
            words.append("it may be stored; publish it again with the same id")
        if receipt.reason:
            words.append(safe(receipt.reason))
        line(("  " if sys.stdout.isatty() else "\t").join(words))
