"""The manifest: what `funcrt.toml` may say, as types and as sections; loading and checking it.

The types, in `manifest_spec.py`, are what the rest of funcrt sees. The sections say how each key is
written; a JSON schema comes from them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from funcrt.errors import ManifestError, Problem
from funcrt.locate import KeyPath, read_toml, show
from funcrt.loops import could_match
from funcrt.manifest_check import (
    Document,
    Key,
    ListOf,
    MapOf,
    OrFlag,
    Section,
    Table,
    read_table,
    read_value,
)
from funcrt.manifest_kinds import (
    Anything,
    Choice,
    Duration,
    Flag,
    Int,
    Name,
    Number,
    Size,
    Text,
    env_value,
    http_path,
    nearest,
    network,
    python_version,
    schedule,
    secret_source,
    start,
    timezone,
)
from funcrt.manifest_spec import (
    BatchSpec,
    CronTrigger,
    DlqSpec,
    HttpTrigger,
    IdempotencySpec,
    Limits,
    Manifest,
    MeshTrigger,
    OutputSpec,
    RetrySpec,
    SandboxSpec,
    ScaleSpec,
    Trigger,
)
from funcrt.paths import clash
from funcrt.requirements import PROJECT, Needs, read_needs, requirement
from funcrt.sandbox.view import never
from funcrt.wrong import describe
from mesh.errors import NameInvalid
from mesh.transport import check_name
from triggers import FilterError, parse, values_of

__all__ = [
    "FILE",
    "MAX_NAME",
    "SCALE_MOST",
    "BatchSpec",
    "CronTrigger",
    "DlqSpec",
    "HttpTrigger",
    "IdempotencySpec",
    "Limits",
    "Manifest",
    "MeshTrigger",
    "OutputSpec",
    "RetrySpec",
    "SandboxSpec",
    "ScaleSpec",
    "Trigger",
    "check_loops",
    "load_manifest",
    "needs_of",
]


FILE = "funcrt.toml"
MOST_SECRETS = 100
MAX_NAME = 188
"""Of a function: the topics named after it (`NAME.dlq`, `funcrt.call.NAME`) have 200."""
TOPIC = Name("topic")
DAY_S = 86400.0
ABSOLUTE = r"/|(/(?!\.{1,2}(/|$))[^/\0]+)+"

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

KEY = Key(Text('an attribute\'s name, or a path such as "$.customer"', r"[a-z0-9]+|\$[.\[].+"))

BATCH: Section = {
    "size": Key(Int(1, 10_000)),
    "wait": Key(Duration(0, 60), "wait_s"),
}
MESH: Section = {
    "kind": Key(Text()),
    "name": Key(Name("trigger")),
    "topic": Key(TOPIC),
    "filters": Key(ListOf(Anything(json=True), 100)),
    "pattern": Key(Anything(json=True)),
    "jsonpath": Key(ListOf(Anything(json=True), 100)),
    "mode": Key(Choice(("cluster", "broadcast"))),
    "start": Key(start),
    "order": Key(Choice(("none", "key"))),
    "key": KEY,
    "batch": Key(Table(BATCH, BatchSpec, needs=("size",))),
    "cap": Key(Int(1, 10**12)),
    "overflow": Key(Choice(("refuse", "dead-letter"))),
}
HTTP: Section = {
    "kind": Key(Text()),
    "name": Key(Name("trigger")),
    "path": Key(http_path),
    "methods": Key(ListOf(Choice(METHODS), len(METHODS), least=1)),
    "strict": Key(Flag()),
}
CRON: Section = {
    "kind": Key(Text()),
    "name": Key(Name("trigger")),
    "schedule": Key(schedule),
    "timezone": Key(timezone),
    "missed": Key(Choice(("latest", "all", "skip"))),
}
OUTPUT: Section = {
    "topic": Key(TOPIC),
    "topics": Key(ListOf(TOPIC, 100)),
    "type": Key(Text("an event type", r"[^\x00-\x1f\x7f]{1,1000}")),
    "allow_loop": Key(Flag()),
    "keep_id": Key(Flag()),
    "stream": Key(Flag()),
}
RETRY: Section = {
    "attempts": Key(Int(1, 1000)),
    "backoff": Key(Choice(("exponential", "constant"))),
    "base": Key(Duration(0.001, DAY_S), "base_s"),
    "max": Key(Duration(0.001, DAY_S), "max_s"),
}
IDEMPOTENCY: Section = {
    "key": KEY,
    "ttl": Key(Duration(1, 30 * DAY_S), "ttl_s"),
}
SCALE_MOST = 1000
SCALE: Section = {
    "min": Key(Int(0, SCALE_MOST)),
    "max": Key(Int(1, SCALE_MOST)),
    "target_lag": Key(Duration(0.01, DAY_S), "target_lag_s"),
    "idle": Key(Duration(0, DAY_S), "idle_s"),
}
LIMITS: Section = {
    "memory": Key(Size(16 << 20, 1 << 40), "memory_bytes"),
    "payload": Key(Size(1 << 10, 8 << 20), "payload_bytes"),
    "tmp": Key(Size(1 << 20, 1 << 40), "tmp_bytes"),
    "cpu": Key(Number(0.01, 1024)),
}
VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"
SANDBOX: Section = {
    "isolation": Key(Choice(("process", "sandbox", "container"))),
    "image": Key(Text("an image's name", r"[\w./:@-]{1,500}")),
    "network": Key(network),
    "files": Key(ListOf(Text("an absolute path, without . or ..", ABSOLUTE), 100)),
}
_ALWAYS: Section = {
    "name": Key(Name("function")),
    "handler": Key(
        Text('"module:function" in plain letters', r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
    ),
    "concurrency": Key(Int(1, 1000)),
    "timeout": Key(Duration(0.001, DAY_S), "timeout_s"),
    "output": Key(Table(OUTPUT, OutputSpec)),
    "retry": Key(Table(RETRY, RetrySpec)),
    "dlq": Key(OrFlag(Table({"topic": Key(TOPIC)}, dict))),
    "scale": Key(Table(SCALE, ScaleSpec)),
    "limits": Key(Table(LIMITS, Limits)),
    "env": Key(MapOf(env_value, VARIABLE, "a variable's name: A-Z a-z 0-9 _")),
    "trigger": Key(
        ListOf(Anything(), 100, what="an array", mend="; write [[trigger]], with two brackets")
    ),
    "sandbox": Key(Table(SANDBOX, SandboxSpec)),
    "secrets": Key(MapOf(secret_source, VARIABLE, "a secret's name: A-Z a-z 0-9 _")),
    "idempotency": Key(Table(IDEMPOTENCY, IdempotencySpec)),
    "dependencies": Key(ListOf(requirement, 200)),
    "python": Key(python_version),
    "source_builds": Key(Flag()),
}
PROFILE: Section = {
    key: _ALWAYS[key]
    for key in (
        *("concurrency", "timeout", "output", "retry", "dlq", "scale", "limits", "env"),
        *("sandbox", "secrets", "idempotency"),
    )
}
"""What a profile may change: no name, no code and no trigger, whose queues would be others."""
PROFILES = MapOf(Table(PROFILE, dict), "[A-Za-z0-9_-]{1,100}", "a profile's name: a-z A-Z 0-9 _ -")
TOP: Section = {**_ALWAYS, "profile": Key(PROFILES, "profiles")}
TOOL = ("tool", "funcrt")
PLACES: Mapping[str, Section] = {
    "before the first table": TOP, "in [[trigger]] of kind mesh": MESH,
    "in [[trigger]] of kind http": HTTP, "in [[trigger]] of kind cron": CRON,
    "in batch of a [[trigger]]": BATCH,
    "in [output]": OUTPUT, "in [retry]": RETRY, "in [scale]": SCALE, "in [limits]": LIMITS,
    "in [idempotency]": IDEMPOTENCY, "in [sandbox]": SANDBOX,
}  # fmt: skip
ELSEWHERE = {key: place for place, section in reversed(list(PLACES.items())) for key in section}


def load_manifest(directory: Path, profile: str = "", folder: str = "") -> Manifest:
    """The manifest of a function's directory: from its `funcrt.toml`, from `[tool.funcrt]` of its
    `pyproject.toml`, or from defaults alone; with what `[profile.NAME]` changes of it, if it has
    that profile. `folder` is the directory's own name, where it lies under another.

    Raises ManifestError with every mistake in the order of the file, those of all profiles too;
    paths in it begin with `directory` as given.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ManifestError([Problem(file=str(directory), message="no such directory")])
    doc, raw = _document(directory)
    profiles = raw.pop("profile", {})
    folder = folder or _name(directory)
    manifest = _manifest(doc, raw, folder)
    for name, over in _profiles(doc, profiles):
        changed = _changed(doc, raw, name, over, folder)
        if name == profile:
            manifest = changed
    try:
        needs_of(directory, manifest)
    except ManifestError as error:
        doc.problems += error.problems
    if doc.problems:
        raise ManifestError(doc.in_order())
    return msgspec.structs.replace(manifest, profiles=list(profiles))


def needs_of(directory: Path, manifest: Manifest) -> Needs:
    """What a function needs installed, whichever of its files says it: nothing for a container,
    whose image has it. Raises ManifestError."""
    file = FILE if (directory / FILE).exists() else PROJECT
    needs = read_needs(directory, file, manifest.dependencies)
    return Needs() if manifest.sandbox.isolation == "container" else needs


def _document(directory: Path) -> tuple[Document, dict[str, Any]]:
    """The one file that holds the manifest, and its keys."""
    file, project = directory / FILE, directory / PROJECT
    raw, lines = read_toml(file)
    there = file.exists()
    try:
        outer, outer_lines = read_toml(project)
    except ManifestError:
        if not there:
            raise
        outer, outer_lines = {}, {}  # told of by `needs_of`
    tool = outer.get("tool")
    if not isinstance(tool, dict) or "funcrt" not in tool:
        return Document(str(file), lines, elsewhere=ELSEWHERE), raw
    inner = {path[2:]: line for path, line in outer_lines.items() if path[:2] == TOOL}
    doc = Document(str(project), inner, elsewhere=ELSEWHERE)
    raw = tool["funcrt"] if isinstance(tool["funcrt"], dict) else {}
    if there:
        doc.report((), f"[tool.funcrt] and {file} are both there; keep one of them")
    elif not isinstance(tool["funcrt"], dict):
        doc.report((), f"tool.funcrt: expected a table, found {describe(tool['funcrt'])}")
    return doc, dict(raw)


def _profiles(doc: Document, profiles: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The profiles, where they are right by themselves; else what is wrong is reported."""
    before = len(doc.problems)
    read_value(doc, ("profile",), PROFILES, profiles)
    if len(doc.problems) == before:
        yield from profiles.items()


def _changed(
    doc: Document, raw: dict[str, Any], profile: str, over: dict[str, Any], folder: str
) -> Manifest:
    """The manifest with a profile; reports what is wrong only where the two are together. Each key
    has the line of whichever of them counts."""
    at = ("profile", profile)
    inside = {path[2:]: line for path, line in doc.lines.items() if path[:2] == at}
    both = Document(doc.file, {**doc.lines, **inside}, elsewhere=ELSEWHERE)
    manifest = _manifest(both, _merged(raw, over), folder)
    told = {(problem.path, problem.message) for problem in doc.problems}
    doc.problems += [
        msgspec.structs.replace(problem, path=f"{show(at)}.{problem.path}")
        for problem in both.problems
        if (problem.path, problem.message) not in told
    ]
    return manifest


def _merged(raw: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's keys over the others, table by table."""
    merged = dict(raw)
    for key, value in over.items():
        before = merged.get(key)
        both = isinstance(value, dict) and isinstance(before, dict)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _name(directory: Path) -> str:
    """The folder's name as the author sees it: a link's own, and `.` has one too."""
    return Path(os.path.abspath(directory)).name  # noqa: PTH100 - resolve() follows links


def _manifest(doc: Document, raw: dict[str, Any], folder: str) -> Manifest:
    """The manifest, of what is right; the rest is reported to `doc`."""
    values = read_table(doc, (), raw, TOP)
    values.pop("trigger", None)
    name = values.setdefault("name", "" if "name" in raw else folder)
    if "name" not in raw:
        try:
            check_name("function", name)
        except NameInvalid as error:
            doc.report(("name",), f"{error}; it is the folder's name, set name to another")
    if len(name) > MAX_NAME:
        doc.report(("name",), f"{len(name)} characters; at most {MAX_NAME}")
    values["dlq"] = _dlq(name, values.pop("dlq", True))
    triggers = raw.get("trigger")
    pairs = enumerate(triggers) if isinstance(triggers, list) else ()
    found = {i: _trigger(doc, i, one) for i, one in pairs if isinstance(one, dict)}
    whole = {i: one for i, one in found.items() if one is not None}
    _check_bounds(doc, values, whole)
    _check_python(doc, values)
    _check_key(doc, values)
    _check_secrets(doc, values)
    _check_files(doc, values)
    _check_triggers(doc, whole)
    manifest = Manifest(**values, triggers=list(whole.values()))
    if doc.sound(("name",), ("output",), ("dlq",), ("trigger",)):
        for path, message in check_loops(manifest):
            doc.report(path, message)
    return manifest


def _dlq(name: str, given: bool | dict[str, str]) -> DlqSpec | None:
    if given is False:
        return None
    topic = given.get("topic") if isinstance(given, dict) else None
    return DlqSpec(topic=topic or f"{name}.dlq")


def _trigger(doc: Document, index: int, raw: dict[str, Any]) -> Trigger | None:
    path: KeyPath = ("trigger", index)
    match raw.get("kind", "mesh"):
        case "mesh":
            trigger = read_value(doc, path, Table(MESH, _mesh_trigger, ("topic",)), raw)
            _check_filters(doc, path, raw)
            if "key" in raw and raw.get("order", "none") == "none":
                doc.report((*path, "key"), 'needs order = "key" beside it')
        case "http":
            trigger = read_value(doc, path, Table(HTTP, _http_trigger, ("path",)), raw)
        case "cron":
            trigger = read_value(doc, path, Table(CRON, _cron_trigger, ("schedule",)), raw)
        case other:
            kinds = 'expected "mesh", "http" or "cron"'
            mend = nearest(other, ("mesh", "http", "cron"))
            doc.report((*path, "kind"), f"{kinds}, found {describe(other)}{mend}")
            return None
    return trigger if isinstance(trigger, Trigger) else None


def _mesh_trigger(kind: str = "mesh", **values: Any) -> MeshTrigger:
    return MeshTrigger(**{"name": values["topic"], **values})


def _http_trigger(kind: str = "http", **values: Any) -> HttpTrigger:
    name = re.sub(r"[^A-Za-z0-9]+", "-", values["path"]).strip("-")[:200] or "http"
    return HttpTrigger(**{"name": name, **values})


def _cron_trigger(kind: str = "cron", **values: Any) -> CronTrigger:
    return CronTrigger(**{"name": "cron", **values})


def _check_filters(doc: Document, path: KeyPath, raw: dict[str, Any]) -> None:
    """What `triggers` says of the filters, each with its line."""
    forms = ("filters", "pattern", "jsonpath")
    given = {form: raw[form] for form in forms if form in raw and doc.sound((*path, form))}
    try:
        parse(given)
    except FilterError as error:
        for mistake in error.errors:
            comma = ", " if mistake.mend.startswith("did you mean") else "; "
            message = mistake.reason + (comma + mistake.mend if mistake.mend else "")
            doc.report_at(f"{show(path)}.{mistake.path}", message)


def _check_key(doc: Document, values: dict[str, Any]) -> None:
    """What `triggers` says of the path of an idempotency key."""
    spec = values.get("idempotency")
    if spec is None or not spec.key.startswith("$"):
        return
    try:
        values_of(spec.key)
    except FilterError as error:
        for mistake in error.errors:
            mend = f"; {mistake.mend}" if mistake.mend else ""
            doc.report(("idempotency", "key"), mistake.reason + mend)


def _check_secrets(doc: Document, values: dict[str, Any]) -> None:
    """No more than an instance is told of, and none that is in the environment as well."""
    names = values.get("secrets", {})
    if len(names) > MOST_SECRETS:
        doc.report(("secrets",), f"{len(names)} of them; at most {MOST_SECRETS}")
    for name in names:
        if name in values.get("env", {}):
            doc.report(("secrets", name), "is in [env] too; a secret is no variable: keep one")


def _check_files(doc: Document, values: dict[str, Any]) -> None:
    """None that no host shows."""
    files = values.get("sandbox", SandboxSpec()).files
    if doc.sound(("sandbox", "files")):
        for index, path in enumerate(files):
            if why := never(path):
                doc.report(("sandbox", "files", index), f"{path} {why}")


def _check_bounds(doc: Document, values: dict[str, Any], triggers: dict[int, Trigger]) -> None:
    retry, scale = values.get("retry", RetrySpec()), values.get("scale", ScaleSpec())
    if doc.sound(("retry",)) and retry.base_s > retry.max_s:
        most = Duration.write(retry.max_s)
        doc.report(("retry", "base"), f"{Duration.write(retry.base_s)} is above retry.max, {most}")
    if doc.sound(("output",)) and values.get("output", OutputSpec()).stream:
        for index, trigger in triggers.items():
            if isinstance(trigger, MeshTrigger) and trigger.batch:
                message = f"goes with one event a call, and trigger[{index}] has batch"
                doc.report(("output", "stream"), message)
    if doc.sound(("scale",)) and scale.min > scale.max:
        doc.report(("scale", "min"), f"{scale.min} is above scale.max, {scale.max}")


def _check_python(doc: Document, values: dict[str, Any]) -> None:
    """A container has its image's."""
    if values.get("python") and values.get("sandbox", SandboxSpec()).isolation == "container":
        doc.report(
            ("python",),
            'does not go with isolation = "container", which has the Python of its image: remove'
            " it, and name an image that has it",
        )


def _check_triggers(doc: Document, triggers: dict[int, Trigger]) -> None:
    """No two of one name, nor on one HTTP path."""
    names: dict[str, int] = {}
    paths: dict[str, int] = {}
    for index, trigger in triggers.items():
        first = names.setdefault(trigger.name, index)
        if first != index:
            message = f"{describe(trigger.name)} is the name of trigger[{first}] too; set another"
            doc.report(("trigger", index, "name"), message)
        if isinstance(trigger, HttpTrigger):
            for path, first in paths.items():
                if clash(path, trigger.path):
                    message = f"{describe(trigger.path)} is the path of trigger[{first}] too"
                    if path != trigger.path:
                        message = (
                            f"{describe(trigger.path)} can be the same path as that of"
                            f" trigger[{first}], {describe(path)}"
                        )
                    doc.report(("trigger", index, "path"), message)
                    break
            paths.setdefault(trigger.path, index)


def check_loops(manifest: Manifest) -> list[tuple[KeyPath, str]]:
    """Outputs that could trigger the function itself, as (key, message). None if `allow_loop`.

    Only the type of a returned event is known here, so a filter on anything else counts as met;
    what `emit` sends to one of `output.topics` may have any type.
    """
    output = manifest.output
    found: list[tuple[KeyPath, str]] = []
    if output.allow_loop:
        return []
    mend = "set output.allow_loop = true if that is meant"
    kind = output.type or f"funcrt.{manifest.name}.result"
    for index, trigger in enumerate(manifest.triggers):
        if not isinstance(trigger, MeshTrigger):
            continue
        what = f"would call the function again by trigger[{index}]; {mend}"
        could = could_match(trigger.filters, trigger.pattern, kind)
        if trigger.topic == output.topic and could:
            found.append((("output", "topic"), f"an output of type {describe(kind)} {what}"))
        found += [
            (("output", "topics", at), f"an event sent to {describe(topic)} {what}")
            for at, topic in enumerate(output.topics)
            if topic == trigger.topic
        ]
        letters = could_match(trigger.filters, trigger.pattern, "funcrt.deadletter")
        if manifest.dlq and trigger.topic == manifest.dlq.topic and letters:
            found.append((("dlq", "topic"), f"a dead letter {what}"))
    return found
