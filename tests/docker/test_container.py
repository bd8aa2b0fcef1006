"""Functions in real containers, of a Docker daemon that the tests start."""

import asyncio
import contextlib
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from funcrt.errors import ImageUnusable, LoadError, SandboxError
from funcrt.pool import HALT_S
from funcrt.sandbox import Code, Exit, box
from funcrt.sandbox.asking import Users
from funcrt.sandbox.cgroup import Cgroup
from funcrt.sandbox.container import ContainerSandbox, ContainerZygote
from funcrt.sandbox.daemon import DIRECTORY, HOST, ended, host_id
from funcrt.sandbox.levels import DockerUnavailable, Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Call, Recall, Result
from funcrt.sandbox.syscalls import KERNEL
from funcrt.sandbox.users import FUNCTIONS
from mesh import Event
from tests.docker.conftest import IMAGE, TIMEOUT_S
from tests.isolation.test_isolation import USER, table
from tests.serving import Serving
from tests.users import others

pytestmark = pytest.mark.timeout(TIMEOUT_S)
ROOT = Path(__file__).parents[2]
PAUSE_S = 0.3


async def somebody() -> int:
    return FUNCTIONS[0]


def made(**options: float) -> ContainerSandbox:
    """A sandbox without a host's runtime zygote, which would claim whom functions run as."""
    return ContainerSandbox(Users(somebody), **options)


class Running:
    """An instance with what it answered."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.exit: Exit | None = None
        self.changed = asyncio.Event()
        self.instance: Any = None

    def on_messages(self, instance: Any, messages: Any) -> None:
        self.results |= {each.id: each for each in messages if isinstance(each, Result)}
        self.changed.set()

    def on_exit(self, instance: Any, ended: Exit) -> None:
        self.exit = ended
        self.changed.set()

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():
                self.changed.clear()
                await self.changed.wait()

    def send(self, number: int, data: bytes = b"{}") -> None:
        event = Event("1", "/s", "t", data=data)
        self.instance.send([Call(number, "t", [event], 1, 5, 0, "scope")])

    async def call(self, number: int, data: bytes = b"{}") -> Any:
        """What the handler returned for it."""
        self.send(number, data)
        await self.until(lambda: number in self.results or self.exit is not None)
        assert self.exit is None, self.exit
        result = self.results[number]
        assert result.status == "ok", result
        return result.outputs[0].event.json()

    async def ended(self) -> Exit:
        await self.until(lambda: self.exit is not None)
        assert self.exit is not None
        return self.exit


async def spawn(zygote: ContainerZygote) -> Running:
    running = Running()
    running.instance = await zygote.spawn(running.on_messages, running.on_exit)
    return running


Body = Callable[[ContainerZygote, Running], Awaitable[None]]


@pytest.fixture
def client(dockerd: str) -> Iterator[Any]:
    import docker

    with contextlib.closing(docker.DockerClient(dockerd)) as client:
        yield client


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a function; as a bundle is unpacked, everybody may read it."""
    made = tmp_path / "f"
    made.mkdir(mode=0o755)
    return made


def code(directory: Path, source: str, **more: Any) -> Code:
    main = directory / "main.py"
    main.write_text(textwrap.dedent(source))
    main.chmod(0o644)
    return Code(**({"name": "f", "version": "1", "path": directory, "image": IMAGE} | more))


def run(wanted: Code, body: Body, pause_after_s: float = PAUSE_S) -> None:
    async def main() -> None:
        sandbox = made(pause_after_s=pause_after_s)
        try:
            await sandbox.start()
            zygote = await sandbox.load(wanted)
            assert isinstance(zygote, ContainerZygote)
            await body(zygote, await spawn(zygote))
        finally:
            await sandbox.close()

    uvloop.run(main())  # as the host does


def load(wanted: Code) -> None:
    async def body(zygote: ContainerZygote, running: Running) -> None:
        pass

    run(wanted, body)


def ours(client: Any, host: str = "") -> list[Any]:
    label = f"{HOST}={host or host_id()}"
    found: list[Any] = client.containers.list(
        all=True, filters={"label": label}, ignore_removed=True
    )
    return found


# What runs


WHO = """
    import os, sys
    def handler(event):
        return {
            "user": os.getuid(), "host": os.uname().nodename, "given": event.json(),
            "pids": [int(name) for name in os.listdir("/proc") if name.isdigit()],
            "release": open("/etc/os-release").read(),
        }
"""


def test_a_function_runs_in_a_container_that_goes_with_it(client: Any, directory: Path) -> None:
    async def body(zygote: ContainerZygote, running: Running) -> None:
        told = await running.call(1, b'{"a": 1}')
        assert told["given"] == {"a": 1}
        assert (told["host"], "bookworm" in told["release"]) == ("function", True)
        assert told["user"] not in (0, os.getuid())
        assert len(told["pids"]) == 2  # its zygote and itself
        for number in range(2, 202):
            assert (await running.call(number, b"%d" % number))["given"] == number
        other = await spawn(zygote)
        assert (await other.call(1))["user"] == told["user"]
        assert [each.status for each in ours(client)] == ["running"]
        running.instance.kill("too slow")
        ended = await running.ended()
        assert (ended.signal, ended.reason) == (signal.SIGKILL, "too slow")
        assert (await other.call(2))["user"] == told["user"]

    run(code(directory, WHO), body)
    assert ours(client) == []


def test_code_whose_import_starts_threads_is_imported_by_each_instance(
    client: Any, directory: Path
) -> None:
    source = """
        import os, threading, time
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        def handler(event): return os.getpid()
    """

    async def body(zygote: ContainerZygote, running: Running) -> None:
        assert await running.call(1) != await (await spawn(zygote)).call(1)
        await asyncio.sleep(0)
        assert zygote.info.threads == 2

    run(code(directory, source), body)
    assert ours(client) == []


def test_an_import_that_fails_says_where(client: Any, directory: Path) -> None:
    with pytest.raises(LoadError, match=r"main\.py:2: cannot import 'nothing': .*in the image"):
        load(code(directory, "\nimport nothing\n"))
    assert ours(client) == []


def test_the_images_environment_is_below_the_manifests(client: Any, directory: Path) -> None:
    image = client.containers.create(IMAGE, ["true"])
    changes = {"Env": ["FROM_IMAGE=1", "BOTH=image"], "Volumes": {"/data": {}}}
    image.commit("local/with-env", conf=changes)
    image.remove()
    source = """
        import os
        def handler(event):
            try:
                open("/data/file", "w")
            except OSError as error:
                return [os.environ.get("FROM_IMAGE"), os.environ["BOTH"], error.strerror]
    """

    async def body(zygote: ContainerZygote, running: Running) -> None:
        assert await running.call(1) == ["1", "manifest", "Read-only file system"]

    run(code(directory, source, image="local/with-env", env={"BOTH": "manifest"}), body)


# What cannot run


def test_an_image_that_is_not_there_is_named(dockerd: str, directory: Path) -> None:
    with pytest.raises(ImageUnusable, match=r"no image 'not/here': docker pull not/here"):
        load(code(directory, "", image="not/here"))
    with pytest.raises(ImageUnusable, match=r"no image 'funcrt': .* docker build -t funcrt"):
        load(code(directory, "", image=""))


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("", r'exec: "python3": executable file not found'),
        ("#!/bin/sh\necho not today >&2; exit 7", r"its python3 ended with 7: not today"),
    ],
)
def test_an_image_without_a_python_is_named(
    client: Any, directory: Path, python: str, said: str
) -> None:
    image = client.containers.create(IMAGE, ["true"])
    put = io.BytesIO()
    with tarfile.open(fileobj=put, mode="w") as tar:
        member = tarfile.TarInfo("python3")
        member.size, member.mode = len(python), 0o755 if python else 0o644
        tar.addfile(member, io.BytesIO(python.encode()))
    image.put_archive("/usr/bin", put.getvalue())
    image.commit("local/other-python")
    image.remove()
    with pytest.raises(SandboxError, match=said):
        load(code(directory, "", image="local/other-python"))
    assert ours(client) == []


def test_a_python_that_cannot_use_the_hosts_msgspec_is_told_what_to_install(
    client: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "ABI", "cpython-399-x86_64-linux-gnu")
    with pytest.raises(ImageUnusable, match=r"no msgspec, .* the host's \(cpython-399.*install"):
        load(code(directory, ""))
    assert ours(client) == []


def test_without_a_daemon_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(DockerUnavailable, match=r"answers at unix://.*/none \(No such .*Start it"):
        load(code(tmp_path, ""))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    with pytest.raises(DockerUnavailable, match=r"tcp://127.0.0.1:2375, .*Set it to a unix"):
        load(code(tmp_path, ""))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/sock")
        monkeypatch.delitem(sys.modules, "docker", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DockerUnavailable, match=r"pip install \"funcrt\[docker\]\""):
            load(code(tmp_path, ""))


IN_A_CONTAINER = """
import asyncio, sys
from pathlib import Path
from funcrt.sandbox import Code
from tests.docker.test_container import made

async def main():
    sandbox = made()
    await sandbox.start()
    try:
        await sandbox.load(Code(name="f", version="1", path=Path(sys.argv[1]), image=sys.argv[2]))
    except Exception as error:
        print(type(error).__name__, error)
    await sandbox.close()

asyncio.run(main())
"""


def test_a_host_that_could_not_end_a_containers_processes_is_told_so(
    client: Any, directory: Path
) -> None:
    code(directory, "def handler(event): pass\n")
    inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
    told = subprocess.run(
        [*inside, sys.executable, "-c", IN_A_CONTAINER, str(directory), IMAGE],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert told.stdout.startswith("DockerUnavailable f: this host is in a pid namespace of its own")
    assert client.containers.list(all=True, filters={"label": HOST}) == []


# What it is held to


OTHERWISE = {"a 32-bit call": "bounded"}
"""The profile ends an instance that tries, where our own filter refuses."""


def test_it_stops_what_level_sandbox_stops(dockerd: str, directory: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.isolation.run", "container", str(directory), IMAGE],
        capture_output=True, text=True, cwd=ROOT, check=True, timeout=100,
    )  # fmt: skip
    found = dict(map(json.loads, told.stdout.splitlines()))
    assert found.pop("the neighbour") == "alive"
    expected = {attack: row[1] for attack, row in table().items()} | OTHERWISE
    verdicts = {attack: text.partition(":")[0] for attack, text in found.items()}
    wrong = {a: found.get(a) for a in verdicts | expected if verdicts.get(a) != expected.get(a)}
    assert wrong == {}


ATTACKS = """
    import ctypes, errno, os, resource, socket, subprocess
    libc = ctypes.CDLL(None, use_errno=True)
    def call(*numbers):
        libc.syscall(*(ctypes.c_long(number) for number in numbers))
        return errno.errorcode.get(ctypes.get_errno())
    def tried(what):
        try:
            what()
        except OSError as error:
            return errno.errorcode[error.errno]
        return "done"
    def handler(event):
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return {
            "root": tried(lambda: open("/usr/file", "w")),
            "code": tried(lambda: open("main.py", "a")),
            "host's channel": tried(lambda: socket.socket(
                socket.AF_UNIX, socket.SOCK_SEQPACKET).connect("/funcrt/host/control")),
            "own tmp": tried(lambda: open("/tmp/file", "w").close()),
            "exec": tried(lambda: subprocess.run(["true"])),
            "internet": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
            "zygote": tried(lambda: os.kill(1, 9)),
            "unshare": call(272, 0x10000000), "io_uring": call(425, 1, 0), "ptrace": call(101, 0),
            "execveat": call(322, 0, 0, 0, 0, 0), "mount": call(165, 0, 0, 0, 0, 0),
            "caps": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")],
            "new privileges": status["NoNewPrivs"].strip(),
            "filters": int(status["Seccomp_filters"]),
            "limits": [
                int(open(f"/sys/fs/cgroup/{name}").read()) for name in event.json()
            ],
            "tmp": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize,
            "interfaces": os.listdir("/sys/class/net"),
        }
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="numbers")
def test_what_a_function_may_not_do(client: Any, directory: Path) -> None:
    version = client.info()["CgroupVersion"]
    names = {
        "1": ["memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us"],
        "2": ["memory.max", "pids.max"],
    }[version]
    limits = [128 << 20, 1024, 50_000][: len(names)]

    async def body(zygote: ContainerZygote, running: Running) -> None:
        told = await running.call(1, json.dumps(names).encode())
        assert told == {
            "root": "EROFS", "code": "EACCES", "own tmp": "done", "exec": "EPERM",
            "host's channel": "ENOENT", "internet": "EACCES", "zygote": "EPERM",
            "unshare": "EPERM", "io_uring": "EPERM", "ptrace": "EPERM", "execveat": "EPERM",
            "mount": "EPERM", "caps": [0, 0, 0], "new privileges": "1", "filters": told["filters"],
            "limits": limits, "tmp": 8 << 20, "interfaces": ["lo"],
        }  # fmt: skip
        assert told["filters"] >= 2  # Docker's, by our profile, and our own
        (container,) = client.containers.list(filters={"label": HOST})
        assert container.attrs["HostConfig"]["LogConfig"]["Config"]["max-size"] == "64k"

    run(code(directory, ATTACKS, memory_bytes=64 << 20, cpu=0.5, tmp_bytes=8 << 20), body)


def test_what_is_ended_for_memory_says_so(
    client: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "MEMORY_BYTES", 48 << 20)
    source = """
        def handler(event):
            return len(bytearray(event.json()))
    """

    async def body(zygote: ContainerZygote, running: Running) -> None:
        assert await running.call(1, b"1000") == 1000
        running.send(2, b"%d" % (200 << 20))
        ended = await running.ended()
        assert ended.signal == signal.SIGKILL
        assert ended.reason.startswith("killed: it was over 96 MiB of memory"), ended
        other = await spawn(zygote)  # the zygote lives
        assert await other.call(1, b"1000") == 1000
        other.instance.kill("")
        assert "memory" not in (await other.ended()).reason

    run(code(directory, source), body)
    with pytest.raises(LoadError, match="its import was killed: it was over 96 MiB of memory"):
        load(code(directory, "kept = bytearray(200 << 20)\ndef handler(event): pass\n"))
    assert ours(client) == []


def test_the_limits_grow_with_the_instances(client: Any, directory: Path) -> None:
    async def body(zygote: ContainerZygote, running: Running) -> None:
        def memory() -> int:
            (container,) = ours(client)
            mebibytes: int = container.attrs["HostConfig"]["Memory"] >> 20
            return mebibytes

        assert memory() == 128
        others = [await spawn(zygote) for _ in range(4)]
        assert memory() == 64 * (8 + 1)  # room for twice as many, each time it is made
        assert await others[-1].call(1) == [None]

    run(code(directory, "def handler(event): return [None]\n", memory_bytes=64 << 20), body)


def test_a_function_that_asks_for_the_network_has_it(
    client: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "NETWORK", "host")  # the tests' daemon has no bridge
    source = """
        import socket
        def handler(event):
            with socket.create_connection(("127.0.0.1", event.json()), timeout=5) as sock:
                return [sock.recv(5).decode()]
    """

    async def body(zygote: ContainerZygote, running: Running) -> None:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        async with await asyncio.start_server(served, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await running.call(1, b"%d" % port) == ["hello"]

    run(code(directory, source, network=("outbound",)), body)


def test_the_profile_lets_through_nothing_that_our_own_filter_refuses() -> None:
    profile = json.loads(Path(box.__file__).with_name("seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {
        name
        for rule in profile["syscalls"]
        for name in rule["names"]
        if rule["action"] == "SCMP_ACT_ALLOW"
    }
    refused = {*KERNEL, "execveat", "clone3"} - {"capset"}  # by which privileges are given up
    assert allowed & refused == set()
    assert {"execve", "clone", "socket"} <= allowed


# Pauses


COUNTS = """
    import asyncio
    ticks = 0
    async def count():
        global ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)
    counting = None
    async def handler(event):
        global counting
        counting = counting or asyncio.create_task(count())
        await asyncio.sleep(event.json())
        return ticks
"""


@pytest.mark.parametrize("by_docker", [False, True])
def test_a_container_stands_still_while_it_has_nothing_to_do(
    client: Any, directory: Path, monkeypatch: pytest.MonkeyPatch, by_docker: bool
) -> None:
    if by_docker:
        monkeypatch.setattr(Cgroup, "freezes", False)

    async def paused(zygote: ContainerZygote) -> None:
        assert zygote.pauses is not None
        async with asyncio.timeout(10):
            while not zygote.pauses.paused:
                await asyncio.sleep(0.05)
            while by_docker and [each.status for each in ours(client)] != ["paused"]:
                await asyncio.sleep(0.05)

    async def body(zygote: ContainerZygote, running: Running) -> None:
        before = await running.call(1, b"0.5")  # longer than a pause needs
        assert before > 10
        await paused(zygote)
        await asyncio.sleep(0.5)
        after = await running.call(2, b"0")
        assert after - before < 0.5 / 0.01
        await paused(zygote)
        other = await spawn(zygote)
        assert await other.call(1, b"0") <= 1
        await paused(zygote)
        other.instance.kill("over")
        assert (await other.ended()).reason == "over"
        await paused(zygote)
        running.instance.finish()
        assert (await running.ended()).code == 0
        await asyncio.sleep(2 * PAUSE_S)
        assert zygote.pauses is not None

    run(code(directory, COUNTS), body)
    assert ours(client) == []


A_USERS_HOST = """
import asyncio, os, sys
from pathlib import Path
from funcrt.sandbox import Code
from funcrt.sandbox.daemon import host_id
from tests.docker.test_container import made, spawn

async def main():
    sandbox = made(pause_after_s=0.1)
    await sandbox.start()
    code = Code(name="f", version="1", path=Path(sys.argv[1]), image=sys.argv[2])
    zygote = await sandbox.load(code)
    assert not zygote._cgroup.freezes
    running = await spawn(zygote)
    for number in (1, 2):
        assert await running.call(number) == [os.getuid()]
        while not zygote.pauses.paused:
            await asyncio.sleep(0.05)
    running.instance.kill("over")
    print((await running.ended()).reason, host_id())
    await sandbox.close()

asyncio.run(main())
"""


@others
def test_what_is_recalled_from_a_container_is_nothing_that_it_has_to_do(
    client: Any, directory: Path
) -> None:
    async def body(zygote: ContainerZygote, running: Running) -> None:
        assert zygote.pauses is not None
        running.send(1, b"0.3")
        for number in (2, 3, 4):
            running.send(number, b"0")
        async with asyncio.timeout(20):
            while running.instance.begun() != 1:
                await asyncio.sleep(0.01)
        running.instance.halt(1)
        await asyncio.sleep(HALT_S)
        running.instance.send([Recall(1, [2, 4])])
        await running.until(lambda: set(running.results) == {1, 3})
        async with asyncio.timeout(10):
            while not zygote.pauses.paused:
                await asyncio.sleep(0.05)
        assert await running.call(2, b"0") == 3

    source = """
    import itertools, time
    count = itertools.count(1)
    def handler(event):
        time.sleep(event.json())
        return next(count)
    """
    run(code(directory, source), body, pause_after_s=0.2)


def test_a_host_that_is_not_root_has_containers_of_its_user(client: Any, directory: Path) -> None:
    code(directory, "import os\ndef handler(event): return [os.getuid()]\n")
    told = subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", sys.executable, "-c",
         A_USERS_HOST, str(directory), IMAGE],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    reason, host = told.stdout.split()
    assert (reason, ours(client, host)) == ("over", [])


# What is left


HOST_THAT_IS_KILLED = """
import asyncio, sys
from pathlib import Path
from funcrt.sandbox import Code
from funcrt.sandbox.cgroup import Cgroup
from funcrt.sandbox.daemon import host_id
from tests.docker.test_container import made

async def main():
    sandbox = made(pause_after_s=0.1)
    await sandbox.start()
    code = Code(name="f", version="1", path=Path(sys.argv[1]), image=sys.argv[2])
    zygote = await sandbox.load(code)
    instance = await zygote.spawn(lambda *_: None, lambda *_: None)
    while not zygote.pauses.paused:
        await asyncio.sleep(0.02)
    print(host_id(), sandbox._after.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("alone", [True, False])
def test_no_container_outlives_a_host_that_is_killed(
    client: Any, directory: Path, alone: bool
) -> None:
    """Not even one that is paused; and where what is to see to that is killed with the host, the
    next host does."""
    code(directory, "def handler(event): pass\n")
    host = subprocess.Popen(
        [sys.executable, "-c", HOST_THAT_IS_KILLED, str(directory), IMAGE],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert host.stdout is not None
    identity, after = host.stdout.readline().split()
    (container,) = ours(client, identity)
    if not alone:
        os.kill(int(after), signal.SIGKILL)
    host.kill()
    host.wait()
    host.stdout.close()
    if not alone:
        time.sleep(0.2)
        assert len(ours(client, identity)) == 1
        load(code(directory, "def handler(event): pass\n"))
    until = time.monotonic() + 20
    while ours(client, identity) or Path(container.labels[DIRECTORY]).exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_host_is_told_from_one_with_its_pid() -> None:
    boot, space, pid, started = host_id().split("/")
    assert not ended(host_id())
    assert ended(f"{boot}/{space}/{pid}/{int(started) - 1}")
    assert ended(f"another-boot/{space}/{pid}/{started}")
    assert not ended(f"{boot}/pid:[1]/{pid}/1")  # of another namespace: nobody here can say


def test_a_host_that_runs_keeps_its_containers_when_another_starts(
    client: Any, directory: Path
) -> None:
    async def body(zygote: ContainerZygote, running: Running) -> None:
        other = made()
        await other.start()
        await other.close()
        assert len(ours(client)) == 1
        assert await running.call(1) == 1

    run(code(directory, "def handler(event): return 1\n"), body)


def test_a_load_that_is_given_up_leaves_nothing(client: Any, directory: Path) -> None:
    async def main() -> None:
        sandbox = made()
        await sandbox.start()
        wanted = code(directory, "def handler(event): pass\n")
        for wait_s in (0, 0.02, 0.1, 0.3):
            loading = asyncio.create_task(sandbox.load(wanted))
            await asyncio.sleep(wait_s)
            loading.cancel()
            await asyncio.wait([loading])
        await sandbox.close()

    uvloop.run(main())
    assert ours(client) == []


# With a host


def test_a_host_serves_functions_at_different_levels(client: Any, tmp_path: Path) -> None:
    source = """import os
def handler(event):
    return [os.uname().nodename, os.path.exists("/.dockerenv")]
"""
    manifest = f"---[sandbox]\nisolation = 'container'\nimage = '{IMAGE}'\n"
    serving = Serving(tmp_path / "data", inside=source + manifest, outside=source)
    try:
        for name, expected in (("inside", True), ("outside", False)):
            answer = httpx.post(f"{serving.url}/functions/{name}", content=b"{}", timeout=30)
            assert answer.json() == ["function", expected], name
        assert len(client.containers.list(filters={"label": HOST})) == 1
    finally:
        serving.stop(signal.SIGTERM)
    assert client.containers.list(all=True, filters={"label": HOST}) == []


def test_it_goes_on_where_the_host_s_runtime_zygote_ends(dockerd: str, directory: Path) -> None:
    """It is the daemon's, and is not below that."""

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced="container"))
        await sandbox.start()
        sandbox.users = Users(somebody)
        again = asyncio.Event()
        sandbox.keeper.again = again.set
        try:
            zygote = await sandbox.load(code(directory, "def handler(event): return 1\n"))
            assert isinstance(zygote, ContainerZygote)
            running = await spawn(zygote)
            assert await running.call(1) == 1
            assert sandbox.keeper.process is not None
            sandbox.keeper.process.kill()
            async with asyncio.timeout(20):
                await again.wait()
            assert await running.call(2) == 1
            assert zygote.alive
            os.kill(running.instance.pid, signal.SIGKILL)
            why = await running.ended()
            assert (why.innocent, why.signal) == (False, signal.SIGKILL)
            assert "runtime" not in why.reason
        finally:
            await sandbox.close()

    asyncio.run(main())
