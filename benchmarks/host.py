"""What a host costs: calls over HTTP, idle functions, a backlog."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.processes import Options, Run, cpu_s, pss_mb
from benchmarks.systems.funcrt import serve
from benchmarks.table import Row

PLAIN = "def handler(event):\n    return {'ok': True}\n"
WRK = """
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
wrk.headers["content-type"] = "text/plain"
wrk.headers["ce-specversion"] = "1.0"
wrk.headers["ce-id"] = "1"
wrk.headers["ce-source"] = "/bench"
wrk.headers["ce-type"] = "bench"
"""


def http(options: Options) -> list[Row]:
    """Synchronous calls from 64 connections, by wrk on the same cores."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return [{"name": "http: skipped, wrk is not installed"}]
    with Run(options) as run:
        manifest = '[[trigger]]\nkind = "http"\npath = "/echo"\n[scale]\nmin = 1\nmax = 2\n'
        port = serve(run, {"echo": (PLAIN, manifest)})
        (run.dir / "post.lua").write_text(WRK)
        done = subprocess.run(
            [
                *(wrk, "-t1", "-c64", f"-d{options.seconds:.0f}s", "--latency"),
                *("-s", str(run.dir / "post.lua"), f"http://127.0.0.1:{port}/functions/echo"),
            ],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if words[:1] in (["50%"], ["99%"], ["Requests/sec:"]) or "Non-2xx" in line:
            found[words[0]] = words[-1]
    return [
        {
            "name": "funcrt gateway",
            "calls/s": float(found["Requests/sec:"]),
            "p50": found["50%"],
            "p99": found["99%"],
            "not 2xx": found.get("Non-2xx", "0"),
        }
    ]


def idle(options: Options) -> list[Row]:
    """Functions at zero instances: five, and a thousand."""
    rows = []
    for count in (5, 100 if options.quick else 1000):
        functions = {
            f"f{n}": (PLAIN, f'[[trigger]]\ntopic = "t{n}"\n[output]\ntopic = "out"\n')
            for n in range(count)
        }
        with Run(options) as run:
            began = time.perf_counter()
            serve(run, functions)
            ready = time.perf_counter() - began
            time.sleep(2)
            pids = run.system()
            used = cpu_s(pids)
            time.sleep(options.seconds)
            share = (cpu_s(pids) - used) / options.seconds
            rows.append(
                {
                    "name": f"{count} idle functions",
                    "PSS MB": pss_mb(pids),
                    "CPU %": share * 100,
                    "ready s": ready,
                }
            )
    return rows


def cold(options: Options) -> list[Row]:
    """From zero instances, the zygote alive, to the result of an HTTP call."""
    import httpx

    from benchmarks.table import percentile

    manifest = '[[trigger]]\nkind = "http"\npath = "/cold"\n[scale]\nidle = "100ms"\n'
    waits = []
    with Run(options) as run:
        port = serve(run, {"cold": (PLAIN, manifest)})
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.post("/cold", json={}).raise_for_status()
            for _ in range(20 if options.quick else 100):
                time.sleep(0.4)
                began = time.perf_counter()
                client.post("/cold", json={}).raise_for_status()
                waits.append((time.perf_counter() - began) * 1000)
            warm = []
            for _ in range(100):
                began = time.perf_counter()
                client.post("/cold", json={}).raise_for_status()
                warm.append((time.perf_counter() - began) * 1000)
    return [
        {"name": "from zero", "p50 ms": percentile(waits, 50), "p99 ms": percentile(waits, 99)},
        {"name": "warm", "p50 ms": percentile(warm, 50), "p99 ms": percentile(warm, 99)},
    ]


def backlog(options: Options) -> list[Row]:
    """A queue that only grows: memory, the time to ask its depth, the start after SIGKILL."""
    rows = []
    code = "import time\ndef handler(event): time.sleep(3600)\n"
    manifest = 'timeout = "1h"\n[[trigger]]\ntopic = "in"\n[scale]\nmax = 1\n'
    for count in (100_000,) if options.quick else (100_000, 1_000_000):
        with Run(options) as run:
            serve(run, {"slow": (code, manifest)})
            url = f"embedded://{run.dir}/data/mesh.db"
            rate, depth_ms = asyncio.run(fill(url, count))
            (host,) = run.started
            memory = peak_mb(host.pid)
            run.stop(host, 9)
            began = time.perf_counter()
            serve(run, {"slow": (code, manifest)})
            rows.append(
                {
                    "name": f"{count:,} waiting",
                    "published/s": rate,
                    "host peak MB": memory,
                    "depth ms": depth_ms,
                    "ready after SIGKILL s": time.perf_counter() - began,
                    "file MB": Path(run.dir / "data" / "mesh.db").stat().st_size / 1e6,
                }
            )
    return rows


def peak_mb(pid: int) -> float:
    """The most memory a process has held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


async def fill(url: str, count: int) -> tuple[float, float]:
    """Publish in calls of 100, eight outstanding; events a second, and the depth's milliseconds."""
    import mesh
    from mesh import Event

    client = await mesh.connect(url)
    numbers = iter(range(0, count, 100))
    body = b"x" * 1000

    async def some() -> None:
        for first in numbers:
            events = [Event(str(n), "/b", "t", data=body) for n in range(first, first + 100)]
            receipts = await client.publish("in", events)
            assert all(receipt.status == "stored" for receipt in receipts), receipts[0]

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(8)))
    rate = count / (time.perf_counter() - began)
    began = time.perf_counter()
    depth = await client.depth("slow/in")
    asked = (time.perf_counter() - began) * 1000
    assert depth.ready + depth.leased == count, depth
    await client.close()
    return rate, asked
