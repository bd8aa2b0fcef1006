"""Every sample function: its manifest loads, and it does with its sample events what it says."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from funcrt.manifest import load_manifest
from funcrt.sandbox import Code
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Call, Result
from mesh import Event

ROOT = Path(__file__).parent.parent / "functions"
EXPECTED: dict[str, dict[str, str]] = {
    "badge": {"build": "build: &lt;ok&gt;</text>"},
    "digest": {"opened": '{"events":1,"types":{"issues.opened":1}}'},
    "label": {"large": '{"label":"large"}'},
    "notify": {"bug": "bug: It fails (https://x/1)"},
    "triage": {"opened": '"label":"bug"'},
}


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.iterdir() if path.is_dir()))
def test_a_sample_does_what_it_says(name: str) -> None:
    directory = ROOT / name
    manifest = load_manifest(directory)
    samples = sorted((directory / "events").glob("*.json"))
    assert [path.stem for path in samples] == sorted(EXPECTED[name])

    async def main() -> list[Any]:
        sandbox = ProcessSandbox()
        await sandbox.start()
        results: asyncio.Queue[Result] = asyncio.Queue()
        try:
            code = Code(name=name, version="1", path=directory, handler=manifest.handler)
            zygote = await sandbox.load(code)
            instance = await zygote.spawn(
                lambda _, said: (
                    [results.put_nowait(m) for m in said if isinstance(m, Result)] and None
                ),
                lambda _, ended: None,
            )
            found = []
            for path in samples:
                event = Event.from_json(path.read_bytes())
                instance.send([Call(1, "t", [event], 1, 1, 10.0, "scope")])
                async with asyncio.timeout(10):
                    result = await results.get()
                assert result.status == "ok", result.failure
                found.append((result.outputs[0].event.data or b"").decode())
            return found
        finally:
            await sandbox.close()

    for path, made in zip(samples, asyncio.run(main()), strict=True):
        assert EXPECTED[name][path.stem] in made
