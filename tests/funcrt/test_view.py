"""What a function is shown by `sandbox.files` is what its names led to when that was looked at,
whoever changes them meanwhile; and nothing is made where they lead since."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from funcrt.errors import SandboxError
from funcrt.sandbox import Code
from funcrt.sandbox.levels import Level, Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.protocol import Call, Result
from mesh import Event

LEVELS: list[Level] = ["process", "sandbox"]
READS = """
import os
def handler(event):
    return {path: sorted(os.listdir(path)) for path in event.json()}
"""
SWAPPED = """
import os
from funcrt.sandbox import kernel
def mount(source, target, kind, *more, was=kernel.mount):
    if kind == "tmpfs" and os.path.exists({armed!r}) and not os.path.islink({name!r}):
        os.rename({name!r}, {name!r} + ".before")
        os.symlink({target!r}, {name!r})
    was(source, target, kind, *more)
kernel.mount = mount
"""
"""Another process changes a name once it was looked at, before anything is shown or made."""


@contextlib.contextmanager
def swapped(name: Path, target: str, armed: Path) -> Iterator[None]:
    """Runtime zygotes that are started meanwhile find it so, once `armed` is there."""
    started = subprocess.Popen

    def start(command: list[Any], **more: Any) -> Any:
        before, imported, after = str(command[-1]).partition("from funcrt.sandbox.runtime")
        patch = f"exec({SWAPPED.format(name=str(name), target=target, armed=str(armed))!r});"
        return started([*command[:-1], before + patch + imported + after], **more)

    with mock.patch("subprocess.Popen", start):
        yield


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that the function's own /tmp does not hide while its tree is made."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def function(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "function"
    path.mkdir()
    (path / "main.py").write_text(READS)
    return path


@contextlib.asynccontextmanager
async def at(level: Level) -> AsyncIterator[ProcessSandbox]:
    sandbox = ProcessSandbox(policy=Policy(forced=level))
    await sandbox.start()
    try:
        if level in await sandbox.probed():
            pytest.skip(sandbox.missing[level])
        yield sandbox
    finally:
        await sandbox.close()


def code(path: Path, *files: Path) -> Code:
    return Code(name="f", version="1", path=path, files=tuple(map(str, files)))


async def listed(zygote: ProcessZygote, *paths: Path) -> Any:
    came: asyncio.Queue[Any] = asyncio.Queue()
    instance = await zygote.spawn(
        lambda _, messages: came.put_nowait(messages), lambda _, ended: came.put_nowait([ended])
    )
    event = Event("1", "/s", "t", data=json.dumps(list(map(str, paths))).encode())
    instance.send([Call(1, "t", [event], 1, 5, 0, "scope")])
    async with asyncio.timeout(10):
        (found,) = await came.get()
    assert isinstance(found, Result), found
    assert found.status == "ok", found.failure
    return json.loads(found.outputs[0].event.data or b"")


@pytest.mark.parametrize("out", ["/old{}", "{}"], ids=["the old root", "the root"])
def test_a_name_that_leads_elsewhere_by_then_shows_what_was_there(
    tmp_path: Path, function: Path, out: str
) -> None:
    (tmp_path / "secret" / "key").mkdir(parents=True)
    models = tmp_path / "models"
    (models / "weights").mkdir(parents=True)

    async def main() -> None:
        with swapped(models, out.format(tmp_path / "secret"), tmp_path / "armed"):
            async with at("sandbox") as sandbox:
                (tmp_path / "armed").touch()
                zygote = await sandbox.load(code(function, models))
                assert models.is_symlink()
                assert await listed(zygote, models) == {str(models): ["weights"]}

    asyncio.run(main())


@pytest.mark.parametrize("out", ["/old{}", "{}"], ids=["the old root", "the root"])
def test_nothing_is_made_where_a_name_leads_by_then(
    outside: Path, function: Path, out: str
) -> None:
    (outside / "victim").mkdir()
    inner = outside / "models" / "inner"
    (inner / "a" / "weights").mkdir(parents=True)
    (outside / "current").symlink_to(outside / "models")
    files = outside / "current", outside / "current" / "inner" / "a" / "weights"

    async def main() -> None:
        with swapped(inner, out.format(outside / "victim"), outside / "armed"):
            async with at("sandbox") as sandbox:
                (outside / "armed").touch()
                with contextlib.suppress(SandboxError):  # to refuse it would do as well
                    await sandbox.load(code(function, *files))
        assert inner.is_symlink()
        assert list((outside / "victim").iterdir()) == []

    asyncio.run(main())


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_that_leads_elsewhere_later_is_looked_at_again(
    tmp_path: Path, function: Path, level: Level
) -> None:
    for name in ("data/code", "other", "one/first", "two/second"):
        (tmp_path / name).mkdir(parents=True)
    sock = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(tmp_path), sock:
        sock.bind("socket")
    current = tmp_path / "current"

    async def main() -> None:
        async with at(level) as sandbox:
            sandbox.apart = lambda name: [tmp_path / "data", tmp_path / "other"]
            for target, there in (("one", "first"), ("two", "second")):
                current.unlink(missing_ok=True)
                current.symlink_to(tmp_path / target)
                zygote = await sandbox.load(code(function, current))
                assert await listed(zygote, current) == {str(current): [there]}
                await zygote.stop()
            kept = "would show it what is the host's, or another function's"
            for target, why in {
                "data": kept, "data/code": kept, "other": kept, ".": kept,
                "/run": "is where services have", "/proc/self": "shows processes, devices",
                "socket": "is a socket; only files and directories can be shown",
            }.items():  # fmt: skip
                current.unlink()
                current.symlink_to(tmp_path / target)
                with pytest.raises(SandboxError) as found:
                    await sandbox.load(code(function, current))
                real = "" if target == "/proc/self" else f"{os.path.realpath(current)}, which "
                assert f"sandbox.files: {current}: leads to {real}" in str(found.value)
                assert why in str(found.value)
            current.unlink()
            await (await sandbox.load(code(function, current))).stop()  # as where it never was

    asyncio.run(main())


def test_links_and_names_with_dots_are_there_as_on_the_host(tmp_path: Path, function: Path) -> None:
    (tmp_path / "v1" / "inner").mkdir(parents=True)
    (tmp_path / "far" / "models").mkdir(parents=True)
    (tmp_path / "far" / "file").write_text("")
    (tmp_path / "v1" / "models").symlink_to(tmp_path / "far" / "models")
    (tmp_path / "current").symlink_to("v1")
    dotted = tmp_path / "v1" / "inner" / ".." / ".." / "far" / "file"
    files = tmp_path / "current", tmp_path / "current" / "models", dotted

    async def main() -> None:
        async with at("sandbox") as sandbox:
            zygote = await sandbox.load(code(function, *files))
            looked = [*files[:2], tmp_path, tmp_path / "far", dotted.parent]
            found = await listed(zygote, *looked)
            assert list(found.values()) == [
                ["inner", "models"], [], ["current", "far", "function", "v1"],
                ["file", "models"], ["file", "models"],
            ]  # fmt: skip

    asyncio.run(main())
