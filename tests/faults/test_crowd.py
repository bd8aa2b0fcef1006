"""More connections than a host may open files: it goes on, and others get their turn."""

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.checkpoint import Checkpoints
from mesh.errors import MeshFull
from mesh.store import Store, checkpoint
from tests.faults.crowd import FUNCTION, crowd, files_of
from tests.serving import Serving, until

FILES = 256
CROWD = 300


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    found = Serving(tmp_path_factory.mktemp("few") / "data", files=FILES, echo=FUNCTION)
    yield found
    assert found.stop(15) == 0


@pytest.mark.alone
@pytest.mark.parametrize("door", ["gateway", "mesh"])
def test_a_crowd_keeps_nobody_out(host: Serving, door: str) -> None:
    mesh_socket = f"{host.env['FUNCRT_DATA']}/mesh.db.sock"
    pid = host.process.pid
    before = files_of(pid)
    seen = asyncio.run(crowd(host, CROWD, unix=mesh_socket if door == "mesh" else ""))
    assert seen.opened == CROWD
    assert seen.failed == 0
    assert seen.crowded_ms[1] < 1000
    assert seen.held < FILES - 60, "nothing is left for instances and for the mesh's file"
    assert seen.idle_cpu < 0.5
    until(lambda: files_of(pid) <= before + 4)


def test_a_client_too_many_is_told_so_and_comes_again(host: Serving) -> None:
    url = f"embedded://{host.env['FUNCRT_DATA']}/mesh.db"
    event = mesh.Event("1", "/crowd", "t")

    async def work() -> None:
        held = [await mesh.connect(url) for _ in range(FILES // 8)]
        for one in held:
            await one.topics()
        late = await mesh.connect(url)
        with pytest.raises(MeshFull, match=f"{FILES // 8} processes use this mesh already"):
            await late.publish("late", [event])
        for one in held:
            await one.close()
        await asyncio.sleep(0.2)
        assert (await late.publish("late", [event]))[0].position == "0"
        await late.close()

    asyncio.run(work())


def test_a_checkpoint_that_may_open_no_file_is_made_later(tmp_path: Path) -> None:
    path = str(tmp_path / "mesh.db")
    Store(path).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(sqlite3.OperationalError) as raised:
            checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    stopped: list[sqlite3.Error] = []
    checkpoints: Any = Checkpoints(path, None, None, stopped.append)  # type: ignore[arg-type]
    checkpoints._failed(raised.value)
    assert stopped == []
