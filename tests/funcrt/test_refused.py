"""What R refuses at once is told, also where what it was sent went unread: the kernel says that
first, and once."""

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from funcrt.errors import SandboxError
from funcrt.sandbox import Code
from funcrt.sandbox.forking import tell
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.workshop import Job

WHY = "a control group: no room"


def refuse(body: bytes, descriptors: list[int]) -> None:
    """As R does: it closes the socket with what the host has sent ahead."""
    assert "confine" in msgspec.msgpack.decode(body)
    with socket.socket(fileno=os.dup(descriptors[0])) as control:
        assert control.recv(16, socket.MSG_PEEK), "it was told on its own socket"
    tell(descriptors[0], {"refused": WHY})


@pytest.mark.parametrize("what", ["a function", "an installation"])
def test_what_is_refused_is_told(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handler.py").write_text("def handler(event):\n    return 1\n")

    async def asked(sandbox: ProcessSandbox) -> None:
        if what == "a function":
            await sandbox.load(Code(name="f", version="1", path=tmp_path))
        else:
            place = await sandbox.workshop.place("f", builds=False)
            job = Job(command=["true"], env={}, directory=tmp_path, work=tmp_path)
            await sandbox.workshop.run(job, place)

    async def run() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced="none"))
        await sandbox.start()
        try:
            monkeypatch.setattr(sandbox, "_send", refuse)
            monkeypatch.setattr(sandbox.workshop, "_send", refuse)
            with pytest.raises(SandboxError, match=WHY):
                await asked(sandbox)
        finally:
            monkeypatch.undo()
            await sandbox.close()

    asyncio.run(asyncio.wait_for(run(), 20))
