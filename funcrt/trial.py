"""A function's directory called in the real sandbox, as a host would run it, without a mesh."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from funcrt import bundle
from funcrt.asked import asked_by
from funcrt.env_file import NAME, read_env
from funcrt.errors import LoadError
from funcrt.gathered import Gathered, Response
from funcrt.host import code_of
from funcrt.manifest import Manifest, load_manifest, needs_of
from funcrt.outcome import origin_of
from funcrt.packages import Packages
from funcrt.pool import GRACE_S
from funcrt.pythons import python_of
from funcrt.rollout import placed
from funcrt.sandbox import Exit, Instance, Zygote
from funcrt.sandbox.process import ProcessSandbox
from funcrt.sandbox.protocol import (
    ENDS,
    Call,
    Failure,
    FromInstance,
    Log,
    Result,
    Started,
    Taken,
    weight,
)
from funcrt.sandbox.secrets import NO_SECRETS, Secrets
from funcrt.secrets import SecretStore, apart
from funcrt.shown import check_files
from mesh.event import Event

__all__ = ["NAMESPACE", "Trial", "Tried", "trial"]

NAMESPACE = "default"


class Tried(msgspec.Struct, frozen=True):
    """One call: how it ended, and how long that took."""

    result: Result
    took_s: float
    fork_s: float | None
    """Of the instance, where the call needed a new one."""
    response: Response | None = None


class Trial:
    """A loaded function. Calls come one at a time; an instance that died is replaced."""

    def __init__(self, manifest: Manifest, zygote: Zygote, secrets: Secrets = NO_SECRETS) -> None:
        self.secrets = secrets
        self.manifest = manifest
        self.zygote = zygote
        self.logs: list[Log] = []
        """What the function has written, to `ctx.log` and to its outputs."""
        self._instance: Instance | None = None
        self._answer: asyncio.Future[Result] | None = None
        self._numbers = 0
        self._gathered = Gathered()

    async def call(self, trigger: str, events: Sequence[Event]) -> Tried:
        """Call once: on one event, or on a batch. Raises SandboxError."""
        loop = asyncio.get_running_loop()
        forked = None
        if self._instance is None:
            started = time.perf_counter()
            self._instance = await self.zygote.spawn(self._said, self._exited, self.secrets)
            forked = time.perf_counter() - started
        instance = self._instance
        self._numbers += 1
        manifest = self.manifest
        limit = manifest.timeout_s
        self._answer = loop.create_future()
        self._gathered = Gathered()
        asked = asked_by(manifest, events[0])
        trigger, http = asked or (trigger, None)
        scope = origin_of(manifest, NAMESPACE, trigger).scope
        most = manifest.retry.attempts
        call = Call(self._numbers, trigger, list(events), 1, most, limit, scope, [], http)
        started = time.perf_counter()
        instance.send([call])
        timer = None
        if limit:
            late = f"took longer than {limit:g} s"
            timer = loop.call_later(limit + GRACE_S, instance.kill, late)
        result = await self._answer
        if timer is not None:
            timer.cancel()
        took = time.perf_counter() - started
        return Tried(result, took, forked, self._gathered.response)

    def _said(self, instance: Instance, messages: Sequence[FromInstance]) -> None:
        for message in messages:
            if isinstance(message, Log):
                self.logs.append(message)
            elif isinstance(message, Result):
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(self._gathered.result(message))
            elif not isinstance(message, Started):
                self._gathered.add(message)
                instance.send([Taken(message.id, weight(message))])

    def _exited(self, _: Instance, ended: Exit) -> None:
        self._instance = None
        if self._answer is not None and not self._answer.done():
            late = ended.reason.startswith("took longer")
            error, status = ENDS.get(ended.limit, "InstanceDied"), "crash"
            if late:
                error, status = "TimeoutError", "timeout"
            why = Failure(error, ended.reason)
            self._answer.set_result(Result(self._numbers, status, [], why))


@asynccontextmanager
async def trial(
    directory: Path,
    profile: str = "",
    *,
    secrets: Path | None = None,
    packages: Path | None = None,
) -> AsyncIterator[Trial]:
    """Pack, unpack and import a function's directory as a deployment does, and end its processes
    in the end. Its secrets are those that `funcrt dev` would find, with that directory of them.
    What it needs is installed below `packages`; without that, the environment here has to have it.
    Raises ManifestError, EnvFileInvalid, FilesRefused, SecretsMissing, BundleError, PythonMissing,
    PythonUnusable, LoadError, SandboxError."""
    manifest = load_manifest(directory, profile)
    check_files(manifest.name, manifest.sandbox.files)
    known = SecretStore(secrets, os.environ, local=True)
    if manifest.secrets:
        _, given = apart(read_env([Path(NAME), directory / NAME]), manifest.secrets)
        known.give(manifest.name, given)
    values = known.read(manifest.name, manifest.secrets)
    packed = bundle.pack(directory)
    sandbox = ProcessSandbox()
    with tempfile.TemporaryDirectory(prefix="funcrt-") as root:
        Path(root).chmod(0o711)  # noqa: ASYNC240 - the function may run as another user
        path = bundle.unpack(packed.body, packed.digest, Path(root))
        await sandbox.start()
        try:
            try:
                install = packages is not None
                store = Packages(packages or Path(root), sandbox.workshop, install=install)
                needs = needs_of(path, manifest)
                python = await python_of(manifest, needs, store)
                installed = await store.get(
                    manifest.name, needs, builds=manifest.source_builds, python=python
                )
                code = code_of(manifest, packed.digest[:12], path, {}, installed, python=python)
                zygote = await sandbox.load(code)
            except LoadError as error:
                raise placed(error, directory) from None
            yield Trial(manifest, zygote, values)
        finally:
            await sandbox.close()
