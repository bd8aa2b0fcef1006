"""Control groups: what they hold an instance to, how its end is told, that none is left."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from funcrt.errors import LoadError
from funcrt.sandbox import Code, Exit, groups
from funcrt.sandbox.cgroup import Cgroup
from funcrt.sandbox.groups import Bounds, Groups, Place, groups_of, hierarchies
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call, Log, Result
from mesh import Event
from tests.levels import needs


def lacking() -> str:
    """Why no groups can be made here; nothing where they can."""
    made = Groups()
    made.close()
    lacks = {each: why for each, why in made.lacks.items() if each != "cpuacct"}
    return ", ".join(f"{each}: {why}" for each, why in lacks.items())


WHY = lacking()
grouped = pytest.mark.skipif(bool(WHY), reason=f"no control groups can be made here: {WHY}")
SOURCE = """
import os, threading, time
held = []
def handler(event):
    return {"got": globals()[event.json()["do"]](event.json().get("n", 0))}
def nothing(n):
    return n
def fill(n):
    while True:
        held.append(os.urandom(1 << 20))
def nameless(n):
    try:
        for _ in range(30):
            held.append(os.memfd_create("x"))
            for _ in range(10):
                os.write(held[-1], bytes(1 << 20))
    except OSError as error:
        return error.errno
    return "300 MiB"
def spin(n):
    until, start = time.monotonic() + n, time.process_time()
    while time.monotonic() < until:
        pass
    return time.process_time() - start
def fork(n):
    count = 0
    try:
        for _ in range(n):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            count += 1
    except BlockingIOError:
        pass
    return count
def leave(n):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
"""


class Running:
    """A zygote, and instances of it that are called."""

    def __init__(self, sandbox: ProcessSandbox, zygote: ProcessZygote) -> None:
        self.sandbox, self.zygote = sandbox, zygote
        self.said: asyncio.Queue[Any] = asyncio.Queue()

    async def spawn(self) -> Any:
        return await self.zygote.spawn(
            lambda _, told: (
                [self.said.put_nowait(t) for t in told if not isinstance(t, Log)] and None
            ),
            lambda _, ended: self.said.put_nowait(ended),
        )

    async def call(self, instance: Any, do: str, n: float = 0) -> Any:
        """What it returns, or its Exit."""
        data = json.dumps({"do": do, "n": n}).encode()
        instance.send([Call(1, "t", [Event("1", "/s", "t", data=data)], 1, 5, 0)])
        async with asyncio.timeout(60):
            told = await self.said.get()
        if isinstance(told, Result) and told.status == "ok":
            return json.loads(told.outputs[0].event.data or b"")["got"]
        return told


def run(
    tmp_path: Path,
    body: Callable[[Running], Awaitable[None]],
    *,
    level: Level = "sandbox",
    source: str = SOURCE,
    with_groups: bool = True,
    **more: Any,
) -> None:
    (tmp_path / "main.py").write_text(source)

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level), grouped=with_groups)
        await sandbox.start()
        try:
            needs(level)
            # A user of its own: without groups its processes are counted by user.
            name = f"{tmp_path.name}-{with_groups}"
            zygote = await sandbox.load(Code(name=name, version="1", path=tmp_path, **more))
            await body(Running(sandbox, zygote))
        finally:
            await sandbox.close()

    uvloop.run(main())


def beside(instance: Any) -> list[Path]:
    """Directories of its runtime's groups."""
    roots = {Path(each).parent for each in instance.group.places()}
    return [each for root in roots for each in root.iterdir() if each.is_dir()]


@grouped
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_an_instance_over_its_memory_ends_by_name_and_its_neighbour_goes_on(
    tmp_path: Path, level: Level
) -> None:
    async def body(running: Running) -> None:
        neighbour, one = await running.spawn(), await running.spawn()
        assert await running.call(neighbour, "nothing", 1) == 1
        ended = await running.call(one, "fill")
        assert isinstance(ended, Exit)
        assert ended.reason == 'out of memory: over limits.memory = "64MiB"'
        assert ended.limit == "memory"
        assert await running.call(neighbour, "nothing", 2) == 2
        two = await running.spawn()
        ended = await running.call(two, "nameless")
        assert isinstance(ended, Exit)
        assert ended.limit == "memory"

    run(tmp_path, body, level=level, memory_bytes=64 << 20)


@grouped
def test_memory_has_a_bound_where_the_manifest_has_none(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        one = await running.spawn()
        assert await running.call(one, "nothing", 1) == 1
        ended = await running.call(one, "fill")
        assert ended.reason == (
            "out of memory: over the usual 512 MiB; limits.memory in funcrt.toml gives more"
        )

    run(tmp_path, body)


@grouped
def test_an_import_over_its_memory_is_named(tmp_path: Path) -> None:
    source = "import os\nheld = [os.urandom(1 << 20) for _ in range(100)]\ndef handler(event): pass"
    with pytest.raises(LoadError, match=r'out of memory: over limits.memory = "64MiB"'):
        run(tmp_path, None, source=source, memory_bytes=64 << 20)  # type: ignore[arg-type]


@grouped
def test_an_instance_has_its_share_of_the_cpu(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        one = await running.spawn()
        used = await running.call(one, "spin", 2)
        assert 0.1 < used < 0.8  # of 2 s, at 0.2 a second, plus a period
        assert one.group.throttled_s() > 0.5

    run(tmp_path, body, cpu=0.2)


@grouped
def test_processes_of_one_instance_are_not_its_neighbour_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(running: Running) -> None:
        neighbour, one = await running.spawn(), await running.spawn()
        assert await running.call(one, "fork", 2000) == 1023
        assert await running.call(neighbour, "fork", 3) == 3

    run(tmp_path, body, level="process", memory_bytes=4 << 30)


@grouped
def test_what_an_instance_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        one = await running.spawn()
        await running.call(one, "leave")
        procs = Path(one.group.directories["memory"], "cgroup.procs")
        assert len(procs.read_text().split()) == 2
        one.kill("over")
        assert isinstance(await running.said.get(), Exit)
        for _ in range(100):
            if not procs.exists():
                return
            await running.spawn()  # the next finds it empty
            await asyncio.sleep(0.05)
        raise AssertionError(procs.read_text())

    run(tmp_path, body)


@grouped
def test_a_group_is_ready_before_an_instance_asks_for_it(tmp_path: Path) -> None:
    """One with its own function's bounds, and for one instance."""
    small = 64 << 20

    def bound(instance: Any) -> int:
        name = "limit_in_bytes" if instance.group.version == 1 else "max"
        return int(Path(instance.group.directories["memory"], f"memory.{name}").read_text())

    async def body(running: Running) -> None:
        code = Code(name="small", version="1", path=tmp_path, memory_bytes=small)
        other = Running(running.sandbox, await running.sandbox.load(code))
        one = await running.spawn()
        for _ in range(2):
            await asyncio.sleep(0.5)
            ready = {each.name for each in beside(one)}
            got = [await each.spawn() for each in (running, other, running, other)]
            assert [bound(each) for each in got] == [groups.USUAL_MEMORY, small] * 2
            names = [each.group.name for each in got]
            assert len(set(names)) == 4
            assert [name in ready for name in names] == [True, True, False, False]

    run(tmp_path, body)


@grouped
def test_no_group_is_left(tmp_path: Path) -> None:
    seen = []

    async def body(running: Running) -> None:
        for _ in range(3):
            one = await running.spawn()
        seen.extend(beside(one))

    run(tmp_path, body)
    assert len({each.name for each in seen}) >= 4
    assert [each for each in seen if each.exists()] == []


@grouped
def test_groups_of_a_killed_runtime_are_swept_with_what_is_in_them(tmp_path: Path) -> None:
    program = (
        "import os, time\nfrom funcrt.sandbox.groups import Bounds, Groups\n"
        "group = Groups().make('one', Bounds())\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.closerange(3, 100)\n    group.join()\n"
        "else:\n    print(*group.places(), flush=True)\ntime.sleep(60)"
    )
    killed = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    places = [Path(each) for each in killed.stdout.readline().split()]
    while not places[0].joinpath("cgroup.procs").read_text():
        time.sleep(0.01)
    alive = Groups()
    other = alive.make("other", Bounds())
    assert other is not None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    for _ in range(100):  # what was in it takes its time to end
        Groups().close()
        if not any(each.exists() for each in places):
            break
        time.sleep(0.02)
    assert [each for each in places if each.exists()] == []
    assert all(Path(each).exists() for each in other.places())
    alive.close()
    assert not any(Path(each).exists() for each in other.places())


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_without_groups_memory_is_address_space(tmp_path: Path, level: Level) -> None:
    async def body(running: Running) -> None:
        assert running.zygote.info.grouped == ()
        one = await running.spawn()
        told = await running.call(one, "fill")
        assert isinstance(told, Result)
        assert told.failure is not None
        assert told.failure.error == "MemoryError"
        assert await running.call(one, "nothing", 3) == 3
        two = await running.spawn()
        assert await running.call(two, "nameless") == errno.ENOSYS  # which no address space bounds

    run(tmp_path, body, level=level, memory_bytes=256 << 20, with_groups=False)


# Where they are

V1 = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
BOTH = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "32 25 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
BOUND = "33 25 0:26 /docker/a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("mounts", "own", "expected"),
    [
        (V1, "4:memory:/user/a\n", [Place(1, "/sys/fs/cgroup/memory/user/a", ("memory",))]),
        (V1, "4:memory:/\n", [Place(1, "/sys/fs/cgroup/memory", ("memory",))]),
        (BOTH, "2:cpu,cpuacct:/a\n",
         [Place(1, "/sys/fs/cgroup/cpu,cpuacct/a", ("cpu", "cpuacct"))]),
        (V2, "0::/system.slice/f.service\n",
         [Place(2, "/sys/fs/cgroup/system.slice/f.service", ())]),
        (BOUND, "4:memory:/docker/a/b\n", [Place(1, "/sys/fs/cgroup/memory/b", ("memory",))]),
        (BOUND, "4:memory:/docker/another\n", []),
        (V1, "0::/\n", []),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n", "0::/\n", []),
    ],
)  # fmt: skip
def test_our_own_group_is_found(mounts: str, own: str, expected: list[Place]) -> None:
    assert list(hierarchies(mounts, own)) == expected


@pytest.fixture
def delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that looks like version 2: each below it has its files."""
    made = os.mkdir

    def mkdir(path: str) -> None:
        made(path)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.kill", "memory.max",
                     "memory.swap.max", "pids.max", "cpu.max"):  # fmt: skip
            Path(path, name).touch()

    own = tmp_path / "unit"
    monkeypatch.setattr(os, "mkdir", mkdir)
    mkdir(str(own))
    (own / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    place = Place(2, str(own), ())
    monkeypatch.setattr(groups, "hierarchies", lambda *_: [place])
    return own


def test_version_2_is_written_as_it_is_read(delegated: Path) -> None:
    made = Groups()
    assert made.lacks == {}
    assert (delegated / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    group = made.make("one", Bounds(memory_bytes=64 << 20, processes=7, cpu=0.5))
    assert group is not None
    (place,) = map(Path, group.places())
    assert place.parent.parent == delegated
    found = {name: (place / name).read_text() for name in ("memory.max", "pids.max", "cpu.max")}
    assert found == {"memory.max": str(64 << 20), "pids.max": "7", "cpu.max": "50000 100000"}
    assert (place / "memory.swap.max").read_text() == "0"
    made.place("one", 4711)
    assert (place / "cgroup.procs").read_text() == "4711"
    (place / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    (place / "memory.peak").write_text("1234\n")
    (place / "cpu.stat").write_text("usage_usec 2500000\nthrottled_usec 750000\n")
    assert group.killed_for_memory() == 2
    assert group.peak_bytes() == 1234
    assert (group.cpu_s(), group.throttled_s()) == (2.5, 0.75)


def test_the_host_makes_room_below_its_own_group_but_nobody_else(
    delegated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = groups.write

    def write(file: str, text: bytes) -> None:
        if file == f"{delegated}/cgroup.subtree_control" and procs.read_text():
            raise OSError(16, "Device or resource busy", file)
        written(file, text)
        if file == f"{delegated}/{groups.NAMED}host/cgroup.procs":
            there = procs.read_text().split()
            procs.write_text("\n".join(each for each in there if each != text.decode()))

    monkeypatch.setattr(groups, "write", write)
    procs = delegated / "cgroup.procs"
    procs.write_text(f"{os.getpid()}\n1\n")
    assert "holds process 1 besides the host" in str(Groups().lacks["memory"])
    assert not (delegated / f"{groups.NAMED}host").exists()
    procs.write_text(f"{os.getpid()}\n{os.getppid()}\n")
    assert Groups().lacks == {}
    assert procs.read_text() == ""


# Of a container

BOTH_V1 = f"{V1}34 25 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"


def test_the_freezer_is_looked_for_only_where_it_is_asked_for() -> None:
    own = "5:freezer:/docker/a\n4:memory:/docker/a\n"
    memory = Place(1, "/sys/fs/cgroup/memory/docker/a", ("memory",))
    freezer = Place(1, "/sys/fs/cgroup/freezer/docker/a", ("freezer",))
    assert list(hierarchies(BOTH_V1, own)) == [memory]
    assert list(hierarchies(BOTH_V1, own, ("freezer", "memory"))) == [memory, freezer]


FILES = {
    1: ("freezer.state", "memory.oom_control", ["FROZEN", "THAWED"]),
    2: ("cgroup.freeze", "memory.events", ["1", "0"]),
}


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_is_stopped_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    freezer, memory, words = FILES[version]
    one, two = tmp_path / "one", tmp_path / "two" if version == 1 else tmp_path / "one"
    for directory, name in ((one, freezer), (two, memory)):
        directory.mkdir(exist_ok=True)
        (directory / name).touch()
    places = [Place(version, str(each), ()) for each in dict.fromkeys((one, two))]
    monkeypatch.setattr(groups, "hierarchies", lambda *_: places)
    found = Cgroup(os.getpid())
    assert found.freezes
    for word, tell in zip(words, (found.freeze, found.thaw), strict=True):
        (one / freezer).write_text("")
        tell()
        assert (one / freezer).read_text() == word
    (two / memory).write_text("under_oom 0\noom 5\noom_kill 3\n")
    assert found.killed_for_memory() == 3
    for directory, name in ((one, freezer), (two, memory)):
        (directory / name).unlink()
    found.freeze()  # it is gone, which is no error
    assert found.killed_for_memory() == 0
    gone = Cgroup(os.getpid())
    assert (gone.freezes, gone.killed_for_memory()) == (False, 0)


def test_what_is_in_the_root_s_group_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(2, "/proc", ())  # a file system's own directory
    monkeypatch.setattr(groups, "hierarchies", lambda *_: [place])
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert not Cgroup(os.getpid()).freezes


def test_a_process_that_is_gone_is_in_none() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert groups_of(ended.pid) == []
