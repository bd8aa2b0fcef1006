"""Every sample function does with its sample events what the files beside them expect.

`events/NAME.json` is an event, or an array for one batch; `events/NAME.expected.json` says
`outputs` (type, where the function sets one, and data), `failure`, or `filtered`: its triggers let
the event pass by.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from funcrt.manifest import HttpTrigger, MeshTrigger, load_manifest
from funcrt.sandbox.protocol import Result
from mesh import Event
from tests.calling import call
from triggers import parse

ROOT = Path(__file__).parent.parent / "functions"
FUNCTIONS = sorted(path.name for path in ROOT.iterdir() if path.is_dir())


def samples(directory: Path) -> list[tuple[str, list[Event], dict[str, Any]]]:
    found = []
    for path in sorted((directory / "events").glob("*.json")):
        if not path.name.endswith(".expected.json"):
            given = json.loads(path.read_text("utf-8"))
            events = given if isinstance(given, list) else [given]
            expected = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))
            found.append(
                (path.stem, [Event.from_json(json.dumps(e).encode()) for e in events], expected)
            )
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sample_does_what_it_says(name: str) -> None:
    directory = ROOT / name
    manifest = load_manifest(directory)
    said = {}
    matched = []
    for sample, events, _ in samples(directory):
        if all(passes(trigger, event) for event in events for trigger in manifest.triggers):
            matched.append((sample, events))
        else:
            said[sample] = {"filtered": True}
    results = asyncio.run(call(directory, *(events for _, events in matched)))
    for (sample, _), result in zip(matched, results, strict=True):
        said[sample] = shown(result)
    assert said == {sample: expected for sample, _, expected in samples(directory)}


def passes(trigger: Any, event: Event) -> bool:
    if isinstance(trigger, HttpTrigger):
        return event.extensions["httpmethod"] in trigger.methods
    assert isinstance(trigger, MeshTrigger)
    pattern = {"pattern": trigger.pattern} if trigger.pattern else {}
    return parse({"filters": trigger.filters, **pattern}).matches(event)


def shown(result: Result) -> dict[str, Any]:
    if result.failure is not None:
        return {"failure": f"{result.failure.error}: {result.failure.message}"}
    return {
        "outputs": [
            {
                "type": out.event.type,
                "data": out.event.json()
                if out.event.datacontenttype == "application/json"
                else (out.event.data or b"").decode(),
            }
            for out in result.outputs
        ]
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sample_has_what_a_newcomer_needs(name: str) -> None:
    expected = [what for _, _, what in samples(ROOT / name)]
    assert any("outputs" in what for what in expected)
    assert len(expected) >= 2
    assert (ROOT / name / "funcrt.toml").is_file()
    assert (ROOT / name / "main.py").read_text("utf-8").startswith('"""')


def test_the_samples_show_each_kind_of_function() -> None:
    manifests = {name: load_manifest(ROOT / name) for name in FUNCTIONS}
    triggers = [t for manifest in manifests.values() for t in manifest.triggers]
    assert any(isinstance(t, HttpTrigger) for t in triggers)
    assert any(isinstance(t, MeshTrigger) and t.batch for t in triggers)
    topics = {t.topic for t in triggers if isinstance(t, MeshTrigger)}
    assert any(manifest.output.topic in topics for manifest in manifests.values()), "a chain"
