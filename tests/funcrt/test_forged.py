"""A zygote runs the author's import, which can write anything to the zygote's socket: whatever it
says, the host goes on, and what the author's code left running ends with its function."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from funcrt.errors import LoadError, SandboxError
from funcrt.sandbox import Code, Exit, process, told
from funcrt.sandbox.asking import socketpair
from funcrt.sandbox.groups import Group, Groups
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call
from funcrt.sandbox.runtime import Kill
from mesh import Event

SAY = """
import array, os, socket, sys, threading, time
import msgspec

def control():
    for fd in range(3, 200):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        if sock.type == socket.SOCK_SEQPACKET:
            return sock

CONTROL = control()
OK = dict(handler="main:handler", kind="sync", batch=False, signature="", concurrency=1,
          import_ms=1.0)

def say(told, *fds):
    body = told if isinstance(told, bytes) else msgspec.msgpack.encode(told)
    socket.send_fds(CONTROL, [body], fds)

def handler(event):
    return os.getpid()

"""


def with_function(
    path: Path, source: str, body: Callable[[ProcessSandbox, Code], Awaitable[None]], **more: Any
) -> None:
    (path / "main.py").write_text(SAY + source)

    async def main() -> None:
        sandbox = ProcessSandbox()
        await sandbox.start()
        try:
            await body(sandbox, Code(name="f", version="1", path=path, **more))
        finally:
            await sandbox.close()

    uvloop.run(main())


async def answers(zygote: ProcessZygote, most_s: float = 10) -> list[Any]:
    """What comes of one call in a new instance: its messages, or its end."""
    came: asyncio.Queue[list[Any]] = asyncio.Queue()
    instance = await zygote.spawn(
        lambda _, messages: came.put_nowait(list(messages)),
        lambda _, ended: came.put_nowait([ended]),
    )
    instance.send([Call(1, "t", [Event("1", "/s", "t")], 1, 5, 0, "scope")])
    async with asyncio.timeout(most_s):
        return await came.get()


async def ends(pid: int) -> None:
    async with asyncio.timeout(5):
        while running(pid):
            await asyncio.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "said",
    [
        "b''[:0] + b'\\xc1'",
        "b'\\x91' * 60000 + b'\\x90'",  # nested
        "{'what': 1}",
        "{'ready': {}}",
        "{'ready': [1, 2]}",
        "{'ready': OK | {'concurrency': 0}}",
        "{'ready': OK | {'concurrency': 10**9}}",
        "{'ready': OK | {'kind': 'other'}}",
        "{'ready': OK | {'import_ms': float('nan')}}",
        "{'error': {'problem': 1}}",
        "{'spawned': [[], 1]}",
        "{'exit': [1, 'x']}",
    ],
)
def test_what_no_import_comes_to_is_a_load_error(tmp_path: Path, said: str) -> None:
    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        with pytest.raises(LoadError, match=r"main\.py"):
            await sandbox.load(code)
        assert await sandbox.primitives()  # the runtime lives

    with_function(tmp_path, f"say({said})\ntime.sleep(30)\n", body)


def test_a_zygote_that_closed_its_socket_is_ended(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        loading = asyncio.ensure_future(sandbox.load(code))
        while not (found := [z.pid for z in sandbox._zygotes if z.pid]):
            await asyncio.sleep(0.01)
        with pytest.raises(LoadError):
            await loading
        await ends(found[0])

    # It is seen alive before it does so.
    with_function(tmp_path, "time.sleep(0.5)\nos.closerange(3, 200)\ntime.sleep(60)\n", body)


@pytest.mark.parametrize("status", [0x137F, 100, -1, 1 << 40, 126])
def test_whatever_status_is_told_the_exit_is(tmp_path: Path, status: int) -> None:
    source = f"""
def later():
    time.sleep(0.5)
    say({{'exit': [1, {status}]}})
if not os.fork():
    later()
    time.sleep(60)
def handler(event):
    time.sleep(60)
"""

    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        zygote = await sandbox.load(code)
        (ended,) = await answers(zygote)
        assert isinstance(ended, Exit)

    with_function(tmp_path, source, body)


def test_an_instance_that_a_signal_for_real_time_ended_has_ended(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        (ended,) = await answers(await sandbox.load(code))
        assert isinstance(ended, Exit)
        assert (ended.signal, ended.reason) == (40, "ended by signal 40")

    with_function(tmp_path, "def handler(event): os.kill(os.getpid(), 40)\n", body)


def forging(what: str) -> str:
    """A zygote that serves its socket itself, and says it has forked what it has not."""
    return f"""
say({{'ready': OK}})
say(msgspec.msgpack.encode({{'zygote': 1}}), os.pidfd_open(os.getppid() or 1))
body, fds, _, _ = socket.recv_fds(CONTROL, 65536, 5)
number = msgspec.msgpack.decode(body)['number']
{what}
time.sleep(60)
"""


@pytest.mark.parametrize(
    "what",
    [
        "say({'spawned': [number, 5]}, os.open('/dev/null', os.O_RDWR))",
        "say({'spawned': [number, 5]}, 0)",
        "say({'spawned': [number, 5]})",
        "say({'spawned': [number, 5]}, os.pidfd_open(1))",
        "say({'spawned': [number, 5]}, os.pidfd_open(os.getppid() or 1))",
        "for n in range(50): say({'spawned': [n + 100, 5]})",
    ],
)
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_only_its_children_pass_for_instances(tmp_path: Path, what: str, level: str) -> None:
    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        if level in await sandbox.probed():
            pytest.skip(sandbox.missing[level])
        zygote = await sandbox.load(code)
        pid = zygote.pid
        with pytest.raises(SandboxError):
            await answers(zygote)
        await ends(pid)
        assert await sandbox.primitives()

    with_function(tmp_path, forging(what), body, isolation=level)


def test_process_one_is_nobodys_child() -> None:
    assert not told.is_child(1, 0)
    assert not told.is_child(1, os.getpid())
    assert not told.is_child(os.getpid(), 0)
    assert told.is_child(os.getpid(), os.getppid())
    assert told.is_child(1 << 23, 1)


def test_a_flood_ends_the_zygote(tmp_path: Path) -> None:
    source = "say({'ready': OK})\nwhile True: say({'exit': [99, 0]})\n"

    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        zygote = await sandbox.load(code)
        async with asyncio.timeout(5):
            while zygote.alive:
                await asyncio.sleep(0.01)
        assert zygote._heard < 10

    with_function(tmp_path, source, body)


def test_a_zygote_that_stands_still_fails_what_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FORK_TIMEOUT_S", 0.5)

    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        zygote = await sandbox.load(code)
        pid = zygote.pid
        started = time.monotonic()
        with pytest.raises(SandboxError, match="did not fork"):
            await answers(zygote)
        assert time.monotonic() - started < 5
        await ends(pid)

    with_function(tmp_path, forging("time.sleep(60)"), body)


def test_who_is_said_to_have_ended_is_ended(tmp_path: Path) -> None:
    """Forged for an instance that lives."""
    source = """
if not os.fork():
    time.sleep(0.7)
    say({'exit': [1, 0]})
    time.sleep(60)
def handler(event):
    time.sleep(60)
"""

    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        zygote = await sandbox.load(code)
        gone: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        instance = await zygote.spawn(lambda *_: None, lambda _, ended: gone.set_result(ended))
        pid = instance.pid
        await gone
        await ends(pid)

    with_function(tmp_path, source, body)


def test_a_zygote_that_cannot_fork_says_why(tmp_path: Path) -> None:
    source = """
def refused():
    raise BlockingIOError(11, "no room")
os.fork = refused
"""

    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        zygote = await sandbox.load(code)
        for _ in range(2):
            with pytest.raises(SandboxError, match="cannot fork"):
                await answers(zygote)
        assert zygote.alive

    with_function(tmp_path, source, body)


def test_the_runtime_outlives_what_it_may_not_kill(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox, code: Code) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert sandbox.keeper.control is not None
            kill = msgspec.msgpack.encode(Kill())
            socket.send_fds(sandbox.keeper.control, [kill], [theirs.fileno()])
        assert await sandbox.primitives()

    with_function(tmp_path, "", body)


def test_signals_are_named() -> None:
    assert told.signal_name(signal.SIGSEGV) == "SIGSEGV (segmentation fault)"
    assert told.signal_name(40) == "signal 40"


def test_for_who_has_ended_nobody_is_put_in_a_group(tmp_path: Path) -> None:
    """0 would be the runtime itself, which would end with the group."""
    (tmp_path / "cgroup.procs").write_text("")
    groups = Groups(False)
    groups._made["one"] = Group("one", 2, {"pids": str(tmp_path)})
    groups.place("one", 0)
    assert (tmp_path / "cgroup.procs").read_text() == ""
    groups.place("one", 7)
    assert (tmp_path / "cgroup.procs").read_text() == "7"


def test_what_was_said_is_heard_although_what_was_asked_was_not_read() -> None:
    """As by a process that could not be confined: it never reads what it is to load."""
    for said in ([b"refused"], []):
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                with pytest.raises(BlockingIOError):
                    told.received(ours)
                ours.send(b"load this")
                for each in said:
                    theirs.send(each)
            assert [told.received(ours) for _ in range(3)] == [
                *((each, []) for each in said), *[(b"", [])] * (3 - len(said)),
            ]  # fmt: skip
