"""funcrt as shipped: the embedded mesh at `synchronous=FULL`, two instances, deduplication on."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from benchmarks.processes import Run

NAME = "funcrt"
NOTE = "SQLite, synced"
PEER = False

CODE = """
def handler(event):
    data = event.json()
    data["added"] = 1
    return data
"""
MANIFEST = """
[[trigger]]
topic = "in"
filters = [{ exact = { type = "bench" } }]
[output]
topic = "out"
[scale]
min = 2
max = 2
"""


def missing(run: Run) -> str:
    """Why it cannot be run here; empty where it can."""
    return ""


def serve(run: Run, functions: dict[str, tuple[str, str]], mesh: str = "", **env: str) -> int:
    """Start a host with functions of this code and manifest; its gateway's port."""
    for name, (code, manifest) in functions.items():
        where = run.dir / "functions" / name
        where.mkdir(parents=True, exist_ok=True)
        (where / "main.py").write_text(code)
        (where / "funcrt.toml").write_text(manifest)
    host = run.spawn(
        [
            run.options.python,
            "-m",
            "funcrt",
            "serve",
            run.dir / "functions",
            "--data",
            run.dir / "data",
            "--port",
            "0",
            "--json",
            *(("--mesh", mesh) if mesh else ()),
        ],
        talk=True,
        **env,
    )
    return int(run.said(host, "port")["port"])


def function(run: Run, name: str) -> dict[str, Any]:
    """What the host says of a function, as `funcrt ls` shows it."""
    from funcrt.cli.client import AdminClient

    found = AdminClient(run.dir / "data" / "admin.sock").get("functions")["functions"]
    return next(dict(each) for each in found if each["name"] == name)


def start(run: Run) -> str:
    """The mesh's URL."""
    serve(run, {"add": (CODE, MANIFEST)})
    return f"embedded://{run.dir}/data/mesh.db"


class FuncrtClient:
    """Publishes and tails from a process of its own."""

    threads = 0

    def __init__(self, mesh: object) -> None:
        self.mesh = mesh

    async def publish(self, number: int, body: bytes) -> None:
        """One event, stored."""
        from mesh import Event

        event = Event(
            str(number), "/bench", "bench", None, None, "application/json", None, {}, body
        )
        (receipt,) = await self.mesh.publish("in", [event])  # type: ignore[attr-defined]
        assert receipt.status == "stored", receipt

    async def results(self) -> AsyncIterator[Iterable[bytes]]:
        """The function's outputs."""
        async for item in self.mesh.tail("out", "earliest"):  # type: ignore[attr-defined]
            yield (item.event.data,)

    async def close(self) -> None:
        """Let go."""
        await self.mesh.close()  # type: ignore[attr-defined]


async def open_client(address: str) -> FuncrtClient:
    """Connect."""
    import mesh

    return FuncrtClient(await mesh.connect(address))
