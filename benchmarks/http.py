"""Synchronous calls of a trivial function: a CloudEvent of 1 KB in binary mode, 64 connections."""

import json
import resource
import shutil
import subprocess
import urllib.request
from collections.abc import Callable

from benchmarks.processes import (
    BenchmarkFailed,
    Elsewhere,
    Options,
    Run,
    cpu_s,
    free_port,
    listens,
    pss_mb,
    undisturbed,
    wait_until,
)
from benchmarks.systems.funcrt import serve
from benchmarks.table import Row, medians, ratios

BODY = json.dumps({"id": 1, "x": "x" * 1000})
HEADERS = {
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/bench",
    "ce-type": "bench",
}
FUNCRT = """
def handler(event):
    return {"ok": event.json()["id"] == 1}
"""
MANIFEST = '[[trigger]]\nkind = "http"\npath = "/call"\n[scale]\nmin = {0}\nmax = {0}\n'
FRAMEWORK = """
import functions_framework.aio

@functions_framework.aio.cloud_event
async def handler(event):
    assert event.data["id"] == 1
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def call(request):
    return JSONResponse({"ok": (await request.json())["id"] == 1})

app = Starlette(routes=[Route("/call", call, methods=["POST"])])
"""
WRK = """
wrk.method = "POST"
wrk.body = [[%s]]
%s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %%d, "us": %%d, "p50": %%f, "p99": %%f, "status": %%d, "broken": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def funcrt(run: Run, instances: int) -> int:
    """The gateway and its instances; its port."""
    return serve(run, {"call": (FUNCRT, MANIFEST.format(instances))})


def framework(run: Run, workers: int) -> int:
    """functions-framework in ASGI mode, on gunicorn and uvicorn."""
    (run.dir / "main.py").write_text(FRAMEWORK)
    port = free_port()
    run.spawn(
        [
            *(run.options.peers_python, "-m", "functions_framework", "--asgi"),
            *("--target", "handler", "--source", run.dir / "main.py"),
            *("--signature-type", "cloudevent", "--host", "127.0.0.1", "--port", str(port)),
        ],
        WORKERS=str(workers),
    )
    return port


def starlette(run: Run, workers: int) -> int:
    """A bare application on uvicorn, with httptools and uvloop."""
    (run.dir / "app.py").write_text(STARLETTE)
    port = free_port()
    run.spawn(
        [
            *(run.options.python, "-m", "uvicorn", "app:app", "--app-dir", run.dir),
            *("--port", str(port), "--workers", str(workers), "--no-access-log"),
            *("--loop", "uvloop", "--http", "httptools", "--log-level", "warning"),
        ]
    )
    return port


SYSTEMS: dict[str, tuple[Callable[[Run, int], int], int]] = {
    "funcrt, 2 instances": (funcrt, 2),
    "functions-framework ASGI, 2 workers": (framework, 2),
    "bare Starlette, 2 workers": (starlette, 2),
    "funcrt, 1 instance": (funcrt, 1),
    "functions-framework ASGI, 1 worker": (framework, 1),
    "bare Starlette, 1 worker": (starlette, 1),
}
Turn = tuple[Row, list[Row]]
OURS = next(iter(SYSTEMS))


def http(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Rounds of all systems in turn; their medians. A reply that is no success fails the run."""
    if shutil.which("wrk") is None:
        say("http: skipped, wrk is not there (Debian: apt-get install wrk)")
        return []
    results: dict[str, list[Row]] = {}
    for number in range(options.rounds):
        for name, (start, workers) in SYSTEMS.items():
            if start is framework and not has_framework(options):
                say(f"{name}: skipped, functions-framework is not among the peers")
                continue
            say(f"round {number + 1} of {options.rounds}: {name}")

            def turn(
                name: str = name, start: Callable[[Run, int], int] = start, workers: int = workers
            ) -> Turn:
                with Run(options) as run:
                    port = start(run, workers)
                    wait_until(f"{name} listens", lambda: listens(port))
                    return {"name": name, **once(run, port)}, []

            row, _ = undisturbed(options, say, turn)
            results.setdefault(name, []).append(row)
    rows = []
    for name, rounds in results.items():
        row = medians(rounds)
        row["of funcrt"] = ratios(name, results, OURS, "events/s")
        rows.append(row)
    return rows


def has_framework(options: Options) -> bool:
    """Whether the peers' interpreter can import it."""
    argv = [options.peers_python, "-c", "import functions_framework.aio"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def once(run: Run, port: int) -> Row:
    """One call by hand, a warm-up, then wrk; CPU is that of the servers and of wrk."""
    url = f"http://127.0.0.1:{port}/call"
    asked = urllib.request.Request(url, BODY.encode(), HEADERS)
    with urllib.request.urlopen(asked) as reply:
        body = reply.read()
        if b"true" not in body.replace(b"OK", b"true"):
            raise BenchmarkFailed(f"the function answered {body[:200]!r}")
    script = run.dir / "post.lua"
    heads = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items())
    script.write_text(WRK % (BODY, heads))
    wrk(run, url, 2)
    pids = run.system()
    used, elsewhere = cpu_s(pids) + _wrk_cpu_s(), Elsewhere()
    said = wrk(run, url, run.options.seconds)
    used = cpu_s(pids) + _wrk_cpu_s() - used
    others = elsewhere.percent(used)
    return {
        "events/s": said["requests"] / said["us"] * 1e6,
        "p50 ms": said["p50"],
        "p99 ms": said["p99"],
        "CPU s/1,000": used / said["requests"] * 1000,
        "PSS MB": pss_mb(pids),
        "others %": others,
        "errors": int(said["status"] + said["broken"]),
    }


def wrk(run: Run, url: str, seconds: float) -> dict[str, float]:
    """Load for some seconds. Raises BenchmarkFailed for a reply that is no success."""
    done = subprocess.run(
        ["wrk", "-t1", "-c64", f"-d{seconds:.0f}s", "-s", str(run.dir / "post.lua"), url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if said["status"]:
        raise BenchmarkFailed(f"{said['status']:.0f} replies of {said['requests']:.0f} failed")
    return said


def _wrk_cpu_s() -> float:
    """CPU of the children that have ended: between two looks that is wrk alone."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
