"""Costs of a million topics and a hundred thousand subscriptions: `python -m tests.faults.many`."""

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

import mesh
from mesh import Event
from mesh.transport import Subscription, Transport

AT_ONCE = 256


class Cost(msgspec.Struct):
    """Of a mesh file with so many topics, of an event each, and subscriptions to some of them."""

    topics: int
    subscriptions: int
    topics_s: float
    """Until all topics were made."""
    subscriptions_s: float
    bytes_a_topic: int
    """Of the host's memory."""
    rss: int
    file_bytes: int
    publish_ms: tuple[float, float]
    """p50 and p99 of a publish of one event, one at a time."""
    start_s: float
    """Until a host has opened the file again."""
    beside_s: float
    """A publish of a process without a host, and the host's first after it."""


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(root: Path, topics: int, subscriptions: int) -> Cost:
    url = f"embedded://{root}/mesh.db?topics={topics + 10}"
    numbers = itertools.count()

    async def put(t: Transport, topic: str) -> None:
        (receipt,) = await t.publish(topic, [Event(str(next(numbers)), "/many", "t", data=b"{}")])
        assert receipt.status == "stored", receipt

    async def at_once(count: int, start: int, work: Callable[[int], Awaitable[object]]) -> float:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(AT_ONCE):
                group.create_task(one_by_one(range(start + first, start + count, AT_ONCE), work))
        return time.perf_counter() - began

    async def one_by_one(mine: range, work: Callable[[int], Awaitable[object]]) -> None:
        for n in mine:
            await work(n)

    host = await mesh.connect(url, host=True)
    before = rss()
    topics_s = await at_once(topics, 0, lambda n: put(host, f"topic-{n}"))
    held = rss() - before
    subscriptions_s = await at_once(
        subscriptions,
        0,
        lambda n: host.subscribe(
            Subscription(function=f"f{n}", trigger="t", topic=f"topic-{n % topics}")
        ),
    )
    took = []
    for n in range(500):
        began = time.perf_counter()
        await put(host, f"topic-{n % topics}")
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    whole = rss()
    await host.close()

    client = await mesh.connect(url)
    began = time.perf_counter()
    await put(client, "topic-0")
    beside_s = time.perf_counter() - began
    began = time.perf_counter()
    host = await mesh.connect(url, host=True)
    start_s = time.perf_counter() - began
    await client.close()
    size = (root / "mesh.db").stat().st_size
    await host.close()
    return Cost(
        topics, subscriptions, round(topics_s, 1), round(subscriptions_s, 1), held // topics, whole,
        size, (round(took[250], 1), round(took[495], 1)), round(start_s, 1), round(beside_s, 3),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--topics", type=int, default=1_000_000)
    parser.add_argument("--subscriptions", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        cost = asyncio.run(measure(Path(root), given.topics, given.subscriptions))
    print(msgspec.json.format(msgspec.json.encode(cost)).decode())
    assert cost.publish_ms[1] < 500
    assert cost.start_s < 300
    assert cost.bytes_a_topic < 4000


if __name__ == "__main__":
    main()
