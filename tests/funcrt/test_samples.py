"""Sample events: what is read, what is compared, and what is said of a difference."""

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from funcrt.testing import load
from funcrt.testing.samples import Mismatch, SampleInvalid, found, read_samples, sample_files
from tests.funcrt.test_testing import write

EVENT = {"specversion": "1.0", "id": "1", "source": "/t", "type": "a", "data": {"n": 1}}
MANIFEST = '[[trigger]]\ntopic = "in"\nfilters = [{exact = {type = "a"}}]\n[output]\ntype = "b"\n'


def sample(folder: Path, event: Any, expected: Any = None, *, suffix: str = ".json") -> Path:
    events = folder / "events"
    events.mkdir(parents=True, exist_ok=True)
    for name, value in (("one", event), ("one.expected", expected)):
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            (events / f"{name}{suffix}").write_text(text)
    return events / f"one{suffix}"


def check(folder: Path, event: Any, expected: Any, code: str, **how: str) -> None:
    function = load(write(folder, code, MANIFEST))
    for one in read_samples(sample(folder, event, expected, **how)):
        one.check(function)


PLAIN = "def handler(event): return {'n': event.json()['n'] + 1}"


def test_only_what_is_expected_is_compared(tmp_path: Path) -> None:
    for output in ({}, {"type": "b"}, {"data": {"n": 2}}, {"source": "/funcrt/f", "type": "b"}):
        check(tmp_path / "f", EVENT, {"outputs": [output]}, PLAIN)
    for output in ({"type": "c"}, {"data": {"n": 3}}, {"subject": "s"}, {"data": None}):
        with pytest.raises(Mismatch):
            check(tmp_path / "f", EVENT, {"outputs": [output]}, PLAIN)
    for outputs in ([], [{}, {}]):
        with pytest.raises(Mismatch):
            check(tmp_path / "f", EVENT, {"outputs": outputs}, PLAIN)
    with pytest.raises(Mismatch):
        check(tmp_path / "f", EVENT, {"filtered": True}, PLAIN)
    check(tmp_path / "f", {**EVENT, "type": "z"}, {"filtered": True}, PLAIN)


def test_text_and_bytes(tmp_path: Path) -> None:
    check(tmp_path / "f", EVENT, {"outputs": [{"data": "hi"}]}, "def handler(e): return 'hi'")
    code = "def handler(e): return b'\\x00\\xff'"
    check(tmp_path / "f", EVENT, {"outputs": [{"data_base64": "AP8="}]}, code)


def test_a_difference_is_shown_with_the_authors_frames(tmp_path: Path) -> None:
    with pytest.raises(Mismatch) as told:
        check(tmp_path / "f", EVENT, {"outputs": [{"data": {"n": 3}}]}, PLAIN)
    assert str(told.value) == dedent(
        """\
        --- one.expected.json
        +++ found
        @@ -3,5 +3,5 @@
             {
               "data": {
        -        "n": 3
        +        "n": 2
               }
             }"""
    )
    with pytest.raises(Mismatch) as told:
        check(tmp_path / "f", EVENT, {"outputs": [{}]}, "def handler(event): return 1 // 0")
    assert str(told.value) == dedent(
        """\
        --- one.expected.json
        +++ found
        @@ -1,5 +1,3 @@
         {
        -  "outputs": [
        -    {}
        -  ]
        +  "failure": "ZeroDivisionError: integer division or modulo by zero"
         }

          File "main.py", line 1, in handler
            def handler(event): return 1 // 0
                                       ~~^^~~
        ZeroDivisionError: integer division or modulo by zero"""
    )


def test_an_array_is_a_batch_and_a_line_a_call(tmp_path: Path) -> None:
    two = [EVENT, {**EVENT, "id": "2"}]
    code = "def handler(ns: list[dict]): return {'count': len(ns)}"
    check(tmp_path / "f", two, {"outputs": [{"data": {"count": 2}}]}, code)
    refused = "the sample is a batch of 2 events, and the handler takes one"
    with pytest.raises(Mismatch, match=refused):
        check(tmp_path / "f", two, {"outputs": []}, PLAIN)
    lines = "\n\n".join(json.dumps(one) for one in two)
    wanted = '{"outputs": [{"data": {"n": 2}}]}\n{"outputs": [{"data": {"n": 9}}]}\n'
    with pytest.raises(Mismatch):
        check(tmp_path / "g", lines, wanted, PLAIN, suffix=".jsonl")
    check(tmp_path / "g", lines, wanted.replace("9", "2"), PLAIN, suffix=".jsonl")
    assert [one.name for one in read_samples(tmp_path / "g/events/one.jsonl")] == ["one:1", "one:3"]
    assert sample_files(tmp_path / "g") == [tmp_path / "g/events/one.jsonl"]


def test_without_what_is_expected_a_sample_only_runs(tmp_path: Path) -> None:
    function = load(write(tmp_path, PLAIN, MANIFEST))
    (one,) = read_samples(sample(tmp_path, EVENT))
    assert one.expected is None
    assert found(one.check(function))["outputs"][0]["data"] == {"n": 2}


ONE_OF = "expected one of outputs, response, failure, filtered"


@pytest.mark.parametrize(
    ("event", "expected", "message"),
    [
        ("{\n  n}", None, "one.json:2: not JSON: Expecting property name enclosed in"
         " double quotes"),
        ({"id": "1"}, None, "one.json: specversion: is required and missing"),
        ([], None, "one.json: an empty array, expected events"),
        (EVENT, {"output": []}, 'one.expected.json: output: unknown key, did you mean "outputs"?'),
        (EVENT, {"x": 1}, f"one.expected.json: x: unknown key; {ONE_OF}"),
        (EVENT, {"outputs": {}}, "one.expected.json: outputs: expected a list of objects"),
        (EVENT, {"response": {"x": 1}}, "one.expected.json: response: expected an object of status,"
         " headers, data, data_base64"),
        (EVENT, {"filtered": False}, "one.expected.json: filtered: expected true"),
        (EVENT, {}, f"one.expected.json: {ONE_OF}; found nothing"),
        (EVENT, [1], f"one.expected.json: {ONE_OF}; found list"),
    ],
)  # fmt: skip
def test_a_sample_that_cannot_be_read_is_told(
    tmp_path: Path, event: Any, expected: Any, message: str
) -> None:
    with pytest.raises(SampleInvalid) as refused:
        read_samples(sample(tmp_path, event, expected))
    assert str(refused.value) == f"{tmp_path}/events/{message}"
    assert sample_files(tmp_path)


def test_lines_without_an_expectation_are_told(tmp_path: Path) -> None:
    line = json.dumps(EVENT)
    file = sample(tmp_path, f"{line}\n{line}\n", '{"outputs": []}', suffix=".jsonl")
    with pytest.raises(SampleInvalid, match=r"one.expected.jsonl: has 1 lines, one.jsonl has more"):
        read_samples(file)
    (tmp_path / "events" / "one.expected.jsonl").write_text('{"outputs": []}\n' * 3)
    with pytest.raises(SampleInvalid, match=r"one.expected.jsonl: has more lines than one.jsonl"):
        read_samples(file)
