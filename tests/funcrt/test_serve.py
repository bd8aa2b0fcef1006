"""`funcrt serve` for real: a process, its gateway, its mesh, and commands beside it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import FUNCRT, Serving, rows, tree, until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    one = Serving(tmp_path / "data")
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def post(serving: Serving, key: str, body: bytes = b'{"a":1}') -> Any:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": key,
        "ce-source": "/test",
        "ce-type": "t",
        "content-type": "application/json",
    }
    return httpx.post(f"{serving.url}/topics/in/events", headers=headers, content=body)


def test_what_http_published_another_process_tails(serving: Serving) -> None:
    answer = post(serving, "1", b'{"line": "a\\r\\nb"}')
    assert answer.status_code == 202
    again = post(serving, "1")
    assert again.json()["receipts"][0]["duplicate"] is True
    line = '{"specversion":"1.0","id":"2","source":"/cli","type":"t","data":{"n":2}}\r\n'
    assert serving.run("publish", "in", "--jsonl", "-", stdin=line).returncode == 0
    tail = serving.run("tail", "in", "--from", "earliest", "--limit", "2", "--json")
    assert tail.returncode == 0, tail.stderr
    first, second = (json.loads(row) for row in tail.stdout.splitlines())
    assert '"1"' in json.dumps(first)
    assert '"2"' in json.dumps(second)


def test_what_was_accepted_is_there_after_a_kill(serving: Serving, tmp_path: Path) -> None:
    assert post(serving, "1").status_code == 202
    serving.stop(signal.SIGKILL)
    assert serving.run("publish", "in", "--type", "t", "--source", "/cli", "--data", "{}")
    after = Serving(tmp_path / "data")
    try:
        assert post(after, "1").json()["receipts"][0]["duplicate"] is True
        tail = after.run("tail", "in", "--from", "earliest", "--limit", "2", "--json")
        assert len(tail.stdout.splitlines()) == 2
    finally:
        assert after.stop(signal.SIGTERM) == 0


def test_a_second_host_is_refused_and_told_the_first(serving: Serving) -> None:
    refused = serving.run("serve", str(Path(__file__).parent), "--port", "0")
    assert refused.returncode != 0
    assert f"process {serving.process.pid} already serves" in refused.stderr
    assert "Traceback" not in refused.stderr


ADD = """
def handler(event):
    data = event.json()
    if data.get("bad"): raise ValueError("bad data")
    if data.get("die"): __import__("os")._exit(7)
    return {**data, "added": True}
---
[[trigger]]
topic = "in"
filters = [{ exact = { type = "t" } }]
[output]
topic = "mid"
type = "added"
[retry]
attempts = 3
base = "10ms"
[scale]
max = 2
idle = "1s"
"""
COUNT = """
def handle(data: dict): return {"keys": sorted(data)}
---
[[trigger]]
topic = "mid"
[[trigger]]
kind = "http"
path = "/count"
[output]
topic = "out"
"""


def test_functions_run_in_a_chain_fail_to_dead_letters_and_scale_to_zero(tmp_path: Path) -> None:
    one = Serving(tmp_path / "data", add=ADD, count=COUNT)
    try:
        assert post(one, "good", b'{"n": 1}').status_code == 202
        assert post(one, "bad", b'{"bad": true}').status_code == 202
        assert post(one, "die", b'{"die": true}').status_code == 202
        (out,) = rows(one.run("tail", "out", "--from", "earliest", "--limit", "1", "--json"))
        assert '["added", "n"]' in json.dumps(out)
        assert "causationid" in json.dumps(out)
        dead = until(
            lambda: len(found := rows(one.run("dlq", "ls", "add", "--json"))) == 2 and found
        )
        assert sorted(letter["attempts"] for letter in dead) == [3, 3]
        assert "ValueError: bad data" in json.dumps(dead)
        assert "exited 7" in json.dumps(dead)
        until(
            lambda: all(
                row["instances"] == 0
                for row in rows(one.run("ls", "--json"))
                if row["name"] == "add"
            )
        )
        assert post(one, "again", b'{"n": 2}').status_code == 202
        assert (
            len(rows(one.run("tail", "out", "--from", "earliest", "--limit", "2", "--json"))) == 2
        )
    finally:
        assert one.stop(signal.SIGTERM) == 0


def test_a_function_is_called_over_http_and_its_output_is_stored(tmp_path: Path) -> None:
    one = Serving(tmp_path / "data", count=COUNT)
    try:
        answer = httpx.post(f"{one.url}/count", json={"b": 1, "a": 2})
        assert (answer.status_code, answer.json()) == (200, {"keys": ["a", "b"]})
        answer = httpx.post(f"{one.url}/functions/count", json={"x": 1})
        assert answer.headers["ce-type"] == "funcrt.count.result"
        assert (
            len(rows(one.run("tail", "out", "--from", "earliest", "--limit", "2", "--json"))) == 2
        )
    finally:
        assert one.stop(signal.SIGTERM) == 0


def test_nothing_outlives_a_killed_host(tmp_path: Path) -> None:
    one = Serving(tmp_path / "data", add=ADD.replace('idle = "1s"', "min = 1"))
    until(lambda: len(tree(one.process.pid)) >= 3)
    below = set(tree(one.process.pid))
    one.stop(signal.SIGKILL)
    until(
        lambda: (
            not any(
                Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
                for pid in below
            )
        )
    )


def test_a_function_that_cannot_be_loaded_is_told_without_a_traceback_of_ours(
    tmp_path: Path,
) -> None:
    function = tmp_path / "hello"
    function.mkdir()
    (function / "main.py").write_text("import nonesuch\n")
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data")}
    refused = subprocess.run(
        [*FUNCRT, "serve", str(function), "--port", "0"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "main.py:1: cannot import 'nonesuch'" in refused.stderr
    assert "process.py" not in refused.stderr


def test_a_broadcast_queue_is_this_hosts_own_and_outlives_it(tmp_path: Path) -> None:
    manifest = '[[trigger]]\ntopic = "in"\nmode = "broadcast"\n[output]\ntopic = "out"\n'
    function = f"def handler(event): return 1\n---{manifest}"
    first = Serving(tmp_path / "data", f=function)
    assert post(first, "1").status_code == 202
    tail = first.run("tail", "out", "--from", "earliest", "--limit", "1", "--json")
    assert tail.returncode == 0, tail.stderr
    assert first.stop(signal.SIGTERM) == 0
    assert first.run("publish", "in", "--type", "t", "--source", "/t", "--data", "2").stdout
    own = (tmp_path / "data" / "host-id").read_text().strip()
    second = Serving(tmp_path / "data", f=function)
    try:
        tail = second.run("tail", "out", "--from", "earliest", "--limit", "2", "--json")
        assert len(tail.stdout.splitlines()) == 2, "what came meanwhile is its own"
        assert (tmp_path / "data" / "host-id").read_text().strip() == own
        (row,) = rows(second.run("ls", "--json"))
        assert row["depth"] == 0
    finally:
        assert second.stop(signal.SIGTERM) == 0


def test_a_second_signal_gives_back_what_runs(tmp_path: Path) -> None:
    function = """
import time
def handler(event):
    print("began", flush=True)
    time.sleep(60)
---
[[trigger]]
topic = "in"
"""
    serving = Serving(tmp_path / "data", f=function)
    assert post(serving, "1").status_code == 202
    until(lambda: rows(serving.run("ls", "--json"))[0]["busy"] == 1)
    serving.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert serving.process.poll() is None, "it waits for the call"
    started = time.monotonic()
    assert serving.stop(signal.SIGINT) == 0
    assert time.monotonic() - started < 10
    again = Serving(tmp_path / "data", f=function.replace("time.sleep(60)", "return 1"))
    try:
        until(lambda: rows(again.run("ls", "--json"))[0]["done"] == 1)
    finally:
        assert again.stop(signal.SIGTERM) == 0


def test_the_end_takes_no_longer_than_it_is_given(tmp_path: Path) -> None:
    """For all that is to end, one after the other; and meanwhile no event begins to be handled."""
    function = """
import time
def handler(event):
    print("began", flush=True)
    time.sleep(event.json()["a"])
---
[[trigger]]
topic = "in"
"""
    serving = Serving(tmp_path / "data", ["--drain", "2"], f=function)
    call = subprocess.Popen(
        [*FUNCRT, "invoke", "f", "--data", '{"a": 60}'],
        env=serving.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: rows(serving.run("ls", "--json"))[0]["busy"] == 1)
    started = time.monotonic()
    serving.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert post(serving, "1", b'{"a": 0}').status_code == 503
    lines = "".join(
        f'{{"specversion":"1.0","id":"{n}","source":"/s","type":"t","data":{{"a":0}}}}\n'
        for n in range(9)
    )
    assert serving.run("publish", "in", "--jsonl", "-", stdin=lines).returncode == 0
    assert serving.ended() == 0
    assert 2 <= time.monotonic() - started < 4
    assert "the host stopped during the call" in call.communicate(timeout=30)[1]
    again = Serving(tmp_path / "data", f=function)
    try:
        until(lambda: rows(again.run("ls", "--json"))[0]["done"] == 9)
    finally:
        assert again.stop(signal.SIGTERM) == 0
