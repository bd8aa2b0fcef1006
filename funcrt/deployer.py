"""What changes which functions are in service, and how they are kept: one change at a time, each
recorded in the mesh's log before whoever asked for it is told."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from funcrt import bundle, registry
from funcrt.deployments import Queue
from funcrt.errors import DeployError, FuncrtError, FunctionUnknown
from funcrt.manifest import Manifest, ScaleSpec
from funcrt.packages import Installed
from funcrt.registry import Change, Deployment, Line, Source
from funcrt.sandbox import Code, HandlerInfo
from funcrt.tasks import Tasks
from mesh.errors import MeshError
from mesh.transport import Subscription

if TYPE_CHECKING:
    from funcrt.function import Function
    from funcrt.host import Host

__all__ = ["Deployer", "Done", "NotRecorded", "Prepared", "VersionUnknown"]

_UNPACKED = re.compile(r"[0-9a-f]{64}")


class NotRecorded(DeployError):
    """A host that keeps no log of deployments was asked to change it."""

    def __init__(self) -> None:
        super().__init__(
            "this host is `funcrt dev`: it serves what its folders hold, and nothing is deployed to"
            " it or removed from it; use `funcrt serve`"
        )


class VersionUnknown(DeployError):
    """A function has no such version."""

    def __init__(self, name: str, asked: str, line: Line) -> None:
        self.name = name
        last = line.versions[-1].number
        there = f"there are v1 to v{last}" if last > 1 else "there is v1 alone"
        found = f"no version {asked!r}" if asked else "no version before the one in service"
        super().__init__(f"{name} has {found}; {there}")


class BlobGone(DeployError):
    """A version whose code the mesh has no more."""

    def __init__(self, deployment: Deployment) -> None:
        name, number = deployment.name, deployment.number
        super().__init__(f"{name} v{number}: its code is not in the mesh; deploy it again")


class Prepared(msgspec.Struct, frozen=True):
    """A version that was packed and imported, and is not in service yet."""

    manifest: Manifest
    packed: bundle.Bundle
    code: Code
    info: HandlerInfo
    source: Source = Source()
    installed: Installed | None = None
    """What it needs; None for nothing."""
    folder: Path | None = None
    """What it was packed from, where that is a directory."""


@dataclass
class Done:
    """A version that came into service, or was in it already."""

    made: Prepared
    function: "Function"
    was: Deployment | None
    """What was in service before."""
    swapped: bool
    """Whether another version was in service in this host before, or none."""
    before: "Function | None" = None
    """The version that is to be retired."""
    in_flight: int = 0
    """Calls that ran on it."""
    cut: int | None = None
    """How many of those were given back, once it is drained."""
    swap_s: float = 0.0


class Deployer:
    """One host's. Changes wait for each other; what drains does not keep the next one waiting."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.recording = True
        """Whether deployments are kept in the log: not in `funcrt dev`, whose folders say what is
        in service."""
        self.lock = asyncio.Lock()
        self.draining: list[Function] = []
        self._tasks = Tasks(host.failed)

    # Versions

    async def put(self, made: Sequence[Prepared]) -> list[Done]:
        """Put these into service, in the place of the versions before, which are to be `retired`:
        all of them, or none. Raises MeshError."""
        async with self.lock:
            return await self.put_locked(made)

    async def put_locked(self, made: Sequence[Prepared]) -> list[Done]:
        """As `put`, by a caller that holds the lock."""
        host, mesh = self.host, self.host.mesh
        current = await registry.load(mesh)
        new = [one for one in made if not _same(current.get(one.manifest.name), one)]
        if new:
            await registry.keep(mesh, [one.packed for one in new])
        swapped: list[Done] = []
        try:
            # Last what may be refused only now, or cannot be undone without a trace.
            for one in sorted(made, key=self._moves):
                swapped.append(await self._swap(one, current.get(one.manifest.name)))
            rows = [(one.manifest, one.packed.digest, one.source) for one in new]
            if new:
                current = await registry.deploy_all(mesh, rows, host.clock.time())
        except MeshError:
            for done in reversed(swapped):
                if done.swapped:
                    await host.put_back(done.function, done.before)
            raise
        for done in swapped:
            deployment = done.function.deployment = current[done.function.name]
            if deployment.scale is not None:
                done.function.bound(_within(done.function, deployment.scale))
            if done.before is not None:
                self.draining.append(done.before)
        swapped.sort(key=lambda done: made.index(done.made))
        return swapped

    def _moves(self, one: Prepared) -> bool:
        """Whether a trigger of a version in service is on another topic in this one."""
        now = self.host.deployed.get(one.manifest.name)
        topics = (
            {served.spec.name: served.spec.topic for served in now.mesh_triggers} if now else {}
        )
        new = {t.name: t.topic for t in one.manifest.triggers if hasattr(t, "topic")}
        return any(topics.get(name, topic) != topic for name, topic in new.items())

    async def _swap(self, one: Prepared, was: Deployment | None) -> Done:
        host = self.host
        now = host.deployed.get(one.manifest.name)
        if now is not None and now.serves(one.manifest, one.code):
            return Done(one, now, was, swapped=False)
        began = time.perf_counter()
        in_flight = now.pool.in_flight if now is not None else 0
        function, before = await host.swap(one, paused=was is not None and was.paused)
        took = time.perf_counter() - began
        return Done(one, function, was, True, before, in_flight, swap_s=took)

    async def retired(self, done: Sequence[Done]) -> None:
        """Wait until the versions before have ended what they ran."""
        old = [one for one in done if one.before is not None]
        cut = await asyncio.gather(*(self._retire(one.before) for one in old if one.before))
        for one, count in zip(old, cut, strict=True):
            one.cut = count
        async with self.lock:
            await self.sweep()

    async def _retire(self, before: "Function") -> int:
        try:
            return await self.host.retire(before)
        finally:
            self.draining.remove(before)

    def retire_later(self, done: Sequence[Done]) -> None:
        """As `retired`, without a wait."""
        self._tasks.start(self.retired(done), "retire")

    async def sweep(self) -> None:
        """Remove the unpacked code of versions that are not in service; it can be made again of
        their blobs, where they are recorded. And packages that nobody uses. By a caller that holds
        the lock."""
        host = self.host
        codes = [each.pool.code for each in (*host.deployed.values(), *self.draining)]
        used = {code.path.name for code in codes}
        unpacked = self.recording and host.code_root.is_dir()
        for directory in list(host.code_root.iterdir()) if unpacked else ():
            if _UNPACKED.fullmatch(directory.name) and directory.name not in used:
                # Renamed first: half a directory of that name would pass for a whole one.
                hidden = tempfile.mkdtemp(prefix=bundle.UNPACKING, dir=host.code_root)
                directory.rename(f"{hidden}/{directory.name}")
                await asyncio.to_thread(shutil.rmtree, hidden, ignore_errors=True)
        needed = [code.packages for code in codes if code.packages]
        needed += [Path(code.python.library) for code in codes if code.python]
        await host.packages.swept(needed)

    async def close(self, seconds: float) -> None:
        """Give what still drains so long."""
        await self._tasks.finish(seconds)

    # At start

    async def restore(self, but: Collection[str]) -> list[tuple[Deployment, Exception]]:
        """Bring back what was deployed over the API, but for functions of these names. Returns
        those that cannot be: they stay out of service until they are deployed or the next start."""
        found: list[tuple[Deployment, Exception]] = []
        async with self.lock:
            for name, one in sorted((await registry.load(self.host.mesh)).items()):
                if name in but or one.source.kind == "serve":
                    continue
                try:
                    await self.put_locked([await self.again(one)])
                except (FuncrtError, MeshError) as error:
                    found.append((one, error))
        return found

    async def settle_in(self) -> list[Deployment]:
        """Once all is in service: functions of directories that are not served any more are
        recorded as removed, and returned; and queues that nobody serves take no more, but for those
        of such functions."""
        host = self.host
        async with self.lock:
            lines = registry.history(await host.mesh.records(registry.KIND))
            gone = [
                line.current
                for name, line in sorted(lines.items())
                if line.current
                and line.current.source.kind == "serve"
                and name not in host.deployed
            ]
            now = host.clock.time()
            if gone:
                changes = [Change(op="remove", name=one.name, at=now) for one in gone]
                await registry.append(host.mesh, changes)
            for subscription in await host.mesh.subscriptions():
                function = host.deployed.get(subscription.function)
                served = {each.name for each in function.mesh_triggers} if function else None
                line = lines.get(subscription.function)
                removed = line and line.removed and line.removed.kind == "api"
                if removed or (served is not None and subscription.name not in served):
                    await self._silence(subscription)
            await self.sweep()
        return gone

    async def _silence(self, subscription: Subscription) -> None:
        """The router speaks for it from now on, and does not name it: it keeps what it has."""
        if subscription.mode != "broadcast" or subscription.host == self.host.host_id:
            await (await self.host.mesh.subscribe(subscription)).close()

    async def again(self, one: Deployment, source: Source | None = None) -> Prepared:
        """A version of the log, prepared from its blob. Raises BlobGone, LoadError, DeployError."""
        body = await self.host.mesh.get_blob(one.digest)
        if body is None:
            raise BlobGone(one)
        packed = bundle.Bundle(one.digest, body)
        made = await self.host.prepare(one.manifest, self.host.code_root, packed=packed)
        return msgspec.structs.replace(made, source=source or one.source)

    async def rollback(self, name: str, asked: str, by: str) -> Done:
        """Put an earlier version into service again, as a version of its own: `v3`, the beginning
        of a digest, or "" for the one before. To be `retired`. Raises VersionUnknown and what
        `again` does."""
        self.check_recording()
        async with self.lock:
            line = await registry.versions(self.host.mesh, name)
            one = _chosen(name, asked, line)
            kind = (line.current or one).source.kind
            if line.current is None:
                kind = "api"
            source = Source(
                kind=kind, path=one.source.path, profile=one.source.profile, by=by, of=one.number
            )
            (done,) = await self.put_locked([await self.again(one, source)])
            return done

    # How it is kept

    async def pause(self, name: str) -> bool:
        """Stop it from taking more; whether it did. Raises FunctionUnknown."""
        async with self.lock:
            function = self.host.function(name)
            if function.paused:
                return False
            await self._record(Change(op="pause", name=name, at=self.host.clock.time()))
            await function.pause()
            return True

    async def resume(self, name: str) -> bool:
        """Let it go on; whether it was paused. Raises FunctionUnknown."""
        async with self.lock:
            function = self.host.function(name)
            if not function.paused:
                return False
            await self._record(Change(op="resume", name=name, at=self.host.clock.time()))
            function.resume()
            return True

    async def scale(self, name: str, bounds: tuple[int, int] | None) -> tuple[int, int]:
        """Scale within these bounds until the next version, or again within the manifest's; what
        holds now. Raises FunctionUnknown."""
        async with self.lock:
            function = self.host.function(name)
            spec = _within(function, bounds)
            change = Change(op="scale", name=name, at=self.host.clock.time(), scale=bounds)
            await self._record(change)
            function.bound(spec)
            return spec.min, spec.max

    async def _record(self, change: Change) -> None:
        if not self.recording:
            return
        await registry.append(self.host.mesh, [change])
        function = self.host.deployed[change.name]
        function.deployment = (await registry.load(self.host.mesh)).get(change.name)

    # Out of service

    async def remove(
        self, name: str, *, purge: bool, by: str
    ) -> tuple[Deployment | None, list[Queue]]:
        """Take a function out of service, once what runs has finished; with `purge` its queues and
        dead letters too, else they stay and take no more. Returns the version that was in service,
        and the queues. Raises FunctionUnknown."""
        self.check_recording()
        host = self.host
        async with self.lock:
            was = (await registry.load(host.mesh)).get(name)
            mine = [one for one in await host.mesh.subscriptions() if one.function == name]
            if was is None and not (purge and mine):
                raise FunctionUnknown(name, sorted(host.deployed))
            if was is not None:
                source = Source(kind="api", by=by)
                await registry.remove(host.mesh, name, host.clock.time(), source)
            before = await host.withdraw(name) if name in host.deployed else None
            if before is not None:
                self.draining.append(before)
        if before is not None:
            await self._retire(before)
        async with self.lock:
            queues = [await self._left(one) for one in mine]
            if purge and name not in host.deployed:
                for one in mine:
                    await host.mesh.unsubscribe(one.name, purge=True)
            await self.sweep()
        return was, queues

    async def _left(self, one: Subscription) -> Queue:
        depth = await self.host.mesh.depth(one.name)
        dead = 0
        after = 0
        while page := await self.host.mesh.dead_letters(one.name, after=after, limit=1000):
            dead, after = dead + len(page), page[-1].id
        return Queue(one.trigger, depth.ready + depth.leased + depth.delayed, dead)

    def check_recording(self) -> None:
        """Raises NotRecorded where the host's folders say what is in service."""
        if not self.recording:
            raise NotRecorded


def _same(current: Deployment | None, one: Prepared) -> bool:
    return current is not None and current.same(one.packed.digest, one.manifest)


def _within(function: "Function", bounds: tuple[int, int] | None) -> ScaleSpec:
    """How it scales within bounds; None: within its manifest's."""
    spec = function.manifest.scale
    if bounds is None:
        return spec
    return msgspec.structs.replace(spec, min=bounds[0], max=bounds[1])


def _chosen(name: str, asked: str, line: Line) -> Deployment:
    """The version that a rollback goes to. Raises VersionUnknown."""
    now = line.current
    if not asked:
        others = [
            one for one in line.versions if now is None or not now.same(one.digest, one.manifest)
        ]
        if not others:
            raise VersionUnknown(name, "", line)
        return others[-1]
    number = asked.removeprefix("v")
    for one in line.versions:
        if number.isdecimal() and len(number) < 7 and one.number == int(number):
            return one
    found = [one for one in line.versions if len(asked) >= 7 and one.digest.startswith(asked)]
    if not found:
        raise VersionUnknown(name, asked, line)
    return found[-1]
