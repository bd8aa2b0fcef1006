"""`funcrt publish` and `funcrt tail`, as processes on a real mesh file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import funcrt as funcrt_package

ROOT = str(Path(funcrt_package.__file__).parents[1])


def event(number, **more):
    return {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t", **more}


@pytest.fixture
def funcrt(tmp_path):
    """Runs a command in a directory of its own."""
    environment = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data"), "PYTHONPATH": path()}

    def run(*words, stdin=None, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "funcrt", *words],
            input=stdin if stdin is None or isinstance(stdin, bytes) else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done.stdout.decode(), done.stderr.decode()

    run.environment = environment
    run.directory = tmp_path
    return run


def path():
    return os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])


def stored(funcrt, count, topic="t"):
    """The first events of a topic, as `tail` shows them."""
    out, _ = funcrt("tail", topic, "--from", "earliest", "--limit", str(count), "--json")
    return [json.loads(line)["event"] for line in out.splitlines()]


def test_one_event_from_options(funcrt):
    out, err = funcrt("publish", "t", "--type", "a.b", "--data", '{"n": 1}', "--id", "x")
    assert out.split("\t")[:2] == ["stored", "x"]
    assert "made a new mesh" in err
    out, err = funcrt("publish", "t", "--type", "a.b", "--id", "x", "--json")
    receipt = json.loads(out)
    assert (receipt["id"], receipt["status"], receipt["duplicate"]) == ("x", "stored", True)
    assert err == ""
    (found,) = stored(funcrt, 1)
    assert found["data"] == {"n": 1}
    assert found["source"] == "/cli"
    assert found["type"] == "a.b"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (json.dumps(event(1), indent=2), ["1"]),
        (json.dumps([event(1), event(2)], indent=2), ["1", "2"]),
        (json.dumps([event(1), event(2)]), ["1", "2"]),
        (json.dumps(event(1)) + "\n" + json.dumps(event(2)), ["1", "2"]),
        ("\n\n" + json.dumps(event(1)) + "\r\n\r\n" + json.dumps(event(2)) + "\r\n", ["1", "2"]),
        ("\ufeff" + json.dumps(event(1)) + "\r\n", ["1"]),
        ("\ufeff" + json.dumps([event(1)], indent=1).replace("\n", "\r\n"), ["1"]),
        (json.dumps(event(1), indent=2).replace("\n", "\r\n") + "\r\n", ["1"]),
    ],
)
def test_forms_of_input(funcrt, text, ids):
    (funcrt.directory / "in.json").write_bytes(text.encode())
    out, _ = funcrt("publish", "t", "in.json")
    assert [line.split("\t")[1] for line in out.splitlines()] == ids
    assert [each["id"] for each in stored(funcrt, len(ids))] == ids


def test_a_bad_line_is_named_and_what_came_before_it_is_stored(funcrt):
    text = f"{json.dumps(event(1))}\n\n{json.dumps({**event(2), 'id': ''})}\n{json.dumps(event(3))}"
    out, err = funcrt("publish", "t", "-", "--jsonl", stdin=text, code=1)
    assert [line.split("\t")[1] for line in out.splitlines()] == ["1"]
    assert "✗ <stdin>:3: id:" in err


def test_a_bad_item_of_an_array_means_that_nothing_is_published(funcrt):
    text = json.dumps([event(1), {**event(2), "source": None}])
    out, err = funcrt("publish", "t", "-", stdin=text, code=1)
    assert out == ""
    assert "✗ <stdin>[1]: source" in err


@pytest.mark.parametrize(
    ("words", "stdin", "code", "message"),
    [
        (("publish", "t", "none.json"), None, 2, "none.json: No such file"),
        (("publish", "t", "-"), "", 1, "<stdin>: is empty"),
        (("publish", "t", "-"), "[1", 1, "<stdin>: not JSON"),
        (("publish", "t", "-"), b"\xff\xfea", 1, "<stdin>: is UTF-16"),
        (("publish", "t", "--data", "1"), None, 2, "an event needs a type"),
        (("publish", "t", "--type", "t", "--data", "{"), None, 2, "--data: not JSON"),
        (("publish", "t", "--type", "t", "--id", ""), None, 1, "id:"),
        (("publish", "t", "f.json", "--type", "t"), None, 2, "cannot be used with a file"),
        (("publish", "a b", "--type", "t"), None, 2, "'a b' is no topic name"),
        (("publish",), None, 2, "Missing argument"),
        (("publish", "t", "--type", "t", "--mesh", "bogus://x"), None, 2, "bogus"),
        (("tail", "t"), None, 3, "there is no mesh at"),
        (("tail", "t", "--limit", "0"), None, 2, "--limit"),
    ],
)
def test_mistakes(funcrt, words, stdin, code, message):
    out, err = funcrt(*words, stdin=stdin, code=code)
    assert out == ""
    assert err.startswith("✗ ")
    assert message in err
    assert not (funcrt.directory / "data" / "mesh.db").exists()


def test_json_lines_are_published_as_they_come_and_memory_is_bounded(funcrt):
    command = [sys.executable, "-m", "funcrt", "publish", "t", "-", "--jsonl", "--json"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=funcrt.environment,
    ) as process:
        for number in range(3):
            process.stdin.write(json.dumps(event(number)).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == str(number)
        process.send_signal(signal.SIGINT)  # while it waits for more
        assert process.wait(10) == 130
        assert process.stderr.read().decode().count("✗") == 0
        process.stdin.close()
    assert [each["id"] for each in stored(funcrt, 3)] == ["0", "1", "2"]


def test_many_lines(funcrt):
    text = "".join(json.dumps(event(number)) + "\n" for number in range(2000))
    out, err = funcrt("publish", "t", "-", stdin=text)
    assert len(out.splitlines()) == 2000
    assert "2000 stored" in err


def test_tail_follows_and_ends_quietly(funcrt):
    funcrt("publish", "t", "--type", "a.b", "--id", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "funcrt", "tail", "t", "--from", "earliest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=funcrt.environment,
    ) as process:
        assert process.stdout.readline().split(b"\t")[1:4] == [b"a.b", b"1", b"/cli"]
        funcrt("publish", "t", "--type", "a.c", "--id", "2")
        assert process.stdout.readline().split(b"\t")[1:4] == [b"a.c", b"2", b"/cli"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""


def test_tail_prints_one_safe_line_an_event(funcrt):
    evil = event(1, subject="s", data="a\x1b[31mb\nc\r\x07\u202e")
    evil["type"] = "x"
    funcrt("publish", "t", "-", stdin=json.dumps(evil))
    funcrt(
        "publish", "t", "-", stdin=json.dumps(event(2, data_base64="/wD/", datacontenttype="a/b"))
    )
    out, _ = funcrt("tail", "t", "--from", "earliest", "--limit", "2")
    first, second = out.splitlines()
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "x\t1\t/s\t" in first
    assert second.endswith("<3 bytes of a/b>")


def test_tail_into_a_closed_pipe_is_no_error(funcrt):
    text = "".join(json.dumps(event(number)) + "\n" for number in range(3000))
    funcrt("publish", "t", "-", stdin=text)
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "funcrt", "tail", "t", "--from", "earliest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=funcrt.environment,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(10)
        assert process.stderr.read() == b""
    assert time.monotonic() - started < 10
