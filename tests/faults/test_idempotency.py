"""Idempotency keys in real hosts: killed while calls run, paused, and with another version."""

import asyncio
import json
import random
import signal
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mesh
from tests.serving import Serving, rows, until

FUNCTION = """
import asyncio, os

async def handler(order: dict, ctx):
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{order['key']}\\n")
    await asyncio.sleep(order.get("wait", 0.003))
    if order.get("fails") and ctx.attempt == 1:
        raise ValueError("not yet")
    return order
---
concurrency = 8
[[trigger]]
topic = "in"
start = "earliest"
[output]
topic = "out"
[retry]
attempts = 1000
backoff = "constant"
base = "20ms"
[scale]
min = 1
max = 2
[idempotency]
key = "$.key"
[env]
"""


def functions(calls: Path, name: str = "f") -> dict[str, str]:
    return {name: f'{FUNCTION}CALLS = "{calls}"\n'}


def publish(host: Serving, orders: list[dict[str, Any]]) -> None:
    rows = [
        {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/s", "type": "t", "data": order}
        for order in orders
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    done = host.run("publish", "in", "-", "--jsonl", stdin=lines)
    assert done.returncode == 0, done.stderr


def outputs(data: Path) -> list[int]:
    """The keys of what came out."""

    async def read() -> list[int]:
        client = await mesh.connect(f"embedded://{data}/mesh.db")
        found = await client.read("out", "earliest", 100_000)
        await client.close()
        return [each.event.json()["key"] for each in found]

    return asyncio.run(read())


def stats(host: Serving) -> Any:
    (found,) = rows(host.run("stats", "f", "--json"))
    return found


@pytest.mark.timeout(200)
def test_kills_of_the_host_leave_one_output_a_key(tmp_path: Path) -> None:
    """Each key comes eight times, some of them failing at first. A call cut off runs again; its
    output and its key are there together, or neither is."""
    chance, total, kills = random.Random(5), 300, 12
    calls = tmp_path / "calls"
    orders = [
        {"key": key, "n": n, "fails": n % 3 == 0}
        for key in range(total) for n in range(8)
    ]  # fmt: skip
    chance.shuffle(orders)
    host = Serving(tmp_path / "data", **functions(calls))
    publish(host, orders)
    for _ in range(kills):
        time.sleep(chance.uniform(0.02, 0.3))
        host.stop(signal.SIGKILL)
        host = Serving(tmp_path / "data")
    until(lambda: stats(host)["depth"] == 0)
    counted = Counter(outputs(tmp_path / "data"))
    assert counted == dict.fromkeys(range(total), 1)
    made = Counter(map(int, calls.read_text().split()))
    assert set(made) == set(range(total))
    assert total < sum(made.values()) < 8 * total, "each was called for"
    publish(host, [{"key": key, "n": 9} for key in range(total)])
    until(lambda: stats(host)["depth"] == 0)
    assert stats(host)["deduplicated"] >= total, "a key is remembered over the kills"
    assert Counter(map(int, calls.read_text().split())) == made
    assert host.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(100)
def test_what_waits_for_its_key_goes_back_when_the_function_is_paused(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    host = Serving(tmp_path / "data", **functions(calls))
    publish(host, [{"key": 1, "wait": 2.0}] * 5)
    until(calls.exists)
    began = time.monotonic()
    assert host.run("pause", "f").returncode == 0
    until(lambda: outputs(tmp_path / "data") == [1])
    assert time.monotonic() - began < 10
    (found,) = rows(host.run("ls", "--json"))
    waiting = {name: found["triggers"][0][name] for name in ("ready", "leased", "delayed")}
    assert waiting == {"ready": 4, "leased": 0, "delayed": 0}
    assert host.run("resume", "f").returncode == 0
    until(lambda: stats(host)["depth"] == 0)
    assert stats(host)["deduplicated"] == 4
    assert "since the host started: 1 done, 0 failed, 0 dead, 1 outputs, 4 deduplicated" in (
        host.run("stats", "f").stdout
    )
    assert host.stop(signal.SIGTERM) == 0
    assert calls.read_text() == "1\n"


@pytest.mark.timeout(100)
def test_a_new_version_waits_for_what_the_old_one_runs(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    host = Serving(tmp_path / "data", **functions(calls))
    publish(host, [{"key": 1, "wait": 4.0}] * 5)
    until(calls.exists)
    main = tmp_path / "functions" / "f" / "main.py"
    main.write_text(main.read_text() + "\n# another version\n")
    done = host.run("deploy", str(main.parent))
    assert done.returncode == 0, done.stderr
    until(lambda: outputs(tmp_path / "data") == [1])
    until(lambda: stats(host)["depth"] == 0)
    assert stats(host)["deduplicated"] == 4
    assert calls.read_text() == "1\n"
    assert host.stop(signal.SIGTERM) == 0
