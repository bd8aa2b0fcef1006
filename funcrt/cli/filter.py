"""`funcrt filter`: a filter tried on events, without a host."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from funcrt.cli.errors import FAILED, USAGE, CliError
from funcrt.cli.events import read_events
from funcrt.cli.options import Json
from funcrt.cli.output import json_line, note, rows
from funcrt.verdict import brief, refusing
from mesh.event import Event
from triggers import Filter, FilterError, parse

__all__ = ["app", "try_"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def filter_() -> None:
    """Try a filter on events.

    Example: funcrt filter test functions/resize events.jsonl
    """


@app.command("test")
def try_(
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH|FILTER",
            help="A function below ./functions, its directory, or a JSON or TOML file with filters,"
            " pattern or jsonpath.",
        ),
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="EVENTS...", help="Files of events, one or many in each, or -."),
    ],
    *,
    trigger: Annotated[str | None, typer.Option(help="Only this trigger of the function.")] = None,
    json: Json = False,
) -> int:
    """Count which events a filter takes, and which of its conditions refuse the others.

    Example: funcrt filter test resize events.jsonl

    Example: funcrt tail orders --from earliest --limit 100 --json | jq -c .event |
    funcrt filter test filter.json -

    Topics do not count, and no host is asked. Exits with 0 where at least one event is taken, with
    1 where none is.
    """
    filters = _filters(which, trigger)
    events = read_events(*files)
    if not events:
        raise CliError(f"{', '.join(files)}: holds no event", code=FAILED)
    table: list[tuple[Any, ...]] = []
    taken = 0
    for name, parsed in filters.items():
        matched, refused = counted(parsed, events)
        taken += matched
        if json:
            clauses = [
                {"path": path, "wanted": wanted, "count": count, "example": example}
                for (path, wanted), (count, example) in refused.items()
            ]
            row = {"trigger": name, "events": len(events), "matched": matched, "refused": clauses}
            json_line(row)
            continue
        table.append((name, "matched", matched, "", ""))
        for (path, wanted), (count, example) in refused.items():
            table.append((name, "refused", count, f"{path}: {wanted}", example))
    if not json:
        rows(("TRIGGER", "EVENTS", "COUNT", "BY", "EXAMPLE"), table, right="COUNT",
             fold="BY")  # fmt: skip
        if not taken:
            note(f"none of {len(events)} events is taken")
    return 0 if taken else FAILED


Refused = dict[tuple[str, str], tuple[int, str]]
"""(path, condition) -> how many events it refused, and the id of one."""


def counted(parsed: Filter, events: Sequence[Event]) -> tuple[int, Refused]:
    """How many events a filter takes, and what refuses the others, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    matched = 0
    for event in events:
        if parsed.matches(event):
            matched += 1
            continue
        why = refusing(parsed.explain(event))
        key = why.path, brief(why)
        counts[key] += 1
        examples.setdefault(key, event.id)
    return matched, {key: (count, examples[key]) for key, count in counts.most_common()}


def _filters(which: str, trigger: str | None) -> dict[str, Filter]:
    """By the trigger's name; of a file, by its own."""
    from funcrt.manifest import load_manifest
    from funcrt.reach import filter_of, queued

    path = Path(which)
    if path.is_file():
        if trigger is not None:
            raise CliError(f"--trigger is for functions, and {which} is a file", code=USAGE)
        return {path.name: _read(path)}
    if not path.is_dir() and "/" not in which:
        path = Path("functions") / which
    if not path.is_dir():
        raise CliError(
            f"{which}: no such file or directory, and no function of that name in ./functions",
            "funcrt filter test functions/NAME EVENTS\nfuncrt explain EVENT NAME   # asks the host",
            USAGE,
        )
    specs = {spec.name: spec for spec in queued(load_manifest(path))}
    if trigger is not None and trigger not in specs:
        there = ", ".join(specs) or "none"
        raise CliError(f"{which} has no trigger {trigger!r} that reads a topic; it has: {there}",
                       code=USAGE)  # fmt: skip
    if not specs:
        raise CliError(f"{which} has no trigger that reads a topic", code=USAGE)
    return {name: filter_of(spec) for name, spec in specs.items() if trigger in (None, name)}


def _read(path: Path) -> Filter:
    text = path.read_bytes()
    try:
        found: Any
        found = msgspec.toml.decode(text) if path.suffix == ".toml" else msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise CliError(f"{path}: not {kind}: {error}", code=USAGE) from None
    if isinstance(found, list):
        found = {"filters": found}
    try:
        return parse(found)
    except FilterError as error:
        first, *more = [f"{path}: {mistake}" for mistake in error.errors]
        raise CliError(first, code=USAGE, more=more) from None
