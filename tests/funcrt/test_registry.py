"""The log of deployments, on a real mesh in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256

import msgspec
import pytest

import mesh
from funcrt.bundle import Bundle
from funcrt.errors import DeployError, FunctionUnknown
from funcrt.manifest import BatchSpec, DlqSpec, HttpTrigger, Manifest, MeshTrigger
from funcrt.registry import (
    KIND,
    Change,
    Deployment,
    RecordInvalid,
    Source,
    append,
    deploy,
    deploy_all,
    fold,
    keep,
    load,
    remove,
    versions,
)
from mesh.transport import Transport

FULL = Manifest(
    name="resize",
    triggers=[
        MeshTrigger(
            name="images",
            topic="images",
            filters=[{"exact": {"type": "image.uploaded"}}],
            pattern={"data": {"size": [{"numeric": [">", 1000]}]}},
            batch=BatchSpec(size=50),
        ),
        HttpTrigger(name="resize", path="/resize"),
    ],
    dlq=DlqSpec(topic="resize.dlq"),
    env={"LEVEL": "info"},
)


def bundle(content: bytes) -> Bundle:
    return Bundle(sha256(content).hexdigest(), content)


def on_a_mesh(steps: Callable[[Transport], Awaitable[None]]) -> None:
    async def run() -> None:
        transport = await mesh.connect("embedded::memory:", host=True)
        try:
            await steps(transport)
        finally:
            await transport.close()

    asyncio.run(run())


def record(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


def test_a_deployment_comes_back_as_it_was_made() -> None:
    async def steps(transport: Transport) -> None:
        made = await deploy(transport, FULL, bundle(b"1"), 12.5)
        assert made == Deployment(
            name="resize", digest=bundle(b"1").digest, manifest=FULL, at=12.5, seq=made.seq
        )
        assert made.version == "6b86b273ff34"
        assert await load(transport) == {"resize": made}
        assert await transport.get_blob(made.digest) == b"1"

    on_a_mesh(steps)


def test_the_last_record_of_a_name_counts() -> None:
    async def steps(transport: Transport) -> None:
        other = Manifest(name="other")
        first = await deploy(transport, FULL, bundle(b"1"), 1)
        beside = await deploy(transport, other, bundle(b"1"), 2)
        second = await deploy(transport, FULL, bundle(b"2"), 3)
        assert await load(transport) == {"resize": second, "other": beside}
        back = await deploy(transport, FULL, bundle(b"1"), 4)
        assert (back.digest, back.seq > second.seq) == (first.digest, True)
        assert (await versions(transport, "resize")).versions == [first, second, back]
        assert [first.number, second.number, back.number] == [1, 2, 3]

    on_a_mesh(steps)


def test_what_is_in_service_already_adds_no_record() -> None:
    async def steps(transport: Transport) -> None:
        first = await deploy(transport, FULL, bundle(b"1"), 1)
        assert await deploy(transport, FULL, bundle(b"1"), 2) == first
        assert len(await transport.records(KIND)) == 1
        changed = msgspec.structs.replace(FULL, timeout_s=5.0)
        assert (await deploy(transport, changed, bundle(b"1"), 3)).manifest == changed
        assert len(await transport.records(KIND)) == 2

    on_a_mesh(steps)


def test_a_removed_function_is_gone_until_deployed_again() -> None:
    async def steps(transport: Transport) -> None:
        first = await deploy(transport, FULL, bundle(b"1"), 1)
        await remove(transport, "resize", 2)
        assert await load(transport) == {}
        line = await versions(transport, "resize")
        assert (line.versions, line.current) == ([first], None)
        again = await deploy(transport, FULL, bundle(b"1"), 3)
        assert again.seq > first.seq
        assert again.number == 2
        assert await load(transport) == {"resize": again}

    on_a_mesh(steps)


def test_unknown_functions_are_named_with_those_there() -> None:
    async def steps(transport: Transport) -> None:
        await deploy(transport, FULL, bundle(b"1"), 1)
        said = "no function is named 'resise'; did you mean resize?"
        with pytest.raises(FunctionUnknown) as removing:
            await remove(transport, "resise", 2)
        with pytest.raises(FunctionUnknown) as listing:
            await versions(transport, "resise")
        assert (str(removing.value), str(listing.value)) == (said, said)

    on_a_mesh(steps)


def test_a_bundle_under_a_wrong_digest_leaves_no_trace() -> None:
    async def steps(transport: Transport) -> None:
        wrong = Bundle("0" * 64, b"1")
        with pytest.raises(DeployError) as caught:
            await deploy(transport, FULL, wrong, 1)
        assert str(caught.value) == "the bundle is not what its digest says"
        assert await transport.records(KIND) == []
        assert await transport.get_blob(wrong.digest) is None

    on_a_mesh(steps)


def test_the_blob_is_kept_before_the_record_that_names_it() -> None:
    async def steps(transport: Transport) -> None:
        async def die(kind: str, body: bytes) -> int:
            raise OSError("killed here")

        transport.append_record = die  # type: ignore[method-assign]
        with pytest.raises(OSError, match="killed here"):
            await deploy(transport, FULL, bundle(b"1"), 1)
        assert await transport.get_blob(bundle(b"1").digest) == b"1"
        assert await load(transport) == {}

    on_a_mesh(steps)


def test_what_changes_together_is_seen_together() -> None:
    async def steps(transport: Transport) -> None:
        other = Manifest(name="other")
        await keep(transport, [bundle(b"1"), bundle(b"2")])
        rows = [(FULL, bundle(b"1").digest, Source()), (other, bundle(b"2").digest, Source())]
        found = await deploy_all(transport, rows, 1)
        assert [one.name for one in found.values()] == ["resize", "other"]
        assert len(await transport.records(KIND)) == 1
        assert await deploy_all(transport, rows, 2) == found
        assert len(await transport.records(KIND)) == 1

    on_a_mesh(steps)


def test_paused_stays_over_versions_and_bounds_end_with_the_next() -> None:
    async def steps(transport: Transport) -> None:
        await deploy(transport, FULL, bundle(b"1"), 1)
        await append(transport, [Change(op="pause", name="resize", at=2)])
        await append(transport, [Change(op="scale", name="resize", at=3, scale=(1, 2))])
        one = (await load(transport))["resize"]
        assert (one.number, one.paused, one.scale) == (1, True, (1, 2))
        assert await deploy(transport, FULL, bundle(b"1"), 4) == one, "nothing changed"
        two = await deploy(transport, FULL, bundle(b"2"), 5)
        assert (two.number, two.paused, two.scale) == (2, True, None)
        await append(transport, [Change(op="resume", name="resize", at=6)])
        assert not (await load(transport))["resize"].paused
        await remove(transport, "resize", 7)
        await append(transport, [Change(op="pause", name="resize", at=8)])
        assert await load(transport) == {}, "what is out of service cannot be paused"

    on_a_mesh(steps)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Input data was truncated"),
        (record(v=2, op="split"), "its format 2 is newer than this funcrt, which reads 1"),
        (record(v=1, op="split", name="a", at=1), "Invalid enum value 'split' - at `$.op`"),
        (
            record(v=1, op="deploy", name="a", at=1, digest="x"),
            "a deployment without a manifest or a digest",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_named(body: bytes, reason: str) -> None:
    with pytest.raises(RecordInvalid) as caught:
        fold([(7, body)])
    assert str(caught.value) == f"deployment record 7: {reason}"
