"""Deployments while events flow, and hosts killed in the middle of them: nothing is lost, nothing
runs twice or on mixed code, and what comes back is the old version or the new one, whole."""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from funcrt.bundle import pack
from funcrt.cli.client import AdminClient
from funcrt.cli.errors import CliError
from funcrt.upload import MEDIA_TYPE, Head, Upload, encode
from mesh.failpoint import EXIT_CODE, POINTS
from mesh.ledger.expectations import Expectations, Expected
from tests.faults.run import Run, watched
from tests.serving import FUNCRT, Serving

MAIN = """
from pathlib import Path

from funcrt import Reject
from mesh.ledger.report import Reporter

ledger = Reporter("{address}")
VERSION = {version}

def handler(event, ctx):
    part = int(Path(__file__).with_name("part.txt").read_text())  # anew in each call
    if event.source == "/probe":  # it leaves no trace in the run
        raise Reject(f"{{VERSION}} {{part}}")
    with ledger.call("{name}/in", event, attempt=ctx.attempt):
        return {{"main": VERSION, "part": part}}
"""
MANIFEST = """
[[trigger]]
topic = "in"
start = "earliest"
[output]
topic = "{name}.out"
[scale]
min = 1
max = 2
"""
NAMES = ("one", "two")


class Host(Serving):
    """A host whose folder of functions is empty."""

    def __init__(self, directory: Path, failpoint: str = "") -> None:
        self.data = directory / "data"
        super().__init__(self.data, env={"FUNCRT_FAILPOINT": failpoint} if failpoint else {})
        self.client = AdminClient(self.data / "admin.sock")
        self.client.timeout_s = 60.0


def upload(directory: Path, version: int) -> bytes:
    """Both functions in one version, each with a file that is read in each call."""
    uploads, bundles = [], []
    for name in NAMES:
        folder = directory / "src" / name
        folder.mkdir(parents=True, exist_ok=True)
        address = directory / "ledger.sock"
        (folder / "main.py").write_text(MAIN.format(address=address, version=version, name=name))
        (folder / "part.txt").write_text(f"{version}\n")
        (folder / "funcrt.toml").write_text(MANIFEST.format(name=name))
        packed = pack(folder)
        bundles.append(packed)
        size = len(packed.body)
        uploads.append(Upload(folder=name, path=name, digest=packed.digest, size=size))
    return encode(Head(functions=uploads), bundles)


def deploy(host: Host, body: bytes) -> list[Any]:
    found: list[Any] = host.client.upload(body, MEDIA_TYPE, "deployments")["functions"]
    return found


def in_service(host: Host) -> list[tuple[int, int, int]]:
    """Of each function: the version that the log has, and what a call of it says."""
    found = []
    for name in NAMES:
        log = host.client.get("functions", name, "versions")["versions"]
        (number,) = [row["number"] for row in log if row["in_service"]]
        assert number == len(log), "the last one recorded is the one in service"
        event = {"specversion": "1.0", "id": f"{number}", "source": "/probe", "type": "t"}
        headers = {"content-type": "application/cloudevents+json"}
        url = f"{host.url}/functions/{name}"
        said = httpx.post(url, content=json.dumps(event), headers=headers, timeout=30).json()
        main, part = said["message"].split()
        found.append((number, int(main), int(part)))
    return found


def expectations() -> Expectations:
    return Expectations(
        subscriptions=tuple(
            Expected(subscription=f"{name}/in", topic="in", outputs={f"{name}.out": 1})
            for name in NAMES
        ),
        drain_s=10.0,
    )


async def outputs(run: Run) -> list[tuple[int, int]]:
    """(version of main.py, version of part.txt) of each output."""
    found = []
    for name in NAMES:
        start = "earliest"
        while page := await run.client.read(f"{name}.out", start, 500):
            found += [each.event.json() for each in page]
            start = f"@{int(page[-1].position) + 1}"
    return [(each["main"], each["part"]) for each in found]


@contextlib.contextmanager
def ending(hosts: list[Host]) -> Iterator[None]:
    """Nothing is left behind, however it ends; a host that lives ends as it is told."""
    try:
        yield
        assert hosts[-1].stop(signal.SIGTERM) == 0
    finally:
        for host in hosts:
            if host.process.poll() is None:
                host.stop(signal.SIGKILL)


async def publish(run: Run, over: asyncio.Event) -> int:
    """Events, two at a time, each with the same id until it is stored, until all is over."""
    numbers = itertools.count()

    async def some() -> None:
        while not over.is_set():
            event = run.event(next(numbers), "k")
            while (await run.publisher.publish("in", [event]))[0].status != "stored":
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(some())
    return next(numbers)


@pytest.mark.timeout(120)
def test_new_versions_while_events_flow(tmp_path: Path) -> None:
    versions = 8

    async def main(host: Host) -> None:
        async with watched(tmp_path) as run:
            over = asyncio.Event()
            await asyncio.to_thread(deploy, host, upload(tmp_path, 1))
            publishing = asyncio.create_task(publish(run, over))
            in_flight = 0
            for version in range(2, versions + 1):
                await asyncio.sleep(0.3)
                rows = await asyncio.to_thread(deploy, host, upload(tmp_path, version))
                assert [row["number"] for row in rows] == [version] * len(NAMES)
                assert [row["given_back"] for row in rows] == [0] * len(NAMES)
                in_flight += sum(row["in_flight"] for row in rows)
            await asyncio.sleep(0.3)
            over.set()
            total = await publishing
            await run.drained(host.process.pid, "one/in", "two/in", within_s=30)
            seen = await run.judge(expectations(), [])
            ran = await outputs(run)
        assert seen["published", "ok"] == total > 100
        assert seen["called"] == seen["returned"] == len(ran) == 2 * total, "each ran once"
        assert [pair for pair in ran if pair[0] != pair[1]] == [], "on mixed code"
        assert {version for version, _ in ran} == set(range(1, versions + 1))

    hosts = [Host(tmp_path)]
    with ending(hosts):
        asyncio.run(main(hosts[0]))


POINT_NAMES = [name for name, _ in POINTS if name.startswith(("deploy.", "unpack."))]
KILLS = 10


@pytest.mark.timeout(240)
def test_killed_in_a_deployment_the_old_or_the_new_version_comes_back_whole(tmp_path: Path) -> None:
    """At each point of a deployment, the first function's or the second's, and at any moment."""
    chance = random.Random(7)
    # Both functions are one record, and their blobs are kept between the same two points.
    points = [
        f"{name}:{count}"
        for name in POINT_NAMES
        for count in ((1,) if name.startswith("deploy.") else (1, 2))
    ]
    hosts: list[Host] = []
    came = {"old": 0, "new": 0}

    def start(failpoint: str = "") -> Host:
        hosts.append(Host(tmp_path, failpoint))
        return hosts[-1]

    async def crash(run: Run, version: int, failpoint: str) -> None:
        """One deployment that its host does not live through; what the next host then serves."""
        await run.fault("host-kill")
        hosts[-1].stop(signal.SIGKILL)
        host = await asyncio.to_thread(start, failpoint)
        before = await asyncio.to_thread(in_service, host)
        deploying = asyncio.create_task(asyncio.to_thread(deploy, host, upload(tmp_path, version)))
        await run.fault("host-kill")
        if not failpoint:
            await asyncio.sleep(chance.uniform(0.0, 0.25))
            host.stop(signal.SIGKILL)
        told = True
        try:
            await deploying
        except CliError:
            told = False
        if failpoint:
            assert await asyncio.to_thread(host.ended) == EXIT_CODE, failpoint
            assert not told, f"it was not ended at {failpoint}"
        after = await asyncio.to_thread(in_service, await asyncio.to_thread(start))
        new = [(before[0][0] + 1, version, version)] * len(NAMES)
        assert after == new or (after == before and not told), (failpoint, before, after)
        if failpoint:
            recorded = failpoint.startswith("deploy.after")
            assert after == (new if recorded else before), failpoint
        came["new" if after == new else "old"] += 1

    async def main() -> None:
        async with watched(tmp_path) as run:
            over = asyncio.Event()
            await asyncio.to_thread(deploy, hosts[-1], upload(tmp_path, 1))
            publishing = asyncio.create_task(publish(run, over))
            try:
                for version, point in enumerate([*points, *[""] * KILLS], 2):
                    await crash(run, version, point)
            finally:
                over.set()
                total = await publishing
            await run.drained(hosts[-1].process.pid, "one/in", "two/in", within_s=30)
            seen = await run.judge(expectations(), [])
            ran = await outputs(run)
        assert seen["published", "ok"] == total
        assert seen["called"] >= 2 * total
        assert [pair for pair in ran if pair[0] != pair[1]] == [], "on mixed code"
        assert min(came.values()) > 0, f"the kills struck at one side alone: {came}"

    start()
    with ending(hosts):
        asyncio.run(main())


def test_a_deployment_that_was_killed_leaves_no_files(tmp_path: Path) -> None:
    host = Host(tmp_path, "unpack.written:1")
    with pytest.raises(CliError):
        deploy(host, upload(tmp_path, 1))
    assert host.ended() == EXIT_CODE
    code = tmp_path / "data" / "code"
    assert len(list(code.iterdir())) == 1
    again = Host(tmp_path)
    with ending([again]):
        assert list(code.iterdir()) == []
        listed = subprocess.run(
            [*FUNCRT, "ls", "--json"], env=again.env, capture_output=True, text=True, check=True
        )
        assert listed.stdout == ""
