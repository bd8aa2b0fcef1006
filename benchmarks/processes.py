"""The processes of one start of one system: started, measured as trees, stopped by pid."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T", bound=tuple[dict[str, Any], list[dict[str, Any]]])

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
STOP_S = 15.0


class BenchmarkFailed(Exception):
    """A system that did not do the job; the message says what was seen."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said."""

    python: str = sys.executable
    """Runs funcrt and the bare Starlette."""
    peers_python: str = sys.executable
    """Runs all other systems, their clients and their brokers."""
    directory: Path = Path("/var/tmp")
    quick: bool = False
    rounds: int = 3
    events: int = 20_000
    seconds: float = 10.0
    peers: tuple[str, ...] = ()
    """Only these; empty for all."""
    synced: bool = False
    """Brokers sync each write to disk too, as funcrt does."""
    real_time: bool = False
    """An hour's events take their hour."""
    profile: bool = False
    """Sample the host's stacks during the job."""
    quiet: float = 100.0
    """Percent of all cores that other things may take during a turn; beyond it, it is repeated."""


class Run:
    """A temporary directory and processes, all gone when it is left."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.dir = Path(tempfile.mkdtemp(prefix="funcrt-bench-", dir=options.directory))
        self.started: list[subprocess.Popen[str]] = []
        self.logs: list[IO[str]] = []

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self.started):
            stop(process)
        for log in self.logs:
            log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def spawn(
        self, argv: Iterable[str | Path], *, talk: bool = False, **env: str
    ) -> subprocess.Popen[str]:
        """Start a process. With `talk` its stdin and stdout are pipes; else both are in the log."""
        log = (self.dir / f"{len(self.started)}.log").open("w+", encoding="utf-8")
        self.logs.append(log)
        process = subprocess.Popen(
            [str(each) for each in argv],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
        """Stop one of them before the others."""
        stop(process, number)
        self.started.remove(process)

    def said(self, process: subprocess.Popen[str], key: str) -> dict[str, Any]:
        """The next JSON line of a process that has `key`. Raises BenchmarkFailed if it ends."""
        assert process.stdout is not None
        while line := process.stdout.readline():
            found = json.loads(line)
            if key in found:
                return dict(found)
        process.wait()
        raise BenchmarkFailed(f"exit code {process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what the processes wrote to stderr."""
        ends = []
        for log in self.logs:
            log.seek(0)
            if text := log.read().strip():
                ends.append(text[-400:])
        return " | ".join(ends) or "nothing on stderr"

    def system(self, but: Iterable[subprocess.Popen[str]] = ()) -> list[int]:
        """The pids of all that was started and still runs, with their descendants."""
        leave = {process.pid for process in but}
        roots = [each.pid for each in self.started if each.poll() is None]
        return [pid for root in roots if root not in leave for pid in tree(root)]


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
    """End a process and whatever it had started, politely first. Pids, never names."""
    below = {pid: since for pid in tree(process.pid) if (since := _since(pid)) is not None}
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    end = time.monotonic() + 3
    while left := [pid for pid, since in below.items() if _since(pid) == since]:
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rsplit(")", 1)[1].split()


def _since(pid: int) -> str | None:
    """When a living process began, so that a pid used again is not mistaken for it."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def tree(pid: int) -> list[int]:
    """A pid and its descendants, over all its threads' children."""
    found = [pid]
    try:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text(encoding="utf-8").split():
                found += tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes, and of their children that have ended and been waited for."""
    return sum(int(part) for pid in pids for part in _stat(pid)[11:15]) / TICKS


class Elsewhere:
    """How busy the machine's cores were with other things than what is measured: with much of it
    a row says little."""

    def __init__(self) -> None:
        self.busy, self.at = _busy_s(), time.perf_counter()

    def percent(self, used_s: float) -> float:
        """Of all cores since the beginning; `used_s` is what was spent on the measured."""
        spent = _busy_s() - self.busy - used_s
        seconds = (time.perf_counter() - self.at) * (os.cpu_count() or 1)
        return max(spent / seconds * 100, 0.0)


TRIES = 4
QUIET_S = 2.0
WAIT_S = 45.0


def undisturbed(options: Options, say: Callable[[str], None], turn: Callable[[], T]) -> T:
    """A turn that other things on the machine have left alone: one that starts in a quiet moment
    and is repeated while its row says that they took too much. After some tries the least
    disturbed of them. What is chosen by is the others' CPU, never the result."""
    best: T | None = None
    for _ in range(TRIES):
        end = time.monotonic() + (WAIT_S if options.quiet < 100 else 0)
        while time.monotonic() < end:
            elsewhere = Elsewhere()
            time.sleep(QUIET_S)
            if elsewhere.percent(0) <= options.quiet:
                break
        found = turn()
        row = found[0]
        say("  " + ", ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float)))
        if best is None or row["others %"] < best[0]["others %"]:
            best = found
        if best[0]["others %"] <= options.quiet:
            break
        if options.quiet < 100:
            say("  again: other things took too much")
    assert best is not None
    return best


def _busy_s() -> float:
    """CPU seconds of the whole machine, stolen ones too: all fields but idle and iowait."""
    line = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    fields = [int(part) for part in line.split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def pss_mb(pids: Iterable[int]) -> float:
    """Memory of these processes; pages that several share are counted once over all."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total / 1024


def peak_mb(pid: int) -> float:
    """The most memory a process has held."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    what: str, holds: Callable[[], bool], seconds: float = 30.0, every: float = 0.01
) -> None:
    """Poll. Raises BenchmarkFailed after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise BenchmarkFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether something accepts on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
