"""`Prefer: respond-async` with a real host: the call is durable once it was answered with 202."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Serving, rows, until

pytestmark = pytest.mark.usefixtures("unconfined")

WAITS = """
import os, time
def handler(data: dict):
    while not os.path.exists(os.environ["GATE"]): time.sleep(0.02)
    if data.get("bad"): raise ValueError("bad data")
    return {"ran": data["n"]}
---
[env]
GATE = "GATE_PATH"
[retry]
attempts = 2
base = "10ms"
[scale]
max = 2
[output]
topic = "out"
"""


@pytest.fixture
def waits(tmp_path: Path) -> str:
    return WAITS.replace("GATE_PATH", str(tmp_path / "gate"))


@pytest.fixture
def serving(tmp_path: Path, waits: str) -> Iterator[Serving]:
    one = Serving(tmp_path / "data", waits=waits)
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def call(serving: Serving, key: str, **data: Any) -> httpx.Response:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": key,
        "ce-source": "/test",
        "ce-type": "t",
        "content-type": "application/json",
        "prefer": "respond-async",
    }
    url = f"{serving.url}/functions/waits"
    return httpx.post(url, headers=headers, content=json.dumps(data).encode())


def function(serving: Serving) -> dict[str, Any]:
    (row,) = rows(serving.run("ls", "--json"))
    return row


def ran(serving: Serving, count: int) -> list[int]:
    args = ("tail", "out", "--from", "earliest", "--limit", str(count), "--json")
    return sorted(row["event"]["data"]["ran"] for row in rows(serving.run(*args)))


def test_a_kill_between_the_202_and_the_run_loses_nothing(
    serving: Serving, tmp_path: Path, waits: str
) -> None:
    assert function(serving)["triggers"] == []  # nothing is made for who does not ask for it
    for number in range(5):
        answer = call(serving, str(number), n=number)
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async"
        assert answer.json()["receipts"][0]["duplicate"] is False
    assert call(serving, "4", n=4).json()["receipts"][0]["duplicate"] is True
    found = function(serving)
    assert found["depth"] == 5
    (trigger,) = found["triggers"]
    assert (trigger["kind"], trigger["target"]) == ("call", "funcrt.call.waits")
    serving.stop(signal.SIGKILL)
    (tmp_path / "gate").touch()
    after = Serving(tmp_path / "data", waits=waits)
    try:
        assert ran(after, 5) == [0, 1, 2, 3, 4]
        until(lambda: function(after)["depth"] == 0)
        assert function(after)["outputs"] == 5
        assert call(after, "3", n=3).json()["receipts"][0]["duplicate"] is True
        assert call(after, "5", n=5).status_code == 202
        assert ran(after, 6) == [0, 1, 2, 3, 4, 5]
    finally:
        assert after.stop(signal.SIGTERM) == 0


def test_it_is_retried_and_ends_as_a_dead_letter_that_can_be_replayed(
    serving: Serving, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    assert call(serving, "1", n=1, bad=True).status_code == 202
    (letter,) = until(lambda: rows(serving.run("dlq", "ls", "waits", "--json")))
    assert (letter["attempts"], letter["subscription"]) == (2, "waits/funcrt.call")
    assert letter["event"]["id"] == "1"
    assert serving.run("dlq", "replay", "waits", "--all").returncode == 0
    (again,) = until(
        lambda: [
            row
            for row in rows(serving.run("dlq", "ls", "waits", "--json"))
            if row["id"] != letter["id"]
        ]
    )
    assert again["event"]["id"] == "1"


def test_outsiders_cannot_reach_the_queue(serving: Serving) -> None:
    assert call(serving, "1", n=1).status_code == 202
    headers = {"ce-specversion": "1.0", "ce-id": "x", "ce-source": "/s", "ce-type": "t"}
    url = f"{serving.url}/topics/funcrt.call.waits/events"
    assert httpx.post(url, headers=headers, content=b"{}").status_code == 403
    assert httpx.get(url).status_code == 401
    refused = serving.run("publish", "funcrt.call.waits", "--type", "t", "--source", "/s")
    assert refused.returncode == 2
    assert "the host's own" in refused.stderr
    assert function(serving)["depth"] == 1


def test_first_calls_at_once_make_one_queue(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(base_url=serving.url, timeout=20) as client:

            async def one(number: int) -> int:
                headers = {"prefer": "respond-async", "content-type": "application/json"}
                body = json.dumps({"n": number}).encode()
                answer = await client.post("/functions/waits", headers=headers, content=body)
                return answer.status_code

            return await asyncio.gather(*(one(number) for number in range(40)))

    assert asyncio.run(all_at_once()) == [202] * 40
    assert ran(serving, 40) == list(range(40))
    assert len(function(serving)["triggers"]) == 1
