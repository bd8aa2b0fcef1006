"""What each level of isolation costs: an instance from zero, a first deployment, warm calls, MB.

`none` is the bare fork of the same zygote, with the same worker in it: what the others are
compared with, by turns in one run."""

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cold import row_of
from benchmarks.processes import Options
from benchmarks.table import Row, percentile
from funcrt.sandbox import Code
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call, Result
from mesh import Event

SOURCE = "def handler(event):\n    return {'ok': True}\n"
LEVELS: tuple[Level, ...] = ("none", "process", "sandbox")
OUTSTANDING = 64
IMAGE = "funcrt-bench"
"""With /usr/bin/python3: `debootstrap --include=python3 bookworm DIR`, and then
`tar -C DIR -c . | docker import - funcrt-bench`."""


class Calls:
    """One instance, and when its results came."""

    def __init__(self) -> None:
        self.instance: Any = None
        self.results: asyncio.Queue[Result] = asyncio.Queue()
        self.gone = asyncio.Event()

    @classmethod
    async def of(cls, zygote: ProcessZygote) -> "Calls":
        made = cls()
        made.instance = await zygote.spawn(made.said, lambda _, ended: made.gone.set())
        return made

    def said(self, _: object, messages: Any) -> None:
        for message in messages:
            if isinstance(message, Result):
                self.results.put_nowait(message)

    def send(self, number: int, data: bytes) -> None:
        event = Event(str(number), "/bench", "bench", data=data)
        self.instance.send([Call(number, "t", [event], 1, 1, 0, "bench")])

    async def end(self) -> None:
        self.instance.finish()
        await self.gone.wait()


async def first_result(zygote: ProcessZygote) -> float:
    """Milliseconds from nothing to a result."""
    began = time.perf_counter()
    calls = await Calls.of(zygote)
    calls.send(1, b"{}")
    await calls.results.get()
    took = (time.perf_counter() - began) * 1000
    await calls.end()
    return took


async def rate(zygote: ProcessZygote, seconds: float) -> float:
    """Calls a second with 1 KB each, so many outstanding in one instance."""
    calls = await Calls.of(zygote)
    data = b'{"text": "' + b"x" * 1000 + b'"}'
    for number in range(OUTSTANDING):
        calls.send(number, data)
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        await calls.results.get()
        done += 1
        calls.send(OUTSTANDING + done, data)
    await calls.end()
    return done / (now - began)


def private_mb(pid: int) -> float:
    """Memory that this process shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Priv")) / 1024


async def crowd(zygote: ProcessZygote, count: int) -> tuple[float, float]:
    """So many instances alive at once, each with an answer: the median of their private MB, and
    the seconds until all had answered."""
    began = time.perf_counter()
    alive = [await Calls.of(zygote) for _ in range(count)]
    for number, calls in enumerate(alive):
        calls.send(number, b"{}")
    for calls in alive:
        await calls.results.get()
    took = time.perf_counter() - began
    held = statistics.median(private_mb(calls.instance.pid) for calls in alive)
    await asyncio.gather(*(calls.end() for calls in alive))
    return held, took


def levels(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Each level, by turns; beside them an interpreter a call, and programs that isolate."""
    with tempfile.TemporaryDirectory(prefix="funcrt-bench-") as root:
        Path(root).chmod(0o755)
        rows = asyncio.run(ours(Path(root), options, say))
        return rows + others(Path(root), 50 if options.quick else 200, say)


async def ours(root: Path, options: Options, say: Callable[[str], None]) -> list[Row]:
    rounds, each = (3, 20) if options.quick else (10, 40)
    sandboxes = {}
    for level in LEVELS:
        sandbox = ProcessSandbox(policy=Policy(forced=level))
        await sandbox.start()
        await sandbox.probed()
        sandboxes[level] = sandbox
    took: dict[str, list[float]] = {level: [] for level in LEVELS}
    deploys: dict[str, list[float]] = {level: [] for level in LEVELS}
    rates: dict[str, list[float]] = {level: [] for level in LEVELS}
    crowds: dict[str, tuple[float, float]] = {}
    try:
        zygotes = {}
        for turn in range(rounds):
            for level, sandbox in sandboxes.items():
                path = root / f"{level}{turn}"
                path.mkdir()
                (path / "main.py").write_text(SOURCE)
                began = time.perf_counter()
                code = Code(name=f"f{turn}", version=str(turn), path=path)
                zygotes[level] = await sandbox.load(code)
                deploys[level].append((time.perf_counter() - began) * 1000)
                for _ in range(3):
                    await first_result(zygotes[level])
                took[level] += [await first_result(zygotes[level]) for _ in range(each)]
                rates[level].append(await rate(zygotes[level], 0.5))
            say(f"levels: {turn + 1} of {rounds}")
        for level, zygote in zygotes.items():
            crowds[level] = await crowd(zygote, 200)
    finally:
        for sandbox in sandboxes.values():
            await sandbox.close()
    bare = percentile(took["none"], 50)
    return [
        {
            **row_of(f"level {level}, zero to a result", took[level]),
            "of none": percentile(took[level], 50) / bare,
            "load ms": statistics.median(deploys[level]),
            "warm/s": statistics.median(rates[level]),
            "MB each": crowds[level][0],
            "200 in s": crowds[level][1],
        }
        for level in LEVELS
    ]


def others(root: Path, count: int, say: Callable[[str], None]) -> list[Row]:
    """Programs that run an interpreter to its end, by turns: those that are here."""
    python = "/usr/bin/python3"
    code = ["-I", "-S", "-c", "pass"]
    shown = [path for path in ("/usr", "/lib", "/lib64") if Path(path).exists()]
    argvs = {"python -I -S": [python, *code]}
    if bwrap := shutil.which("bwrap"):
        binds = [word for path in shown for word in ("--ro-bind", path, path)]
        argvs["bubblewrap, python -I -S"] = [
            bwrap, *binds, "--unshare-all", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
            python, *code,
        ]  # fmt: skip
    if runc := shutil.which("runc"):
        bundle(root / "bundle", [python, *code], shown)
        argvs["runc run, python -I -S"] = [
            *(runc, "--root", str(root / "runc"), "run", "--bundle", str(root / "bundle"), "bench"),
        ]
    if shutil.which("docker") and there("docker", "image", "inspect", IMAGE):
        argvs["docker run, python -I -S"] = [
            *("docker", "run", "--rm", "--network=none"), IMAGE, python, *code,
        ]  # fmt: skip
    else:
        say(f"levels: no docker run, which needs a daemon with an image {IMAGE}")
    took: dict[str, list[float]] = {name: [] for name in argvs}
    for turn in range(count):
        for name, argv in argvs.items():
            if name.startswith("docker") and turn % 10:
                continue  # it takes half a second
            began = time.perf_counter()
            subprocess.run(argv, check=True)
            took[name].append((time.perf_counter() - began) * 1000)
    return [row_of(name, each) for name, each in took.items()]


def bundle(directory: Path, argv: list[str], shown: list[str]) -> None:
    """What runc runs: its own default, with the system's directories shown."""
    rootfs = directory / "rootfs"
    for path in ("proc", "dev", "sys", "tmp", *(path[1:] for path in shown)):
        (rootfs / path).mkdir(parents=True)
    subprocess.run(["runc", "spec", "--bundle", directory], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": argv}
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "cgroup"]
    config["mounts"] += [
        {"destination": path, "type": "none", "source": path, "options": ["rbind", "ro"]}
        for path in shown
    ]
    (directory / "config.json").write_text(json.dumps(config))


def there(*command: str) -> bool:
    return not subprocess.run(command, check=False, capture_output=True).returncode
