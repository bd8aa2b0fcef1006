"""The host: subscribes on behalf of functions, runs them, settles what they return."""

import asyncio
import hashlib
import logging
import random
import sys
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from funcrt import bundle
from funcrt.api import Answer, FunctionStatus, HostState, Kind, Reply, Route
from funcrt.calls import TRIGGER, call_topic, call_trigger
from funcrt.deployer import Deployer, Prepared
from funcrt.errors import DataUnwritable, DeployError, FunctionUnknown
from funcrt.function import LEASE_S, Function, Served
from funcrt.idempotency import InFlight
from funcrt.logbook import Logbook
from funcrt.manifest import HttpTrigger, Manifest, MeshTrigger, needs_of
from funcrt.meter import Meter
from funcrt.observation import Observation
from funcrt.observer import Observer
from funcrt.operations import Operations
from funcrt.packages import Installed, Packages
from funcrt.paths import Paths, clash, taken
from funcrt.pythons import python_of
from funcrt.reach import methods, queued
from funcrt.router import Router
from funcrt.sandbox import Code, Sandbox
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.protocol import Http
from funcrt.secrets import SecretStore
from funcrt.settler import Settler
from funcrt.shown import check_apart, check_files
from funcrt.tasks import OnFailure, Tasks
from funcrt.zygotes import Zygotes
from mesh.errors import MeshClosed, MeshError
from mesh.event import Event
from mesh.transport import (
    Clock,
    DeadLetter,
    Feed,
    KeyOf,
    Receipt,
    Subscription,
    Transport,
)
from triggers import Filter

__all__ = ["Host", "Prepared", "code_of"]

log = logging.getLogger("funcrt.host")

SETTLE_S = 5.0
"""What has run gets this long to be settled, however little time a drain has."""
REDRIVEN = 256
"""Dead letters queued again in one transaction, so that none is long."""


def key_of(trigger: MeshTrigger) -> KeyOf | None:
    """The ordering key's reader: an attribute, or a plain path such as `$.customer.id`."""
    if trigger.order != "key":
        return None
    name = trigger.key or "partitionkey"
    if not name.startswith("$"):
        return lambda event: _text(event.attribute(name))
    steps = name.removeprefix("$").removeprefix(".").split(".")

    def read(event: Event) -> str | None:
        try:
            value = event.json()
            for step in steps:
                value = value[step]
        except (MeshError, KeyError, TypeError, IndexError):
            return None
        return _text(value)

    return read


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def code_of(
    manifest: Manifest,
    version: str,
    path: Path,
    env: Mapping[str, str],
    installed: Installed | None = None,
    *,
    python: Interpreter | None = None,
) -> Code:
    """What a sandbox is to load for a manifest, unpacked in `path`; `env` beats the manifest's."""
    return Code(
        name=manifest.name,
        version=version,
        path=path,
        handler=manifest.handler,
        concurrency=manifest.concurrency,
        env={**manifest.env, **env},
        secrets=manifest.secrets,
        isolation=manifest.sandbox.isolation,
        image=manifest.sandbox.image,
        network=manifest.sandbox.network,
        files=tuple(manifest.sandbox.files),
        tmp_bytes=manifest.limits.tmp_bytes,
        memory_bytes=manifest.limits.memory_bytes,
        cpu=manifest.limits.cpu,
        max_output_bytes=manifest.limits.payload_bytes,
        batch=manifest.batches,
        stream=manifest.output.stream,
        queued=bool(queued(manifest)),
        packages=installed.path if installed is not None else None,
        python=python,
    )


class Host:
    """A running host on an open mesh and a started sandbox, neither of which it closes."""

    def __init__(
        self,
        mesh: Transport,
        sandbox: Sandbox,
        clock: Clock,
        code_root: Path,
        *,
        namespace: str = "default",
        host_id: str = "",
        chance: random.Random | None = None,
    ) -> None:
        self.mesh = mesh
        self.zygotes = Zygotes(sandbox)
        self.clock = clock
        self.namespace = namespace
        self.chance = chance or random.Random()
        self.host_id = host_id
        """Names this host's copies of broadcast queues; the same after a restart."""
        self.code_root = code_root
        self.secrets = SecretStore()
        """Where the secrets of functions are found."""
        self.packages = Packages(code_root.parent / "packages")
        self.kept = {"the host's data directory": code_root.parent}
        """What no function is shown by `sandbox.files`, by what it is called."""
        self.durable_code = True
        """Whether unpacked code is synced: not where `code_root` is emptied at each start."""
        self.name_sources = False
        """Whether code names the directory that it was packed from as its place."""
        self.cautions: list[str] = []
        """What an operator is to be told of the host itself, at its start."""
        self.state: HostState = "starting"
        self.recovering = False
        """Functions cannot run just now, as what their processes are made by has ended."""
        self.deployed: dict[str, Function] = {}
        self._routes: Paths[Route] = Paths(())
        self._letters: dict[str, str] = {}
        self._subscribed: dict[str, Function] = {}
        self._changing = asyncio.Lock()
        self.settler = Settler(mesh)
        self.in_flight: dict[str, InFlight] = {}
        """By subscription: the idempotency keys that are with calls, of whichever version."""
        self.deploys = Deployer(self)
        self.operations = Operations(self)
        self.on_failure: OnFailure = lambda error: None
        """Told of an unexpected end of anything that runs here; the host is then to be ended."""
        self.observer: Observer | None = None
        """Told of every call that ended; without one, failures are logged."""
        self.tasks = Tasks(self.failed)
        self.router = Router(clock.time)
        self.logbook = Logbook()
        self._meters: dict[str, Meter] = {}
        self.observation = Observation(self)
        depth_now = getattr(mesh, "ready_now", None)
        self._ready_now: Callable[[str], int] | None = depth_now

    # In and out of service

    async def start(self) -> None:
        """Begin to route and to settle."""
        bundle.sweep(self.code_root)
        self.mesh.set_router(self.router.route)
        self.mesh.set_coming(self._coming)
        self.tasks.start(self.settler.run(), "settler")

    def meter(self, name: str) -> Meter:
        """What counts a function's calls, over all its versions."""
        found = self._meters.get(name)
        if found is None:
            found = self._meters[name] = Meter(self.clock.monotonic())
        return found

    def failed(self, error: BaseException) -> None:
        """Something that runs here ended as it never should."""
        log.critical("the host failed", exc_info=error)
        self.on_failure(error)

    async def prepare(
        self,
        manifest: Manifest,
        directory: Path,
        *,
        packed: bundle.Bundle | None = None,
        env: Mapping[str, str] | None = None,
        together: Collection[str] = (),
        beside: Sequence[Prepared] = (),
    ) -> Prepared:
        """All that can fail, without a change to what is in service. `packed` is the directory's
        bundle where it was made already; `env` is added to the manifest's environment, and beats
        it; `together` are functions that are replaced with it, whose paths it may take over, and
        `beside` those of them that are prepared."""
        features = self.mesh.features
        if manifest.idempotency is not None and not features.idempotency:
            raise DeployError(
                f"{manifest.name}: [idempotency] needs a mesh that remembers keys, and the"
                f" {features.name} transport does not (features.idempotency): remove it, or use"
                " another mesh"
            )
        self.secrets.read(manifest.name, manifest.secrets)
        self._check_files(manifest, directory, beside)
        self.secrets.check_apart(manifest.name, directory, manifest.sandbox.files)
        for caution in self.secrets.cautions(manifest.secrets):
            log.warning("%s", caution)
        packed = packed or bundle.pack(directory)
        # A version is forked from what was confined for those before it: it lies beside them.
        root = self.code_root if self.durable_code else self.code_root / manifest.name
        try:
            path = bundle.unpack(packed.body, packed.digest, root, durable=self.durable_code)
        except OSError as error:
            raise DataUnwritable(f"{manifest.name}: its code", root, error) from None
        self._check_paths(manifest, together)
        version = packed.digest[:12]
        given = self.secrets.rounds.get(manifest.name, 0)
        if env or given:
            here = repr((sorted((env or {}).items()), given))
            version += f"+{hashlib.sha256(here.encode()).hexdigest()[:4]}"
        needs = needs_of(path, manifest)
        python = await python_of(manifest, needs, self.packages)
        installed = await self.packages.get(
            manifest.name, needs, builds=manifest.source_builds, python=python
        )
        code = code_of(manifest, version, path, env or {}, installed, python=python)
        if self.name_sources:
            code = msgspec.structs.replace(code, source=directory.absolute())  # noqa: ASYNC240
        zygote = await self.zygotes.get(code)
        return Prepared(manifest, packed, code, zygote.info, installed=installed, folder=directory)

    async def replace(self, made: Prepared) -> Function:
        """Put it into service, in the place of the version before, which is drained. It is
        recorded as a deployment."""
        (done,) = await self.deploys.put([made])
        await self.deploys.retired([done])
        return done.function

    async def swap(
        self, made: Prepared, *, paused: bool = False
    ) -> tuple[Function, Function | None]:
        """Put it into service, and stop the version before from taking more. Returns both; the
        one before is to be retired. Raises MeshError where the mesh refuses a trigger, such as one
        on another topic while events of the old one wait; the version before then goes on."""
        manifest = made.manifest
        async with self._changing:
            before = self.deployed.get(manifest.name)
            served = [self._served(manifest, trigger) for trigger in queued(manifest)]
            there = {s.name for s in await self.mesh.subscriptions()}
            if f"{manifest.name}/{TRIGGER}" in there:
                served.append(self._served(manifest, call_trigger(manifest.name)))
            function = Function(self, manifest, made.code, made.info, served, paused=paused)
            function.installed, function.folder = made.installed, made.folder
            if before is not None:
                await before.stop_pulling()
            self.deployed[manifest.name] = function
            self._index()
            try:
                for each in function.mesh_triggers:
                    each.feed = await self._subscribe(each)
                    function.made += [each.name] if each.name not in there else []
            except MeshError:
                await self._put_back(function, before)
                raise
            function.start()
        return function, before

    async def put_back(self, function: Function, before: Function | None) -> None:
        """Undo a swap: the version before goes on, and what ran on the new one is given back."""
        async with self._changing:
            await self._put_back(function, before)

    async def _put_back(self, function: Function, before: Function | None) -> None:
        del self.deployed[function.name]
        if before is not None:
            self.deployed[before.name] = before
        self._index()
        await function.drain(0.0)
        await self._let_go(function)
        try:
            for name in function.made:
                await self.mesh.unsubscribe(name, purge=True)
            for served in before.mesh_triggers if before is not None else ():
                await (await self._subscribe(served)).close()  # for what the new version changed
        except MeshError as error:
            log.error("%s: its triggers are not all as they were: %s", function.name, error)
        if before is not None:
            before.start()

    async def retire(self, before: Function) -> int:
        """Let what runs on a version out of service finish, and let go of it; how many calls were
        given back instead, as they took too long."""
        cut = await before.drain(before.manifest.timeout_s or 30.0)
        await self._let_go(before)
        return cut

    async def _let_go(self, function: Function) -> None:
        """Close the feeds of a function that is drained: once its results are committed, or what it
        has run would be given back and run again."""
        await self.settler.flush(SETTLE_S)
        await function.close_feeds()

    async def withdraw(self, name: str) -> Function:
        """Take a function out of service. Its queues stay, and what comes into them. Returns it,
        to be retired. Raises FunctionUnknown."""
        async with self._changing:
            function = self.function(name)
            await function.stop_pulling()
            del self.deployed[name]
            self._index()
        return function

    def _check_files(self, manifest: Manifest, directory: Path, beside: Sequence[Prepared]) -> None:
        """Neither is it shown what is another's, nor another what is its own."""
        name, files = manifest.name, manifest.sandbox.files
        check_files(name, files)
        check_apart(name, files, self.kept)
        others = {one.name: (one.folder, one.manifest) for one in self.deployed.values()}
        others |= {one.manifest.name: (one.folder, one.manifest) for one in beside}
        others.pop(name, None)
        for other, (folder, its) in others.items():
            if folder is None:
                continue
            check_apart(name, files, {f"the folder of {other}": folder})
            check_apart(other, its.sandbox.files, {f"the folder of {name}": directory})

    def apart(self, name: str) -> list[Path]:
        """What a function is not shown by its files, wherever links lead once it is loaded: what is
        kept from all, and the folders of others."""
        found = list(self.kept.values())
        for other in self.deployed.values():
            if other.name != name and other.folder is not None:
                found.append(other.folder)
        if self.secrets.directory is not None:
            found.append(self.secrets.directory)
        return found

    def _check_paths(self, manifest: Manifest, together: Collection[str]) -> None:
        for function in self.deployed.values():
            if function.name in (manifest.name, *together):
                continue
            for theirs in function.http_triggers:
                for trigger in manifest.triggers:
                    if isinstance(trigger, HttpTrigger) and clash(trigger.path, theirs.path):
                        raise DeployError(
                            taken(manifest.name, trigger.path, function.name, theirs.path)
                        )

    def _served(self, manifest: Manifest, trigger: MeshTrigger) -> Served:
        """A trigger of a function with the subscription that the mesh keeps for it."""
        subscription = Subscription(
            function=manifest.name,
            trigger=trigger.name,
            topic=trigger.topic,
            mode=trigger.mode,
            host=self.host_id if trigger.mode == "broadcast" else "",
            start=trigger.start,
            order=trigger.order,
            cap=trigger.cap,
            overflow=trigger.overflow,
            dlq=manifest.dlq.topic if manifest.dlq else None,
            lease_s=LEASE_S,
        )
        return Served(trigger, subscription)

    async def _subscribe(self, served: Served) -> Feed:
        return await self.mesh.subscribe(served.subscription, key_of=key_of(served.spec))

    def _index(self) -> None:
        """Swap what readers use, whole."""
        topics: dict[str, dict[str, Filter]] = {}
        routes: list[tuple[str, Route]] = []
        letters: dict[str, str] = {}
        subscribed: dict[str, Function] = {}
        for function in self.deployed.values():
            for served in function.mesh_triggers:
                subscribed[served.name] = function
                topics.setdefault(served.spec.topic, {})[served.name] = served.filter
            for http in function.http_triggers:
                allowed = methods(http, requests=function.kind == "request")
                route = Route(function.name, http.name, allowed, http.strict)
                routes.append((http.path, route))
            if function.manifest.dlq is not None:
                letters[function.manifest.dlq.topic] = function.name
        self.router.update(topics)
        self._routes, self._letters, self._subscribed = Paths(routes), letters, subscribed

    def _coming(self, subscription: str) -> bool:
        function = self._subscribed.get(subscription)
        return function is not None and not function.paused and function.pool.wake()

    def ready_depth(self, function: Function) -> int | None:
        """Events of a function that wait in the mesh and are due; None where that is not known at
        once (G10: never a guess)."""
        if self._ready_now is None:
            return None
        total = 0
        for served in function.mesh_triggers:
            try:
                total += self._ready_now(served.name)
            except MeshError:
                return None
        return total

    # What the gateway asks for

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        """As HostApi says."""
        return await self.mesh.publish(topic, events)

    def function(self, name: str) -> Function:
        """A function in service. Raises FunctionUnknown."""
        function = self.deployed.get(name)
        if function is None:
            raise FunctionUnknown(name, list(self.deployed))
        return function

    async def call(
        self,
        function: str,
        event: Event,
        *,
        trigger: str = "http",
        timeout_s: float | None = None,
        http: Http | None = None,
        answer: Answer | None = None,
    ) -> Reply:
        """As HostApi says."""
        while True:
            asked = self.function(function)
            if answer is None:
                reply = await asked.call(event, trigger, timeout_s, http)
            else:
                reply = await asked.respond(event, trigger, timeout_s, http, answer)
            if reply.status != "closing" or self.deployed.get(function) is asked:
                return reply

    def kind(self, function: str) -> Kind:
        """As HostApi says."""
        found = self.deployed.get(function)
        return "event" if found is None else found.kind

    async def call_async(self, function: str, event: Event) -> Receipt:
        """As HostApi says."""
        if not self.function(function).queues_calls:
            await self._queue_calls(function)
        (receipt,) = await self.mesh.publish(call_topic(function), [event])
        return receipt

    async def _queue_calls(self, name: str) -> None:
        """Make the queue of a function's asynchronous calls, at the first of them."""
        async with self._changing:
            function = self.function(name)
            if function.queues_calls:
                return
            if self.state in ("draining", "stopped"):
                raise MeshClosed(f"the host is {self.state}")
            served = self._served(function.manifest, call_trigger(name))
            feed = await self._subscribe(served)
            if self.state in ("draining", "stopped"):
                return  # kept, for the next host
            function.mesh_triggers.append(served)
            self._index()
            function.serve(served, feed)

    def route(self, path: str) -> Route | None:
        """As HostApi says."""
        found = self._routes.find(path)
        if found is None:
            return None
        route, params = found
        return msgspec.structs.replace(route, params=params) if params else route

    def names(self) -> tuple[list[str], list[str]]:
        """As HostApi says."""
        return sorted(self.deployed), sorted(self._routes.known)

    def letters_of(self, topic: str) -> str | None:
        """As HostApi says."""
        return self._letters.get(topic)

    async def functions(self) -> list[FunctionStatus]:
        """As HostApi says."""
        return [await self.deployed[name].status() for name in sorted(self.deployed)]

    async def dead_letters(
        self, function: str, *, after: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """As HostApi says."""
        found: list[DeadLetter] = []
        seen = sys.maxsize
        for served in self.function(function).mesh_triggers:
            page = await self.mesh.dead_letters(served.name, after=after, limit=limit)
            if page:
                found += page
                seen = min(seen, page[-1].id)
        # Beyond the shortest page there may be letters that this one does not hold.
        found = [letter for letter in found if letter.id <= seen]
        return sorted(found, key=lambda letter: letter.id)[:limit]

    async def redrive(self, function: str, ids: Sequence[int] | None) -> int:
        """As HostApi says."""
        replay_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        count = 0
        for served in self.function(function).mesh_triggers:
            chosen = list(ids) if ids is not None else await self.all_dead(served.name)
            for start in range(0, len(chosen), REDRIVEN):
                some = chosen[start : start + REDRIVEN]
                count += await self.mesh.redrive(served.name, some, replay_id)
        return count

    async def all_dead(self, name: str) -> list[int]:
        """The ids of all dead letters of a subscription."""
        found: list[int] = []
        while page := await self.mesh.dead_letters(name, after=found[-1] if found else 0):
            found += [letter.id for letter in page]
        return found

    # The end

    async def stop_pulling(self) -> None:
        """Take nothing more from the mesh; what runs goes on. Again is harmless."""
        await asyncio.gather(*(each.stop_pulling() for each in self.deployed.values()))

    async def drain(self, seconds: float) -> None:
        """Stop pulling, finish what runs, settle it, give the rest back."""
        self.state = "draining"
        await self.deploys.close(seconds)
        functions = list(self.deployed.values())
        await asyncio.gather(*(function.drain(seconds) for function in functions))
        await self.settler.flush(max(seconds, SETTLE_S))
        await self.tasks.cancel()
        await self.settler.last()
        for function in functions:
            await function.close_feeds()
        self.state = "stopped"
