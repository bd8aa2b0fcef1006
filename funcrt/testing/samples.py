"""Sample events of a function, and what is expected of each.

`events/NAME.json` holds an event, or an array of them that is one batch; `events/NAME.jsonl` an
event a line, each a call of its own. Beside it `NAME.expected.json` says what the function makes of
it (`NAME.expected.jsonl` a line for each line): an object with one of

    outputs    the events that come out: of each whatever is said of it, `data` and any attribute
    response   what a handler of Requests answers: of `status`, `headers`, `data` or `data_base64`
               whatever is said
    failure    "Reject: too long": the class and message of what the handler raised
    filtered   true: no trigger lets the event through
"""

import base64
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from funcrt.errors import FuncrtError, Problem, nearest
from funcrt.testing.function import Function
from funcrt.testing.outcome import Outcome, plain
from mesh.errors import EventError
from mesh.event import Event

__all__ = [
    "Mismatch",
    "Sample",
    "SampleInvalid",
    "beside",
    "found",
    "like",
    "read_samples",
    "sample_files",
]

EVENTS = "events"
EXPECTED = ".expected"
RESPONSE = ("status", "headers", "data", "data_base64")
KEYS = ("outputs", "response", "failure", "filtered")


class SampleInvalid(FuncrtError):
    """A sample's file, or what is expected of it, that cannot be read."""

    def __init__(self, file: Path, message: str, line: int | None = None) -> None:
        self.problem = Problem(file=str(file), line=line, message=message)
        super().__init__(str(self.problem))


class Mismatch(AssertionError):
    """A function did something else with a sample than is expected."""


class Sample(msgspec.Struct, frozen=True):
    """One call: its events, and what is expected; None where nothing is."""

    name: str
    """`opened`, or `burst:3` for the third line of `burst.jsonl`."""
    file: Path
    events: list[Event]
    expected: dict[str, Any] | None

    def check(self, function: Function) -> Outcome | None:
        """Call the function; None where it is filtered. Raises Mismatch."""
        outcome = _outcome(function, self.events)
        if self.expected is not None:
            actual = like(self.expected, found(outcome))
            if actual != self.expected:
                raise Mismatch(_told(self, actual, outcome))
        return outcome


def sample_files(function: Path) -> list[Path]:
    """The files of a function's samples, without what is expected of them."""
    files = [*(function / EVENTS).glob("*.json"), *(function / EVENTS).glob("*.jsonl")]
    return sorted(file for file in files if not file.stem.endswith(EXPECTED))


def beside(file: Path) -> Path:
    """The file of what is expected of a sample's file."""
    return file.with_name(f"{file.stem}{EXPECTED}{file.suffix}")


def read_samples(file: Path, *, whole: bool = True) -> list[Sample]:
    """The samples of one file. `whole`: something is expected of each, or of none. Raises
    SampleInvalid."""
    expectations = beside(file)
    wanted = list(_documents(expectations)) if expectations.exists() else None
    samples = []
    for at, (line, given) in enumerate(_documents(file)):
        many = given if isinstance(given, list) else [given]
        try:
            events = [Event.from_json(json.dumps(one).encode()) for one in many]
        except EventError as error:
            raise SampleInvalid(file, str(error), line) from None
        if not events:
            raise SampleInvalid(file, "an empty array, expected events", line)
        expected = None
        if wanted is not None:
            if at < len(wanted):
                expected = _expected(expectations, *wanted[at])
            elif whole:
                raise SampleInvalid(expectations, f"has {len(wanted)} lines, {file.name} has more")
        name = f"{file.stem}:{line}" if file.suffix == ".jsonl" else file.stem
        samples.append(Sample(name, file, events, expected))
    if whole and wanted is not None and len(wanted) > len(samples):
        raise SampleInvalid(expectations, f"has more lines than {file.name}")
    return samples


def _documents(file: Path) -> Iterator[tuple[int | None, Any]]:
    """(line, value) of a file's JSON: one, or one a line."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SampleInvalid(file, f"cannot be read: {error}") from None
    parts = enumerate(text.splitlines(), 1) if file.suffix == ".jsonl" else [(None, text)]
    for line, part in parts:
        if file.suffix == ".jsonl" and not part.strip():
            continue
        try:
            yield line, json.loads(part)
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) and not line else line
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise SampleInvalid(file, f"not JSON: {message}", at) from None


def _expected(file: Path, line: int | None, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) != 1:
        keys = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise SampleInvalid(
            file, f"expected one of {', '.join(KEYS)}; found {keys or 'nothing'}", line
        )
    (key,) = value
    if key not in KEYS:
        near = nearest(key, KEYS)
        mend = f', did you mean "{near[0]}"?' if near else f"; expected one of {', '.join(KEYS)}"
        raise SampleInvalid(file, f"{key}: unknown key{mend}", line)
    right = {
        "outputs": isinstance(value[key], list) and all(isinstance(o, dict) for o in value[key]),
        "response": isinstance(value[key], dict) and {*value[key]} <= {*RESPONSE},
        "failure": isinstance(value[key], str),
        "filtered": value[key] is True,
    }
    if not right[key]:
        kinds = {
            "outputs": "a list of objects",
            "response": f"an object of {', '.join(RESPONSE)}",
            "failure": "a string",
            "filtered": "true",
        }
        raise SampleInvalid(file, f"{key}: expected {kinds[key]}", line)
    return value


def _outcome(function: Function, events: list[Event]) -> Outcome | None:
    """As the function gets them: those that a trigger lets through; None where there are none."""
    if function.manifest.triggers:
        events = [event for event in events if function.matches(event)]
    if not events:
        return None
    if len(events) > 1 and not function.bound.batch:
        raise Mismatch(
            f"the sample is a batch of {len(events)} events, and the handler takes one; "
            "annotate it list[Event], or put one event a line into a .jsonl file"
        )
    return function.call(events) if function.bound.batch else function.call(events[0])


def found(outcome: Outcome | None) -> dict[str, Any]:
    """An outcome as a file of expectations says it, with all that can be expected."""
    if outcome is None:
        return {"filtered": True}
    if outcome.failure is not None:
        return {"failure": outcome.error}
    if (response := outcome.response) is not None:
        data = outcome.data if not outcome.outputs else response.text
        said = {"status": response.status, "headers": dict(response.headers)}
        if isinstance(data, bytes):
            return {"response": {**said, "data_base64": base64.b64encode(data).decode()}}
        return {"response": {**said, "data": data}}
    return {"outputs": [_shown(event) for event in outcome.outputs]}


def _shown(event: Event) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(event.to_json())
    shown.pop("data", None)
    data = plain(event)
    if data is not None and not isinstance(data, bytes):
        shown.pop("data_base64", None)
        shown["data"] = data
    return shown


def like(expected: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    """Of the outputs only what is expected of each, so that it can be compared and shown."""
    if "response" in actual and isinstance(wanted := expected.get("response"), dict):
        cut_to = {key: actual["response"][key] for key in wanted if key in actual["response"]}
        if "headers" in wanted:
            there = actual["response"]["headers"]
            cut_to["headers"] = {name: there.get(name.lower()) for name in wanted["headers"]}
        return {"response": cut_to}
    if "outputs" not in actual:
        return actual
    outputs = expected.get("outputs", [])
    cut = []
    for at, one in enumerate(actual["outputs"]):
        keys = outputs[at] if at < len(outputs) else ("type", "data", "data_base64")
        cut.append({key: one[key] for key in keys if key in one})
    return {"outputs": cut}


def _told(sample: Sample, actual: dict[str, Any], outcome: Outcome | None) -> str:
    """What differs, and the traceback where the function failed."""
    before = json.dumps(sample.expected, indent=2, ensure_ascii=False).splitlines()
    after = json.dumps(actual, indent=2, ensure_ascii=False).splitlines()
    name = beside(sample.file).name
    lines = list(difflib.unified_diff(before, after, name, "found", lineterm="", n=2))
    if outcome is not None and outcome.failure is not None and outcome.failure.traceback:
        lines += ["", outcome.failure.traceback]
    return "\n".join(lines)
