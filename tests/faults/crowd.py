"""Ten thousand connections that do nothing, or next to nothing, while a neighbour calls a function.

`python -m tests.faults.crowd` for the figures; `--files 256 --connections 300` for a host that may
open few files. The connections come from several addresses of 127/8, which have ports of their own.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import tempfile
import time
from pathlib import Path

import msgspec

from tests.serving import Serving

FUNCTION = """
def handler(event):
    return {"seen": event.id}
---
[output]
topic = "out"
"""
HEAD = b"POST /functions/echo HTTP/1.1\r\nHost: localhost\r\n"
OF_AN_ADDRESS = 5000
CALL = HEAD + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Seen(msgspec.Struct):
    """What a crowd led to."""

    opened: int
    held: int
    """Files that the host had open beside the crowd's, at the most."""
    rss: int
    alone_ms: tuple[float, float]
    """p50 and p99 of a neighbour's calls without a crowd."""
    crowded_ms: tuple[float, float]
    failed: int
    """Of the neighbour's calls."""
    idle_cpu: float
    """CPU seconds a second of the host while the crowd stands still."""


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def calls(port: int, count: int) -> tuple[list[float], int]:
    """A neighbour's calls, each on a connection of its own: milliseconds, and how many failed."""
    took: list[float] = []
    failed = 0
    for _ in range(count):
        started = time.perf_counter()
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(CALL)
                failed += not (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                writer.close()
        except OSError:
            failed += 1
        took.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.005)
    return took, failed


def quantiles(took: list[float]) -> tuple[float, float]:
    took = sorted(took)
    return round(took[len(took) // 2], 1), round(took[int(len(took) * 0.99)], 1)


async def slow(writer: asyncio.StreamWriter) -> None:
    """A byte now and then: of a head, or of a body."""
    with contextlib.suppress(OSError):
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.5)


async def crowd(host: Serving, count: int, *, unix: str = "") -> Seen:
    """Open `count` connections, a third each idle, slow within a head and slow within a body; or
    idle ones to the Unix socket at `unix`."""
    pid = host.process.pid
    alone, _ = await calls(host.port, 100)
    gate = asyncio.Semaphore(200)

    async def one(n: int) -> asyncio.StreamWriter | None:
        async with gate:
            try:
                if unix:
                    _, writer = await asyncio.open_unix_connection(unix)
                else:
                    here = (f"127.0.0.{2 + n // OF_AN_ADDRESS}", 0)
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", host.port, local_addr=here
                    )
                    part = (b"", HEAD, HEAD + b"content-length: 1000000\r\n\r\n")[n % 3]
                    writer.write(part)
            except OSError:
                return None
            return writer

    opened = [w for w in await asyncio.gather(*map(one, range(count))) if w is not None]
    held = files_of(pid)
    before, since = cpu_of(pid), time.monotonic()
    await asyncio.sleep(1.0)
    idle_cpu = (cpu_of(pid) - before) / (time.monotonic() - since)
    tasks = [asyncio.ensure_future(slow(w)) for n, w in enumerate(opened) if n % 3 and not unix]
    took, failed = await calls(host.port, 200)
    held, rss = max(held, files_of(pid)), rss_of(pid)
    for task in tasks:
        task.cancel()
    for writer in opened:
        writer.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Seen(
        len(opened), held, rss, quantiles(alone), quantiles(took), failed, round(idle_cpu, 2)
    )


def raise_own_limit(count: int) -> None:
    """Of open files, as far as the hard limit goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=0, help="the host's limit of open files")
    given = parser.parse_args()
    raise_own_limit(given.connections + 1000)
    with tempfile.TemporaryDirectory() as directory:
        host = Serving(Path(directory) / "data", files=given.files or None, echo=FUNCTION)
        try:
            for unix in ("", f"{directory}/data/mesh.db.sock"):
                seen = asyncio.run(crowd(host, given.connections, unix=unix))
                assert seen.failed == 0, seen
                assert seen.crowded_ms[1] < 1000, seen
                print("mesh socket" if unix else "gateway", msgspec.json.encode(seen).decode())
        finally:
            assert host.stop(15) == 0


if __name__ == "__main__":
    main()
