"""What a function's code forks, and lets go of, ends: with its instance, its function, its host."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from funcrt.sandbox import Code
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call
from mesh import Event

TMP = "funcrt-private-"
"""Of the directories of level `process`, as R names them."""
LEVELS: list[Level] = ["none", "process", "sandbox"]
SOURCE = """
import ctypes, os, signal, time

libc = ctypes.CDLL(None)

def stray(name, forking=False):
    '''A process that is nobody's child, and that no parent's end is told to.'''
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    libc.prctl(1, 0)
    libc.prctl(15, name.encode())
    for number in range(1, 32):
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            pass
    while True:
        time.sleep(0.01)
        if forking and os.fork():
            os._exit(0)

def handler(event):
    stray(event.json())
    return os.getpid()
"""
HOST = """
import asyncio, sys
from pathlib import Path
from funcrt.sandbox import Code
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox

async def main():
    sandbox = ProcessSandbox(policy=Policy(forced=sys.argv[1]))
    await sandbox.start()
    print((await sandbox.probed()).get(sys.argv[1], ""), flush=True)
    await sandbox.load(Code(name="f", version="1", path=Path(sys.argv[2])))

asyncio.run(main())
"""


def named(name: str) -> list[int]:
    """Processes that call themselves so, but for those that are over."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = stat.read_text().partition("(")
        except OSError:
            continue
        comm, _, state = rest.rpartition(") ")
        if comm == name and state[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def until(name: str, there: bool, most_s: float = 10) -> None:
    started = time.monotonic()
    while bool(named(name)) != there:
        assert time.monotonic() - started < most_s, (name, there, named(name))
        time.sleep(0.02)


@pytest.fixture
def name() -> str:
    return f"stray-{os.urandom(4).hex()}"


async def made(level: Level, path: Path) -> tuple[ProcessSandbox, ProcessZygote]:
    sandbox = ProcessSandbox(policy=Policy(forced=level))
    await sandbox.start()
    if level in await sandbox.probed():
        await sandbox.close()
        pytest.skip(sandbox.missing[level])
    return sandbox, await sandbox.load(Code(name="f", version="1", path=path))


@pytest.mark.parametrize("level", LEVELS)
def test_with_its_function(tmp_path: Path, level: Level, name: str) -> None:
    source = f"{SOURCE}\nstray({name!r}, True)\nlibc.prctl(1, 0)\nstray({name!r})\n"
    (tmp_path / "main.py").write_text(source)

    async def main() -> None:
        sandbox, zygote = await made(level, tmp_path)
        if level == "sandbox":  # at the others it may have ended already
            await asyncio.to_thread(until, name, True)
        await zygote.stop()
        await asyncio.to_thread(until, name, False)
        await sandbox.close()

    uvloop.run(main())


@pytest.mark.parametrize("level", LEVELS)
def test_with_its_instance(tmp_path: Path, level: Level, name: str) -> None:
    (tmp_path / "main.py").write_text(SOURCE)

    async def main() -> None:
        sandbox, zygote = await made(level, tmp_path)
        came: asyncio.Queue[Any] = asyncio.Queue()
        instance = await zygote.spawn(lambda _, messages: came.put_nowait(messages),
                                      lambda _, ended: came.put_nowait(ended))  # fmt: skip
        event = Event("1", "/s", "t", data=f'"{name}"'.encode())
        instance.send([Call(1, "t", [event], 1, 5, 0, "scope")])
        async with asyncio.timeout(10):
            await came.get()
            instance.kill("over")
            await came.get()
        await asyncio.to_thread(until, name, False)
        assert zygote.alive
        await sandbox.close()

    uvloop.run(main())


@pytest.mark.parametrize("ends", ["", "os.closerange(3, 100)", "while True: pass"])
@pytest.mark.parametrize("level", LEVELS)
def test_with_a_host_that_was_killed(tmp_path: Path, level: Level, ends: str, name: str) -> None:
    source = (
        f"{SOURCE}\nlibc.prctl(1, 0)\nlibc.prctl(15, {name.encode()!r})\n"
        f"stray({name!r}, True)\n"
        "while not os.path.exists('seen'): time.sleep(0.01)\n"
        f"{ends}\ntime.sleep(100)\n"
    )
    (tmp_path / "main.py").write_text(source)
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, level, str(tmp_path)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdout is not None
    try:
        if why := host.stdout.readline().strip():
            pytest.skip(f"isolation {level!r} cannot be had here: {why}")
        until(name, True)
        (tmp_path / "seen").touch()
        time.sleep(0.1)
    finally:
        host.send_signal(signal.SIGKILL)
        host.communicate()
    until(name, False, 15)


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_with_a_runtime_that_was_killed(tmp_path: Path, level: Level, name: str) -> None:
    """Who tries to undo the tie to its parent: only a level's rules keep it."""
    tries = f"libc.prctl(1, 0), libc.prctl(15, {name.encode()!r})"
    source = (
        f"import ctypes, time\nlibc = ctypes.CDLL(None)\n{tries}\ndef handler(event): {tries}\n"
    )
    (tmp_path / "main.py").write_text(source)

    async def main() -> None:
        sandbox, zygote = await made(level, tmp_path)
        came: asyncio.Queue[Any] = asyncio.Queue()
        instance = await zygote.spawn(lambda _, messages: came.put_nowait(messages),
                                      lambda _, ended: came.put_nowait(ended))  # fmt: skip
        instance.send([Call(1, "t", [Event("1", "/s", "t")], 1, 5, 0, "scope")])
        async with asyncio.timeout(10):
            await came.get()
        assert len(named(name)) == 2
        assert sandbox.keeper.process is not None
        sandbox.keeper.process.kill()
        await asyncio.to_thread(until, name, False, 4)
        await sandbox.close()

    uvloop.run(main())


DEEP = """
import os, tempfile
os.chdir(tempfile.gettempdir())
for _ in range(1500):
    os.mkdir({name!r})
    os.chdir({name!r})
os.chdir("/")
def handler(event):
    return 1
"""


def rooms(name: str) -> list[Path]:
    """Directories of level `process` with such an entry."""
    return list(Path(tempfile.gettempdir()).glob(f"{TMP}*/*/{name}"))


def test_directories_too_deep_for_python_s_stack_end_nothing_but_themselves(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "main.py").write_text(DEEP.format(name=name))

    async def main() -> None:
        sandbox, zygote = await made("process", tmp_path)
        try:
            assert len(rooms(name)) == 1
            await zygote.stop()
            (tmp_path / "main.py").write_text(SOURCE)
            again = await sandbox.load(Code(name="g", version="1", path=tmp_path))
            async with asyncio.timeout(10):
                while rooms(name):
                    await asyncio.sleep(0.02)
            await again.stop()
        finally:
            await sandbox.close()

    uvloop.run(main())


def test_a_runtime_begins_beside_what_one_before_could_not_remove(tmp_path: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix=TMP))
    held = os.open(left, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # or a runtime of another test's removes it meanwhile
    at = os.open(left, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    os.close(held)
    (tmp_path / "main.py").write_text(SOURCE)

    async def main() -> None:
        sandbox, zygote = await made("none", tmp_path)
        await zygote.stop()
        await sandbox.close()

    uvloop.run(main())
    until_gone = time.monotonic() + 15  # which it has a process of its own for
    while left.exists() and time.monotonic() < until_gone:
        time.sleep(0.02)
    assert not left.exists()


@pytest.mark.parametrize("of", ["its own", "another user", "a link"])
def test_what_a_runtime_before_had_half_removed_is_removed(tmp_path: Path, of: str) -> None:
    """As any that nobody holds; not what somebody else has put in such a place."""
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    left = Path(tempfile.gettempdir(), f"{TMP}{os.urandom(4).hex()}")
    if of == "a link":
        left.symlink_to(victim)
    else:
        (left / "tmp0" / "inner").mkdir(parents=True)
    if of == "another user":
        if os.geteuid() != 0:
            pytest.skip("only root can make what is another user's")
        os.chown(left, 61000, 61000)

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced="none"))
        await sandbox.start()
        await sandbox.primitives()  # it has begun
        await sandbox.close()

    try:
        uvloop.run(main())
        assert left.exists() == (of != "its own")
        assert (victim / "inner").exists()
        assert of != "another user" or (left / "tmp0" / "inner").exists()
    finally:
        if left.is_symlink():
            left.unlink()
        else:
            shutil.rmtree(left, ignore_errors=True)
