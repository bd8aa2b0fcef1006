"""Real processes: what an instance answers, and how it ends."""

import asyncio
import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from funcrt.errors import LoadError, SandboxError
from funcrt.sandbox import Code, Exit
from funcrt.sandbox.groups import KEPT_S
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import HEADER, Call, Log, Result
from funcrt.sandbox.worker import FLUSH_S, Worker
from funcrt.testing import load
from mesh import Event
from tests.levels import needs, sandboxed


class Running:
    """An instance with its answers collected."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.logs: list[Log] = []
        self.exit: Exit | None = None
        self.changed = asyncio.Event()
        self.instance: Any = None

    def on_messages(self, instance: Any, messages: Any) -> None:
        for message in messages:
            if isinstance(message, Result):
                self.results[message.id] = message
            else:
                self.logs.append(message)
        self.changed.set()

    def on_exit(self, instance: Any, ended: Exit) -> None:
        self.exit = ended
        self.changed.set()

    def send(self, number: int, *events: Event, timeout_s: float = 0) -> None:
        call = Call(number, "t", list(events), 1, 5, timeout_s, "scope")
        self.instance.send([call])

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():
                self.changed.clear()
                await self.changed.wait()

    async def result(self, number: int) -> Result:
        await self.until(lambda: number in self.results or self.exit is not None)
        assert number in self.results, self.exit
        return self.results[number]


def run(
    tmp_path: Path, source: str, body: Callable[[Running], Awaitable[None]], **more: Any
) -> None:
    (tmp_path / "main.py").write_text(source)

    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        try:
            zygote = await sandbox.load(Code(name="f", version="1", path=tmp_path, **more))
            running = Running()
            running.instance = await zygote.spawn(running.on_messages, running.on_exit)
            await body(running)
            running.instance.kill("over")
            await running.until(lambda: running.exit is not None)
        finally:
            await sandbox.close()

    uvloop.run(main())  # as the host does


def event(data: bytes = b'{"a": 1}') -> Event:
    return Event("1", "/s", "t", data=data)


@pytest.mark.parametrize(
    "source",
    [
        "def handler(event): return {'got': event.json()}",
        "async def handler(event): return {'got': event.json()}",
        "def handle(data: dict): return {'got': data}",
        "from funcrt import Event, Context\n"
        "def handler(event: Event, ctx: Context): return {'got': event.json()}",
        "from cloudevents.core.v1.event import CloudEvent\n"
        "def handler(event: CloudEvent):\n"
        "    import json\n"
        "    return CloudEvent({'id': '', 'source': '/x', 'type': 'y'} | {'id': '1'},\n"
        "                      {'got': json.loads(event.get_data())})",
        "import threading\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, daemon=True).start()\n"
        "def handler(event): return {'got': event.json()}",
    ],
)
def test_a_handler_answers_many_calls_sent_at_once(tmp_path: Path, source: str) -> None:
    async def body(running: Running) -> None:
        for number in range(1, 201):
            running.send(number, event(b'{"n": %d}' % number))
        for number in range(1, 201):
            result = await running.result(number)
            assert result.status == "ok", result
            assert result.outputs[0].event.data == b'{"got":{"n":%d}}' % number

    run(tmp_path, source, body)


def test_its_directory_may_be_named_by_way_of_another(tmp_path: Path) -> None:
    """As with --data ../data."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    tmp_path.joinpath("there").chmod(0o755)
    (tmp_path / "there/main.py").write_text("def handler(event): return {'at': __file__}")

    async def body(running: Running) -> None:
        running.send(1, event())
        result = await running.result(1)
        assert result.outputs[0].event.json() == {"at": f"{named}/main.py"}

    named = tmp_path / "here/../there"
    run(named, "def handler(event): return {'at': __file__}", body)


@pytest.mark.parametrize(
    "log", ["ctx.log.info('%s', event.id)", "await asyncio.to_thread(ctx.log.info, event.id)"]
)
def test_an_async_handler_that_logs_answers_and_its_lines_come_while_it_runs(
    tmp_path: Path, log: str
) -> None:
    source = (
        "import asyncio\n"
        "async def handler(event, ctx):\n"
        f"    {log}\n"
        "    if event.id == '2': await asyncio.sleep(60)\n"
    )

    async def body(running: Running) -> None:
        for number in (1, 2, 3):
            running.send(number, Event(str(number), "/s", "t"))
        assert (await running.result(1)).status == "ok"
        assert (await running.result(3)).status == "ok"
        await running.until(lambda: len(running.logs) == 3)
        assert {(log.id, log.text) for log in running.logs} == {(1, "1"), (2, "2"), (3, "3")}
        assert 2 not in running.results

    run(tmp_path, source, body)


def test_failures_are_told_by_the_authors_frames(tmp_path: Path) -> None:
    source = (
        "from funcrt import Reject, Retry\n"
        "def handler(event):\n"
        "    what = event.json()['a']\n"
        "    if what == 'exit': raise SystemExit(3)\n"
        "    if what == 'reject': raise Reject('bad order')\n"
        "    if what == 'retry': raise Retry(after=30)\n"
        "    if what == 'object': return object()\n"
        "    if what == 'large': return 'x' * 3_000_000\n"
        "    return [][0]\n"
    )

    async def body(running: Running) -> None:
        for number, what in enumerate(["exit", "reject", "retry", "object", "large", "index"]):
            running.send(number, event(b'{"a": "%s"}' % what.encode()))
        assert (await running.result(0)).failure.error == "SystemExit"  # type: ignore[union-attr]
        assert (await running.result(1)).status == "reject"
        retry = await running.result(2)
        assert (retry.status, retry.retry_after_s) == ("retry", 30)
        assert "holds a value of type object" in (await running.result(3)).failure.message  # type: ignore[union-attr]
        assert (await running.result(4)).failure.error == "OutputTooLarge"  # type: ignore[union-attr]
        failure = (await running.result(5)).failure
        assert failure is not None
        assert (failure.error, failure.where) == ("IndexError", "main.py:9 in handler")
        assert running.exit is None

    run(tmp_path, source, body)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("os._exit(3)", "exited 3"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("os.closerange(0, 100)", "closed its channel|exited"),
        ("os.write(__import__('main').fd(), b'garbage' * 100)", "frame"),
    ],
)
def test_an_instance_that_ends_or_lies_is_told_with_its_reason(
    tmp_path: Path, line: str, reason: str
) -> None:
    source = (
        "import os, stat\n"
        "def fd():\n"
        "    links = {n: f'/proc/self/fd/{n}' for n in range(3, 50)}\n"
        "    return next(n for n, link in links.items()\n"
        "                if os.path.exists(link) and stat.S_ISSOCK(os.stat(link).st_mode))\n"
        f"def handler(event):\n    {line}\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event())
        await running.until(lambda: running.exit is not None)
        assert running.exit is not None
        assert any(part in running.exit.reason for part in reason.split("|")), running.exit

    run(tmp_path, source, body)


def test_prints_are_logs_and_a_flood_is_dropped_not_waited_for(tmp_path: Path) -> None:
    source = (
        "def handler(event, ctx):\n"
        "    ctx.log.info('seen %s', event.id)\n"
        "    print('hello')\n"
        "    for _ in range(event.json()['a']): print('x' * 1_000_000)\n"
        "    return 1\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event(b'{"a": 0}'))
        await running.result(1)
        told = [(log.id, log.level, log.text) for log in running.logs]
        assert told == [(1, "info", "seen 1"), (1, "stdout", "hello")]
        running.send(2, event(b'{"a": 100}'))
        assert (await running.result(2)).status == "ok"
        assert sum(len(log.text) for log in running.logs) < 3_000_000
        dropped = re.compile(r"\(\d+ bytes of output dropped: too much a second\)")
        assert any(dropped.fullmatch(log.text) and log.id == 2 for log in running.logs)

    run(tmp_path, source, body)


def test_a_line_is_told_with_its_call_wherever_python_wrote_it(tmp_path: Path) -> None:
    """Of calls side by side, too; what only the descriptor saw is told without one."""
    source = (
        "import asyncio, logging, os, sys\n"
        "logging.basicConfig(level='INFO', format='%(levelname)s %(message)s')\n"
        "print('as it is imported')\n"
        "async def handler(event):\n"
        "    print('begin', end=' ')\n"
        "    await asyncio.sleep(0.05)\n"
        "    print(event.id)\n"
        "    logging.info('of %s', event.id)\n"
        "    await asyncio.to_thread(print, 'thread', event.id, file=sys.stderr)\n"
        "    os.write(1, b'raw\\n')\n"
        "    print('end', end='')\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event())
        running.send(2, event())
        await running.result(1)
        await running.result(2)
        await running.until(lambda: sum(log.text == "raw" for log in running.logs) == 2)
        for call in (1, 2):
            assert [(log.level, log.text) for log in running.logs if log.id == call] == [
                ("stdout", "begin 1"),
                ("stderr", "INFO of 1"),
                ("stderr", "thread 1"),
                ("stdout", "end"),
            ]
        assert {(log.id, log.text) for log in running.logs} >= {(0, "raw")}

    run(tmp_path, source, body)


def test_lines_of_a_call_come_while_it_runs_and_before_it_dies(tmp_path: Path) -> None:
    source = (
        "import os, time\n"
        "def handler(event, ctx):\n"
        "    time.sleep(0.01); ctx.log.info('first'); time.sleep(0.2); print('last')\n"
        "    os._exit(3)\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event())
        await running.until(lambda: bool(running.logs))
        assert running.exit is None
        await running.until(lambda: running.exit is not None)
        assert [(log.id, log.text) for log in running.logs] == [(1, "first"), (1, "last")]

    run(tmp_path, source, body)


def test_a_batch_has_an_outcome_an_item(tmp_path: Path) -> None:
    source = (
        "from funcrt import Event, Failed\n"
        "def handler(events: list[Event]):\n"
        "    if len(events) == 3: return [None, Failed('no'), {'n': 3}]\n"
        "    return {'count': len(events)} if len(events) == 2 else [1, 2, 3, 4, 5]\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event(), event(), event())
        running.send(2, event(), event())
        running.send(3, event())
        items = (await running.result(1)).items
        assert items is not None
        assert [item.status for item in items] == ["ok", "error", "ok"]
        whole = await running.result(2)
        assert (whole.items, whole.outputs[0].event.data) == (None, b'{"count":2}')
        assert (await running.result(3)).status == "error"

    run(tmp_path, source, body, batch=True)


def test_an_async_call_times_out_and_the_others_go_on(tmp_path: Path) -> None:
    source = (
        "import asyncio\n"
        "async def handler(event):\n"
        "    await asyncio.sleep(event.json()['a'])\n"
        "    return 'done'\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event(b'{"a": 30}'), timeout_s=0.1)
        running.send(2, event(b'{"a": 0}'), timeout_s=10)
        assert (await running.result(2)).status == "ok"
        assert (await running.result(1)).status == "timeout"

    run(tmp_path, source, body)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonesuch", "main.py:1: cannot import 'nonesuch'"),
        ("x = 1\nx +", "main.py:2: syntax error"),
        ("def handlr(event): ...", 'no function handler; functions found: handlr; did you mean "h'),
        ("def handler(e): ...\ndef main(e): ...", "has handler and main"),
        ("def handler(context, event): ...", "swap them"),
        ("import os; os._exit(1)", "ended during the import"),
        ("1/0", "main.py:1: fails to import: ZeroDivisionError"),
    ],
)
def test_code_that_cannot_be_loaded_says_where_and_why(
    tmp_path: Path, source: str, message: str
) -> None:
    async def body(running: Running) -> None:
        raise AssertionError("it was loaded")

    with pytest.raises(LoadError) as error:
        run(tmp_path, source, body)
    assert message in str(error.value)


@sandboxed  # which shows /proc
def test_the_host_s_environment_and_descriptors_do_not_reach_a_function(tmp_path: Path) -> None:
    source = (
        "import os\n"
        "def handler(event):\n"
        "    fds = sorted(int(n) for n in os.listdir('/proc/self/fd'))\n"
        "    return {'secret': os.environ.get('HOST_SECRET'), 'own': os.environ['OWN'],\n"
        "            'fds': len([n for n in fds if os.path.exists(f'/proc/self/fd/{n}')])}\n"
    )
    os.environ["HOST_SECRET"] = "x"

    async def body(running: Running) -> None:
        running.send(1, event())
        data = (await running.result(1)).outputs[0].event.json()
        # Standard input, output and error, the channel, the page where it counts its calls, the
        # pipe for lines of calls.
        assert data == {"secret": None, "own": "yes", "fds": 6}

    try:
        run(tmp_path, source, body, env={"OWN": "yes"})
    finally:
        del os.environ["HOST_SECRET"]


AS_INIT = """
import asyncio, os, sys
from pathlib import Path
from funcrt.sandbox import Code
from funcrt.sandbox.process import ProcessSandbox
async def main():
    assert os.getpid() == 1
    sandbox = ProcessSandbox()
    await sandbox.start()
    zygote = await sandbox.load(Code(name="f", version="1", path=Path(sys.argv[1])))
    print(zygote.info.kind)
    await sandbox.close()
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
def test_a_host_that_is_process_1_of_a_container_can_load(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(event): ...\n")
    done = subprocess.run(
        ["unshare", "-pf", sys.executable, "-c", AS_INIT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "sync\n", done.stderr


def test_instances_that_end_while_they_start_are_told_and_nothing_else(tmp_path: Path) -> None:
    """An instance that died before its channel was on the loop once took the host with it."""
    (tmp_path / "main.py").write_text(
        "import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n"
        "def handler(event): ...\n"
    )

    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        try:
            zygote = await sandbox.load(Code(name="f", version="1", path=tmp_path))
            before = len(os.listdir("/proc/self/fd"))
            refused = tried = 0
            while tried < 200 or (
                not refused and tried < 2000
            ):  # when it is seen is the loop's luck
                tried += 1
                running = Running()
                try:
                    await zygote.spawn(running.on_messages, running.on_exit)
                except SandboxError as error:
                    refused += "ended as it started: exited 3" in str(error)
                await running.until(lambda: running.exit is not None)  # noqa: B023
            assert not zygote.busy
            assert refused > 0
            await asyncio.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) < before + 10  # the loop makes some of its own
        finally:
            await sandbox.close()

    uvloop.run(main())


@pytest.mark.parametrize(
    ("took_s", "frames"),
    [(0.0, [[1, 2, 3, 4, 5, 6]]), (FLUSH_S * 0.4, [[1, 2, 3], [4, 5, 6]]), (1, [*"123456"])],
)
def test_results_of_quick_calls_go_together_the_first_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_s: float, frames: list[list[int]]
) -> None:
    """One that goes alone costs the host a commit of its own."""
    (tmp_path / "main.py").write_text("def handler(event, ctx):\n    return 1\n")
    now = 100.0
    monkeypatch.setattr("funcrt.sandbox.worker.time.perf_counter", lambda: now)
    ours, theirs = socket.socketpair()
    worker = Worker(theirs, load(tmp_path).bound, tmp_path, 1, 1 << 20)
    call = worker.call

    def taking(message: Call) -> Result:
        nonlocal now
        now += took_s
        return call(message)

    monkeypatch.setattr(worker, "call", taking)
    body = msgspec.msgpack.encode([Call(n, "t", [event()], 1, 1, 0.0) for n in range(1, 7)])
    ours.sendall(HEADER.pack(len(body)) + body)
    ours.shutdown(socket.SHUT_WR)
    worker.run()
    theirs.close()
    with ours.makefile("rb") as file:
        found = []
        while head := file.read(HEADER.size):
            results = msgspec.msgpack.decode(file.read(*HEADER.unpack(head)), type=list[Result])
            found.append([result.id for result in results])
    ours.close()
    assert found == [[int(number) for number in frame] for frame in frames]


def test_what_the_import_opened_is_open_in_instances(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    source = "words = open('words.txt')\ndef handler(event): return words.readline()\n"

    async def body(running: Running) -> None:
        running.send(1, event())
        result = await running.result(1)
        assert result.outputs[0].event.data == b"one\n", result

    run(tmp_path, source, body)


def kept_by(pid: int) -> int:
    """How many directories a runtime zygote has for its functions: of control groups, and at level
    `process` to write to."""
    roots, count = set(), 0
    for each in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            roots.add(os.readlink(f"/proc/{pid}/fd/{each}").removesuffix("/lock"))
    for root in roots:
        if "/funcrt-" in root:
            # It is removed just now; or no directory.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                count += sum(path.is_dir() for path in Path(root).iterdir())
    return count


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_a_runtime_without_room_refuses_and_goes_on(tmp_path: Path, level: Level) -> None:
    (tmp_path / "main.py").write_text("def handler(event): return 1\n")

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level))
        await sandbox.start()
        sandbox.grouping.close()  # no group is made ready for an instance
        code = Code(name="f", version="1", path=tmp_path)
        try:
            needs(level)
            await (await sandbox.load(code)).stop()
            assert sandbox.keeper.process is not None
            pid = sandbox.keeper.process.pid
            made = kept_by(pid)
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            for room in range(1, 9):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + room, before[1]))
                with contextlib.suppress(SandboxError, LoadError):
                    async with asyncio.timeout(20):
                        await (await sandbox.load(code)).stop()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

            def left() -> bool:
                return kept_by(pid) > made or len(os.listdir(f"/proc/{pid}/fd")) > used + 1

            for turn in range(4 * 50):  # what ends just then goes with the next
                if turn % 50 == 0:
                    await asyncio.sleep(KEPT_S)
                    await (await sandbox.load(code)).stop()
                if not left():
                    break
                await asyncio.sleep(0.05)
            assert not left()  # of those that were refused
        finally:
            await sandbox.close()

    asyncio.run(main())


def test_an_environment_that_is_too_large_is_refused_and_a_large_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os\ndef handler(event): return len(os.environ['LARGE'])\n"
    )

    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        try:
            for size, fits in ((150 << 10, True), (200 << 10, False)):
                env = {"LARGE": "x" * size}
                code = Code(name="f", version="1", path=tmp_path, env=env)
                if not fits:
                    with pytest.raises(SandboxError, match="keep large values of"):
                        await sandbox.load(code)
                    continue
                running = Running()
                zygote = await sandbox.load(code)
                running.instance = await zygote.spawn(running.on_messages, running.on_exit)
                running.send(1, event())
                result = await running.result(1)
                assert result.outputs[0].event.data == b"%d" % size
        finally:
            await sandbox.close()

    uvloop.run(main())
