"""From zero instances to the first result, the function's zygote alive."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable

from benchmarks.processes import BenchmarkFailed, Options, Run, cpu_s, pss_mb
from benchmarks.systems.funcrt import serve
from benchmarks.table import Row, percentile

CODE = "def handler(event):\n    return {'ok': True}\n"
MANIFEST = """
[[trigger]]
kind = "http"
path = "/cold"
[[trigger]]
topic = "in"
[output]
topic = "out"
[scale]
idle = "50ms"
"""
REQUEST = (
    b"POST /cold HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
FORK = """
import json, os, time
took = []
for _ in range({count}):
    began = time.perf_counter()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, b"x")
        os._exit(0)
    os.read(read, 1)
    took.append((time.perf_counter() - began) * 1000)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
print(json.dumps(took))
"""


def cold(options: Options, say: Callable[[str], None]) -> list[Row]:
    """Wakes by an event and by a call; beside them a new interpreter, and a bare fork."""
    wakes = 50 if options.quick else 200
    with Run(options) as run:
        port = serve(run, {"cold": (CODE, MANIFEST)})
        rows = asyncio.run(ours(run, port, wakes))
    argv = [options.python, "-I", "-S", "-c", "pass"]
    took = []
    for _ in range(wakes):
        began = time.perf_counter()
        subprocess.run(argv, check=True)
        took.append((time.perf_counter() - began) * 1000)
    rows.append(row_of("python -I -S, to its end", took))
    code = FORK.format(count=wakes)
    said = subprocess.run(
        [options.python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    rows.append(row_of("a bare fork, to its first byte", json.loads(said.stdout)))
    return rows


def row_of(name: str, took: list[float]) -> Row:
    """One after the other, so the rate is that of the mean."""
    return {
        "name": name,
        "events/s": 1000 * len(took) / sum(took),
        "p50 ms": percentile(took, 50),
        "p99 ms": percentile(took, 99),
        "samples": str(len(took)),
    }


async def ours(run: Run, port: int, wakes: int) -> list[Row]:
    """Each wake begins when `ls` has said that there is no instance."""
    import httpx

    import mesh
    from mesh import Event

    client = await mesh.connect(f"embedded://{run.dir}/data/mesh.db")
    admin = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(run.dir / "data" / "admin.sock")),
        base_url="http://localhost",
    )
    # A bare connection: a client library takes half as long as a warm call.
    web: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    results: asyncio.Queue[float] = asyncio.Queue()

    async def tail() -> None:
        async for _ in client.tail("out", "earliest"):
            results.put_nowait(time.perf_counter())

    async def publish(number: int) -> float:
        began = time.perf_counter()
        await client.publish("in", [Event(str(number), "/bench", "bench", data=b"{}")])
        return (await results.get() - began) * 1000

    async def call(number: int) -> float:
        if not web:
            web.append(await asyncio.open_connection("127.0.0.1", port))
        answers, requests = web[0]
        began = time.perf_counter()
        requests.write(REQUEST)
        head = (await answers.readuntil(b"\r\n\r\n")).lower()
        await answers.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        took = (time.perf_counter() - began) * 1000
        if not head.startswith(b"http/1.1 200 "):
            raise BenchmarkFailed(f"a call was answered by {head.decode()}")
        await results.get()
        return took

    async def at_zero() -> None:
        while True:
            await asyncio.sleep(0.1)
            (found,) = (await admin.get("/admin/functions")).json()["functions"]
            if not found["instances"] and found["state"] == "zero":
                return

    tailing = asyncio.ensure_future(tail())
    rows, numbers = [], iter(range(1_000_000))
    for name, way in (("publish to result", publish), ("HTTP call", call)):
        for _ in range(3):
            await at_zero()
            await way(next(numbers))
        pids = run.system()
        used, took = cpu_s(pids), []
        for _ in range(wakes):
            await at_zero()
            took.append(await way(next(numbers)))
        row = row_of(f"funcrt from zero, {name}", took)
        await at_zero()
        row["CPU s/1,000"] = (cpu_s(run.system()) - used) / wakes * 1000
        row["PSS MB"] = pss_mb(run.system())
        rows.append(row)
        warm = []
        for _ in range(wakes + 20):
            warm.append(await way(next(numbers)))
        rows.append(row_of(f"funcrt warm, {name}", warm[20:]))
    tailing.cancel()
    await admin.aclose()
    web[0][1].close()
    await client.close()
    return rows
