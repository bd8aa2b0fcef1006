"""Publishing to a topic and reading it back, over HTTP."""

import asyncio
import gc
import json

import httpx
import pytest

from funcrt.gateway.problem import HttpProblem
from mesh.errors import MeshClosed, MeshFull, QueueFull
from mesh.event import Event
from mesh.transport import Receipt
from tests.funcrt.gateway_fakes import admin_socket, gateway

CE = {"ce-specversion": "1.0", "ce-source": "/shop", "ce-type": "t"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
STORED = Receipt("stored", "@1")
FULL = Receipt("refused", reason="the disk is full", error="full")
QUEUE = Receipt("refused", reason="resize/images is at its cap", error="queue_full")
BUSY = Receipt("refused", reason="9 events wait to be stored already", error="busy")
CLOSED = Receipt("refused", reason="closing", error="closed")


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


def event(number, data=None):
    return {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t", "data": data}


def test_the_three_modes_are_stored_and_read_back():
    async def test():
        async with gateway() as (_, client):
            path = "/topics/orders/events"
            answer = await client.post(path, content=b'{"n":1}', headers={**CE, "ce-id": "1"})
            assert answer.status_code == 202
            (receipt,) = answer.json()["receipts"]
            assert receipt["id"] == "1"
            assert receipt["status"] == "stored"
            assert receipt["duplicate"] is False
            assert receipt["position"]
            structured = {"content-type": "application/cloudevents+json"}
            answer = await client.post(path, content=json.dumps(event(2)), headers=structured)
            assert answer.status_code == 202
            batch = json.dumps([event(3), event(4), event(3)])
            answer = await client.post(path, content=batch, headers=BATCH)
            assert answer.status_code == 202
            assert [each["duplicate"] for each in answer.json()["receipts"]] == [False, False, True]

            page = (await client.get(f"{path}?limit=3")).json()
            assert [each["event"]["id"] for each in page["events"]] == ["1", "2", "3"]
            assert page["events"][0]["topic"] == "orders"
            rest = (await client.get(path, params={"from": page["next"]})).json()
            assert [each["event"]["id"] for each in rest["events"]] == ["4"]
            assert (await client.get("/topics")).json() == {"topics": {"orders": 4}, "next": None}

    run(test())


@pytest.mark.parametrize(("size", "status"), [(3 << 20, 413), (100_000, 400)])
def test_what_was_refused_is_not_kept_until_the_collector_comes(size, status):
    async def test():
        async with gateway() as (_, client):
            headers = {"content-type": "application/cloudevents+json"}

            async def body():
                for _ in range(size // 10_000):
                    yield b"x" * 10_000

            gc.collect()
            answer = await client.post("/topics/t/events", content=body(), headers=headers)
            assert answer.status_code == status
            await asyncio.sleep(0.05)
            assert [each for each in gc.get_objects() if isinstance(each, HttpProblem)] == []

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_empty_batch_is_accepted():
    async def test():
        async with gateway() as (_, client):
            answer = await client.post("/topics/t/events", content=b"[]", headers=BATCH)
            assert (answer.status_code, answer.json()) == (202, {"receipts": []})

    run(test())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({"content-type": "application/cloudevents+xml"}, 415),
        ({**CE, "ce-id": "1", "content-encoding": "gzip"}, 415),
        (CE, 400),
        ({**CE, "ce-id": "1", "ce-specversion": "0.3"}, 400),
    ],
)
def test_what_is_no_event_is_refused(headers, status):
    async def test():
        async with gateway() as (_, client):
            answer = await client.post("/topics/t/events", content=b"{}", headers=headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
            assert (await client.get("/topics")).json() == {"topics": {}, "next": None}

    run(test())


@pytest.mark.parametrize(
    ("receipts", "status", "kind"),
    [
        ([STORED, FULL], 202, None),
        ([FULL, FULL], 507, "full"),
        ([QUEUE, QUEUE], 429, "queue-full"),
        ([QUEUE, CLOSED], 503, "closed"),
        ([BUSY, BUSY], 429, "busy"),
        ([Receipt("ambiguous"), FULL], 503, "ambiguous"),
    ],
)
def test_refusals_are_visible_per_event(receipts, status, kind):
    async def test():
        async with gateway() as (host, client):
            host.receipts = receipts
            batch = json.dumps([event(1), event(2)])
            answer = await client.post("/topics/t/events", content=batch, headers=BATCH)
            assert answer.status_code == status
            shown = answer.json()["receipts"]
            assert [each["status"] for each in shown] == [each.status for each in receipts]
            assert [each.get("error", "") for each in shown] == [each.error for each in receipts]
            if kind:
                assert answer.json()["type"] == f"urn:funcrt:problem:{kind}"
            assert ("retry-after" in answer.headers) == (status in (429, 503, 507))

    run(test())


@pytest.mark.parametrize(
    ("error", "status"),
    [(MeshFull("t", "disk"), 507), (QueueFull("a/b", 5), 429), (MeshClosed(), 503)],
)
def test_errors_of_the_whole_publish(error, status):
    async def fails(topic, events):
        raise error

    async def test():
        async with gateway() as (host, client):
            host.publish = fails
            answer = await client.post(
                "/topics/t/events", content=b"1", headers={**CE, "ce-id": "1"}
            )
            assert answer.status_code == status
            assert int(answer.headers["retry-after"]) > 0

    run(test())


def test_sizes():
    async def test():
        async with gateway(event_bytes=1000, batch_bytes=4000) as (_, client):
            path = "/topics/t/events"
            headers = {**CE, "ce-id": "1", "content-type": "text/plain"}
            answer = await client.post(path, content=b"x" * 1000, headers=headers)
            assert answer.status_code == 202
            answer = await client.post(path, content=b"x" * 1001, headers=headers)
            assert (answer.status_code, answer.json()["limit"]) == (413, 1000)
            structured = {"content-type": "application/cloudevents+json"}
            for target in (path, "/functions/echo"):
                for size, status in ((998, {200, 202}), (1200, {413}), (3000, {413})):
                    body = json.dumps(event(9, "x" * size))
                    answer = await client.post(target, content=body, headers=structured)
                    assert answer.status_code in status, (target, size)
            batch = json.dumps([event(1, "x" * 900), event(2, "x" * 900)])
            answer = await client.post(path, content=batch, headers=BATCH)
            assert answer.status_code == 202
            batch = json.dumps([event(1, "x" * 900), event(2, "x" * 1500)])
            answer = await client.post(path, content=batch, headers=BATCH)
            assert (answer.status_code, answer.json()["attribute"]) == (413, "data")
            answer = await client.post(path, content=b"[" + b" " * 4000 + b"]", headers=BATCH)
            assert answer.status_code == 413

    run(test())


@pytest.mark.parametrize("topic", ["a b", "..%2f..", "x" * 201, "a'--", "%00", "-a"])
def test_bad_topic_names(topic):
    async def test():
        async with gateway() as (_, client):
            answer = await client.post(
                f"/topics/{topic}/events", content=b"1", headers={**CE, "ce-id": "1"}
            )
            assert answer.status_code in (400, 404)
            answer = await client.get(f"/topics/{topic}/events")
            assert answer.status_code in (400, 404)

    run(test())


def test_bad_queries():
    async def test():
        async with gateway() as (_, client):
            await client.post("/topics/t/events", content=b"1", headers={**CE, "ce-id": "1"})
            for query in ("limit=-1", "limit=1001", "limit=x", "from=yesterday", "from=@x"):
                answer = await client.get(f"/topics/t/events?{query}")
                assert answer.status_code == 400, query
                assert answer.headers["content-type"] == "application/problem+json"

    run(test())


def test_the_hosts_own_topics_and_dead_letters_are_not_for_outsiders(tmp_path):
    async def test():
        one = {**CE, "ce-id": "1"}
        async with gateway() as (host, client):
            await host.mesh.publish("funcrt.call.echo", [Event("1", "/s", "t")])
            for topic in ("funcrt.call.echo", "funcrt.x", "%66uncrt.call.echo", "echo.dlq"):
                answer = await client.post(f"/topics/{topic}/events", content=b"1", headers=one)
                assert answer.status_code == 403, topic
                assert answer.json()["type"] == "urn:funcrt:problem:reserved"
            forged = {**one, "ce-source": "/funcrt/echo"}
            answer = await client.post("/topics/out/events", content=b"1", headers=forged)
            assert (answer.status_code, answer.json()["attribute"]) == (403, "source")
            assert (await client.get("/topics/funcrt.call.echo/events")).status_code == 401
            assert (await client.get("/topics/%66uncrt.call.echo/events")).status_code == 401
            assert (await client.get("/topics")).json() == {"topics": {}, "next": None}
        async with admin_socket(tmp_path / "s") as host:
            await host.mesh.publish("funcrt.call.echo", [Event("1", "/s", "t")])
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                answer = await client.post("/topics/echo.dlq/events", content=b"1", headers=one)
                assert answer.status_code == 202
                answer = await client.post("/topics/funcrt.x/events", content=b"1", headers=one)
                assert answer.status_code == 403
                page = (await client.get("/topics/funcrt.call.echo/events")).json()
                assert len(page["events"]) == 1
                assert "funcrt.call.echo" in (await client.get("/topics")).json()["topics"]

    run(test())
