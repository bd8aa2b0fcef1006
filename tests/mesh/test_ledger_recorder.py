"""The recorder keeps what it acknowledged, whatever dies, and the file is judged."""

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import mesh
from mesh.ledger import file
from mesh.ledger.__main__ import main
from mesh.ledger.entries import Called, Dead, Output, Published, Returned
from mesh.ledger.expectations import Expectations, Expected
from mesh.ledger.publisher import AsyncReporter, Publisher
from mesh.ledger.readback import record_back
from mesh.ledger.recorder import recording
from mesh.ledger.report import LedgerGone, LedgerRefused, Reporter, record
from mesh.letters import dead_letter
from mesh.transport import Dead as DeadOutcome
from mesh.transport import Done, Settled, Settlement, Subscription
from mesh.transport import Output as MeshOutput

EXPECTED = Expectations(
    subscriptions=(Expected(subscription="add/in", topic="in", outputs={"out": 1}),)
)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "ledger", tmp_path / "socket"


@pytest.fixture
def recorded(paths: tuple[Path, Path]) -> Iterator[tuple[Path, Path]]:
    with recording(*paths):
        yield paths


def ids(path: Path) -> list[str]:
    return [each.id for each in file.entries(path) if isinstance(each, Called | Published)]


def called(id: str) -> dict[str, Any]:
    return record("called", subscription="add/in", source="/s", id=id)


def test_what_is_acknowledged_survives_kills_of_the_recorder(paths: tuple[Path, Path]) -> None:
    """Three kills, each with a torn line left behind, while four reporters go on."""
    path, address = paths
    over = threading.Event()
    acknowledged: list[str] = []

    def report(who: int) -> None:
        reporter = Reporter(address)
        n = 0
        while not over.is_set():
            reporter.report(called(f"{who}-{n}"))
            acknowledged.append(f"{who}-{n}")
            n += 1
        reporter.close()

    threads = [threading.Thread(target=report, args=(who,)) for who in range(4)]
    for n in range(4):
        with recording(path, address, 0.05) as process:
            if n == 0:
                for thread in threads:
                    thread.start()
            before = len(acknowledged)
            while len(acknowledged) < before + 200:
                time.sleep(0.005)
            if n == 3:
                over.set()
                for thread in threads:
                    thread.join()
            else:
                process.send_signal(signal.SIGKILL)
                process.wait()
                with path.open("ab") as torn:
                    torn.write(b'{"by":"x","n":1,"rec')
    found = ids(path)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(acknowledged)


def test_a_report_without_a_recorder_raises(tmp_path: Path) -> None:
    with pytest.raises(LedgerGone, match="did not answer for"):
        Reporter(tmp_path / "nobody", 0.1).report(called("e"))

    async def slow() -> None:
        reporter = AsyncReporter(tmp_path / "nobody", 0.1)
        with pytest.raises(LedgerGone):
            await reporter.report(called("e"))
        await reporter.close()

    asyncio.run(slow())


def test_a_report_that_is_none_is_refused_and_nothing_of_it_kept(
    recorded: tuple[Path, Path],
) -> None:
    reporter = Reporter(recorded[1])
    with pytest.raises(LedgerRefused, match="records"):
        reporter.report(called("e1"), {"entry": "gossip"})
    with pytest.raises(LedgerRefused, match="source"):
        reporter.report(record("called", subscription="add/in", id="e2"))
    reporter.report(called("e3"))
    reporter.close()
    assert ids(recorded[0]) == ["e3"]


def test_a_full_disk_ends_the_recorder_and_what_it_acknowledged_is_whole(
    paths: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(paths[1], 0.3)
    count = 0

    def fill() -> None:
        nonlocal count
        while True:
            reporter.report(called(f"e{count}"))
            count += 1

    with recording(*paths, sync_s=1.0) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(LedgerGone):
            fill()
        assert process.wait(5) == 1
    assert "the recorder ends" in capfd.readouterr().err
    assert paths[0].stat().st_size == 5000
    reporter.timeout_s = 30.0
    with recording(*paths):
        reporter.report(called("after"))
    reporter.close()
    assert ids(paths[0]) == [*(f"e{n}" for n in range(count)), "after"]


def test_a_fork_reports_as_itself(recorded: tuple[Path, Path]) -> None:
    """As instances do that are forked from a zygote which had made the reporter."""
    reporter = Reporter(recorded[1])
    reporter.report(called("parent"))
    script = reporter.name
    if (pid := os.fork()) == 0:
        try:
            with reporter.call("add/in", mesh.Event("child", "/s", "t")):
                pass
        finally:
            os._exit(0 if reporter.name != script else 1)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(ZeroDivisionError), reporter.call("add/in", mesh.Event("bad", "/s", "t")):
        1 / 0  # noqa: B018
    reporter.close()
    calls = [each for each in file.entries(recorded[0]) if isinstance(each, Called)]
    ends = [each for each in file.entries(recorded[0]) if isinstance(each, Returned)]
    assert [each.id for each in calls] == ["parent", "child", "bad"]
    assert [(each.id, each.outcome) for each in ends] == [("child", "ok"), ("bad", "fail")]
    assert ends[0].instance == calls[1].instance != ends[1].instance == calls[2].instance


def test_a_second_recorder_is_refused(recorded: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mesh.ledger.recorder", *map(str, recorded)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another recorder keeps this ledger" in done.stderr
    reporter = Reporter(recorded[1])
    reporter.report(called("e"))  # the first still listens
    reporter.close()


def test_reports_on_their_way_keep_their_order(recorded: tuple[Path, Path]) -> None:
    async def tell() -> None:
        reporter = AsyncReporter(recorded[1])
        async with asyncio.TaskGroup() as group:
            for n in range(500):
                group.create_task(reporter.report(called(f"e{n}")))
        with pytest.raises(LedgerRefused):
            await asyncio.gather(
                reporter.report({"entry": "gossip"}), reporter.report(called("last"))
            )
        await reporter.report(called("end"))
        await reporter.close()

    asyncio.run(tell())
    assert ids(recorded[0]) == [*(f"e{n}" for n in range(500)), "last", "end"]


def test_a_mesh_is_read_back_and_judged(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """One event answered, one dead, one left: the ledger names the third."""
    path, address = recorded

    async def run() -> None:
        transport = await mesh.connect("embedded::memory:")
        reporter = AsyncReporter(address)
        feed = await transport.subscribe(
            Subscription(function="add", trigger="in", topic="in", dlq="add.dlq")
        )
        publisher = Publisher(transport, reporter)
        events = [mesh.Event(f"e{n}", "/s", "t", data=b"{}") for n in range(3)]
        events.append(mesh.Event("", "/s", "t"))  # refused
        receipts = await publisher.publish("in", events)
        assert [receipt.status for receipt in receipts] == ["stored"] * 3 + ["refused"]
        one, two, _ = await feed.pull(3, 1.0)
        out = mesh.Event("o", "/add", "t", extensions={"causationid": "e0"})
        letter = dead_letter(two.event, "add/in", "ValueError: no", attempts=3, at=1.0)
        await transport.commit(
            [
                Settlement("add/in", (Settled(one, Done()),), (MeshOutput("out", out),)),
                Settlement(
                    "add/in",
                    (Settled(two, DeadOutcome("no", MeshOutput("add.dlq", letter))),),
                ),
            ]
        )
        assert await record_back(transport, EXPECTED, reporter, ["add.dlq"]) == 2
        await reporter.close()
        await transport.close()

    asyncio.run(run())
    seen = list(file.entries(path))
    assert [each for each in seen if isinstance(each, Output | Dead)] == [
        Dead("add/in", "/s", "e1", 3, "ValueError: no", seen[-2].letter, seq=0),  # type: ignore[union-attr]
        Output("out", "/add", "o", "e0", seq=0),
    ]
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "I1   broken      1  every stored event ends exactly once" in printed
    assert "I1 add/in /s e2: promised one end; seen nothing" in printed
    assert main([str(path), "--json"]) == 1
    assert '"events":["/s e2"]' in capsys.readouterr().out


def test_more_than_a_page_is_read_back_once(recorded: tuple[Path, Path]) -> None:
    async def run() -> None:
        transport = await mesh.connect("embedded::memory:")
        reporter = AsyncReporter(recorded[1])
        await transport.publish(
            "out",
            [
                mesh.Event(f"o{n}", "/add", "t", extensions={"causationid": "e"})
                for n in range(2500)
            ],
        )
        assert await record_back(transport, EXPECTED, reporter) == 2500
        await reporter.close()
        await transport.close()

    asyncio.run(run())
    seen = [each for each in file.entries(recorded[0]) if isinstance(each, Output)]
    assert [(each.id, each.seq) for each in seen] == [(f"o{n}", n) for n in range(2500)]


def write(path: Path, *lines: bytes) -> None:
    path.write_bytes(b"".join(lines))


def line(n: int, *records: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"by": "a", "n": n, "records": records}) + b"\n"


def test_files_that_are_whole_torn_or_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, expect = tmp_path / "ledger", tmp_path / "expect.json"
    first, second = line(1, called("e1")), line(2, called("e2"))
    write(path, first, first, second, second[:-9])
    assert ids(path) == ["e1", "e2"]
    write(path, first, b"\0\0\0\n")  # a page that the disk never wrote, at the end
    assert ids(path) == ["e1"]
    assert main([str(path)]) == 2
    assert "no expectations" in capsys.readouterr().err
    expect.write_bytes(msgspec.json.encode(Expectations(subscriptions=())))
    assert main([str(path), "--expect", str(expect)]) == 1
    write(path, first, b"\0\0\0\n", second)
    assert main([str(path), "--expect", str(expect)]) == 2
    assert f"{path}:2: not a line of a ledger" in capsys.readouterr().err
    write(path, line(1, msgspec.to_builtins(EXPECTED)))
    capsys.readouterr()
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.count("kept") == 10


def test_a_line_in_pieces_is_one_report(recorded: tuple[Path, Path]) -> None:
    whole = line(1, called("e1"))
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(recorded[1]))
        channel.sendall(whole[:10])
        time.sleep(0.02)
        channel.sendall(whole[10:] + line(2, called("e2")))
        answers = b""
        while len(answers) < 6:
            answers += channel.recv(100)
    assert answers == b"ok\nok\n"
    assert ids(recorded[0]) == ["e1", "e2"]


def test_the_documented_function_reports_its_calls(recorded: tuple[Path, Path]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    names: dict[str, Any] = {}
    exec(code.replace("/tmp/ledger.sock", str(recorded[1])), names)
    assert names["handler"](mesh.Event("e1", "/s", "t"), SimpleNamespace(attempt=2)) == {
        "seen": "e1"
    }
    names["ledger"].close()
    begun, over = file.entries(recorded[0])
    assert isinstance(begun, Called)
    assert (begun.subscription, begun.id, begun.attempt) == ("add/in", "e1", 2)
    assert isinstance(over, Returned)
    assert over.outcome == "ok"
