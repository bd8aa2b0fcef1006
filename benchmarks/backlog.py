"""A queue that only grows, a host that is killed, and a function that then works it off."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import (
    ROOT,
    BenchmarkFailed,
    Options,
    Run,
    cpu_s,
    peak_mb,
    pss_mb,
    wait_until,
)
from benchmarks.systems.funcrt import function, serve
from benchmarks.table import Row, percentile

BLOCKED = "import time\ndef handler(event): time.sleep(3600)\n"
QUICK = "def handler(event): return {'ok': True}\n"
TRIGGER = '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"\n[scale]\n'
HOLD = f'timeout = "1h"\n{TRIGGER}max = 1\n'
SERVE = f"{TRIGGER}max = 2\n"
A_CALL = 100
CALLS = 8


def backlog(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Fill while the one instance sleeps; SIGKILL; start again; replace the code; drain."""
    rows = []
    for count in (20_000, 100_000) if options.quick else (100_000, 1_000_000):
        say(f"{count:,} events")
        with Run(options) as run:
            rows += one(run, count)
    return rows


def one(run: Run, count: int) -> list[Row]:
    """The life of one backlog."""
    serve(run, {"work": (BLOCKED, HOLD)})
    (host,) = run.started
    used = cpu_s(run.system())
    rate, waits = asyncio.run(fill(f"embedded://{run.dir}/data/mesh.db", count))
    filled = {
        "name": f"{count:,}: filling, calls of {A_CALL}",
        "events/s": rate,
        "p50 ms": percentile(waits, 50),
        "p99 ms": percentile(waits, 99),
        "CPU s/1,000": (cpu_s(run.system()) - used) / count * 1000,
        "PSS MB": pss_mb(run.system()),
        "host peak MB": peak_mb(host.pid),
    }
    depth(run, count)
    run.stop(host, signal.SIGKILL)
    file = Path(run.dir / "data" / "mesh.db").stat().st_size / 1e6
    began = time.perf_counter()
    serve(run, {"work": (BLOCKED, HOLD)})
    waiting = {
        "name": f"{count:,}: waiting, after SIGKILL",
        "PSS MB": pss_mb(run.system()),
        "ready s": time.perf_counter() - began,
        "ls ms": depth(run, count),
        "file MB": file,
    }
    (host,) = run.started
    waiting["host peak MB"] = peak_mb(host.pid)
    run.stop(host, signal.SIGKILL)
    serve(run, {"work": (QUICK, SERVE)})
    (host,) = run.started
    used = cpu_s(run.system())
    began = time.perf_counter()
    wait_until("the backlog is worked off", lambda: function(run, "work")["depth"] == 0, 900, 0.1)
    seconds = time.perf_counter() - began
    drained = {
        "name": f"{count:,}: draining, 2 instances",
        "events/s": count / seconds,
        "CPU s/1,000": (cpu_s(run.system()) - used) / count * 1000,
        "PSS MB": pss_mb(run.system()),
        "host peak MB": peak_mb(host.pid),
        "lost": count - function(run, "work")["outputs"],
    }
    return [filled, waiting, drained]


def depth(run: Run, count: int) -> float:
    """How long `funcrt ls` takes, in milliseconds, as a process of its own. It must be exact."""
    argv = [run.options.python, "-m", "funcrt", "ls", "--data", run.dir / "data"]
    began = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    took = (time.perf_counter() - began) * 1000
    found = function(run, "work")["depth"]
    if found != count:
        raise BenchmarkFailed(f"{count} events were stored, and `ls` says {found}")
    return took


async def fill(url: str, count: int) -> tuple[float, list[float]]:
    """Publish; events a second, and how long the calls took."""
    import mesh
    from mesh import Event

    client = await mesh.connect(url)
    numbers = iter(range(0, count, A_CALL))
    body = b'{"x":"%s"}' % (b"x" * 1000)
    waits = []

    async def some() -> None:
        for first in numbers:
            events = [Event(str(n), "/b", "t", data=body) for n in range(first, first + A_CALL)]
            began = time.perf_counter()
            receipts = await client.publish("in", events)
            waits.append((time.perf_counter() - began) * 1000)
            if any(receipt.status != "stored" for receipt in receipts):
                raise BenchmarkFailed(f"refused: {receipts[0]}")

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(CALLS)))
    rate = count / (time.perf_counter() - began)
    await client.close()
    return rate, waits
