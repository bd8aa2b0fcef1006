"""An instance that a call kills: that call is charged, whatever fast ones it ended just before."""

import asyncio
import signal
from pathlib import Path

import mesh
from mesh.transport import Logged
from tests.serving import Serving

FUNCTION = """
import os

def handler(event):
    if event.json()["n"] % 100 == 50:
        os._exit(3)
    return event.json()
---
[[trigger]]
topic = "in"
[output]
topic = "out"
[retry]
attempts = 1
[scale]
min = 1
max = 1
"""
TOTAL = 1000


def test_who_ended_before_the_call_that_kills_is_not_charged(tmp_path: Path) -> None:
    """With one attempt, whoever is charged dies: only the ten that kill their instance may."""
    host = Serving(tmp_path / "data", add=FUNCTION)

    async def main() -> tuple[list[Logged], list[Logged]]:
        client = await mesh.connect(f"embedded://{tmp_path}/data/mesh.db")
        try:
            events = [
                mesh.Event(f"e{n}", "/blame", "t", data=b'{"n": %d}' % n) for n in range(TOTAL)
            ]
            for receipt in await client.publish("in", events):
                assert receipt.status == "stored"
            async with asyncio.timeout(60):
                while (depth := await client.depth("add/in")).ready + depth.leased:
                    await asyncio.sleep(0.05)
            return (
                await client.read("out", "earliest", 2 * TOTAL),
                await client.read("add.dlq", "earliest", 2 * TOTAL),
            )
        finally:
            await client.close()

    try:
        outputs, letters = asyncio.run(main())
    finally:
        assert host.stop(signal.SIGTERM) == 0
    dead = sorted(letter.event.json()["event"]["id"] for letter in letters)
    assert dead == sorted(f"e{n}" for n in range(50, TOTAL, 100))
    assert len(outputs) == TOTAL - len(dead)
