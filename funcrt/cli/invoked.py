"""What `funcrt invoke` does with its event, here and in a host, and what it shows."""

import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from funcrt.cli.errors import FAILED, UNREACHABLE, USAGE, CliError
from funcrt.cli.output import json_line, line, note, safe
from funcrt.gathered import Response
from mesh.event import Event

if TYPE_CHECKING:
    from funcrt.trial import Trial

__all__ = ["here", "there"]

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers, body."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHOWN = 2000
"""Characters of an event's data that a line shows."""


async def here(
    directory: Path,
    calls: Sequence[list[Event]],
    repeat: int,
    json: bool,
    *,
    secrets: Path | None = None,
    packages: Path | None = None,
) -> int:
    """Call the directory's function in the sandbox, on one event at a time or a batch, with secrets
    of that directory; the exit code. What it needs is installed below `packages`, if given."""
    from funcrt.trial import trial

    failed = 0
    async with trial(directory, secrets=secrets, packages=packages) as function:
        for events in calls:
            failed += await _here(function, directory, events, repeat, json)
    return FAILED if failed else 0


async def _here(
    function: "Trial", directory: Path, events: list[Event], repeat: int, json: bool
) -> int:
    """How many of the calls failed."""
    from funcrt.reach import Reach
    from funcrt.testing.outcome import judged
    from funcrt.trial import NAMESPACE

    manifest, batch = function.manifest, function.zygote.info.batch
    if len(events) > 1 and not batch:
        raise CliError(f"{len(events)} events, and {manifest.name} takes one at a time", code=USAGE)
    reach = Reach(manifest, requests=function.zygote.info.request)
    names = reach.matches(events[0])
    trigger = names[0] if names else next((t.name for t in manifest.triggers), "http")
    verdict = _verdict(reach, names)
    took: list[float] = []
    failed = 0
    for number in range(repeat):
        tried = await function.call(trigger, events)
        took.append(tried.took_s)
        outcome = judged(
            manifest, NAMESPACE, trigger, events, tried.result, now=time.time(),
            response=tried.response, hide=function.secrets.text,
        )  # fmt: skip
        failed += outcome.failure is not None
        row = {
            "function": manifest.name,
            "status": outcome.status,
            "filter": names,
            "outputs": [
                {"topic": topic, "event": msgspec.Raw(event.to_json())}
                for topic, event in zip(outcome.topics, outcome.outputs, strict=True)
            ],
            "response": outcome.response and _response(outcome.response),
            "failure": outcome.failure and msgspec.structs.asdict(outcome.failure),
            "retry_after_s": outcome.retry_after_s,
            "dead": outcome.dead,
            "logs": [[log.level, log.text] for log in function.logs],
            "ms": round(tried.took_s * 1000, 3),
            "fork_ms": tried.fork_s and round(tried.fork_s * 1000, 3),
            "import_ms": round(function.zygote.info.import_ms, 3),
        }
        if json:
            json_line(row)
        elif number == 0:
            _said(events, verdict)
            for log in function.logs:
                line(f"  {log.level.upper():<7} {safe(log.text)}")
            if outcome.response is not None:
                _responded(outcome.response)
            elif outcome.failure is None or outcome.outputs:
                _outputs(outcome.outputs, outcome.topics)
            times = f"{tried.took_s * 1000:.1f} ms · fork {(tried.fork_s or 0) * 1000:.1f} ms"
            line(f"  {times} · import {function.zygote.info.import_ms:.0f} ms")
            if outcome.failure is not None:
                _failed(manifest.name, row, str(directory), manifest.retry.attempts)
        function.logs.clear()
    if repeat > 1 and not json:
        _many(took, failed)
    return failed


def _verdict(reach: Any, names: list[str]) -> str:
    shown = [reach.shown(name) for name in names]
    if shown:
        return f"filter: match ({', '.join(shown)})"
    every = [reach.shown(trigger.name) for trigger in reach.manifest.triggers]
    return f"filter: no match ({', '.join(every)})" if every else "no trigger"


def _said(events: Sequence[Event], verdict: str = "") -> None:
    for event in events[:5]:
        line(f"→ {safe(event.type)}  id={_id(event)}" + (f"  {verdict}" if verdict else ""))
    if len(events) > 5:
        line(f"  and {len(events) - 5} more")


def _outputs(outputs: Sequence[Event], topics: Sequence[str] = ()) -> None:
    for at, event in enumerate(outputs):
        where = f"  → {topics[at]}" if topics and topics[at] else ""
        line(f"← {safe(event.type)}  id={_id(event)}  {_data(event)}{where}")
    if not outputs:
        line("← nothing")


def _id(event: Event) -> str:
    """Of a UUID, which a host makes, the beginning is enough for a terminal."""
    short = sys.stdout.isatty() and _UUID.fullmatch(event.id)
    return f"{event.id[:8]}…" if short else safe(event.id)


def _response(response: Response) -> dict[str, Any]:
    body = response.body.decode(errors="replace")
    return {"status": response.status, "headers": response.headers, "body": body}


def _responded(response: Response) -> None:
    kind = response.header("content-type")
    shown = _text(response.body, kind)
    line(f"← {response.status}  {f'{safe(kind)}  ' if kind else ''}{shown}".rstrip())


def _data(event: Event) -> str:
    return _text(event.data or b"", event.datacontenttype)


def _text(data: bytes, kind: str | None) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"<{len(data)} bytes of {safe(kind or 'unknown type')}>"
    return safe(text) if len(text) <= SHOWN else safe(text[:SHOWN]) + "…"


def _failed(name: str, row: dict[str, Any], where: str, attempts: int | None = None) -> None:
    """What failed, the author's frames, and what a host would do next."""
    failure = row["failure"]
    then = ""
    if row.get("retry_after_s") is not None:
        then = f": a host tries again within {row['retry_after_s']:.3g} s, {attempts} times in all"
    elif row.get("dead"):
        then = ": a dead letter, no further attempt"
    text = failure["traceback"] or f"{failure['error']}: {failure['message']}"
    place = re.compile(r'^  File "(?!/)(.+?)", line (\d+), in (.+)$', re.M)
    text = place.sub(lambda m: f"{where}/{m[1]}:{m[2]} in {m[3]}", text)
    sys.stdout.flush()
    note(f"✗ {name} failed{then}")
    for each in text.splitlines():
        note(f"  {safe(each)}")


def _many(took: list[float], failed: int) -> None:
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    line(
        f"{len(took)} calls: {len(took) - failed} ok, {failed} failed ·"
        f" {statistics.median(took) * 1000:.2f} ms median · {p99 * 1000:.2f} ms p99"
    )


def there(
    socket: Path, name: str, events: list[Event], repeat: int, *, later: bool, json: bool
) -> int:
    """Call it in the running host, over its socket; the exit code."""
    from funcrt.cli.client import AdminClient

    if len(events) > 1:
        raise CliError(
            "a call to a host takes one event, and this is a batch",
            f"funcrt publish TOPIC FILE   # what {name}'s trigger reads",
            USAGE,
        )
    client = AdminClient(socket)
    took: list[float] = []
    failed = 0
    for number in range(repeat):
        started = time.perf_counter()
        answer = client.call(name, events[0], later=later)
        took.append(time.perf_counter() - started)
        row = _answered(name, answer, took[-1], later=later)
        failed += row["failure"] is not None
        if json:
            json_line({key: value for key, value in row.items() if key != "events"})
        elif number == 0:
            _said(events)
            if later:
                line(f"  queued @{row['position']}")
            elif row.get("response"):
                _responded(row["events"])
            elif row["failure"] is None:
                _outputs(row["events"])
            line(f"  {took[-1] * 1000:.1f} ms")
            if row["failure"] is not None:
                _failed(name, row, name)
    if repeat > 1 and not json:
        _many(took, failed)
    return FAILED if failed else 0


def _answered(name: str, answer: Answer, took: float, *, later: bool) -> dict[str, Any]:
    """The host's answer as a row. Raises CliError where the function was not called."""
    from mesh.codec import decode_http

    status, headers, body = answer
    row: dict[str, Any] = {"function": name, "status": "ok", "failure": None,
                           "ms": round(took * 1000, 3)}  # fmt: skip
    if later and status < 400:
        receipt = msgspec.json.decode(body)
        return {**row, "status": "queued", "position": _position(receipt)}
    names = {name.lower(): value for name, value in headers}
    events = "ce-specversion" in names or "cloudevents" in names.get("content-type", "")
    problem_ = names.get("content-type") == "application/problem+json"
    if status != 204 and not events and not (problem_ and b"urn:funcrt:problem:" in body):
        lower = [(name.lower(), value) for name, value in headers]
        response = Response(status=status, headers=lower, body=body)
        return {**row, "outputs": [], "response": _response(response), "events": response}
    if status < 400:
        named = [each for each in headers if each[0].lower().startswith(("ce-", "content-type"))]
        found = decode_http(named, body) if status != 204 else []
        outputs = [{"event": msgspec.Raw(event.to_json())} for event in found]
        return {**row, "outputs": outputs, "events": found}
    problem = msgspec.json.decode(body)
    if "error" not in problem:
        unreachable = status == 503
        hint = "funcrt ls" if status == 404 else ""
        raise CliError(problem["detail"], hint, UNREACHABLE if unreachable else FAILED)
    failure = {key: problem.get(key, "") for key in ("error", "message", "where", "traceback")}
    return {**row, "status": problem["type"].rpartition(":")[2], "failure": failure, "events": []}


def _position(receipt: Any) -> str:
    found = receipt[0] if isinstance(receipt, list) else receipt
    found = found.get("receipts", [found])[0] if isinstance(found, dict) else {}
    return str(found.get("position", "")).removeprefix("@")
