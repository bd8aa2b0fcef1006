"""From a save to the new code's first answer: `funcrt dev` beside `uvicorn --reload`."""

import subprocess
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
CODE = "{imports}def handler(event):\n    return {{'version': {version}}}\n{longer}"
MANIFEST = '[[trigger]]\nkind = "http"\npath = "/{name}"\n'
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b'{{"version": {version}}}'}})
{longer}"""
HEAVY = "pandas"
SLOWEST_S = 20.0
SETTLE_S = 1.0
"""Between the first answer and the first edit: `uvicorn` answers before it watches, and never sees
what is saved until then."""


def reload(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Each edit is a whole save (write beside, rename); the clock stops at the first answer of the
    new code to a client that asks again and again."""
    edits = 10 if options.quick else EDITS
    rows = []
    with Run(options) as run:
        modules = ["", HEAVY]
        port, idle = _dev(run, _with(run, HEAVY, say), modules)
        for module in modules:
            name = module or "plain"
            file = run.dir / "functions" / name / "main.py"
            url = f"http://127.0.0.1:{port}/{name}"
            row = _measure(run, file, url, edits, code=lambda n, m=module: function_code(n, m))
            rows.append({"name": f"funcrt dev, {module or 'a plain function'}", **row})
        rows[0]["idle CPU %"] = idle
    with Run(options) as run:
        file = run.dir / "app.py"
        file.write_text(app_code(0))
        port = free_port()
        argv = [options.python, "-m", "uvicorn", "app:app", "--reload", "--port", str(port)]
        run.spawn([*argv, "--app-dir", run.dir, "--reload-dir", run.dir])
        url = f"http://127.0.0.1:{port}/"
        row = _measure(run, file, url, edits, "GET", code=app_code)
        rows.append({"name": "uvicorn --reload, a plain app", **row})
    return rows


def _with(run: Run, package: str, say: Callable[[str], None]) -> str:
    """A Python with what funcrt needs and a package: funcrt's own where it is there, or one of an
    environment that lasts as long as the run. Raises BenchmarkFailed where it can't be installed.
    """
    python = run.options.python
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    if subprocess.run([python, "-c", found], check=False).returncode == 0:
        return python
    say(f"  installs {package} for this run")
    made = str(run.dir / "env" / "bin" / "python")
    _do(python, "-m", "venv", "--without-pip", str(run.dir / "env"))
    _do(python, "-m", "pip", "--python", made, "install", "--quiet", package)
    places = "import sysconfig; print(sysconfig.get_path('purelib'))"
    (Path(_do(made, "-c", places)) / "funcrt.pth").write_text(_do(python, "-c", places))
    return made


def _do(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkFailed(f"{' '.join(argv)}: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


def function_code(version: int, module: str) -> str:
    imports = f"import {module}\n\n" if module else ""
    return CODE.format(version=version, imports=imports, longer=_longer(version))


def app_code(version: int) -> str:
    return APP.format(version=version, longer=_longer(version))


def _longer(version: int) -> str:
    """Makes each version longer than the one before. Python takes what it has compiled for the
    source as it is now where both size and mtime, in whole seconds, are the same: two edits of the
    same length in a second, and a reloader that imports from the file goes on with the first."""
    return f"# {'.' * version}\n"


def _dev(run: Run, python: str, modules: list[str]) -> tuple[int, float]:
    """Start it on a function for each module; its port, and what it takes while nothing happens."""
    for module in modules:
        where = run.dir / "functions" / (module or "plain")
        where.mkdir(parents=True)
        (where / "main.py").write_text(function_code(0, module))
        (where / "funcrt.toml").write_text(MANIFEST.format(name=module or "plain"))
    port = free_port()
    argv = [python, "-m", "funcrt", "dev", run.dir / "functions"]
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
        time.sleep(SETTLE_S)
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
