"""`funcrt serve` for real: a process, its gateway, its mesh, and commands beside it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

FUNCRT = [sys.executable, "-m", "funcrt"]


class Serving:
    def __init__(self, data: Path) -> None:
        self.env = {**os.environ, "FUNCRT_DATA": str(data)}
        empty = data.parent / "functions"
        empty.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*FUNCRT, "serve", str(empty), "--port", "0", "--json"],
            env=self.env,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FUNCRT, *arguments], env=self.env, input=stdin, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


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


def test_a_function_is_refused_while_none_can_run(tmp_path: Path) -> None:
    function = tmp_path / "hello"
    function.mkdir()
    (function / "main.py").write_text("def handler(event): ...\n")
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data")}
    refused = subprocess.run(
        [*FUNCRT, "serve", str(function), "--port", "0"],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "runs none yet" in refused.stderr
    assert "Traceback" not in refused.stderr
