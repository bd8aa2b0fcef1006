"""Runs every attack at one level, in this process's own namespaces, and prints what came of it.

`python -m tests.isolation.run LEVEL[@ABI] DIRECTORY [IMAGE]`, as process N of a pid namespace of
its own; at level `container`, in the machine's. With a `python.json` in the directory, functions
run in that. With an ABI of Landlock, as if the kernel had no later one, and without bombs."""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from funcrt.errors import SandboxError
from funcrt.sandbox import Code
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call, Log, Result
from mesh import Event
from tests.isolation.attacks import ATTACKS, BOMBS, HARMLESS

WAIT_S = {"forks": 20.0, "memory": 20.0, "stops itself": 1.0, "spins": 1.0}


class Calls:
    """An instance, one call at a time."""

    def __init__(self, zygote: ProcessZygote) -> None:
        self.zygote = zygote
        self.instance: Any = None
        self.lines = 0

    def said(self, _: object, messages: Any) -> None:
        for message in messages:
            if isinstance(message, Log):
                self.lines += 1
            elif isinstance(message, Result):
                self.answers.put_nowait(message)

    async def spawned(self) -> Any:
        """A new instance; what a bomb left behind may take a while to end."""
        for patience in range(50):
            try:
                return await self.zygote.spawn(
                    self.said, lambda _, ended: self.answers.put_nowait(ended.reason)
                )
            except SandboxError:
                if patience == 49:
                    raise
            await asyncio.sleep(0.1)

    async def call(self, number: int, asked: dict[str, Any]) -> Result | str:
        """The result, or how the instance ended."""
        if self.instance is None:
            self.answers: asyncio.Queue[Result | str] = asyncio.Queue()
            self.instance = await self.spawned()
        data = json.dumps(asked).encode()
        event = Event("1", "/s", "t", data=data)
        self.instance.send([Call(number, "t", [event], 1, 5, 0, "scope")])
        try:
            async with asyncio.timeout(WAIT_S.get(asked["attack"], 10.0)):
                found = await self.answers.get()
        except TimeoutError:
            self.instance.kill("took too long")
            found = await self.answers.get()
        if isinstance(found, str):
            self.instance = None
        return found


def verdict(attack: str, found: Result | str, number: int, lines: int) -> str:
    """`stopped`, `bounded` or `open`, and why."""
    if isinstance(found, str):
        return f"bounded: {found}"  # the instance ended, and nothing else
    if found.id != number:
        return f"open: call {found.id} was answered"
    if found.status != "ok":
        why = found.failure
        assert why is not None
        return f"{'bounded' if attack in BOMBS else 'stopped'}: {why.error}: {why.message}"
    got = json.loads(found.outputs[0].event.data or b"{}")["got"]
    most = {
        "forks": 4096, "memory": 1024, "one large file": 16, "many large files": 16,
        "descriptors": 70_000,
    }  # fmt: skip
    if attack in most:
        return f"{'bounded' if int(got) <= most[attack] else 'open'}: {got}"
    if attack == "lines":
        return f"{'bounded' if lines < 100_000 else 'open'}: {lines} lines"
    return f"open: {got}"


def victims(root: Path) -> dict[str, Any]:
    """What is attacked: files, sockets, this process."""
    target = root / "host"
    target.mkdir()
    target.chmod(0o777)
    (target / "file").write_text("of the host")
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(target / "socket"))
    (target / "socket").chmod(0o777)
    abstract = socket.socket(socket.AF_UNIX)
    name = f"funcrt-victim-{os.urandom(8).hex()}"
    abstract.bind(f"\0{name}")
    for sock in (path, abstract):
        sock.listen()
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(target / "datagrams"))
    (target / "datagrams").chmod(0o777)
    libc = ctypes.CDLL(None, use_errno=True)
    memory = libc.shmget(0, 4096, 0o1666)  # IPC_PRIVATE, IPC_CREAT
    libc.shmat.restype = ctypes.c_void_p
    assert libc.shmat(memory, None, 0) != ctypes.c_void_p(-1).value
    assert libc.shmctl(memory, 0, None) == 0  # IPC_RMID: it ends with this process
    assert libc.mq_open(f"/{name}".encode(), os.O_RDWR | os.O_CREAT, 0o666, None) >= 0
    devices = [each for each in ("/dev/kmsg", "/dev/mem", "/dev/tty") if Path(each).exists()]
    return {
        "kept": [tcp, udp, path, abstract, datagrams],
        "asked": {
            "file": str(target / "file"), "unix": str(target / "socket"),
            "directory": str(target), "abstract": name, "tcp": tcp.getsockname(),
            "host": os.getpid(), "datagrams": str(target / "datagrams"), "shm": memory,
            "cpus": sorted(os.sched_getaffinity(0)),
            "device": (devices or ["/dev/sda"])[0], "setuid": shutil.which("su") or "/bin/su",
            "root": os.geteuid() == 0,
        },
    }  # fmt: skip


def environment() -> dict[str, str]:
    """Not the attacker's. Large: what memory is used for next hides not all of it."""
    return {f"OTHER{n}": f"other-env-{os.urandom(16).hex()}" for n in range(100)}


@contextlib.contextmanager
def landlock(abi: str) -> Iterator[None]:
    """Runtime zygotes that are started meanwhile take the kernel for one of this ABI; of none, for
    what it is."""
    started = subprocess.Popen
    older = f"from funcrt.sandbox import kernel; kernel.landlock_abi = lambda: {abi};"

    def start(command: list[Any], **more: Any) -> Any:
        before, imported, after = str(command[-1]).partition("from funcrt.sandbox.runtime")
        if abi and imported:
            command = [*command[:-1], before + older + imported + after]
        return started(command, **more)

    with mock.patch("subprocess.Popen", start):
        yield


async def main(
    level: str, root: Path, image: str = "", *network: str, attacks: Iterable[str] = ATTACKS
) -> None:
    os.environ |= {"SECRET": "host-secret"} | environment()
    there = victims(root)
    source = Path(__file__).with_name("attacks.py").read_bytes()
    sandbox = ProcessSandbox(policy=Policy(forced=level))  # type: ignore[arg-type]
    await sandbox.start()
    told = root / "python.json"
    python = msgspec.json.decode(told.read_bytes(), type=Interpreter) if told.exists() else None
    zygotes = []
    for name in ("other", "attacker"):
        path = root / name
        path.mkdir()
        path.chmod(0o755)
        (path / "main.py").write_bytes(source)
        (path / "own").write_text("its own")
        (path / "own").chmod(0o666)
        code = Code(
            name=name, version="1", path=path, image=image, memory_bytes=512 << 20,
            tmp_bytes=16 << 20, network=network, python=python,
            env=environment() if name == "other" else {},
        )  # fmt: skip
        zygotes.append(await sandbox.load(code))
    other = Calls(zygotes[0])
    await other.call(1, {"attack": "bpf"})
    asked = there["asked"] | {
        "neighbour": other.instance.pid,
        "other": str(root / "other/main.py"),
        "own": str(root / "attacker/own"),
        "other_tmp": f"/proc/{other.instance.pid}/root/tmp",
    }
    calls = Calls(zygotes[1])
    for number, attack in enumerate(HARMLESS if level == "none" else attacks, 10):
        lines = calls.lines
        found = await calls.call(number, asked | {"attack": attack})
        said = verdict(attack, found, number, calls.lines - lines)
        print(json.dumps([attack, said]), flush=True)
    still = await other.call(2, {"attack": "bpf"})
    print(json.dumps(["the neighbour", "alive" if isinstance(still, Result) else still]))
    await sandbox.close()
    ctypes.CDLL(None).mq_unlink(f"/{asked['abstract']}".encode())


if __name__ == "__main__":
    asked, _, older = sys.argv[1].partition("@")
    chosen = [name for name in ATTACKS if not (older and name in BOMBS)]
    with landlock(older):
        asyncio.run(main(asked, Path(sys.argv[2]), *sys.argv[3:], attacks=chosen))
