"""The host: subscribes on behalf of functions, runs them, settles what they return."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from funcrt import bundle, registry
from funcrt.api import FunctionStatus, HostState, Reply, Route
from funcrt.calls import TRIGGER, call_topic, call_trigger
from funcrt.errors import DeployError, FunctionUnknown
from funcrt.function import LEASE_S, Function, Served
from funcrt.manifest import HttpTrigger, Manifest, MeshTrigger, load_manifest
from funcrt.sandbox import Code, HandlerInfo, Sandbox
from funcrt.zygotes import Zygotes
from mesh.errors import MeshClosed, MeshError, MeshFull
from mesh.event import Event
from mesh.transport import (
    Clock,
    DeadLetter,
    Feed,
    KeyOf,
    Receipt,
    Settlement,
    Subscription,
    Transport,
)

__all__ = ["Host", "Prepared"]

log = logging.getLogger("funcrt.host")


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


class Prepared(msgspec.Struct, frozen=True):
    """A version that was packed and imported, and is not in service yet."""

    manifest: Manifest
    packed: bundle.Bundle
    code: Code
    info: HandlerInfo


class Host:
    """A running host on an open mesh and a started sandbox, neither of which it closes."""

    def __init__(
        self,
        mesh: Transport,
        sandbox: Sandbox,
        clock: Clock,
        code_root: Path,
        namespace: str = "default",
    ) -> None:
        self.mesh = mesh
        self.zygotes = Zygotes(sandbox)
        self.clock = clock
        self.namespace = namespace
        self.code_root = code_root
        self.state: HostState = "starting"
        self.deployed: dict[str, Function] = {}
        self._routes: dict[str, Route] = {}
        self._letters: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._settlements: list[Settlement] = []
        self._committing: list[Settlement] = []
        self._settling = asyncio.Event()
        self._settler: asyncio.Task[None] | None = None
        self._by_topic: dict[str, list[tuple[str, Callable[[Event], bool]]]] = {}
        depth_now = getattr(mesh, "ready_now", None)
        self._ready_now: Callable[[str], int] | None = depth_now

    # In and out of service

    async def start(self) -> None:
        """Begin to route and to settle."""
        bundle.sweep(self.code_root)
        self.mesh.set_router(self._route)
        self._settler = asyncio.get_running_loop().create_task(self._settle_all())

    def _route(self, topic: str, event: Event) -> list[str]:
        return [name for name, matches in self._by_topic.get(topic, ()) if matches(event)]

    async def deploy(self, directory: Path) -> Function:
        """Put a function directory into service: read, pack, import in the sandbox, and only then
        take the place of the version before. Raises ManifestError, DeployError, LoadError."""
        return await self.replace(await self.prepare(load_manifest(directory), directory))

    async def prepare(self, manifest: Manifest, directory: Path) -> Prepared:
        """All that can fail, without a change to what is in service."""
        packed = bundle.pack(directory)
        path = bundle.unpack(packed.body, packed.digest, self.code_root)
        self._check_paths(manifest)
        code = Code(
            name=manifest.name,
            version=packed.digest[:12],
            path=path,
            handler=manifest.handler,
            concurrency=manifest.concurrency,
            env=manifest.env,
            memory_bytes=manifest.limits.memory_bytes,
            max_output_bytes=manifest.limits.payload_bytes,
            batch=any(isinstance(t, MeshTrigger) and t.batch for t in manifest.triggers),
        )
        zygote = await self.zygotes.get(code)
        return Prepared(manifest, packed, code, zygote.info)

    async def replace(self, made: Prepared) -> Function:
        """Put it into service, in the place of the version before."""
        manifest = made.manifest
        await registry.deploy(self.mesh, manifest, made.packed, self.clock.time())
        function = Function(self, manifest, made.code, made.info)
        async with self._changing:
            before = self.deployed.get(manifest.name)
            if before is not None:
                await before.stop_pulling()
            if f"{function.name}/{TRIGGER}" in {s.name for s in await self.mesh.subscriptions()}:
                function.mesh_triggers.append(Served(call_trigger(function.name)))
            self.deployed[manifest.name] = function
            self._index()
            feeds = [await self._subscribe(function, t.spec) for t in function.mesh_triggers]
            await function.start(feeds)
        if before is not None:
            await before.drain(before.manifest.timeout_s or 30.0)
            await before.close_feeds()
        return function

    def _check_paths(self, manifest: Manifest) -> None:
        for trigger in manifest.triggers:
            if isinstance(trigger, HttpTrigger):
                route = self._routes.get(trigger.path)
                if route is not None and route.function != manifest.name:
                    raise DeployError(
                        f"{manifest.name}: {route.function} has the path {trigger.path} already"
                    )

    async def _subscribe(self, function: Function, trigger: MeshTrigger) -> Feed:
        dlq = function.manifest.dlq
        return await self.mesh.subscribe(
            Subscription(
                function=function.name,
                trigger=trigger.name,
                topic=trigger.topic,
                start=trigger.start,
                order=trigger.order,
                cap=trigger.cap,
                overflow=trigger.overflow,
                dlq=dlq.topic if dlq else None,
                lease_s=LEASE_S,
            ),
            key_of=key_of(trigger),
        )

    def _index(self) -> None:
        """Swap what readers use, whole."""
        topics: dict[str, list[tuple[str, Callable[[Event], bool]]]] = {}
        routes: dict[str, Route] = {}
        letters: dict[str, str] = {}
        for function in self.deployed.values():
            for served in function.mesh_triggers:
                name = f"{function.name}/{served.spec.name}"
                topics.setdefault(served.spec.topic, []).append((name, served.filter.matches))
            for http in function.http_triggers:
                methods = tuple(http.methods)
                routes[http.path] = Route(function.name, http.name, methods, http.strict)
            if function.manifest.dlq is not None:
                letters[function.manifest.dlq.topic] = function.name
        self._by_topic, self._routes, self._letters = topics, routes, letters

    # Settling

    def settle_soon(self, settlement: Settlement) -> None:
        """Commit with what else has come by the next commit."""
        self._settlements.append(settlement)
        self._settling.set()

    async def _settle_all(self) -> None:
        """Commit, until cancelled; a full mesh is tried again until there is room."""
        while True:
            if not self._settlements:
                self._settling.clear()
                await self._settling.wait()
                continue
            batch = self._committing = self._settlements
            self._settlements = []
            wait = 0.1
            while True:
                try:
                    await self.mesh.commit(batch)
                    break
                except MeshClosed:
                    return
                except MeshFull as error:
                    log.error("cannot settle: %s; trying again", error)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 5.0)
            self._committing = []

    def ready_depth(self, function: Function) -> int:
        """Events of a function that wait in the mesh and are due, as far as it is known at once."""
        if self._ready_now is None:
            return 0
        total = 0
        for served in function.mesh_triggers:
            try:
                total += self._ready_now(f"{function.name}/{served.spec.name}")
            except MeshError:
                pass
        return total

    # What the gateway asks for

    async def publish(self, topic: str, events: Sequence[Event]) -> list[Receipt]:
        """As HostApi says."""
        return await self.mesh.publish(topic, events)

    def _function(self, name: str) -> Function:
        function = self.deployed.get(name)
        if function is None:
            raise FunctionUnknown(name, list(self.deployed))
        return function

    async def call(
        self, function: str, event: Event, *, trigger: str = "http", timeout_s: float | None = None
    ) -> Reply:
        """As HostApi says."""
        asked = self._function(function)
        reply = await asked.call(event, trigger, timeout_s)
        while reply.status == "closing" and self.deployed.get(function) is not asked:
            asked = self._function(function)
            reply = await asked.call(event, trigger, timeout_s)
        return reply

    async def call_async(self, function: str, event: Event) -> Receipt:
        """As HostApi says."""
        if not self._function(function).queues_calls:
            await self._queue_calls(function)
        (receipt,) = await self.mesh.publish(call_topic(function), [event])
        return receipt

    async def _queue_calls(self, name: str) -> None:
        """Make the queue of a function's asynchronous calls, at the first of them."""
        async with self._changing:
            function = self._function(name)
            if function.queues_calls:
                return
            if self.state in ("draining", "stopped"):
                raise MeshClosed(f"the host is {self.state}")
            served = Served(call_trigger(name))
            feed = await self._subscribe(function, served.spec)
            if self.state in ("draining", "stopped"):
                return  # kept, for the next host
            function.mesh_triggers.append(served)
            self._index()
            function.serve(served, feed)

    def route(self, path: str) -> Route | None:
        """As HostApi says."""
        return self._routes.get(path)

    def names(self) -> tuple[list[str], list[str]]:
        """As HostApi says."""
        return sorted(self.deployed), sorted(self._routes)

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
        for served in self._function(function).mesh_triggers:
            name = f"{function}/{served.spec.name}"
            found += await self.mesh.dead_letters(name, after=after, limit=limit)
        return sorted(found, key=lambda letter: letter.id)[:limit]

    async def redrive(self, function: str, ids: Sequence[int] | None) -> int:
        """As HostApi says."""
        replay_id = str(uuid.uuid4())
        count = 0
        for served in self._function(function).mesh_triggers:
            name = f"{function}/{served.spec.name}"
            chosen = list(ids) if ids is not None else await self._all_dead(name)
            count += await self.mesh.redrive(name, chosen, replay_id)
        return count

    async def _all_dead(self, name: str) -> list[int]:
        found: list[int] = []
        while page := await self.mesh.dead_letters(name, after=found[-1] if found else 0):
            found += [letter.id for letter in page]
        return found

    # The end

    async def drain(self, seconds: float) -> None:
        """Stop pulling, finish what runs, settle it, give the rest back."""
        self.state = "draining"
        functions = list(self.deployed.values())
        await asyncio.gather(*(function.drain(seconds) for function in functions))
        if self._settler is not None:
            loop = asyncio.get_running_loop()
            until = loop.time() + max(seconds, 5.0)
            while (self._settlements or self._committing) and loop.time() < until:
                if self._settler.done():
                    break
                await asyncio.sleep(0.01)
            self._settler.cancel()
            await asyncio.wait([self._settler])
        if self._settlements:
            try:
                await self.mesh.commit(self._settlements)
            except MeshError as error:
                log.error("what finished last is not settled and will run again: %s", error)
        for function in functions:
            await function.close_feeds()
        self.state = "stopped"
