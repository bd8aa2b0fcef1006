"""`funcrt test --update`: what is expected of samples is written from what the function does."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from funcrt.testing.samples import read_samples
from funcrt.testing.update import Updated, update
from tests.funcrt.test_cli_author import run
from tests.funcrt.test_samples import EVENT, MANIFEST, PLAIN, sample
from tests.funcrt.test_testing import write

STARLETTE = "from starlette.requests import Request\nfrom starlette.responses import Response\n"


def renewed(
    folder: Path, code: str, expected: Any = None, event: Any = EVENT, **how: str
) -> tuple[Updated, Any]:
    """What one update says, and what is in the file of expectations after it."""
    file = sample(write(folder, code, MANIFEST), event, expected, **how)
    (told,) = update(folder)
    beside = file.with_name(f"one.expected{file.suffix}")
    text = beside.read_text() if beside.exists() else ""
    if told.status != "failed":
        assert [(one.file, one.status) for one in update(folder)] == [(file, "same")]
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    if file.suffix == ".jsonl":
        return told, [json.loads(line) for line in text.splitlines()]
    return told, json.loads(text) if text else None


def test_a_sample_without_an_expectation_gets_one(tmp_path: Path) -> None:
    told, now = renewed(tmp_path / "a", PLAIN)
    assert (told.status, now) == ("written", {"outputs": [{"type": "b", "data": {"n": 2}}]})
    assert '+      "type": "b",' in told.told.splitlines()
    assert renewed(tmp_path / "b", PLAIN, event={**EVENT, "type": "z"})[1] == {"filtered": True}
    assert renewed(tmp_path / "c", "def handler(e): return b'a'")[1] == {
        "outputs": [{"type": "b", "data_base64": "YQ=="}]
    }
    two = [EVENT, {**EVENT, "id": "2"}]
    code = "def handler(ns: list[dict]): return {'count': len(ns)}"
    now = renewed(tmp_path / "d", code, event=two)[1]
    assert now["outputs"][0]["data"] == {"count": 2}


def test_what_is_said_is_renewed_and_nothing_is_added(tmp_path: Path) -> None:
    told, now = renewed(tmp_path / "a", PLAIN, {"outputs": [{"data": {"n": 9}}]})
    assert (told.status, now) == ("changed", {"outputs": [{"data": {"n": 2}}]})
    assert [line.strip() for line in told.told.splitlines() if line[0] in "+-"] == [
        "--- one.expected.json", "+++ now",
        *('-{"outputs": [{"data": {"n": 9}}]}', "+{", '+  "outputs": [', "+    {"),
        *('+      "data": {', '+        "n": 2', "+      }", "+    }", "+  ]", "+}"),
    ]  # fmt: skip
    more = "def handler(event):\n    yield {'n': 1}\n    yield {'n': 2}\n"
    _, now = renewed(tmp_path / "b", more, {"outputs": [{"type": "x"}]})
    assert now == {"outputs": [{"type": "b"}, {"type": "b", "data": {"n": 2}}]}
    _, now = renewed(tmp_path / "c", PLAIN, {"outputs": [{"data_base64": "AP8="}]})
    assert now == {"outputs": [{"data": {"n": 2}}]}
    _, now = renewed(tmp_path / "d", PLAIN, {"filtered": True})
    assert now == {"outputs": [{"type": "b", "data": {"n": 2}}]}
    _, now = renewed(tmp_path / "e", PLAIN, {"failure": "KeyError: 'n'"})
    assert now == {"outputs": [{"type": "b", "data": {"n": 2}}]}


def test_long_data_is_written_whole_and_shown_in_short(tmp_path: Path) -> None:
    told, now = renewed(tmp_path, "def handler(event): return 'x' * 1000")
    assert now["outputs"][0]["data"] == "x" * 1000
    assert max(len(line) for line in told.told.splitlines()) == 201


def test_a_file_that_is_right_is_not_touched(tmp_path: Path) -> None:
    text = '{"outputs":[{ "data":{"n":2} }]}'
    told, _ = renewed(tmp_path, PLAIN, text)
    assert told.status == "same"
    assert (tmp_path / "events" / "one.expected.json").read_text() == text


def test_a_changed_file_keeps_its_mode(tmp_path: Path) -> None:
    file = sample(write(tmp_path, PLAIN, MANIFEST), EVENT, {"outputs": []})
    beside = file.with_name("one.expected.json")
    beside.chmod(0o640)
    assert [one.status for one in update(tmp_path)] == ["changed"]
    assert stat.S_IMODE(beside.stat().st_mode) == 0o640


FAILS = "def handler(event): return 1 // 0"
WHY = "ZeroDivisionError: integer division or modulo by zero"


@pytest.mark.parametrize("expected", [None, {"outputs": []}, {"failure": "KeyError: 'n'"}])
def test_a_failure_overwrites_nothing(tmp_path: Path, expected: Any) -> None:
    told, now = renewed(tmp_path, FAILS, expected)
    assert (told.status, now) == ("failed", expected)
    lines = told.told.splitlines()
    assert lines[0] == f"one: the function failed: {WHY}"
    assert '  File "main.py", line 1, in handler' in lines
    assert lines[-2].endswith(f'write {{"failure": "{WHY}"}}')
    assert lines[-1] == "one.expected.json is left as it is"


def test_a_failure_that_is_expected_is_as_it_should_be(tmp_path: Path) -> None:
    assert renewed(tmp_path, FAILS, {"failure": WHY})[0].status == "same"


def test_one_failure_among_lines_keeps_the_whole_file(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({**EVENT, "data": data}) for data in ({"n": 1}, {}))
    before = '{"outputs": []}\n{"outputs": []}\n'
    told, now = renewed(tmp_path, PLAIN, before, lines, suffix=".jsonl")
    assert (told.status, now) == ("failed", [{"outputs": []}] * 2)
    assert told.told.startswith("one:2: the function failed: KeyError: 'n'")


def test_lines_come_and_go(tmp_path: Path) -> None:
    line = json.dumps(EVENT)
    expected = {"outputs": [{"type": "b", "data": {"n": 2}}]}
    right, other = json.dumps(expected), '{"outputs": []}'
    for count, before in ((3, f"{other}\n"), (1, f"{right}\n{other}\n")):
        folder = tmp_path / str(count)
        told, now = renewed(folder, PLAIN, before, f"{line}\n\n" * count, suffix=".jsonl")
        assert (told.status, len(now)) == ("changed", count)
        assert now[-1] == expected
        assert len(read_samples(folder / "events" / "one.jsonl")) == count


def test_what_differs_from_call_to_call_is_not_expected(tmp_path: Path) -> None:
    code = (
        "import time\nfrom funcrt import Event\n"
        "def handler(event):\n"
        "    at = time.monotonic_ns()\n"
        "    if event.json()['n'] == 7:\n        return [{'at': at}]\n"
        "    return Event.create('b', 1, subject=str(at))\n"
    )
    told, now = renewed(tmp_path / "a", code, {"outputs": [{"type": "b", "subject": "17"}]})
    assert (now, told.left_out) == ({"outputs": [{"type": "b"}]}, ["outputs[0].subject"])
    told, now = renewed(tmp_path / "b", code, event={**EVENT, "data": {"n": 7}})
    assert (now, told.left_out) == ({"outputs": [{"type": "b"}]}, ["outputs[0].data"])
    lines = f"{json.dumps(EVENT)}\n{json.dumps({**EVENT, 'data': {'n': 7}})}\n"
    told, _ = renewed(tmp_path / "c", code, event=lines, suffix=".jsonl")
    assert told.left_out == ["one:2: outputs[0].data"]


def test_a_function_that_does_something_else_each_time_is_told(tmp_path: Path) -> None:
    (tmp_path / "calls").touch()
    code = (
        "from pathlib import Path\n"
        f"calls = Path({str(tmp_path / 'calls')!r})\n"
        "def handler(event):\n"
        "    calls.write_text(calls.read_text() + '.')\n"
        "    return [event] * len(calls.read_text())\n"
    )
    told, now = renewed(tmp_path / "f", code)
    assert (told.status, now) == ("failed", None)
    first = "one: does something else in a second call: 1 outputs, then 2 outputs"
    assert told.told.splitlines()[0] == first


def test_a_response(tmp_path: Path) -> None:
    code = (
        f"{STARLETTE}\nasync def handler(request: Request):\n"
        "    body = await request.body()\n"
        "    return Response(body * 2, 201, {'x-a': '1'}, 'image/png' if body else 'text/plain')\n"
    )
    write(tmp_path, code, "")
    post = {**EVENT, "type": "funcrt.http.request", "datacontenttype": "text/plain", "data": "ab"}
    file = sample(tmp_path, post)
    beside = file.with_name("one.expected.json")
    assert [one.status for one in update(tmp_path)] == ["written"]
    assert json.loads(beside.read_text()) == {
        "response": {"status": 201, "data_base64": "YWJhYg=="}
    }
    beside.write_text('{"response": {"headers": {"X-A": "0", "x-b": "1"}, "data": "x"}}')
    assert [one.status for one in update(tmp_path)] == ["changed"]
    assert json.loads(beside.read_text()) == {
        "response": {"headers": {"X-A": "1", "x-b": None}, "data_base64": "YWJhYg=="}
    }
    assert [one.status for one in update(tmp_path)] == ["same"]


def test_what_cannot_be_read_or_loaded_is_left_alone(tmp_path: Path) -> None:
    told, _ = renewed(tmp_path / "a", PLAIN, event="{")[0], None
    assert (told.status, "one.json:1: not JSON" in told.told) == ("failed", True)
    file = sample(write(tmp_path / "b", PLAIN, MANIFEST), EVENT, "mine, broken")
    (told,) = update(tmp_path / "b")
    assert (told.status, "one.expected.json:1: not JSON" in told.told) == ("failed", True)
    assert file.with_name("one.expected.json").read_text() == "mine, broken"
    sample(write(tmp_path / "c", "def handler(e", MANIFEST), EVENT, {"outputs": []})
    (told,) = update(tmp_path / "c")
    assert (told.file, told.status) == (tmp_path / "c", "failed")
    assert "main.py:1: syntax error" in told.told


def test_the_command(tmp_path: Path) -> None:
    assert run("new", "f", cwd=tmp_path)[0] == 0
    main = tmp_path / "f" / "main.py"
    main.write_text(main.read_text().replace('"large"', '"big"') + "\nprint('loaded')\n")
    code, out, err = run("test", "f", "--update", cwd=tmp_path)
    assert (code, err.count("loaded")) == (0, 4)
    assert out.startswith("✓ f/events/large.expected.json: changed\n  --- large.expected.json\n")
    assert '  -        "size": "large"\n  +        "size": "big"\n' in out
    assert out.endswith("\nsamples: 1 changed, 1 same\n")
    assert run("test", "f", "-k", "sample or events", cwd=tmp_path)[0] == 0
    assert run("test", "f", "--update", cwd=tmp_path)[1] == "samples: 2 same\n"
    main.write_text(main.read_text().replace('order["id"], "size"', 'order["no"], "size"'))
    code, out, _ = run("test", "f", "--update", "--json", cwd=tmp_path)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["outcome"] for row in rows]) == (1, ["failed", "same"])
    assert rows[0]["file"] == "f/events/large.expected.json"
    assert "KeyError: 'no'" in rows[0]["message"]


def test_what_the_command_refuses(tmp_path: Path) -> None:
    assert run("new", "f", cwd=tmp_path)[0] == 0
    for words in (("-k", "large"), ("-x",), ("--", "--pdb")):
        code, out, err = run("test", "f", "--update", *words, cwd=tmp_path)
        assert (code, out, err.splitlines()[0]) == (
            2, "", "✗ --update runs no tests, so it takes no -k, no -x and no options of pytest",
        )  # fmt: skip


def test_it_needs_no_pytest(tmp_path: Path) -> None:
    assert run("new", "f", cwd=tmp_path)[0] == 0
    code = "import sys\nsys.modules['pytest'] = None\nfrom funcrt.cli import main\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}main(['test', 'f', '--update'])"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "samples: 2 same\n"), done.stderr
