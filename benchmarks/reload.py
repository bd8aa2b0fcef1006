"""From a save to the new code's first answer: `funcrt dev` beside `uvicorn --reload`."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import (
    BenchmarkFailed,
    Options,
    Run,
    cpu_s,
    free_port,
    listens,
    pss_mb,
    wait_until,
)
from benchmarks.table import Row, percentile

EDITS = 50
CODE = "{imports}def handler(event):\n    return {{'version': {version}}}\n"
MANIFEST = '[[trigger]]\nkind = "http"\npath = "/{name}"\n'
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b'{{"version": {version}}}'}})
"""
HEAVY = "pandas"
SLOWEST_S = 20.0


def reload(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Each edit is a whole save (write beside, rename); the clock stops at the first answer of the
    new code to a client that asks again and again."""
    edits = 10 if options.quick else EDITS
    rows = []
    with Run(options) as run:
        modules = [""]
        if _has(options.python, HEAVY):
            modules.append(HEAVY)
        else:
            say(f"no {HEAVY} beside funcrt: its row is left out ({options.python} -m pip install)")
        port, idle = _dev(run, modules)
        for module in modules:
            name = module or "plain"
            file = run.dir / "functions" / name / "main.py"
            url = f"http://127.0.0.1:{port}/{name}"
            row = _measure(run, file, url, edits, code=lambda n, m=module: _code(n, m))
            rows.append({"name": f"funcrt dev, {module or 'a plain function'}", **row})
        rows[0]["idle CPU %"] = idle
    with Run(options) as run:
        file = run.dir / "app.py"
        file.write_text(APP.format(version=0))
        port = free_port()
        argv = [options.python, "-m", "uvicorn", "app:app", "--reload", "--port", str(port)]
        run.spawn([*argv, "--app-dir", run.dir, "--reload-dir", run.dir])
        url = f"http://127.0.0.1:{port}/"
        row = _measure(run, file, url, edits, "GET", code=lambda n: APP.format(version=n))
        rows.append({"name": "uvicorn --reload, a plain app", **row})
    return rows


def _has(python: str, module: str) -> bool:
    import subprocess

    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def _code(version: int, module: str) -> str:
    return CODE.format(version=version, imports=f"import {module}\n\n" if module else "")


def _dev(run: Run, modules: list[str]) -> tuple[int, float]:
    """Start it on a function for each module; its port, and what it takes while nothing happens."""
    for module in modules:
        where = run.dir / "functions" / (module or "plain")
        where.mkdir(parents=True)
        (where / "main.py").write_text(_code(0, module))
        (where / "funcrt.toml").write_text(MANIFEST.format(name=module or "plain"))
    port = free_port()
    argv = [run.options.python, "-m", "funcrt", "dev", run.dir / "functions"]
    run.spawn([*argv, "--port", str(port), "--data", run.dir / "data"])
    wait_until("funcrt dev", lambda: listens(port))
    time.sleep(3)
    began, used = time.perf_counter(), cpu_s(run.system())
    time.sleep(3)
    took = cpu_s(run.system()) - used
    return port, took / (time.perf_counter() - began) * 100


def _measure(
    run: Run, file: Path, url: str, edits: int, method: str = "POST", *, code: Callable[[int], str]
) -> Row:
    """Edit after edit, each while the last one is answering."""
    import httpx

    took = []
    with httpx.Client() as client:

        def version() -> int | None:
            try:
                answer = client.request(method, url, json={} if method == "POST" else None)
                return int(answer.json()["version"]) if answer.status_code == 200 else None
            except (httpx.TransportError, ValueError):
                return None

        def wait(number: int) -> None:
            end = time.perf_counter() + SLOWEST_S
            while version() != number:
                if time.perf_counter() > end:
                    raise BenchmarkFailed(f"{url}: version {number} not within {SLOWEST_S:.0f} s")
                time.sleep(0.001)

        wait(0)
        for number in range(1, edits + 1):
            time.sleep(0.15)
            beside = file.with_name(f".{file.name}.swp")
            beside.write_text(code(number))
            began = time.perf_counter()
            beside.rename(file)
            wait(number)
            took.append((time.perf_counter() - began) * 1000)
    return {
        "p50 ms": percentile(took, 50),
        "p99 ms": percentile(took, 99),
        "max ms": max(took),
        "samples": str(edits),
        "PSS MB": pss_mb(run.system()),
    }
