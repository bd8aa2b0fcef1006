"""At the edge: the largest event and a byte more through every door, a queue at its cap."""

import asyncio
import base64
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import mesh
import mesh.transport
from mesh.validation import MAX_EVENT_BYTES
from tests.serving import Serving, until

pytestmark = pytest.mark.usefixtures("unconfined")

MAKES = """
def handler(data: dict) -> bytes:
    return b"x" * data["size"]
---
[[trigger]]
topic = "sizes"
[output]
topic = "made"
[retry]
attempts = 1
"""
WIDE = MAKES.replace("sizes", "wide").replace("made", "wider") + '[limits]\npayload = "8MiB"\n'
TAKES = """
def handler(event):
    return {"size": len(event.data)}
---
[[trigger]]
topic = "large"
[output]
topic = "taken"
"""
WAITS = """
import os, time
def handler(event):
    while not os.path.exists(os.environ["GATE"]): time.sleep(0.02)
    return {"of": event.id}
---
[env]
GATE = "GATE_PATH"
[[trigger]]
topic = "TOPIC"
cap = 3
overflow = "POLICY"
[scale]
max = 1
[output]
topic = "TOPIC.out"
"""
SHED = 100
EDGE = {MAX_EVENT_BYTES: True, MAX_EVENT_BYTES + 1: False}
BINARY = {"ce-specversion": "1.0", "ce-source": "/edge", "ce-type": "t"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("edge")
    waits = WAITS.replace("GATE_PATH", str(root / "gate"))
    serving = Serving(
        root / "data",
        makes=MAKES,
        wide=WIDE,
        takes=TAKES,
        refuse=waits.replace("TOPIC", "refuse").replace("POLICY", "refuse"),
        shed=waits.replace("TOPIC", "shed")
        .replace("POLICY", "dead-letter")
        .replace("cap = 3", f"cap = {SHED}"),
        tight=waits.replace("TOPIC", "tight").replace("POLICY", "dead-letter"),
    )
    yield serving
    (root / "gate").touch()
    assert serving.stop(signal.SIGTERM) == 0


def structured(key: str, size: int) -> dict[str, Any]:
    data = base64.b64encode(b"x" * size).decode()
    return {"specversion": "1.0", "id": key, "source": "/edge", "type": "t", "data_base64": data}


def events(host: Serving, topic: str) -> list[Any]:
    found: list[Any] = []
    start = "earliest"
    while True:
        page = httpx.get(f"{host.url}/topics/{topic}/events", params={"from": start}).json()
        if not page["events"]:
            return found
        found += [row["event"] for row in page["events"]]
        start = page["next"]


def taken(host: Serving, key: str) -> int | None:
    """The size of the event that the function was called with."""
    sizes = [
        each["data"]["size"] for each in events(host, "taken") if each.get("causationid") == key
    ]
    return sizes[0] if sizes else None


@pytest.mark.parametrize(("size", "fits"), EDGE.items())
@pytest.mark.parametrize("mode", ["binary", "structured", "batch", "respond-async", "call"])
def test_the_largest_event_over_http(host: Serving, mode: str, size: int, fits: bool) -> None:
    key = f"{mode}-{size}"
    url = f"{host.url}/topics/large/events"
    headers: dict[str, str] = {}
    content = b"x" * size
    if mode in ("structured", "batch"):
        one = structured(key, size)
        suffix = "-batch" if mode == "batch" else ""
        headers["content-type"] = f"application/cloudevents{suffix}+json"
        small = structured(f"{key}-small", 1)
        content = json.dumps([small, one] if mode == "batch" else one).encode()
    else:
        headers |= {**BINARY, "ce-id": key}
    if mode in ("respond-async", "call"):
        url = f"{host.url}/functions/takes"
    if mode == "respond-async":
        headers["prefer"] = "respond-async"
    answer = httpx.post(url, headers=headers, content=content, timeout=30)
    if not fits:
        assert answer.status_code == 413
        assert str(MAX_EVENT_BYTES) in answer.json()["detail"]
    elif mode == "call":
        assert (answer.status_code, answer.json()) == (200, {"size": size})
    else:
        assert answer.status_code == 202, answer.text
        assert {row["status"] for row in answer.json()["receipts"]} == {"stored"}
        until(lambda: taken(host, key) == size)


@pytest.mark.parametrize(("size", "fits"), EDGE.items())
@pytest.mark.parametrize("door", ["socket", "file", "cli"])
def test_the_largest_event_from_a_process_beside(
    host: Serving, tmp_path: Path, door: str, size: int, fits: bool
) -> None:
    key = f"{door}-{size}"
    where = tmp_path if door == "file" else host.env["FUNCRT_DATA"]

    async def publish() -> mesh.Receipt:
        t = await mesh.connect(f"embedded://{where}/mesh.db")
        try:
            (receipt,) = await t.publish("large", [mesh.Event(key, "/edge", "t", data=b"x" * size)])
            return receipt
        finally:
            await t.close()

    if door == "cli":
        (tmp_path / "one.json").write_text(json.dumps(structured(key, size)))
        done = host.run("publish", "large", str(tmp_path / "one.json"))
        assert (done.returncode == 0) is fits
        assert ("stored" in done.stdout) is fits
        if not fits:
            assert f"data: {size} bytes; at most {MAX_EVENT_BYTES}" in done.stderr
    else:
        receipt = asyncio.run(publish())
        assert (receipt.status == "stored") is fits
        if not fits:
            assert receipt.error == "invalid"
            assert receipt.reason == f"data: {size} bytes; at most {MAX_EVENT_BYTES}"
    if fits and door != "file":
        until(lambda: taken(host, key) == size)


@pytest.mark.parametrize(("size", "fits"), EDGE.items())
@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("makes", "OutputTooLarge: returned 1048577 bytes, more than the 1048576 allowed"),
        ("wide", "data: 1048577 bytes; at most 1048576"),
    ],
)
def test_the_largest_output(host: Serving, function: str, why: str, size: int, fits: bool) -> None:
    """Beyond `limits.payload` the worker says no; within that, but beyond an event, the host."""
    topic, made = {"makes": ("sizes", "made"), "wide": ("wide", "wider")}[function]
    headers = {**BINARY, "ce-id": str(size), "content-type": "application/json"}
    body = json.dumps({"size": size}).encode()
    answer = httpx.post(f"{host.url}/topics/{topic}/events", headers=headers, content=body)
    assert answer.status_code == 202
    if fits:
        (one,) = until(lambda: events(host, made))
        assert len(base64.b64decode(one["data_base64"])) == size
    else:
        letters = until(lambda: events(host, f"{function}.dlq"))
        assert why in letters[0]["data"]["error"] + letters[0]["data"]["reason"]
        assert letters[0]["data"]["event"]["id"] == str(size)


def put(host: Serving, topic: str, *keys: str) -> httpx.Response:
    batch = [structured(key, 1) for key in keys]
    headers = {"content-type": "application/cloudevents-batch+json"}
    return httpx.post(f"{host.url}/topics/{topic}/events", headers=headers, json=batch)


def test_a_queue_at_its_cap_refuses(host: Serving) -> None:
    def statuses(answer: httpx.Response) -> list[str]:
        return [row["status"] for row in answer.json()["receipts"]]

    assert statuses(put(host, "refuse", "1", "2")) == ["stored", "stored"]
    half = put(host, "refuse", "3", "4")  # one fits, one does not
    assert (half.status_code, statuses(half)) == (202, ["stored", "refused"])
    none = put(host, "refuse", "5")
    assert (none.status_code, none.json()["type"]) == (429, "urn:funcrt:problem:queue-full")
    assert "retry-after" in none.headers
    assert "refuse/refuse: its queue is at its cap of 3 events" in none.json()["detail"]
    assert statuses(put(host, "refuse", "1", "3")) == ["stored", "stored"]  # duplicates
    done = host.run("publish", "refuse", "--type", "t", "--id", "6", "--source", "/edge")
    assert done.returncode == 1
    assert "refused\t6\trefuse/refuse: its queue is at its cap of 3 events" in done.stdout
    assert {each["id"] for each in events(host, "refuse")} == {"1", "2", "3"}


def depth(host: Serving, name: str) -> mesh.transport.Depth:
    async def ask() -> mesh.transport.Depth:
        t = await mesh.connect(f"embedded://{host.env['FUNCRT_DATA']}/mesh.db")
        try:
            return await t.depth(name)
        finally:
            await t.close()

    return asyncio.run(ask())


def test_a_queue_at_its_cap_sheds_its_oldest(host: Serving) -> None:
    """What is with an instance stays; the oldest of the others makes room, as a dead letter."""
    put(host, "shed", "0")
    until(lambda: depth(host, "shed/shed").leased)
    assert put(host, "shed", *map(str, range(1, SHED))).status_code == 202
    assert events(host, "shed.dlq") == []  # at the cap, nothing is shed
    time.sleep(0.3)  # whatever the host wants ahead, it has
    out = depth(host, "shed/shed").leased
    assert 0 < out < SHED - 2
    assert put(host, "shed", "one").status_code == 202
    assert host.run("publish", "shed", "--type", "t", "--id", "two").returncode == 0
    letters = events(host, "shed.dlq")
    assert [each["data"]["event"]["id"] for each in letters] == [str(out), str(out + 1)]
    assert letters[0]["data"]["reason"] == f"the queue is at its cap of {SHED} events"
    found = depth(host, "shed/shed")
    assert found.leased + found.ready == SHED


def test_a_queue_that_has_nothing_to_shed_refuses(host: Serving) -> None:
    put(host, "tight", "1", "2", "3")
    until(lambda: depth(host, "tight/tight").leased == 3)
    assert put(host, "tight", "4").status_code == 429
    assert events(host, "tight.dlq") == []
