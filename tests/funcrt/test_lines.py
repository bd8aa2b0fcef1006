"""Lines of calls: through the pipe at once, whatever becomes of their process, within a budget."""

import asyncio
import os
import random
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from funcrt.sandbox import logs, said
from funcrt.sandbox.logs import Budget, LogReader
from funcrt.sandbox.protocol import HEADER, LINED, Call, Log
from funcrt.sandbox.said import tagged
from funcrt.sandbox.worker import Worker
from funcrt.testing import load
from mesh import Event
from tests.funcrt.test_sandbox import Running, event, run
from tests.levels import sandboxed

ENDS = {
    "exits": "os._exit(3)",
    "segfaults": "ctypes.string_at(0)",
    "is-killed": "os.kill(os.getpid(), 9)",
    "aborts": "os.abort()",
}


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("how", ENDS)
def test_what_a_call_wrote_before_it_ended_its_process_is_kept(
    tmp_path: Path, how: str, kind: str
) -> None:
    """With its call, though others are before and after it in the instance, in order over both
    streams and the log, and before the exit is told."""
    source = (
        "import ctypes, os, sys\n"
        f"{kind} handler(event, ctx):\n"
        "    print('call', event.json()['a'])\n"
        "    if event.json()['a'] == 2:\n"
        "        for n in range(200):\n"
        "            print('out', n); print('err', n, file=sys.stderr); ctx.log.info('log %d', n)\n"
        f"        {ENDS[how]}\n"
    )

    async def body(running: Running) -> None:
        seen: list[tuple[int, str, str]] = []
        on_exit = running.on_exit

        def ended(instance: Any, how: Any) -> None:
            seen.extend((log.id, log.level, log.text) for log in running.logs)
            on_exit(instance, how)

        running.instance._on_exit = ended
        for call in (1, 2, 3):
            running.send(call, event(b'{"a": %d}' % call))
        await running.until(lambda: running.exit is not None)
        wanted = [
            (2, level, f"{what} {n}")
            for n in range(200)
            for level, what in (("stdout", "out"), ("stderr", "err"), ("info", "log"))
        ]
        assert [row for row in seen if row[0]] == [
            (1, "stdout", "call 1"),
            (2, "stdout", "call 2"),
            *wanted,
        ]

    run(tmp_path, source, body)


def test_lines_are_read_before_an_exit_is_told_though_the_host_was_busy(tmp_path: Path) -> None:
    source = "import os\ndef handler(event):\n    print('last')\n    os._exit(3)\n"

    async def body(running: Running) -> None:
        running.send(1, event())
        await asyncio.sleep(0)
        running.instance._flush()
        time.sleep(0.3)
        running.instance._owner._readable()
        assert running.exit is not None
        assert [(log.id, log.text) for log in running.logs] == [(1, "last")]

    run(tmp_path, source, body)


def test_a_forged_tag_mislabels_a_line_and_no_more(tmp_path: Path) -> None:
    source = (
        "import os, sys\n"
        "def handler(event, ctx):\n"
        "    os.write(2, b'\\0007 error of another\\n')\n"
        "    os.write(2, b'\\00099999999999999999999 info x\\n\\000 info\\n\\0\\n\\xff\\n')\n"
        "    os.write(2, b'no end')\n"
        "    print('a\\0b'); ctx.log.info('two\\nlines'); print('\\0005 info mine')\n"
        "    return 1\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event())
        assert (await running.result(1)).status == "ok"
        assert [(log.id, log.level, log.text) for log in running.logs] == [
            (7, "error", "of another"),
            (0, "stderr", "\x0099999999999999999999 info x"),
            (0, "stderr", "\0 info"),
            (0, "stderr", "\0"),
            (0, "stderr", "\ufffd"),
            (0, "stderr", "no end"),
            (1, "stdout", "a\ufffdb"),
            (1, "info", "two\nlines"),
            (1, "stdout", "\ufffd5 info mine"),
        ]

    run(tmp_path, source, body)


@sandboxed  # which shows /proc
def test_lines_go_on_where_the_handler_lays_something_over_its_descriptors(tmp_path: Path) -> None:
    source = (
        "import os, stat\n"
        "def close_pipes():\n"
        "    for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "        if fd > 2 and os.path.exists(f'/proc/self/fd/{fd}'):\n"
        "            stat.S_ISFIFO(os.fstat(fd).st_mode) and os.close(fd)\n"
        "def handler(event, ctx):\n"
        "    print('before')\n"
        "    with open('/dev/null', 'w') as null: os.dup2(null.fileno(), 2)\n"
        "    print('after')\n"
        "    if event.json()['a'] == 2: close_pipes(); print('nowhere')\n"
        "    return 1\n"
    )

    async def body(running: Running) -> None:
        running.send(1, event())
        await running.result(1)
        assert [(log.id, log.text) for log in running.logs] == [(1, "before"), (1, "after")]
        running.send(2, event(b'{"a": 2}'))
        assert (await running.result(2)).status == "ok"

    run(tmp_path, source, body)


def test_a_frame_says_whether_lines_are_before_it(tmp_path: Path) -> None:
    """A call that writes nothing costs its host no look into the pipes."""
    code = "def handler(event, ctx):\n    if event.id == 'says': ctx.log.info('x')\n    return 1\n"
    (tmp_path / "main.py").write_text(code)
    ours, theirs = socket.socketpair()
    worker = Worker(theirs, load(tmp_path).bound, tmp_path, 1, 1 << 20)
    reader, worker.pipe = os.pipe()

    def answered(name: str) -> bool:
        worker.out.append(worker.call(Call(1, "t", [Event(name, "/s", "t")], 1, 1, 0.0)))
        worker.flush()
        frame = ours.recv(1 << 16)
        (length,) = HEADER.unpack_from(frame)
        assert length & ~LINED == len(frame) - 4
        return length >= LINED

    assert [answered(name) for name in ("quiet", "says", "quiet")] == [False, True, False]
    assert os.read(reader, 100) == tagged(1, "info", "x")
    for descriptor in (reader, worker.pipe):
        os.close(descriptor)
    ours.close()
    theirs.close()


# The budget


class Pipe:
    """A pipe, its reader, and a clock that is told the time."""

    def __init__(self) -> None:
        fd, self.fd = os.pipe()
        os.set_blocking(self.fd, False)
        self.now = 100.0
        self.lines: list[Log] = []
        self.budget = Budget(lambda: self.now)
        self.reader = LogReader(fd, "stderr", self.lines.extend, self.budget)

    def write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                self.reader.read()

    def end(self) -> Sequence[Log]:
        os.close(self.fd)
        self.reader.drain()
        return self.lines


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_written_lines_are_whole_in_order_and_within_the_budget(seed: int) -> None:
    async def main() -> None:
        chance, pipe = random.Random(seed), Pipe()
        written: list[tuple[int, str]] = []
        size = seconds = 0
        for n in range(chance.choice([50, 5000])):
            text = f"{n} " + "x" * chance.choice([0, 10, 100, 8000])
            call = chance.choice([0, 0, 3])
            written.append((call, text))
            line = tagged(call, "info", text) if call else f"{text}\n".encode()
            size += len(line)
            cut = chance.randint(0, len(line))
            pipe.write(line[:cut])
            if chance.random() < 0.1:
                pipe.reader.read()
            pipe.write(line[cut:])
            if chance.random() < 0.001:
                pipe.now += 1
                seconds += 1
        said_ = [log for log in pipe.end() if not log.text.startswith("(")]
        remarks = [log for log in pipe.lines if log.text.startswith("(")]
        left = iter(written)
        for log in said_:
            assert any((log.id, log.text) == each for each in left), log
        told = sum(len(tagged(log.id, log.level, log.text)) for log in said_)
        assert told <= (seconds + 1) * logs.BYTES_A_SECOND + 20 * len(said_)
        if size < logs.BYTES_A_SECOND:
            assert len(said_) == len(written)
            assert remarks == []
        elif not seconds:
            assert len(said_) < len(written)
            assert remarks

    asyncio.run(main())


def test_both_streams_of_a_process_share_one_budget_and_what_is_dropped_is_told() -> None:
    async def main() -> None:
        one = Pipe()
        fd, other = os.pipe()
        reader = LogReader(fd, "stdout", one.lines.extend, one.budget)
        one.write(b"x" * 8000 + b"\n")
        line = tagged(4, "info", "y" * 8000)
        for _ in range(40):
            one.write(line)
            one.reader.drain()
        os.write(other, b"nothing is left\n")
        reader.read()
        assert [log for log in one.lines if log.level == "stdout"] == []
        one.reader.tell()
        one.reader.tell()
        (told,) = [log for log in one.lines if log.level == "warning"]
        assert told.id == 4
        one.now += 1
        os.write(other, b"again\n")
        reader.read()
        assert one.lines[-1].text == "again"
        one.end()
        os.close(other)
        reader.drain()

    asyncio.run(main())


def test_a_line_without_an_end_is_said_in_pieces() -> None:
    async def main() -> None:
        pipe = Pipe()
        pipe.write(b"z" * 30_000)
        texts = [log.text for log in pipe.end()]
        assert {text.strip("z") for text in texts} == {""}
        assert max(map(len, texts)) == said.LINE

    asyncio.run(main())
