"""Where the time goes: py-spy on the host while it works, the functions with their shares."""

import os
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from subprocess import Popen

from benchmarks.processes import Run, wait_until
from benchmarks.table import Row

RATE = 250
TOP = 25
COLUMNS = ("function", "own %", "with callees %")


def py_spy(run: Run) -> Path:
    """The sampler, beside the peers' interpreter."""
    return Path(run.options.peers_python).parent / "py-spy"


def begin(run: Run, pid: int) -> "Popen[str]":
    """Sample a process until `end`. Only threads that are on the CPU count; C code (SQLite, the
    loop, msgspec) counts as part of the Python function that called it."""
    spy = run.spawn(
        [
            *(py_spy(run), "record", "--pid", str(pid), "--rate", str(RATE), "--format", "raw"),
            *("--duration", "3600", "--function", "--output", run.dir / "stacks.txt"),
        ]
    )
    log = Path(run.logs[-1].name)
    wait_until("py-spy samples", lambda: "Sampling" in log.read_text() or spy.poll() is not None)
    return spy


def end(run: Run, spy: "Popen[str]") -> list[Row]:
    """Stop; the shares."""
    if spy.poll() is None:
        os.kill(spy.pid, signal.SIGINT)
        spy.wait(60)
    file = run.dir / "stacks.txt"
    if not file.exists():
        return [{"function": f"no profile: {run.last_words()}"}]
    return shares(file.read_text(encoding="utf-8").splitlines())


def shares(lines: Iterable[str]) -> list[Row]:
    """Collapsed stacks (`a;b;c 12`) to the functions with the largest shares. A thread of a pool
    that waits for work is sampled as if it ran; those samples are left out."""
    own: Counter[str] = Counter()
    under: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].startswith("_worker (concurrent/futures"):
            continue
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            under[frame] += int(count)
    wanted = [name for name, _ in own.most_common(TOP)]
    return [
        {
            "function": name,
            "own %": own[name] / total * 100,
            "with callees %": under[name] / total * 100,
        }
        for name in wanted
    ]
