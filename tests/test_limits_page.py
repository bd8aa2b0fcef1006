"""docs/limits.md says the limits that the code has."""

import re
from pathlib import Path

import mesh.codec
import mesh.event
import mesh.queue
import mesh.server
import mesh.transport
import mesh.validation
import mesh.wire
from funcrt import (
    bundle,
    direct,
    function,
    idempotency,
    installer,
    locate,
    logbook,
    manifest,
    observation,
    outcome,
    packages,
    paths,
    pool,
    requirements,
    running,
    secrets,
    zygotes,
)
from funcrt.cli import reading
from funcrt.gateway import admin, answer, guard, observe, publish, server
from funcrt.sandbox import (
    box,
    confine,
    forking,
    groups,
    handler,
    lifespan,
    logs,
    process,
    protocol,
    users,
    workshop,
    zygote,
)
from funcrt.sandbox.secrets import SHORTEST
from mesh import catalogue, engine, options
from triggers import dialects, jsonpath, match, pattern, view
from triggers.cesql import syntax

PAGE = (Path(__file__).parent.parent / "docs" / "limits.md").read_text(encoding="utf-8")
OPTIONS = options.Options()
MANIFEST = manifest.Manifest(name="f")


def most(section: manifest.Section, key: str) -> int | float:
    """The greatest value that a key of the manifest takes."""
    return section[key].kind.most  # type: ignore[union-attr]


VALUES: dict[str, float | None] = {
    "data of an event": mesh.validation.MAX_EVENT_BYTES,
    "characters of all attributes": mesh.validation.MAX_ATTRIBUTES,
    "extensions of an event": mesh.validation.MAX_EXTENSIONS,
    "name of an attribute": mesh.validation.MAX_NAME,
    "nesting of a structured event": mesh.codec.MAX_DEPTH,
    "nesting of JSON that `event.json()` reads": mesh.event.MAX_JSON_DEPTH,
    "a structured event": mesh.codec.MAX_STRUCTURED_BYTES,
    "a batch": mesh.codec.MAX_BATCH_BYTES,
    "hops from function to function": outcome.MAX_HOPS,
    "a line that `funcrt publish` reads": reading.LINE_MAX,
    "one JSON document that `funcrt publish` reads": reading.DOCUMENT_MAX,
    "name of a topic, trigger or namespace": int(
        re.findall(r"0,(\d+)", mesh.transport._NAME.pattern)[0]
    )
    + 1,
    "name of a function": manifest.MAX_NAME,
    "topics that publishing makes": OPTIONS.topics,
    "topics or subscriptions that a file can number": 1 << (63 - catalogue.SHIFT),
    "idempotency keys remembered of a subscription": OPTIONS.idempotency_keys,
    "age of a topic's events": OPTIONS.retention_s,
    "bytes of a topic": OPTIONS.retention_bytes,
    "ids remembered of a topic": OPTIONS.dedupe_ids,
    "time that ids are remembered": OPTIONS.dedupe_s,
    "events of a queue": mesh.transport.Subscription(function="f", trigger="t", topic="a").cap,
    "events that wait to be stored": engine.PENDING_EVENTS,
    "bytes that wait to be stored": engine.PENDING_BYTES,
    "lease of a delivery": function.LEASE_S,
    "ready events of a queue in memory": mesh.queue.WINDOW,
    "their bytes": mesh.queue.WINDOW_BYTES,
    "processes that use a mesh beside its host": mesh.server.CLIENTS,
    "a frame": mesh.wire.MAX_FRAME,
    "events of one part": mesh.wire.PAGE_BYTES,
    "fields of a query": guard.QUERY_FIELDS,
    "events of a page": publish.READ_MAX,
    "data of a page of events": publish.READ_BYTES,
    "dead letters replayed by their ids": admin.IDS_MAX,
    "events replayed by `--last`": observe.LAST_MAX,
    "events of a replay with `--local`": observation.FOUND_BYTES,
    "body of an admin's request": admin._BODY,
    "connections that wait to be accepted": server.BACKLOG,
    "open files of a host": running.MOST_FILES,
    "of these kept for functions and the mesh": running.OWN_FILES,
    "a function's directory": bundle.CAPS.bytes,
    "files and directories in it": bundle.CAPS.entries,
    "`funcrt.toml`": locate.MAX_BYTES,
    "`requirements.txt`": requirements.MOST_BYTES,
    "`dependencies` of a manifest": most(manifest.TOP, "dependencies"),
    "time of an installation": installer.MOST_S,
    "disk of an installation, downloads and builds among it": workshop.MOST.bytes,
    "files of it, directories among them": workshop.MOST.files,
    "one file of it": workshop.MOST_FILE_BYTES,
    "room that it leaves its disk": workshop.LEAST_FREE.bytes,
    "files that there is room for after it": workshop.LEAST_FREE.files,
    "packages that it brings": packages.MOST_LISTED,
    "downloads that are kept for the next": packages.MOST_CACHED.bytes,
    "files of those": packages.MOST_CACHED.files,
    "triggers of a function": most(manifest.TOP, "trigger"),
    "secrets of a function": manifest.MOST_SECRETS,
    "a secret's value": secrets.MOST_BYTES,
    "characters of a secret's value at least": SHORTEST,
    "time until a changed secret is taken up": function.SECRETS_S,
    "its environment, with the names of its files": forking.MAX_ASKED,
    "filters of a trigger": most(manifest.MESH, "filters"),
    "instances": MANIFEST.scale.max,
    "calls at once in one instance of an async handler": zygote.ASYNC_CALLS,
    "events of a batch": most(manifest.BATCH, "size"),
    "attempts": MANIFEST.retry.attempts,
    "time of a call": MANIFEST.timeout_s,
    "calls of a function over HTTP that wait": direct.MOST_WAITING_CALLS,
    "outputs of one call": outcome.MAX_OUTPUTS,
    "data of all outputs of one call": MANIFEST.limits.payload_bytes,
    "what a stream is ahead of who takes it": protocol.WINDOW,
    "headers of a function's response": answer.MOST_HEADERS,
    "path that is matched with parameters": paths.MOST_MATCHED,
    "start of a `lifespan`": process.LOAD_TIMEOUT_S,
    "end of a `lifespan`": lifespan.TEARDOWN_S,
    "a frame from an instance": protocol.MAX_FRAME,
    "events that an instance holds ahead": pool.MOST_AHEAD,
    "events of a trigger that wait for the call with their idempotency key": idempotency.HELD,
    "data of those that wait": idempotency.HELD_BYTES,
    "data that a function's instances hold": pool.MOST_BYTES,
    "log of an instance a second, with about 15 bytes for each line": logs.BYTES_A_SECOND,
    "a line of its log": logs.LINE,
    "lines that are kept of a function": logbook.LINES,
    "their text": logbook.BYTES,
    "text that is kept of all functions": logbook.ALL_BYTES,
    "lines that wait for one `funcrt logs -f`": logbook.FOLLOWED,
    "import of its code": process.LOAD_TIMEOUT_S,
    "memory of an instance, where control groups can be had": groups.USUAL_MEMORY,
    "CPU seconds a second of an instance": MANIFEST.limits.cpu,
    "processes of an instance; without control groups, of a function": confine.MOST_PROCESSES,
    "message of an exception": len(handler._text(ValueError("x" * 9999))),
    "memory of a container, for each instance and its zygote": box.MEMORY_BYTES,
    "processes of a container": box.PROCESSES,
    "start of a container": box.START_S,
    "what Docker keeps of a container's log": int(box.LOG["max-size"].removesuffix("k")) << 10,
    "user ids for functions, of a host that root started": users.MOST_FUNCTIONS,
    "zygotes without instances": zygotes.MOST_IDLE,
    "nesting of a dialect's filters": dialects.MAX_DEPTH,
    "nesting of a pattern": pattern.MAX_DEPTH,
    "values of a pattern's field": pattern.MAX_VALUES,
    "a pattern as JSON": pattern.MAX_BYTES,
    "alternatives of a pattern with `$or`": match.MAX_ALTERNATIVES,
    "stars of a wildcard": pattern.MAX_STARS,
    "a CESQL expression": syntax.MAX_BYTES,
    "nesting of a CESQL expression": syntax.MAX_DEPTH,
    "characters of a JSONPath": jsonpath.MAX_PATH,
    "data that a filter looks into": view.MAX_DATA_BYTES,
}
UNITS = {"": 1, " s": 1, " KiB": 1 << 10, " MiB": 1 << 20, " GiB": 1 << 30}
UP_TO = {
    "`scale.max`": most(manifest.SCALE, "max"),
    "`concurrency`": most(manifest.TOP, "concurrency"),
    "`retry.attempts`": most(manifest.RETRY, "attempts"),
    "`limits.payload`": most(manifest.LIMITS, "payload"),
}


def number(text: str) -> float | None:
    found = re.fullmatch(r"([\d,]+)( s| KiB| MiB| GiB|)", text)
    assert found or text == "none", text
    return int(found[1].replace(",", "")) * UNITS[found[2]] if found else None


def test_every_limit_is_said_as_it_is() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in (line.strip("| ").split(" | ") for line in lines) if len(row) < 5]
    said = {row[0]: number(row[1]) for row in rows if row[0] != "limit"}
    assert said == VALUES
    for row in rows:
        if ", up to " in (how := row[2] if len(row) > 2 else "") and not how.endswith("that"):
            key, bound = how.split(", up to ")
            if key != "`timeout`":
                assert number(bound.split(";")[0]) == UP_TO[key], row


def test_every_option_of_the_mesh_that_bounds_something_is_there() -> None:
    known = set(options.Options.__struct_fields__) - {"synchronous", "inline"}
    assert known <= set(re.findall(r"\| `(\w+)` \|", PAGE))
