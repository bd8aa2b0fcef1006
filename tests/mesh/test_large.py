"""Large events through a mesh file's socket: no answer, publish or tail is larger than a frame."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh import wire
from mesh.embedded import Embedded
from mesh.errors import MeshError
from mesh.letters import dead_letter
from mesh.transport import Dead, Done, Output, Settled, Settlement, Subscription
from mesh.validation import MAX_EVENT_BYTES

MANY = wire.MAX_FRAME // MAX_EVENT_BYTES + 6
"""Events of the largest size, of which a frame cannot hold all."""
BODY = os.urandom(MAX_EVENT_BYTES)


def event(n: int, size: int = MAX_EVENT_BYTES) -> mesh.Event:
    return mesh.Event(str(n), "/large", "t", data=BODY[:size])


@asynccontextmanager
async def pair(path: Path, **options: Any) -> AsyncIterator[tuple[Embedded, Embedded]]:
    """A host, and a client of it."""
    url = f"embedded://{path}/mesh.db"
    host: Any = await mesh.connect(url, host=True, **options)
    client: Any = await mesh.connect(url)
    try:
        yield host, client
    finally:
        await client.close()
        await host.close()


def ids(items: list[Any]) -> list[str]:
    return [item.event.id for item in items]


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_many_of_the_largest_events_are_published_read_and_tailed(tmp_path: Path) -> None:
    """All at once, which makes a frame of none: 70 MiB in one publish, read and tail."""
    every = [str(n) for n in range(MANY)]

    async def work() -> None:
        async with pair(tmp_path) as (_, client):
            receipts = await client.publish("in", [event(n) for n in range(MANY)])
            assert [receipt.status for receipt in receipts] == ["stored"] * MANY
            assert [int(receipt.position) for receipt in receipts] == list(range(MANY))
            assert ids(await client.read("in", "earliest", MANY + 1)) == every
            assert ids(await client.read("in", "@3", 2)) == ["3", "4"]
            found = []
            async for item in client.tail("in", "earliest"):
                found.append(item.event.id)
                if len(found) == MANY:
                    break
            assert found == every
            # Publishes that are sent in one turn of the loop share a frame; they may not here.
            many = [client.publish("two", [event(n)]) for n in range(MANY)]
            answers = [receipt for each in await asyncio.gather(*many) for receipt in each]
            assert {each.status for each in answers} <= {"stored", "refused"}
            assert {each.error for each in answers if each.status == "refused"} <= {"busy"}
            assert len([each for each in answers if each.status == "stored"]) >= MANY - 10

    run(work)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A smaller frame, which is sooner filled; the number of events that it cannot hold."""
    monkeypatch.setattr(wire, "MAX_FRAME", 20 << 20)
    return 26


def test_what_was_written_without_a_host_is_tailed_through_one(tmp_path: Path, small: int) -> None:
    every = [str(n) for n in range(small)]

    async def work() -> None:
        url = f"embedded://{tmp_path}/mesh.db"
        alone = await mesh.connect(url)
        receipts = await alone.publish("in", [event(n) for n in range(small)])
        assert [receipt.status for receipt in receipts] == ["stored"] * small
        assert ids(await alone.read("in", "earliest", small)) == every
        await alone.close()
        async with pair(tmp_path) as (_, client):
            tail = client.tail("in", "earliest")
            assert [(await anext(tail)).event.id for _ in every] == every
            await tail.aclose()  # type: ignore[attr-defined]

    run(work)


def test_many_of_the_largest_dead_letters_are_listed(tmp_path: Path, small: int) -> None:
    every = [str(n) for n in range(small)]

    async def work() -> None:
        async with pair(tmp_path) as (host, client):
            spec = Subscription(function="f", trigger="t", topic="in", dlq="f.dlq")
            feed = await host.subscribe(spec)
            for n in range(small):
                await host.publish("in", [event(n)])
                (one,) = await feed.pull(1, 5)
                letter = dead_letter(one.event, "f/t", "no", attempts=1, at=0.0)
                outcome = Dead("no", Output("f.dlq", letter))
                await host.commit([Settlement("f/t", (Settled(one, outcome),))])
            for transport in (host, client):
                found: list[str] = []
                after = 0
                while page := await transport.dead_letters("f/t", after=after, limit=1000):
                    assert sum(len(each.event.data or b"") for each in page) < 2 * wire.PAGE_BYTES
                    found += ids(page)
                    after = page[-1].id
                assert found == every
            assert len(await client.read("f.dlq", "earliest", 1000)) == small

    run(work)


@pytest.mark.parametrize("fits", [3, 4])
def test_a_page_ends_with_the_event_that_fills_it(
    tmp_path: Path, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just at the bound the page is full; a byte below it one more comes with it."""
    asked: list[int] = []

    async def work() -> None:
        async with pair(tmp_path) as (host, client):
            await client.publish("in", [event(n, 100_000) for n in range(10)])
            page = host.page

            def counted(*given: Any) -> Any:
                found = page(*given)
                asked.append(len(found[0]))
                return found

            monkeypatch.setattr(host, "page", counted)
            monkeypatch.setattr("mesh.server.PAGE_BYTES", three + (fits - 3))
            assert len(await client.read("in", "earliest", 10)) == 10

    three = 3 * (100_000 + 300 + len("0" + "/large" + "t"))
    run(work)
    assert asked == [fits] * (10 // fits) + [10 % fits]


def test_an_event_too_large_is_refused_through_the_socket_as_anywhere(tmp_path: Path) -> None:
    """Also one that no frame could hold: it never gets so far, and the others are stored."""

    async def work() -> None:
        async with pair(tmp_path) as (_, client):
            bad = mesh.Event("big", "/large", "t", data=bytes(wire.MAX_FRAME + 1))
            over = mesh.Event("over", "/large", "t", data=BODY + b"x")
            receipts = await client.publish("in", [event(1), bad, event(2), over, event(3)])
            assert [each.status for each in receipts] == [
                "stored", "refused", "stored", "refused", "stored",
            ]  # fmt: skip
            for refused in (receipts[1], receipts[3]):
                assert refused.error == "invalid"
                assert refused.reason.endswith("bytes; at most 1048576")
            with pytest.raises(MeshError, match="at most 1048576"):
                await client.request("in", bad, 5)
            assert ids(await client.read("in", "earliest", 9)) == ["1", "2", "3"]

    run(work)


def test_an_answer_too_large_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for it would wait in vain, and receipts sent with it would fail the writer."""
    monkeypatch.setattr(wire, "MAX_FRAME", 1 << 20)

    async def work() -> None:
        async with pair(tmp_path) as (host, client):
            feed = await host.subscribe(Subscription(function="f", trigger="t", topic="in"))
            asked = asyncio.ensure_future(client.request("in", event(0, 10), 5))
            (delivery,) = await feed.pull(1, 5)
            outputs = [
                Output("", event(n, 400_000), reply_to=delivery.reply_to) for n in range(1, 4)
            ]
            settled = (Settled(delivery, Done()),)
            await host.commit([Settlement(delivery.subscription, settled, tuple(outputs))])
            with pytest.raises(MeshError, match="at most 1048576 cross"):
                await asked

    run(work)


def test_a_chunk_is_bounded_by_what_attributes_take_too(tmp_path: Path) -> None:
    """Events without data, but with the most attributes: written by a host or in the file."""
    wide = {"long": "x" * 190_000}

    async def work() -> None:
        for number, host in enumerate((True, False)):
            url = f"embedded://{tmp_path}/{number}.db"
            t: Any = await mesh.connect(url, host=host)
            events = [mesh.Event(str(n), "/large", "t", extensions=wide) for n in range(20)]
            await t.publish("in", events)
            store = t.engine.reader if host else t._open_file().store
            (row,) = store.topics()
            chunks = store.chunks(row.id, 0, 100)
            assert [chunk.count for chunk in chunks] == [3] * 6 + [2]
            await t.close()

    run(work)
