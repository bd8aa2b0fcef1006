"""A handler that blocks its event loop is named, with its line, in the log."""

import asyncio
from pathlib import Path

import pytest

from tests.funcrt.test_sandbox import Running, event, run

BLOCKS = """
import asyncio, time
def helper():
    time.sleep(0.5)
async def handler(data: dict):
    if data["a"] == "blocks": helper()
    await asyncio.sleep(0.3)
"""


def lines(running: Running) -> list[str]:
    return [log.text for log in running.logs if "blocks the event loop" in log.text]


def test_the_line_that_blocks_is_named_while_it_still_does(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        running.send(1, event(b'{"a": "blocks"}'))
        await running.until(lambda: bool(lines(running)))
        assert 1 not in running.results
        assert lines(running) == [
            "main.py:4 in helper blocks the event loop, for over 100 ms: no other call of this"
            " instance goes on meanwhile; await, or asyncio.to_thread"
        ]
        await running.result(1)
        running.send(2, event(b'{"a": "blocks"}'))
        await running.result(2)
        assert len(lines(running)) == 1  # one in a while

    run(tmp_path, BLOCKS, body)


@pytest.mark.parametrize("data", [b'{"a": "waits"}'])
def test_one_that_awaits_is_not(tmp_path: Path, data: bytes) -> None:
    async def body(running: Running) -> None:
        for number in range(1, 4):
            running.send(number, event(data))
            await running.result(number)
            await asyncio.sleep(0.1)  # it sleeps in between, and wakes again
        assert lines(running) == []

    run(tmp_path, BLOCKS, body)
