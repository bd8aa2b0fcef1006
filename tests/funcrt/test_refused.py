"""What R refuses at once is told, also where what it was sent went unread: the kernel says that
first, and once."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
import uvloop

from funcrt.errors import SandboxError
from funcrt.sandbox import Code, Exit
from funcrt.sandbox.asking import socketpair
from funcrt.sandbox.confine import Confinement
from funcrt.sandbox.forking import tell
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.warm import Warmed
from funcrt.sandbox.workshop import Job
from funcrt.sandbox.zygote import Warm

WHY = "a control group: no room"


def refuse(body: bytes, descriptors: list[int]) -> None:
    """As R does: it closes the socket with what the host has sent ahead."""
    assert "confine" in msgspec.msgpack.decode(body)
    with socket.socket(fileno=os.dup(descriptors[0])) as control:
        assert control.recv(16, socket.MSG_PEEK), "it was told on its own socket"
    tell(descriptors[0], {"refused": WHY})


@pytest.mark.parametrize("what", ["a function", "an installation"])
def test_what_is_refused_is_told(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handler.py").write_text("def handler(event):\n    return 1\n")

    async def asked(sandbox: ProcessSandbox) -> None:
        if what == "a function":
            await sandbox.load(Code(name="f", version="1", path=tmp_path))
        else:
            place = await sandbox.workshop.place("f", builds=False)
            job = Job(command=["true"], env={}, directory=tmp_path, work=tmp_path)
            await sandbox.workshop.run(job, place)

    async def run() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced="none"))
        await sandbox.start()
        try:
            monkeypatch.setattr(sandbox, "_send", refuse)
            monkeypatch.setattr(sandbox.workshop, "_send", refuse)
            with pytest.raises(SandboxError, match=WHY):
                await asked(sandbox)
        finally:
            monkeypatch.undo()
            await sandbox.close()

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["a version", "dependencies"])
def test_all_is_heard_of_one_that_ends_before_it_was_told_what_to_load(
    tmp_path: Path, run: Callable[[Any], None], kind: str
) -> None:
    """Its socket is then in error, and libuv says so once."""

    async def main() -> None:
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        reads, writes = zip(os.pipe(), os.pipe(), strict=True)
        sandbox = ProcessSandbox()
        watch = os.pidfd_open(os.getpid())
        try:

            def send(body: bytes, descriptors: list[int]) -> None:
                """As what R forks, all before this loop comes to look."""
                sock = socket.socket(fileno=os.dup(descriptors[0]))
                socket.send_fds(
                    sock, [msgspec.msgpack.encode({"zygote": 1, "group": None})], [watch]
                )
                sock.send(msgspec.msgpack.encode({"refused": WHY}))
                sock.close()

            if kind == "a version":
                zygote = ProcessZygote(
                    sandbox, Code(name="f", version="1", path=tmp_path), ours, list(reads), "none"
                )
                ours.send(b"what to load")
                send(b"", [theirs.fileno()])
                theirs.close()
                began = time.monotonic()
                with mock.patch.object(sandbox, "end"), pytest.raises(SandboxError, match=WHY):
                    await asyncio.wait_for(zygote.loaded(None), 5)
                with mock.patch.object(sandbox, "end"):
                    await zygote.stop()
                assert time.monotonic() - began < 2
                assert not zygote.alive
            else:
                warmed = Warmed(Warm((), {}, Confinement(), []), None)
                await asyncio.wait_for(warmed.start(send, lambda _: None), 5)
                assert not warmed.usable
                warmed.close()
        finally:
            for each in (*writes, watch, *(reads if kind == "dependencies" else ())):
                os.close(each)
            for sock in (ours, theirs):
                sock.close()

    run(main())


def test_one_that_gives_up_waiting_for_an_end_leaves_others_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        ours, theirs = socketpair(socket.SOCK_SEQPACKET)
        reads, writes = zip(os.pipe(), os.pipe(), strict=True)
        sandbox, function = ProcessSandbox(), Code(name="f", version="1", path=tmp_path)
        with theirs:
            zygote = ProcessZygote(sandbox, function, ours, list(reads), "none")
            first = asyncio.ensure_future(zygote.stop())
            second = asyncio.ensure_future(zygote.stop())
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            theirs.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(second, 2)
        assert not zygote.alive
        for each in writes:
            os.close(each)

    asyncio.run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("at_once", [0, 2], ids=["as read", "in one turn"])
def test_an_instance_that_has_ended_by_the_time_it_is_heard_of_has_ended(
    tmp_path: Path, run: Callable[[Any], None], at_once: int
) -> None:
    source = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n"
    (tmp_path / "main.py").write_text(f"{source}def handler(event): ...\n")

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced="none"))
        await sandbox.start()
        try:
            zygote = await sandbox.load(Code(name="f", version="1", path=tmp_path))
            await sandbox.grouping.make(Confinement())  # there may be none, which is known by then
            ended: asyncio.Queue[Exit] = asyncio.Queue()
            spawning = asyncio.ensure_future(
                zygote.spawn(lambda *_: None, lambda _, how: ended.put_nowait(how))
            )
            while not zygote.busy:
                await asyncio.sleep(0)
            time.sleep(0.3)
            for _ in range(at_once):  # both, as a loop may that reads before it calls what is due
                zygote._readable()
            with contextlib.suppress(SandboxError):
                await spawning
            assert (await asyncio.wait_for(ended.get(), 5)).code == 3
        finally:
            await sandbox.close()

    run(main())
