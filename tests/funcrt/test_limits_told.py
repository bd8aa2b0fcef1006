"""What a function was over, as its operator reads it: in dead letters, the log and figures."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.hints import hint
from funcrt.sandbox.zygote import tidy
from tests.funcrt.test_groups import WHY
from tests.serving import Serving, rows, until

FUNCTION = """
import os, socket, subprocess, tempfile, threading, time
held = []
def handler(event):
    return globals()[event.json()["do"]]()
def memory():
    while True:
        held.append(os.urandom(1 << 20))
def time_():
    while True:
        pass
def threads():
    for _ in range(2000):
        threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
def file():
    with open(tempfile.gettempdir() + "/x", "wb") as file:
        for _ in range(9):
            file.write(bytes(1 << 20))
def files():
    for number in range(9):
        with open(f"{tempfile.gettempdir()}/x{number}", "wb") as file:
            file.write(bytes(1 << 20))
def descriptors():
    mine = []
    try:
        while True:
            mine.append(os.dup(0))
    finally:
        for descriptor in mine:
            os.close(descriptor)
def output():
    return "x" * (2 << 20)
def program():
    subprocess.run(["ls"])
def connect():
    socket.create_connection(("127.0.0.1", 9))
def resolve():
    try:
        socket.getaddrinfo("example.com", 80)
    except OSError as error:
        raise ValueError("a client's own") from error
def elsewhere():
    open("/usr/x", "w")
---
timeout = "1s"
[[trigger]]
topic = "bombs"
[retry]
attempts = 1
[limits]
memory = "64MiB"
tmp = "4MiB"
[scale]
max = 1
"""
TOLD = {
    "memory": ("memory", 'OutOfMemory: out of memory: over limits.memory = "64MiB"'),
    "time_": ("time", r"TimeoutError: took longer than 1 s \(ended after \d\.\d s, "
              r"\d\.\d of it on the CPU\)"),
    "threads": ("processes", r"RuntimeError: can't start new thread \(an instance may have 1024 "
                r"processes and threads\)"),
    "file": ("tmp", r"OSError: \[Errno 27\] File too large \(a file may have limits\.tmp = "
             r'"4MiB"\)'),
    "files": ("tmp", r"OSError: \[Errno 28\] No space left on device \(its /tmp is full: "
              r'limits\.tmp = "4MiB"\)'),
    "descriptors": ("files", r"OSError: \[Errno 24\] Too many open files \(an instance may have "
                    r"\d+ files open\)"),
    "output": ("output", "OutputTooLarge: returned 2097152 bytes, more than the 1048576 allowed"),
    "program": ("", r"PermissionError: \[Errno 1\] Operation not permitted: 'ls' \(programs "
                r"cannot be started at isolation 'sandbox', nor at another but 'none': do it in "
                r"Python, or in a service that it calls\)"),
    "connect": ("", r'PermissionError: \[Errno 13\] Permission denied \(sandbox\.network is '
                r'"none"\)'),
    "resolve": ("", r'ValueError: a client\'s own \(sandbox\.network is "none"\)'),
    "elsewhere": ("", r"OSError: \[Errno 30\] Read-only file system: '/usr/x' \(at isolation "
                  r"'sandbox' only /tmp can be written to\)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    if WHY:
        pytest.skip(f"no control groups can be made here: {WHY}")
    root = tmp_path_factory.mktemp("told")
    env = {"FUNCRT_USER": "root"} if os.geteuid() == 0 else {}
    serving = Serving(root / "data", bombs=FUNCTION, env=env)
    yield serving
    assert serving.stop(signal.SIGTERM) == 0


def letters(host: Serving) -> dict[str, Any]:
    found = httpx.get(f"{host.url}/topics/bombs.dlq/events").json()["events"]
    return {each["event"]["data"]["event"]["id"]: each["event"]["data"] for each in found}


# What needs processes is asked before the one that uses them up: those take a while to end.
@pytest.mark.parametrize("do", sorted(TOLD, key=lambda do: TOLD[do][0] != ""))
def test_a_limit_is_named_in_the_dead_letter(host: Serving, do: str) -> None:
    headers = {"ce-id": do, "ce-source": "/s", "ce-type": "t", "ce-specversion": "1.0",
               "content-type": "application/json"}  # fmt: skip
    url = f"{host.url}/topics/bombs/events"
    before = rows(host.run("stats", "bombs", "--json"))[0]["limited"]
    assert httpx.post(url, headers=headers, json={"do": do}).status_code == 202
    letter = until(lambda: letters(host).get(do))
    limit, expected = TOLD[do]
    assert re.fullmatch(expected, letter["reason"]), letter["reason"]
    if do not in ("memory", "time_", "output"):
        assert f"in {do}" in letter["where"]
        assert "main.py" in letter["traceback"]
    after = rows(host.run("stats", "bombs", "--json"))[0]["limited"]
    assert after == before | ({limit: before.get(limit, 0) + 1} if limit else {})


def test_what_it_used_is_told(host: Serving) -> None:
    (stats,) = rows(host.run("stats", "bombs", "--json"))
    assert stats["cpu_s"] > 1  # of `time_`
    assert 60 << 20 < stats["peak_bytes"] <= 64 << 20  # of `memory`
    described = host.run("describe", "bombs").stdout
    assert re.search(r"^used +\d+\.\d s of CPU, .*an instance at most 64 MiB$", described, re.M)
    assert re.search(r"^limits +1 over memory, 1 over time, 1 over processes", described, re.M)
    assert re.search(r"OutOfMemory|out of memory", host.run("logs", "bombs").stdout)


def test_an_error_of_another_kind_is_left_alone() -> None:
    held = Confinement(level="sandbox", memory_bytes=1 << 20)
    for error in (ValueError("x"), OSError(5, "I/O"), BlockingIOError(11, "not ready"), KeyError()):
        assert hint(error, held) == ("", "")
    assert hint(MemoryError(), held) == ("memory", 'limits.memory = "1MiB", of address space')
    assert hint(OSError(28, "full"), Confinement(level="process")) == ("", "")


@pytest.mark.parametrize("libc", ["gnu", "musl"])
def test_a_name_that_musl_cannot_ask_for_is_told_of(
    monkeypatch: pytest.MonkeyPatch, libc: str
) -> None:
    monkeypatch.setattr(sys.implementation, "_multiarch", f"x86_64-linux-{libc}")
    error = socket.gaierror(-2, "Name or service not known")
    held = Confinement(level="process", network=("api.example.com:443",))
    why = "at isolation 'process' musl finds no names; use addresses, or isolation = \"sandbox\""
    assert hint(error, held) == ("", why if libc == "musl" else "")
    walled = msgspec.structs.replace(held, level="sandbox")
    assert hint(error, walled) == ("", "")
    alone = msgspec.structs.replace(held, network=())
    assert hint(error, alone) == ("", 'sandbox.network is "none"')


def test_what_instances_left_is_removed_but_nothing_else(tmp_path: Path) -> None:
    room, beyond = tmp_path / "room", tmp_path / "beyond"
    beyond.mkdir()
    (beyond / "file").touch()
    (room / "kept").mkdir(parents=True)
    (room / "kept/inside").touch()
    (room / "left/deep").mkdir(parents=True)
    (room / "left/deep/file").touch()
    (room / "left/link").symlink_to(beyond)
    (room / "link").symlink_to(beyond)
    (room / "file").touch()
    tidy(str(room), {"kept"})
    assert [each.name for each in room.iterdir()] == ["kept"]
    assert (room / "kept/inside").exists()
    assert (beyond / "file").exists()
