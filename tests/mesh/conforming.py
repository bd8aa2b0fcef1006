"""The embedded transport's makers for the conformance suite."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import mesh
from mesh.conformance import Maker
from mesh.embedded import FEATURES, Embedded
from mesh.transport import Features

MEMORY = Features(**{**{n: getattr(FEATURES, n) for n in Features.__struct_fields__},
                     "survives_restart": False})  # fmt: skip
TRANSPORTS = {"embedded-file": FEATURES, "embedded-memory": MEMORY}


class FakeClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.mono = 100.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds

    def step_wall(self, seconds: float) -> None:
        self.wall += seconds

    async def wait(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def full(transport: Any) -> AsyncIterator[None]:
    """SQLite refuses to grow the file, as a full disk would."""
    db = transport.engine.store.db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages + 20}")
    try:
        yield
    finally:
        db.execute("PRAGMA max_page_count=1073741823")


def maker(name: str, directory: Any, **always: Any) -> Maker:
    """A new store of one of TRANSPORTS; `always`: options for every opening."""
    clock = FakeClock()
    where = f"embedded://{directory}/mesh.db" if name == "embedded-file" else "embedded::memory:"

    async def open_(**options: Any) -> Any:
        return await mesh.connect(where, clock=clock, host=True, **always, **options)

    async def connect(**options: Any) -> Any:
        return await mesh.connect(where, clock=clock, **options)

    async def crash(transport: Any) -> None:
        assert isinstance(transport, Embedded)
        await transport.crash()

    on_disk = name == "embedded-file"
    return Maker(
        open=open_,
        connect=connect if on_disk else None,
        crash=crash if on_disk else None,
        full=full,
        step_wall=clock.step_wall,
        wait=clock.wait,
        time=clock.time,
        options=frozenset({"retention_s"}),
        tick_s=0.05,
        quiet_s=0.0,
        patience_s=5.0,
        limit_s=30.0,
    )
