"""Deployments that come over the API: checked as `funcrt serve` checks a directory, put into
service together or not at all, and told of in the terms of whoever sent them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from funcrt import bundle, registry
from funcrt.bundle import Bundle, BundleError
from funcrt.changes import changed_files, changed_keys
from funcrt.deployer import Done, Prepared
from funcrt.deployments import Deployed
from funcrt.errors import (
    DeployError,
    FuncrtError,
    FunctionsRefused,
    LoadError,
    ManifestError,
    Problem,
)
from funcrt.manifest import Manifest, load_manifest
from funcrt.registry import Deployment, Line, Source
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


async def receive(host: "Host", head: Head, bundles: Sequence[Bundle], by: str) -> list[Deployed]:
    """Deploy what was uploaded, or plan it. Raises NotDeployed with every mistake, UploadInvalid,
    NotRecorded, MeshError; then nothing has changed."""
    deploys = host.deploys
    deploys.check_recording()
    if len({each.path for each in head.functions}) < len(head.functions):
        raise UploadInvalid("two functions of the upload have the same path")
    async with deploys.lock:
        lines = registry.history(await host.mesh.records(registry.KIND))
        try:
            made = await _prepare_all(host, head, bundles, by, lines)
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


async def _prepare_all(
    host: "Host", head: Head, bundles: Sequence[Bundle], by: str, lines: dict[str, Line]
) -> list[Prepared]:
    errors: list[FuncrtError] = []
    read: dict[Path, tuple[Manifest, Bundle]] = {}
    names: list[str] = []
    for upload, packed in zip(head.functions, bundles, strict=True):
        shown = Path(safe(upload.path))
        try:
            read[shown] = await _read(host, upload, packed, head.profile, shown), packed
            names.append(read[shown][0].name)
        except FuncrtError as error:
            names.append(upload.folder)
            errors.append(error)
    manifests = {path: manifest for path, (manifest, _) in read.items()}
    errors += clashes(manifests)
    errors += no_profile(manifests.values(), head.profile)
    prepared = []
    for path, (manifest, packed) in read.items():
        try:
            one = await host.prepare(manifest, path, packed=packed, together=names)
            used = head.profile if head.profile in manifest.profiles else ""
            source = Source(kind="api", path=str(path), profile=used, by=by)
            prepared.append(msgspec.structs.replace(one, source=source))
        except LoadError as error:
            errors.append(placed(error, path))
        except FuncrtError as error:
            errors.append(error)
    if errors:
        raise NotDeployed(errors, _goes_on(names, lines))
    return prepared


async def _read(
    host: "Host", upload: Upload, packed: Bundle, profile: str, shown: Path
) -> Manifest:
    """Unpack a bundle and read its manifest. Raises BundleError, ManifestError, in the sender's
    terms."""
    try:
        # In a thread: syncing many files would hold up events.
        path = await asyncio.to_thread(bundle.unpack, packed.body, packed.digest, host.code_root)
    except BundleError as error:
        raise BundleError([_moved(one, f"{shown}/{one.file}") for one in error.problems]) from None
    try:
        return load_manifest(path, profile, upload.folder)
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
    manifest = one.manifest
    return Deployed(
        name=manifest.name,
        state=state,
        number=number,
        digest=one.packed.digest,
        before=was.number if was is not None else None,
        handler=one.info.handler,
        signature=one.info.signature,
        import_ms=one.info.import_ms,
        output=manifest.output.topic,
        dlq=manifest.dlq.topic if manifest.dlq is not None else None,
        scale=(manifest.scale.min, manifest.scale.max),
        **more,  # type: ignore[arg-type]
    )
