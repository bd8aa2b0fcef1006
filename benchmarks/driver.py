"""The publisher: one process, the same for every system. Also counts the results.

    python -m benchmarks.driver MODULE ADDRESS EVENTS PACED

Runs in the interpreter of the system it drives. On each line of stdin it does its next phase (warm
up, live, paced) and prints what it saw as a JSON line.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import uvloop

from benchmarks.client import Client, adapter
from benchmarks.table import percentile

OUTSTANDING = 64
RATE = 200.0
PATIENCE_S = 20.0
WARM = 256
PAD = "x" * 980


class Body(msgspec.Struct):
    """What of a result is looked at: which event it is of, and that the function was there."""

    id: int
    added: int


class Driver:
    """Publishes numbered events and waits for their results."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sent: dict[int, float] = {}
        self.seen: dict[int, float] = {}
        self.doubled = 0
        self.last = 0.0

    async def collect(self) -> None:
        """Note when each result came."""
        decode = msgspec.json.Decoder(Body).decode
        async for bodies in self.client.results():
            self.last = now = time.perf_counter()
            for body in bodies:
                number = decode(body).id
                if number in self.seen:
                    self.doubled += 1
                else:
                    self.seen[number] = now

    def send(self, numbers: Iterator[int]) -> None:
        """Publish in this thread until there are no more."""
        for number in numbers:
            self.sent[number] = time.perf_counter()
            self.client.send(number, body_of(number))

    async def publish(self, numbers: Iterator[int]) -> None:
        """The same, awaited."""
        for number in numbers:
            self.sent[number] = time.perf_counter()
            await self.client.publish(number, body_of(number))

    async def flood(self, first: int, count: int) -> float:
        """As fast as it goes, at most 64 outstanding; seconds from first publish to last result."""
        numbers = iter(range(first, first + count))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            if self.client.threads:
                loop = asyncio.get_running_loop()
                with ThreadPoolExecutor(self.client.threads) as pool:
                    await asyncio.gather(
                        *(
                            loop.run_in_executor(pool, self.send, numbers)
                            for _ in range(self.client.threads)
                        )
                    )
            else:
                for _ in range(OUTSTANDING):
                    group.create_task(self.publish(numbers))
        await self.all_of(first, count)
        return self.last - began

    async def paced(self, first: int, count: int) -> None:
        """At 200 a second, each on its own time whatever became of those before."""
        loop = asyncio.get_running_loop()
        due = time.perf_counter()
        with ThreadPoolExecutor(max(self.client.threads, 1)) as pool:
            async with asyncio.TaskGroup() as group:
                for number in range(first, first + count):
                    due += 1 / RATE
                    await asyncio.sleep(max(due - time.perf_counter(), 0))
                    if self.client.threads:
                        loop.run_in_executor(pool, self.send, iter((number,)))
                    else:
                        group.create_task(self.publish(iter((number,))))
        await self.all_of(first, count)

    async def all_of(self, first: int, count: int) -> None:
        """Wait until all results are there, or none has come for a long while."""
        want, self.last = len(self.seen), time.perf_counter()
        numbers = range(first, first + count)
        while sum(number in self.seen for number in numbers) < count:
            before = len(self.seen)
            for _ in range(int(PATIENCE_S / 0.05)):
                await asyncio.sleep(0.05)
                if len(self.seen) > before:
                    break
            else:
                return
        assert len(self.seen) >= want

    def missing(self, first: int, count: int) -> int:
        """How many results never came."""
        return sum(number not in self.seen for number in range(first, first + count))


def body_of(number: int) -> bytes:
    """About 1 KB of JSON."""
    return b'{"id":%d,"x":"%s"}' % (number, PAD.encode())


def say(**what: object) -> None:
    """One JSON line."""
    print(json.dumps(what), flush=True)


async def go() -> None:
    """Wait for a line from whoever measures."""
    if not await asyncio.to_thread(sys.stdin.readline):
        raise SystemExit(1)


async def main(module: str, address: str, events: int, paced: int) -> None:
    """The three phases."""
    client: Client = await adapter(module).open_client(address)
    driver = Driver(client)
    collecting = asyncio.ensure_future(driver.collect())
    await driver.flood(0, WARM)
    say(phase="warm", missing=driver.missing(0, WARM))
    await go()
    used = time.process_time()
    seconds = await driver.flood(WARM, events)
    used = time.process_time() - used
    lost = driver.missing(WARM, events)
    say(phase="live", rate=events / seconds, missing=lost, publisher_s=used)
    await go()
    first = WARM + events
    used = time.process_time()
    await driver.paced(first, paced)
    used = time.process_time() - used
    waits = [
        (driver.seen[number] - driver.sent[number]) * 1000
        for number in range(first, first + paced)
        if number in driver.seen
    ]
    say(
        phase="paced",
        p50=percentile(waits, 50),
        p99=percentile(waits, 99),
        missing=driver.missing(first, paced),
        doubled=driver.doubled,
        publisher_s=used,
    )
    if collecting.done():
        collecting.result()
    collecting.cancel()
    await client.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
