"""`output.stream`: items that are published as they are made, by a real host."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Serving, rows, tree, until

pytestmark = pytest.mark.usefixtures("unconfined")

PAGES = """
import os, time
from funcrt import Context, Event
GATE = os.environ["GATE"]
def handler(data: dict, ctx: Context):
    try:
        for n in range(data["n"]):
            if n == data.get("fails") and ctx.attempt == 1: raise ValueError("half way")
            if n == data.get("waits"):
                while not os.path.exists(GATE): time.sleep(0.02)
            if n == data.get("elsewhere"): yield Event.create("page", {"page": n}, source="")
            yield {"page": n, "try": ctx.attempt}
            if data.get("slow"): time.sleep(0.05)
        ctx.emit(Event.create("pages.counted", {"n": data["n"]}))
    finally:
        open(GATE + ".ended", "a").write("ended\\n")
---
[[trigger]]
topic = "books"
[retry]
attempts = 2
base = "10ms"
[output]
topic = "pages"
type = "page"
stream = true
[env]
GATE = "GATE_PATH"
"""
ASYNC = """
import asyncio
async def handler(data: dict):
    for n in range(data["n"]):
        yield {"page": n}
        await asyncio.sleep(0)
---
[output]
stream = true
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def serving(tmp_path: Path, gate: Path) -> Iterator[Serving]:
    one = Serving(tmp_path / "data", pages=PAGES.replace("GATE_PATH", str(gate)), many=ASYNC)
    yield one
    if one.process.poll() is None:
        assert one.stop(signal.SIGTERM) == 0


def publish(serving: Serving, key: str, **data: Any) -> None:
    headers = {
        "ce-specversion": "1.0", "ce-id": key, "ce-source": "/test", "ce-type": "book",
        "content-type": "application/json",
    }  # fmt: skip
    url = f"{serving.url}/topics/books/events"
    assert httpx.post(url, headers=headers, content=json.dumps(data)).status_code == 202


def pages(serving: Serving) -> list[dict[str, Any]]:
    return [
        row["event"] for row in httpx.get(f"{serving.url}/topics/pages/events").json()["events"]
    ]


def function(serving: Serving, name: str = "pages") -> dict[str, Any]:
    return next(row for row in rows(serving.run("ls", "--json")) if row["name"] == name)


def test_items_are_there_while_the_call_still_runs(serving: Serving, gate: Path) -> None:
    publish(serving, "1", n=4, waits=2)
    until(lambda: len(pages(serving)) == 2)
    assert function(serving)["depth"] == 1
    gate.touch()
    until(lambda: len(pages(serving)) == 5)
    assert [e["data"] for e in pages(serving)] == [
        *({"page": n, "try": 1} for n in range(4)), {"n": 4},
    ]  # fmt: skip
    assert len({e["id"] for e in pages(serving)}) == 5
    until(lambda: function(serving)["depth"] == 0)
    assert function(serving)["outputs"] == 5


def test_a_retry_after_half_a_stream_publishes_the_rest(serving: Serving) -> None:
    publish(serving, "1", n=4, fails=2)
    until(lambda: len(pages(serving)) == 5)
    until(lambda: function(serving)["depth"] == 0)
    found = pages(serving)
    assert [e["data"].get("page") for e in found] == [0, 1, 2, 3, None]
    assert [e["data"].get("try") for e in found[:4]] == [1, 1, 2, 2]
    assert len({e["id"] for e in found}) == 5


def test_a_kill_of_the_host_in_the_middle_leaves_no_gap_and_no_double(
    serving: Serving, tmp_path: Path, gate: Path
) -> None:
    publish(serving, "1", n=40, waits=20)
    until(lambda: len(pages(serving)) == 20)
    serving.stop(signal.SIGKILL)
    gate.touch()
    after = Serving(tmp_path / "data", pages=PAGES.replace("GATE_PATH", str(gate)), many=ASYNC)
    try:
        until(lambda: len(pages(after)) == 41)
        assert [e["data"].get("page") for e in pages(after)] == [*range(40), None]
        until(lambda: function(after)["depth"] == 0)
    finally:
        assert after.stop(signal.SIGTERM) == 0


def test_a_stop_gives_a_stream_back_and_the_next_host_ends_it(
    serving: Serving, tmp_path: Path, gate: Path
) -> None:
    publish(serving, "1", n=6, waits=3)
    until(lambda: len(pages(serving)) == 3)
    serving.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    serving.process.send_signal(signal.SIGTERM)  # at once
    assert serving.ended() == 0
    gate.touch()
    after = Serving(tmp_path / "data", pages=PAGES.replace("GATE_PATH", str(gate)), many=ASYNC)
    try:
        until(lambda: len(pages(after)) == 7)
        assert {e["data"].get("try") for e in pages(after)} == {1, None}  # it cost no attempt
    finally:
        assert after.stop(signal.SIGTERM) == 0


def test_many_items_by_far_more_than_the_window(serving: Serving) -> None:
    with httpx.stream(
        "POST", f"{serving.url}/functions/many", json={"n": 5000}, timeout=60,
        headers={"accept": "application/x-ndjson"},
    ) as answer:  # fmt: skip
        assert answer.headers["content-type"] == "application/x-ndjson"
        numbers = [json.loads(line)["data"]["page"] for line in answer.iter_lines()]
    assert numbers == [*range(5000)]


def test_a_caller_gets_the_items_as_they_are_made_in_the_form_it_asks_for(serving: Serving) -> None:
    url = f"{serving.url}/functions/pages"
    with httpx.stream(
        "POST", url, json={"n": 3, "slow": True}, headers={"accept": "text/event-stream"}
    ) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = [(time.monotonic(), line) for line in answer.iter_lines()]
    data = [(at, json.loads(line[6:])) for at, line in lines if line.startswith("data: ")]
    assert [event["data"].get("page") for _, event in data] == [0, 1, 2, None]
    assert data[2][0] - data[0][0] > 0.05
    assert [event["type"] for _, event in data] == [*["page"] * 3, "pages.counted"]
    assert [line[4:] for _, line in lines if line.startswith("id: ")] == [e["id"] for _, e in data]
    assert [e["id"] for e in pages(serving)] == [e["id"] for _, e in data]
    answer = httpx.post(url, json={"n": 2})
    assert answer.headers["content-type"].startswith("application/cloudevents-batch+json")
    assert [event["data"].get("page") for event in answer.json()] == [0, 1, None]
    assert httpx.post(f"{serving.url}/functions/many", json={"n": 0}).status_code == 204
    broken = httpx.post(url, json={"n": 3, "fails": 0})
    assert (broken.status_code, broken.json()["error"]) == (500, "ValueError")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(url, json={"n": 3, "fails": 1})


def test_a_caller_that_leaves_ends_the_generator(serving: Serving, gate: Path) -> None:
    url = f"{serving.url}/functions/pages"
    with httpx.stream("POST", url, json={"n": 10_000, "slow": True}) as answer:
        next(answer.iter_raw())
    ended = gate.with_name("gate.ended")
    until(ended.exists)
    count = len(pages(serving))
    assert count < 1000
    time.sleep(0.3)
    assert len(pages(serving)) == count


def test_an_instance_that_dies_half_way_costs_one_attempt(serving: Serving, gate: Path) -> None:
    publish(serving, "1", n=4, waits=2)
    until(lambda: len(pages(serving)) == 2)
    for pid in tree(serving.process.pid):
        if not tree(pid):  # what has no children of its own is an instance
            os.kill(pid, signal.SIGKILL)
    gate.touch()
    until(lambda: len(pages(serving)) == 5)
    assert [e["data"].get("page") for e in pages(serving)] == [0, 1, 2, 3, None]
    assert [e["data"].get("try") for e in pages(serving)] == [1, 1, 2, 2, None]
