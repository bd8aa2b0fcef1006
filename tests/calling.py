"""Calls of a function's directory in a real instance, without a mesh."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from funcrt.gathered import Gathered
from funcrt.manifest import Manifest, MeshTrigger, load_manifest
from funcrt.sandbox import Code
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import Call, Log, Out, Result, Started
from mesh import Event


async def call(
    directory: Path,
    *calls: Sequence[Event],
    trigger: str = "t",
    manifest: Manifest | None = None,
    scope: str = "scope",
) -> list[Result]:
    """What the function answers to each call of one or, for a batch, several events."""
    manifest = manifest or load_manifest(directory)
    sandbox = ProcessSandbox()
    await sandbox.start()
    answers: asyncio.Queue[Result] = asyncio.Queue()
    try:
        code = Code(
            name=manifest.name,
            version="1",
            path=directory,
            handler=manifest.handler,
            env=manifest.env,
            batch=any(isinstance(t, MeshTrigger) and t.batch for t in manifest.triggers),
        )
        zygote = await sandbox.load(code)
        gathered = Gathered()

        def said(_: object, messages: Sequence[object]) -> None:
            for message in messages:
                if isinstance(message, Result):
                    answers.put_nowait(told(gathered, message))
                elif not isinstance(message, Log | Started):
                    gathered.add(message)

        instance = await zygote.spawn(said, lambda _, ended: None)
        found = []
        for events in calls:
            gathered.messages.clear()
            limit = min(10.0, manifest.timeout_s)
            instance.send([Call(1, trigger, list(events), 1, 1, limit, scope)])
            async with asyncio.timeout(10):
                found.append(await answers.get())
        return found
    finally:
        await sandbox.close()


def told(gathered: Gathered, result: Result) -> Result:
    """With what went before it; a response's body as an output."""
    response = gathered.response
    if response is not None:
        return msgspec.structs.replace(result, outputs=[Out(Event("", "", "", data=response.body))])
    return gathered.result(result)
