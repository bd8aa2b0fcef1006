"""What becomes of a host whose runtime zygote ends, by an OOM killer or a bug: another is started
where the host may, no event is lost, and none is blamed that did nothing; else the host ends."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from funcrt.errors import SandboxError
from funcrt.sandbox import Code, Exit
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Call
from funcrt.zygotes import Zygotes
from mesh import Event
from tests.serving import FUNCRT, Serving, rows, tree, until
from tests.users import others

STAYS = ["--user", "root"] if os.geteuid() == 0 else []
"""Whom a host is to be that may make another runtime zygote."""
QUICK = "def handler(event):\n    return event.json()\n"
SLOW = """
import time
def handler(event):
    print("begun", event.json())
    time.sleep(0.5)
    return event.json()
---
[[trigger]]
topic = "jobs"
[output]
topic = "done"
[retry]
attempts = 1
[scale]
max = 2
"""
STUCK = """
import time
def handler(event):
    print("begun", event.json())
    time.sleep(60)
---
[[trigger]]
topic = "stuck"
[retry]
attempts = 2
base = "10ms"
"""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def runtime_of(host: Serving) -> int:
    def one() -> int:
        with contextlib.suppress(OSError):  # one is ending
            found = [pid for pid in tree(host.process.pid) if parent(pid) == host.process.pid]
            return found[0] if len(found) == 1 else 0
        return 0

    return int(until(one))


def publish(host: Serving, topic: str, count: int) -> None:
    body = [
        {"specversion": "1.0", "source": "/s", "type": "t", "id": str(n), "data": n}
        for n in range(count)
    ]
    answer = httpx.post(
        f"{host.url}/topics/{topic}/events", json=body, timeout=20,
        headers={"content-type": "application/cloudevents-batch+json"},
    )  # fmt: skip
    assert answer.status_code < 300, answer.text


def status(host: Serving, name: str) -> Any:
    return next(row for row in rows(host.run("ls", "--json")) if row["name"] == name)


def said(host: Serving) -> str:
    return (Path(host.env["FUNCRT_DATA"]).parent / "serve.err").read_text()


def begun(host: Serving, count: int) -> bool:
    return said(host).count(": begun ") >= count


def outputs(host: Serving, count: int) -> list[int]:
    done = host.run("tail", "done", "--from", "earliest", "--limit", str(count), "--json")
    return sorted(row["event"]["data"] for row in rows(done))


def test_another_is_started_and_nothing_is_lost_or_charged(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", [*STAYS, "--logs"], quick=QUICK, slow=SLOW)
    try:
        publish(host, "jobs", 6)
        until(lambda: begun(host, 2))
        before = runtime_of(host)
        replies: list[httpx.Response] = []

        def call() -> None:
            url = f"{host.url}/functions/slow"
            replies.append(httpx.post(url, json="caller", timeout=20))

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: "begun caller" in said(host) or not caller.is_alive())
        os.kill(before, signal.SIGKILL)
        assert httpx.post(f"{host.url}/functions/quick", json=7, timeout=20).text == "7"
        caller.join()
        (reply,) = replies  # who waits is told, and calls again or not
        assert reply.status_code == 502, reply.text
        assert "ended with the runtime zygote" in reply.text
        assert httpx.get(f"{host.url}/readyz", timeout=20).json() == {"state": "ready"}
        assert outputs(host, 6) == list(range(6))
        found = status(host, "slow")
        assert (found["done"], found["dead"], found["depth"]) == (6, 0, 0)
        assert runtime_of(host) != before
        lines = said(host)
        assert "the runtime zygote was ended by SIGKILL (killed)" in lines
        assert "events whose calls ran go back free" in lines
        assert "another runtime zygote is there: process" in lines
        assert "failed (attempt" not in lines
        assert host.stop(signal.SIGTERM) == 0
    finally:
        host.process.kill()


def test_an_event_that_ends_each_is_given_up_and_meanwhile_publishers_are_served(
    tmp_path: Path,
) -> None:
    host = Serving(tmp_path / "data", [*STAYS, "--logs"], quick=QUICK, stuck=STUCK)
    try:
        publish(host, "stuck", 1)
        for time_ in (1, 2, 3):  # the first is free, and it has two attempts
            until(lambda time_=time_: begun(host, time_))
            os.kill(runtime_of(host), signal.SIGKILL)
            if time_ > 1:
                until(lambda: httpx.get(f"{host.url}/readyz", timeout=20).status_code == 503)
                state = httpx.get(f"{host.url}/readyz", timeout=20).json()
                assert state == {"state": "recovering"}
                publish(host, f"more-{time_}", 1)
        until(lambda: status(host, "stuck")["dead"] == 1)
        assert httpx.post(f"{host.url}/functions/quick", json=7, timeout=20).text == "7"
        assert "no function can run; another runtime zygote in 2 s" in said(host)
        (letter,) = rows(host.run("dlq", "ls", "stuck", "--json"))
        assert "ended with the runtime zygote" in json.dumps(letter)
    finally:
        host.stop(signal.SIGTERM)


@others
def test_a_host_that_may_make_none_says_so_and_ends(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", ["--logs"], quick=QUICK, slow=SLOW)
    publish(host, "jobs", 6)
    until(lambda: begun(host, 2))
    callers = [http.client.HTTPConnection("127.0.0.1", host.port, timeout=20) for _ in range(4)]
    for caller in callers:
        caller.request("POST", "/functions/slow", '"caller"')
    for _ in range(2):  # what came before has been read
        httpx.get(f"{host.url}/healthz", timeout=20)
    os.kill(runtime_of(host), signal.SIGKILL)
    # Those that ran, and those that waited: all are told.
    replies = [caller.getresponse().status for caller in callers]
    assert set(replies) <= {502, 503}
    for caller in callers:
        caller.close()
    assert host.ended() == 1
    last = said(host).splitlines()[-1]
    assert last.startswith("✗ the runtime zygote was ended by SIGKILL (killed)")
    assert last.endswith("start the host again, or have a supervisor do so")
    assert "Traceback" not in said(host)
    again = Serving(tmp_path / "data", ["--logs"], quick=QUICK, slow=SLOW)
    try:
        assert outputs(again, 6) == list(range(6))
        assert status(again, "slow")["dead"] == 0
    finally:
        assert again.stop(signal.SIGTERM) == 0


@contextlib.asynccontextmanager
async def started(**how: Any) -> AsyncIterator[ProcessSandbox]:
    sandbox = ProcessSandbox(policy=Policy(forced="none"), **how)
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.close()


def kill(sandbox: ProcessSandbox) -> None:
    assert sandbox.keeper.process is not None
    sandbox.keeper.process.kill()


def function(path: Path, source: str = QUICK) -> Code:
    path.mkdir(exist_ok=True)
    (path / "main.py").write_text(source)
    return Code(name=path.name, version="1", path=path)


def test_what_was_loaded_is_loaded_again_before_it_is_called(tmp_path: Path) -> None:
    async def main() -> None:
        async with started() as sandbox:
            zygotes, again = Zygotes(sandbox), asyncio.Event()
            sandbox.keeper.again = again.set
            codes = [function(tmp_path / name) for name in "ab"]
            before = [await zygotes.get(code) for code in codes]
            kill(sandbox)
            await again.wait()
            (tmp_path / "b" / "main.py").write_text("import nothing_of_that_name\n")
            async with asyncio.timeout(10):
                while any(zygote.alive for zygote in before):
                    await asyncio.sleep(0.01)
            load = sandbox.load
            loaded = []

            async def counted(code: Code) -> Any:
                loaded.append(code.name)
                return await load(code)

            with mock.patch.object(sandbox, "load", counted):
                await zygotes.renew()
                assert (await zygotes.get(codes[0])).alive
            assert loaded == ["a", "b"]

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_an_import_that_it_ends_in_the_midst_of_is_not_to_blame(tmp_path: Path, times: int) -> None:
    """It is imported once more; where that ends as well, it may be what ends it."""
    source = f"""
import os, time
for number in range({times}):
    try:
        os.close(os.open({str(tmp_path)!r} + f"/seen-{{number}}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        continue
    time.sleep(60)
"""

    async def main() -> None:
        async with started() as sandbox:
            loading = asyncio.ensure_future(sandbox.load(function(tmp_path / "f", source + QUICK)))
            for number in range(times):
                async with asyncio.timeout(10):
                    while not (tmp_path / f"seen-{number}").exists():
                        await asyncio.sleep(0.01)
                kill(sandbox)
            if times == 1:
                assert (await loading).alive
                return
            with pytest.raises(SandboxError, match="f: its import ended with the runtime zygote"):
                await loading

    asyncio.run(main())


@others
def test_one_that_ends_as_functions_are_loaded_is_no_mistake_of_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "functions" / "slow"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(f"import time\ntime.sleep(60)\n{QUICK}")
    command = [*FUNCRT, "serve", str(folder.parent), "--data", str(tmp_path / "data")]
    host = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
    below = until(lambda: found if len(found := tree(host.pid)) > 1 else None)
    (runtime,) = [pid for pid in below if parent(pid) == host.pid]
    os.kill(runtime, signal.SIGKILL)
    said = host.communicate(timeout=30)[1]
    assert host.returncode == 1
    assert said.splitlines()[-1].startswith("✗ the runtime zygote was ended by SIGKILL (killed)")
    assert "mistake" not in said


def test_what_it_left_unanswered_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with started() as sandbox:
            assert sandbox.keeper.process is not None
            sandbox.keeper.process.send_signal(signal.SIGSTOP)
            asked = [
                asyncio.ensure_future(sandbox.grouping.make(Confinement())),
                asyncio.ensure_future(sandbox.probed()),
            ]
            await asyncio.sleep(0.05)
            kill(sandbox)
            for each in asked:
                with pytest.raises(SandboxError, match="the runtime zygote is gone"):
                    await each
            assert sandbox.grouping.there
            await sandbox.keeper.there()
            assert "process" not in await sandbox.probed() or sandbox.missing["process"]
            zygote = await sandbox.load(function(tmp_path / "f"))
            ended: asyncio.Queue[Exit] = asyncio.Queue()
            instance = await zygote.spawn(lambda *_: None, lambda _, how: ended.put_nowait(how))
            instance.send([Call(1, "t", [Event("1", "/s", "t", data=b"1")], 1, 5, 0, "scope")])
            kill(sandbox)
            async with asyncio.timeout(10):
                how = await ended.get()
            # The second within a minute: one event may have ended both.
            assert (how.reason, how.limit) == ("ended with the runtime zygote", "")
            assert not how.innocent

    asyncio.run(main())


def test_dependencies_that_stay_imported_do_so_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(warm=True) as sandbox:
            code = function(tmp_path / "f", f"import json\n{QUICK}")
            zygote = await sandbox.load(code)
            kill(sandbox)
            async with asyncio.timeout(10):
                while zygote.alive:
                    await asyncio.sleep(0.01)
            assert (await sandbox.load(code)).alive

    asyncio.run(main())


def test_one_that_does_not_start_is_tried_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    begin = subprocess.Popen
    tries: list[float] = []

    def broken(command: Any, **more: Any) -> Any:
        tries.append(time.monotonic())
        if len(tries) == 2:
            raise OSError(11, "Resource temporarily unavailable")
        if len(tries) < 4:
            return begin([sys.executable, "-c", "raise SystemExit(3)"], **more)
        return begin(command, **more)

    async def main() -> None:
        async with started() as sandbox:
            with mock.patch("subprocess.Popen", broken):
                kill(sandbox)
                async with asyncio.timeout(20):
                    while len(tries) < 4:
                        await asyncio.sleep(0.05)
                    await sandbox.keeper.there()
                    assert await sandbox.primitives()

    asyncio.run(main())
    waits = [round(later - sooner) for sooner, later in itertools.pairwise(tries)]
    assert waits == [1, 2, 4]
    assert "the runtime zygote exited 3" in caplog.text
    assert "no runtime zygote can be started: [Errno 11]" in caplog.text
