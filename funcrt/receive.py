"""Deployments that come over the API: checked as `funcrt serve` checks a directory, put into
service together or not at all, and told of in the terms of whoever sent them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from funcrt import bundle, registry
from funcrt.bundle import Bundle, BundleError
from funcrt.changes import changed_files, changed_keys
from funcrt.deployer import Done, Prepared
from funcrt.deployments import Deployed
from funcrt.errors import (
    DataUnwritable,
    DeployError,
    FuncrtError,
    FunctionsRefused,
    LoadError,
    ManifestError,
    Problem,
)
from funcrt.manifest import Manifest, load_manifest, needs_of
from funcrt.packages import Installed
from funcrt.pythons import python_of
from funcrt.registry import Deployment, Line, Source
from funcrt.requirements import Needs
from funcrt.rollout import clashes, no_profile, placed
from funcrt.text import safe
from funcrt.upload import Head, Upload, UploadInvalid
from mesh.errors import SubscriptionBacklog

if TYPE_CHECKING:
    from funcrt.host import Host

__all__ = ["NotDeployed", "deployed", "receive"]


State = Literal["new", "changed", "unchanged"]


class NotDeployed(FunctionsRefused):
    """A deployment with mistakes; `then` says what goes on."""

    def __init__(self, errors: Sequence[FuncrtError], then: str) -> None:
        super().__init__(errors)
        self.then = then


async def receive(
    host: "Host", head: Head, bundles: Sequence[Bundle], by: str, begun: Callable[[], None]
) -> list[Deployed]:
    """Deploy what was uploaded, or plan it. May be cancelled until all is installed that it needs,
    when `begun` is called. Raises NotDeployed with every mistake, UploadInvalid, NotRecorded,
    MeshError; then nothing has changed."""
    deploys = host.deploys
    deploys.check_recording()
    if len({each.path for each in head.functions}) < len(head.functions):
        raise UploadInvalid("two functions of the upload have the same path")
    async with deploys.lock:  # while no other's sweep takes away what was unpacked
        read = await _read_all(host, head, bundles)
    # Without it: an installation may take minutes.
    await asyncio.gather(*(_install(host, read, path) for path in read.found))
    begun()
    async with deploys.lock:
        lines = registry.history(await host.mesh.records(registry.KIND))
        try:
            made = await _prepare_all(host, head, read, by, lines)
            if head.plan:
                return [await _planned(host, one, lines.get(one.manifest.name)) for one in made]
            done = await deploys.put_locked(made)
        except SubscriptionBacklog as error:
            name, _, trigger = error.name.partition("/")
            why = DeployError(
                f"{name}: trigger {trigger} is on another topic, and {error.depth} events of the"
                " old one wait; let them be worked off first, or give the trigger another name"
            )
            raise NotDeployed([why], _goes_on([one.manifest.name for one in made], lines)) from None
        finally:
            await deploys.sweep()
    if head.wait:
        await deploys.retired(done)
    else:
        deploys.retire_later(done)
    return [deployed(one) for one in done]


@dataclass
class _Upload:
    """A function of an upload, as far as it was read."""

    manifest: Manifest
    packed: Bundle
    needs: Needs
    installed: Installed | None = None


@dataclass
class _Read:
    found: dict[Path, _Upload] = field(default_factory=dict)
    """By the path as its sender sees it."""
    names: list[str] = field(default_factory=list)
    errors: list[FuncrtError] = field(default_factory=list)


async def _read_all(host: "Host", head: Head, bundles: Sequence[Bundle]) -> _Read:
    read = _Read()
    for upload, packed in zip(head.functions, bundles, strict=True):
        shown = Path(safe(upload.path))
        try:
            one = await _read(host, upload, packed, head.profile, shown)
            read.found[shown] = one
            read.names.append(one.manifest.name)
        except FuncrtError as error:
            read.names.append(upload.folder)
            read.errors.append(error)
        except OSError as error:
            read.names.append(upload.folder)
            read.errors.append(DataUnwritable(f"{shown}: what was sent", host.code_root, error))
    manifests = {path: one.manifest for path, one in read.found.items()}
    read.errors += clashes(manifests)
    read.errors += no_profile(manifests.values(), head.profile)
    return read


async def _install(host: "Host", read: _Read, path: Path) -> None:
    """Install what one of them needs; where that fails it is told of, and not prepared."""
    one = read.found[path]
    builds = one.manifest.source_builds
    try:
        python = await python_of(one.manifest, one.needs, host.packages)
        one.installed = await host.packages.get(
            one.manifest.name, one.needs, builds=builds, python=python
        )
    except LoadError as error:
        del read.found[path]
        read.errors.append(placed(error, path))
    except FuncrtError as error:
        del read.found[path]
        read.errors.append(error)


async def _prepare_all(
    host: "Host", head: Head, read: _Read, by: str, lines: dict[str, Line]
) -> list[Prepared]:
    errors = read.errors
    prepared: list[Prepared] = []
    for path, upload in read.found.items():
        manifest, packed = upload.manifest, upload.packed
        try:
            one = await host.prepare(
                manifest, path, packed=packed, together=read.names, beside=prepared
            )
            one = msgspec.structs.replace(one, installed=upload.installed)
            used = head.profile if head.profile in manifest.profiles else ""
            source = Source(kind="api", path=str(path), profile=used, by=by)
            prepared.append(msgspec.structs.replace(one, source=source))
        except LoadError as error:
            errors.append(placed(error, path))
        except FuncrtError as error:
            errors.append(error)
    if errors:
        raise NotDeployed(errors, _goes_on(read.names, lines))
    return prepared


async def _read(host: "Host", upload: Upload, packed: Bundle, profile: str, shown: Path) -> _Upload:
    """Unpack a bundle and read its manifest. Raises BundleError, ManifestError, in the sender's
    terms."""
    try:
        # In a thread: syncing many files would hold up events.
        path = await asyncio.to_thread(bundle.unpack, packed.body, packed.digest, host.code_root)
    except BundleError as error:
        raise BundleError([_moved(one, f"{shown}/{one.file}") for one in error.problems]) from None
    try:
        manifest = load_manifest(path, profile, upload.folder)
        return _Upload(manifest, packed, needs_of(path, manifest))
    except ManifestError as error:
        here, there = str(path), str(shown)
        problems = [
            msgspec.structs.replace(
                _moved(one, one.file.replace(here, there)), message=one.message.replace(here, there)
            )
            for one in error.problems
        ]
        raise ManifestError(problems) from None


def _moved(problem: Problem, file: str) -> Problem:
    return msgspec.structs.replace(problem, file=file)


def _goes_on(names: Sequence[str], lines: dict[str, Line]) -> str:
    """What is in service still."""
    there = {name: lines[name].current for name in names if name in lines and lines[name].current}
    still = [f"{name} v{one.number}" for name, one in there.items() if one is not None]
    if len(names) == 1 and still:
        return f"{still[0].partition(' ')[2]} is still serving"
    if not still:
        return "nothing was deployed"
    return f"nothing was deployed; still serving: {', '.join(still)}"


async def _planned(host: "Host", one: Prepared, line: Line | None) -> Deployed:
    was = line.current if line is not None else None
    state: State = "new" if was is None else "changed"
    if was is not None and was.same(one.packed.digest, one.manifest):
        state = "unchanged"
    before = None
    if was is not None and (body := await host.mesh.get_blob(was.digest)) is not None:
        before = Bundle(was.digest, body)
    count = len(line.versions) if line is not None else 0
    number = was.number if was is not None and state == "unchanged" else count + 1
    keys = changed_keys(was.manifest, one.manifest) if was is not None else []
    found = changed_files(before, one.packed)
    return _told(one, was, state, number, keys=keys, files=found)


def deployed(done: Done) -> Deployed:
    """What to say of a version that came into service."""
    one, was, now = done.made, done.was, done.function.deployment
    assert now is not None
    state: State = "new" if was is None else "unchanged" if was.seq == now.seq else "changed"
    return _told(
        one,
        was,
        state,
        now.number,
        swap_ms=done.swap_s * 1000,
        in_flight=done.in_flight,
        given_back=done.cut if done.before is not None else 0,
        paused=now.paused,
        unbound=state == "changed" and was is not None and was.scale is not None,
        of=now.source.of if state != "unchanged" else 0,
        triggers=[str(each) for each in done.function.triggers() if each.kind != "call"],
    )


def _told(
    one: Prepared, was: Deployment | None, state: State, number: int, **more: object
) -> Deployed:
    manifest, installed = one.manifest, one.installed
    return Deployed(
        name=manifest.name,
        state=state,
        number=number,
        digest=one.packed.digest,
        before=was.number if was is not None else None,
        handler=one.info.handler,
        signature=one.info.signature,
        import_ms=one.info.import_ms,
        packages=list(installed.packages) if installed is not None else [],
        install_s=installed.took_s if installed is not None else None,
        output=manifest.output.topic,
        dlq=manifest.dlq.topic if manifest.dlq is not None else None,
        scale=(manifest.scale.min, manifest.scale.max),
        **more,  # type: ignore[arg-type]
    )
