"""A host that ends at each failpoint, again and again, while events flow: a ledger judges that none
is lost or doubled."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.errors import FailpointUnknown
from mesh.failpoint import EXIT_CODE, POINTS, armed
from mesh.ledger.expectations import Expectations, Expected
from tests.faults.run import Run, watched
from tests.serving import Serving
from tests.wheels import offline, wheel

FUNCTION = """
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")  # version {version}

def handler(event, ctx):
    n = event.json()["n"]
    with ledger.call("add/in", event, attempt=ctx.attempt):
        if n % 8 == 5 and ctx.attempt == 1 or n % 8 == 7:
            raise ValueError(n)
        return {{"n": n}}
---
[[trigger]]
topic = "in"
start = "earliest"
[output]
topic = "out"
[retry]
attempts = 2
base = "10ms"
max = "20ms"
[scale]
min = 1
max = 1
"""
TOGETHER = 2
NAMES = [name for name, _ in POINTS]
ONCE = ("migrate.after", "host-id.after")
"""Reached once in the life of a data directory: what they come after is then done."""
EACH_START = ("epoch.", "unpack.", "packages.", "deploy.", "checkpoint.", "transaction.refreshed")
"""Reached once a start. (Each start has another version of the function.)"""
FIRST = ("migrate.", "host-id.")
"""Reached before there is anything to publish to."""
BIG = b"x" * 1_000_000
MOST_BIG = 80
"""Such events make the write-ahead log long enough to be copied."""


def counts(name: str) -> tuple[int, ...]:
    """Which time that the point is reached is the last of each host, one host after the other."""
    if name in ONCE:
        return (1,)
    if name.startswith((*EACH_START, *FIRST)) and name != "migrate.statement":
        return (1, 1, 1)
    # Every transaction reaches these, and the first of a start are its own: then among events too.
    return (1, 2, 3, 12, 25) if name.startswith(("transaction.", "commit.")) else (1, 2, 3)


class Crashes:
    """Points of one kind, one after the other on a mesh of their own."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.directory = directory
        self.names = names
        self.version = 0
        self.total = 0
        self.big = 0
        self.over = False
        self.host: Serving | None = None

    def serve(self, setting: str) -> Serving:
        """A host that is to end at a point, or, "", is not."""
        self.version += 1
        address = self.directory / "ledger.sock"
        source = FUNCTION.format(address=address, version=self.version)
        env = {"FUNCRT_FAILPOINT": setting} if setting else {}
        if self.names and self.names[0].startswith("packages."):
            # Each version needs something that no version before did.
            wheel(self.directory / "wheels", "paint", "9.0")
            source = source.replace("\n---", f'\n---\ndependencies = ["paint>=0.{self.version}"]')
            env |= offline(self.directory / "wheels")
        self.host = Serving(self.directory / "data", env=env, add=source)
        return self.host

    async def publish(self, run: Run) -> None:
        """Events, two at a time, each with the same id until it is stored, until all is over."""

        async def some() -> None:
            while not self.over or self.total < 16:
                n, self.total = self.total, self.total + 1
                big, self.big = BIG if self.big else b"", max(self.big - 1, 0)
                # A big one does not fail: the pages of dead letters would not fit a frame.
                name, value = (f"big{n}", 0) if big else (f"e{n}", n)
                data = b'{"n": %d, "more": "%s"}' % (value, big)
                event = mesh.Event(name, "/ledger", "t", data=data)
                while (await run.publisher.publish("in", [event]))[0].status != "stored":
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.0 if big else 0.05)

        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(some())

    async def crash(self, run: Run) -> None:
        """For each point hosts that end at it, one after the other; then one that goes on."""
        for name, count in [(each, n) for each in self.names for n in counts(each)]:
            self.big = MOST_BIG if name.startswith("checkpoint.") else 0
            host = await asyncio.to_thread(self.serve, f"{name}:{count}")
            code = await asyncio.to_thread(host.process.wait, 30)
            assert host.process.stdout is not None
            host.process.stdout.close()
            self.host = None
            await run.fault("host-kill")
            assert code == EXIT_CODE, f"ended with {code}, not at {name}:{count}"
        await asyncio.to_thread(self.serve, "")

    async def run(self) -> Counter[Any]:
        """All of it; what was seen."""
        self.directory.mkdir()
        async with watched(self.directory) as run:
            if self.names[0].startswith(FIRST):
                await self.crash(run)
                self.over = True
                await self.publish(run)
            else:
                publishing = asyncio.create_task(self.publish(run))
                try:
                    await self.crash(run)
                finally:
                    self.over = True
                    await publishing
            assert self.host is not None
            await run.drained(self.host.process.pid, "add/in", within_s=30)
            return await run.judge(expected(self.total), ["add.dlq"])

    def end(self) -> int:
        """Stop the host that is left; its exit code."""
        return self.host.stop(15) if self.host is not None else -1


def expected(total: int) -> Expectations:
    dies = frozenset(("/ledger", f"e{n}") for n in range(7, total, 8))
    of = Expected(subscription="add/in", topic="in", outputs={"out": 1}, max_attempts=2, dies=dies)
    return Expectations(subscriptions=(of,), drain_s=10.0)


@pytest.mark.timeout(300)
def test_a_crash_at_each_point_loses_and_doubles_nothing(tmp_path: Path) -> None:
    failed: dict[str, BaseException] = {}
    kinds: dict[str, list[str]] = {}
    for name in NAMES:
        if not name.startswith("file."):
            kinds.setdefault(name.partition(".")[0], []).append(name)

    async def main() -> None:
        slots = asyncio.Semaphore(TOGETHER)

        async def some(kind: str, names: Sequence[str]) -> None:
            async with slots:
                crashes = Crashes(tmp_path / kind, names)
                try:
                    seen = await crashes.run()
                    assert seen["published", "ok"] == crashes.total
                    assert seen["output"] + seen["dead"] == crashes.total
                    assert seen["dead"] >= 2
                except (Exception, asyncio.CancelledError) as error:
                    failed[kind] = error
                finally:
                    code = await asyncio.to_thread(crashes.end)
                if code != 0:
                    failed.setdefault(kind, AssertionError(f"the last host ended with {code}"))

        async with asyncio.TaskGroup() as group:
            for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
                group.create_task(some(kind, kinds[kind]))

    asyncio.run(main())
    assert failed == {}


CLIENT = """
import asyncio, sys
import mesh
from mesh.ledger.publisher import AsyncReporter, Publisher

async def main(url, address, name):
    client, reporter = await mesh.connect(url), AsyncReporter(address)
    for n in range(1000):
        event = mesh.Event(name + str(n), "/ledger", "t", data=b'{"n": 0}')
        await Publisher(client, reporter).publish("in", [event])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(60)
def test_a_client_that_ends_while_it_writes_the_file_itself(tmp_path: Path) -> None:
    names = [name for name in NAMES if name.startswith("file.")]
    crashes = Crashes(tmp_path / "files", [])
    crashes.directory.mkdir()

    async def main() -> None:
        async with watched(crashes.directory) as run:
            url = f"embedded://{crashes.directory}/data/mesh.db"
            for name in names:
                for count in (1, 2, 3):
                    command = [
                        sys.executable,
                        "-c",
                        CLIENT,
                        url,
                        run.reporter.path,
                        f"{name}{count}.",
                    ]
                    env = {**os.environ, "FUNCRT_FAILPOINT": f"{name}:{count}"}
                    code = await asyncio.to_thread(
                        lambda command=command, env=env: (
                            subprocess.run(command, env=env, timeout=30, check=False).returncode
                        )
                    )
                    assert code == EXIT_CODE, name
                    for n in range(count):  # all of them again, with the same ids
                        event = mesh.Event(f"{name}{count}.{n}", "/ledger", "t", data=b'{"n": 0}')
                        (receipt,) = await run.publisher.publish("in", [event])
                        assert receipt.status == "stored"
                        assert receipt.duplicate == (n < count - 1 or name == "file.after")
            host = await asyncio.to_thread(crashes.serve, "")
            await run.drained(host.process.pid, "add/in", within_s=30)
            seen = await run.judge(expected(0), [])
            assert seen["output"] == len(names) * (1 + 2 + 3)

    try:
        asyncio.run(main())
    finally:
        assert crashes.end() == 0


def test_a_name_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailpointUnknown, match=r"'comit.before' is no failpoint; .*commit.before"):
        armed("comit.before")("commit.before")
    with pytest.raises(FailpointUnknown, match="'nowhere' is no failpoint"):
        armed("commit.before")("nowhere")
    with pytest.raises(FailpointUnknown, match=r"'commit\.before:x'"):
        armed("commit.before:x")("commit.before")
    one = Serving(tmp_path / "data", env={"FUNCRT_FAILPOINT": "comit.before"})
    assert one.process.wait(30) == 1
    assert one.process.stdout is not None
    one.process.stdout.close()
    assert "'comit.before' is no failpoint" in (tmp_path / "serve.err").read_text()
