"""Functions that misbehave in every way: each is dead-lettered after exactly its attempts, and its
neighbour goes on."""

import json
import signal
from pathlib import Path

import httpx
import pytest

from tests.serving import Serving, rows, until

MANIFEST = """
---
timeout = "500ms"
[[trigger]]
topic = "in"
[retry]
attempts = 2
base = "10ms"
[scale]
max = 2
"""
PATIENT = MANIFEST.replace("500ms", "20s")
"""For what ends by itself, however slow the machine: 100 MB are printed and read meanwhile."""
GOOD = "def handler(event): return 1\n" + PATIENT + '[output]\ntopic = "out"\n'

POISON = {
    "raises": "raise ValueError('no')",
    "hangs": "import time; time.sleep(60)",
    "spins": "while True: pass",
    "segfaults": "import os; os.kill(os.getpid(), 11)",
    "exits": "import os; os._exit(3)",
    "prints": "print('x' * 100_000_000); raise ValueError('printed')",
    "returns": "return 'x' * 100_000_000",
    "closes": "import os; os.closerange(0, 1000); import time; time.sleep(15)",
    "recurses": "return handler(event)",
    "quits": "raise SystemExit(1)",
}
WHY = {
    "raises": "ValueError: no",
    "hangs": "TimeoutError",
    "spins": "TimeoutError",
    "segfaults": "SIGSEGV",
    "exits": "exited 3",
    "prints": "ValueError: printed",
    "returns": "OutputTooLarge",
    "closes": "closed its channel",
    "recurses": "RecursionError",
    "quits": "SystemExit",
}


@pytest.mark.timeout(200)
def test_poison_costs_itself_alone(tmp_path: Path) -> None:
    functions = {
        name: f"def handler(event):\n    {line}\n"
        + (MANIFEST if WHY[name] == "TimeoutError" else PATIENT)
        for name, line in POISON.items()
    }
    one = Serving(tmp_path / "data", good=GOOD, **functions)
    try:
        event = {"specversion": "1.0", "source": "/t", "type": "t"}
        batch = json.dumps([{**event, "id": str(n)} for n in range(3)])
        answer = httpx.post(
            f"{one.url}/topics/in/events",
            content=batch,
            headers={"content-type": "application/cloudevents-batch+json"},
        )
        assert answer.status_code == 202
        outs = rows(one.run("tail", "out", "--from", "earliest", "--limit", "3", "--json"))
        assert len(outs) == 3
        for name, why in WHY.items():
            dead = until(lambda name=name: three(rows(one.run("dlq", "ls", name, "--json"))))
            assert [letter["attempts"] for letter in dead] == [2, 2, 2], name
            assert all(why in json.dumps(letter) for letter in dead), (name, dead[0])
        (good,) = [row for row in rows(one.run("ls", "--json")) if row["name"] == "good"]
        assert (good["done"], good["failed"], good["dead"]) == (3, 0, 0)
    finally:
        assert one.stop(signal.SIGTERM) == 0


def three(found: list[object]) -> list[object] | None:
    return found if len(found) == 3 else None
