"""Versions of a function forked from a process that holds their dependencies."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from funcrt.errors import LoadError
from funcrt.sandbox import Code
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from mesh import Event
from tests.funcrt.test_sandbox import Running

CODE = "import wave\n\ndef handler(event):\n    return {version}\n"


def with_sandbox(body: Callable[[ProcessSandbox], Awaitable[None]]) -> None:
    async def main() -> None:
        sandbox = ProcessSandbox(warm=True)
        await sandbox.start()
        try:
            await body(sandbox)
        finally:
            await sandbox.close()

    asyncio.run(main())


def code(root: Path, version: int, source: str = CODE, **more: object) -> Code:
    path = root / str(version)
    path.mkdir(exist_ok=True)
    (path / "main.py").write_text(source.replace("{version}", str(version)))
    return Code(name="f", version=str(version), path=path, **more)  # type: ignore[arg-type]


async def running(zygote: ProcessZygote) -> Running:
    one = Running()
    one.instance = await zygote.spawn(one.on_messages, one.on_exit)
    return one


async def says(one: Running, number: int) -> tuple[int, int]:
    """(the process that the version was forked from, its number)."""
    one.send(number, Event.create("t", {}))
    result = await one.result(number)
    assert result.status == "ok", result.failure
    return parent(parent(one.instance.pid)), result.outputs[0].event.json()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_versions_share_the_process_with_their_dependencies(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        first = await running(await sandbox.load(code(tmp_path, 1)))
        second = await running(await sandbox.load(code(tmp_path, 2)))
        (warm, one), (same, two) = await says(first, 1), await says(second, 1)
        assert (one, two) == (1, 2)
        assert same == warm
        assert parent(parent(warm)) == os.getpid()

    with_sandbox(body)


@pytest.mark.parametrize("change", ["imports", "environment"])
def test_other_dependencies_are_another_process_and_the_old_version_goes_on(
    tmp_path: Path, change: str
) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        first = await running(await sandbox.load(code(tmp_path, 1)))
        warm, _ = await says(first, 1)
        changed = (
            code(tmp_path, 2, "import colorsys\n" + CODE)
            if change == "imports"
            else code(tmp_path, 2, env={"A": "1"})
        )
        zygote = await sandbox.load(changed)
        second = await running(zygote)
        other, two = await says(second, 1)
        assert two == 2
        assert other != warm
        assert await says(first, 2) == (warm, 1)
        await first.instance._owner.stop()
        async with asyncio.timeout(20):  # with its last version the process ends
            while Path(f"/proc/{warm}/stat").exists():
                await asyncio.sleep(0.01)
        assert await says(second, 2) == (other, 2)

    with_sandbox(body)


def test_what_cannot_be_imported_ahead_is_told_as_the_version_s_own_mistake(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        with pytest.raises(LoadError, match=r"main\.py:1: cannot import 'nothere'"):
            await sandbox.load(code(tmp_path, 1, "import nothere\n" + CODE))
        mended = await running(await sandbox.load(code(tmp_path, 2)))
        assert (await says(mended, 1))[1] == 2

    with_sandbox(body)


def test_two_versions_at_once_wait_for_one_process(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        async with asyncio.timeout(20):
            both = await asyncio.gather(*(sandbox.load(code(tmp_path, n)) for n in (1, 2)))
            found = [await says(await running(zygote), 1) for zygote in both]
        assert [version for _, version in found] == [1, 2]
        assert len({warm for warm, _ in found}) == 1

    with_sandbox(body)


def test_a_warm_process_that_was_killed_is_made_again(tmp_path: Path) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        first = await running(await sandbox.load(code(tmp_path, 1)))
        warm, _ = await says(first, 1)
        os.kill(warm, 9)
        await first.until(lambda: first.exit is not None)
        second = await running(await sandbox.load(code(tmp_path, 2)))
        other, two = await says(second, 1)
        assert two == 2
        assert other != warm

    with_sandbox(body)
