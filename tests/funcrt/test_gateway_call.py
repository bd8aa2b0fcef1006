"""Calling functions over HTTP, through uvicorn on a real socket."""

import asyncio

import httpx
import pytest

from funcrt.api import Reply, Route
from funcrt.errors import Overloaded
from funcrt.sandbox.protocol import Failure
from mesh.event import Event
from mesh.transport import Receipt
from tests.funcrt.gateway_fakes import admin_socket, gateway

CE = {
    "ce-specversion": "1.0",
    "ce-id": "7",
    "ce-source": "/shop",
    "ce-type": "order.placed",
    "content-type": "application/json",
}


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


def test_binary_event_in_and_out():
    async def test():
        async with gateway() as (host, client):
            answer = await client.post(
                "/functions/echo", content=b'{"n": 1}', headers={**CE, "ce-traceid": "abc"}
            )
            assert answer.status_code == 200
            assert answer.content == b'{"n": 1}'
            assert answer.headers["ce-id"] == "7"
            assert answer.headers["ce-traceid"] == "abc"
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            function, trigger, event, timeout_s = host.calls[0]
            assert (function, trigger, timeout_s) == ("echo", "http", None)
            assert event == Event(
                "7",
                "/shop",
                "order.placed",
                datacontenttype="application/json",
                extensions={"traceid": "abc"},
                data=b'{"n": 1}',
            )

    run(test())


def test_structured_in_and_out_as_accept_asks():
    async def test():
        async with gateway() as (host, client):
            event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}
            answer = await client.post(
                "/functions/echo",
                json=event,
                headers={
                    "content-type": "application/cloudevents+json",
                    "accept": "application/cloudevents+json",
                },
            )
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("application/cloudevents+json")
            assert answer.json()["data"] == {"a": 1}
            assert host.calls[0][2].id == "1"

    run(test())


def test_several_outputs_are_a_batch_and_none_is_204():
    async def twice(event, timeout_s):
        return Reply("ok", (event, event))

    async def test():
        async with gateway() as (host, client):
            host.by_name["twice"] = twice
            answer = await client.post("/functions/twice", content=b"1", headers=CE)
            assert answer.headers["content-type"].startswith("application/cloudevents-batch+json")
            assert [each["id"] for each in answer.json()] == ["7", "7"]
            answer = await client.post("/functions/quiet", content=b"1", headers=CE)
            assert (answer.status_code, answer.content) == (204, b"")

    run(test())


def test_plain_body_is_wrapped():
    async def test():
        async with gateway() as (host, client):
            for body, kind in ((b"hello", "text/plain"), (b"", None)):
                headers = {"content-type": kind} if kind else {}
                answer = await client.post("/functions/echo", content=body, headers=headers)
                assert answer.status_code == 200
                event = host.calls[-1][2]
                assert event.type == "funcrt.http.request"
                assert event.source == "/http/functions/echo"
                assert event.data == (body or None)
                assert event.datacontenttype == kind
                assert event.extensions == {"httpmethod": "POST"}
            assert host.calls[0][2].id != host.calls[1][2].id

    run(test())


def test_what_cannot_be_wrapped_is_a_bad_event():
    async def test():
        async with gateway() as (host, client):
            headers = {"content-type": "not a media type"}
            answer = await client.post("/functions/echo", content=b"x", headers=headers)
            assert answer.status_code == 400
            assert "content" in answer.json()["attribute"]
            host.routes['/a"<>{}|'] = Route("echo", "web", ("POST",), False)
            assert (await client.post('/a"<>{}|', content=b"x")).status_code == 200

    run(test())


def test_how_a_call_can_end():
    failure = Failure("KeyError", "'sku'", "main.py:14 in handler", "Traceback ...")

    async def test():
        async with gateway() as (host, client):
            for status, code in (
                ("error", 500),
                ("reject", 422),
                ("retry", 503),
                ("timeout", 504),
                ("crash", 502),
                ("closing", 503),
            ):

                async def ends(event, timeout_s, status=status):
                    return Reply(status, (), failure, 29.5 if status == "retry" else None)

                host.by_name["ends"] = ends
                answer = await client.post("/functions/ends", content=b"1", headers=CE)
                assert answer.status_code == code
                assert answer.headers["content-type"] == "application/problem+json"
                problem = answer.json()
                assert problem["type"] == f"urn:funcrt:problem:{status}"
                assert problem["status"] == code
                assert problem["error"] == "KeyError"
                assert problem["message"] == "'sku'"
                assert problem["where"] == "main.py:14 in handler"
                assert "Traceback" not in answer.text
                after = {"retry": "30", "closing": "1"}.get(status)
                assert answer.headers.get("retry-after") == after

    run(test())


def test_what_is_not_there_is_answered_with_the_nearest_names():
    async def test():
        async with gateway() as (host, client):
            answer = await client.post("/functions/ecko", content=b"1", headers=CE)
            assert answer.status_code == 404
            assert answer.json()["nearest"] == ["echo"]
            assert "did you mean echo?" in answer.json()["detail"]
            answer = await client.post("/functions/other", content=b"1", headers=CE)
            assert "deployed: echo, quiet, slow" in answer.json()["detail"]
            host.routes["/hello"] = Route("echo", "web", ("POST",), False)
            answer = await client.post("/helo", content=b"1")
            assert (answer.status_code, answer.json()["nearest"]) == (404, ["/hello"])
            answer = await client.post("/ecko%1b", content=b"1")
            assert answer.json()["nearest"] == ["/functions/echo"]
            assert "\x1b" not in answer.json()["detail"]

    run(test())


def test_overloaded_is_429_with_retry_after():
    async def full(event, timeout_s):
        raise Overloaded("echo", 100, retry_after_s=3)

    async def test():
        async with gateway() as (host, client):
            host.by_name["echo"] = full
            answer = await client.post("/functions/echo", content=b"1", headers=CE)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")

    run(test())


@pytest.mark.parametrize(
    ("query", "prefer", "expected"),
    [
        ("", "", None),
        ("?timeout=2", "", 2.0),
        ("?timeout=500ms", "", 0.5),
        ("", "wait=3", 3.0),
        ("?timeout=5", "return=minimal, wait=2", 2.0),
        ("?timeout=1s", "wait=9", 1.0),
        ("", 'Foo; bar="x, wait=1", WAIT="4"; a=b', 4.0),
        ("", "wait=2, wait=7", 2.0),
        ("", "wait", None),
        ("", "waiting=1, await=2", None),
        ("", 'x="unclosed, wait=3', None),
    ],
)
def test_timeout_from_the_caller(query, prefer, expected):
    async def test():
        async with gateway() as (host, client):
            headers = {**CE, "prefer": prefer} if prefer else CE
            await client.post(f"/functions/echo{query}", content=b"1", headers=headers)
            assert host.calls[0][3] == expected

    run(test())


def test_bad_timeout_and_batch_are_refused_by_name():
    async def test():
        async with gateway() as (host, client):
            answer = await client.post("/functions/echo?timeout=soon", content=b"1", headers=CE)
            assert answer.status_code == 400
            assert "timeout=soon" in answer.json()["detail"]
            batch = {"content-type": "application/cloudevents-batch+json"}
            answer = await client.post("/functions/echo", content=b"[]", headers=batch)
            assert answer.status_code == 415
            assert host.calls == []

    run(test())


def test_bad_event_names_attribute_and_reason():
    async def test():
        async with gateway() as (host, client):
            headers = {name: value for name, value in CE.items() if name != "ce-id"}
            answer = await client.post("/functions/echo", content=b"1", headers=headers)
            assert answer.status_code == 400
            problem = answer.json()
            assert problem["attribute"] in ("id", "ce-id")
            assert problem["reason"]
            assert host.calls == []

    run(test())


def test_client_that_leaves_cancels_its_call():
    async def test():
        async with gateway() as (host, client):
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/functions/slow", content=b"1", headers=CE, timeout=0.2)
            for _ in range(100):
                if host.cancelled:
                    break
                await asyncio.sleep(0.02)
            assert host.cancelled == ["slow"]
            answer = await client.post("/functions/echo", content=b"1", headers=CE)
            assert answer.status_code == 200

    run(test())


def test_a_call_longer_than_the_watch_still_answers():
    async def test():
        async with gateway() as (host, client):
            answer = await client.post("/functions/slow?timeout=200ms", content=b"1", headers=CE)
            assert answer.status_code == 504
            assert host.cancelled == []

    run(test())


def test_routes_answer_as_a_web_endpoint():
    async def page(event, timeout_s):
        html = Event("1", "/f", "page", datacontenttype="text/html", data=b"<p>hi")
        return Reply("ok", (html,))

    async def test():
        async with gateway() as (host, client):
            host.by_name["page"] = page
            host.routes["/hello"] = Route("page", "web", ("GET", "POST"), False)
            host.routes["/strict"] = Route("page", "strict", ("POST",), True)
            answer = await client.get("/hello?name=ann")
            assert (answer.status_code, answer.text) == (200, "<p>hi")
            assert answer.headers["content-type"] == "text/html"
            assert answer.headers["ce-type"] == "page"
            _, trigger, event, _ = host.calls[0]
            assert trigger == "web"
            assert event.source == "/http/hello"
            assert event.extensions == {"httpmethod": "GET", "httpquery": "name=ann"}
            head = await client.head("/hello")
            assert (head.status_code, head.content) == (200, b"")
            answer = await client.put("/hello", content=b"1")
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, HEAD")
            answer = await client.post("/strict", content=b"1")
            assert answer.status_code == 415
            answer = await client.post("/nowhere")
            assert answer.status_code == 404

    run(test())


def test_what_a_handler_returns_cannot_split_the_response():
    async def evil(event, timeout_s):
        return Reply("ok", (Event("1", "/f", "t", datacontenttype="a/b\r\nx: y", data=b"1"),))

    async def test():
        async with gateway() as (host, client):
            host.by_name["evil"] = evil
            answer = await client.post("/functions/evil", content=b"1", headers=CE)
            assert answer.status_code == 500
            assert "x" not in answer.headers

    run(test())


def test_a_bug_is_a_500_that_tells_nothing(caplog):
    async def broken(event, timeout_s):
        raise RuntimeError("secret")

    async def test():
        async with gateway() as (host, client):
            host.by_name["broken"] = broken
            answer = await client.post("/functions/broken", content=b"1", headers=CE)
            assert answer.status_code == 500
            assert "secret" not in answer.text

    run(test())
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("prefer", "later"),
    [
        (["respond-async"], True),
        (["wait=5", "Respond-Async; x=y"], True),
        (["wait=5"], False),
        (['note="a, respond-async"'], False),
        (["respond-asynchronously"], False),
    ],
)
def test_a_call_that_need_not_wait_is_queued(prefer, later):
    async def test():
        async with gateway() as (host, client):
            host.routes["/web"] = Route("echo", "web", ("GET",), False)
            headers = [*CE.items(), *(("prefer", each) for each in prefer)]
            answer = await client.post("/functions/echo", content=b"1", headers=headers)
            assert (answer.status_code, len(host.calls)) == ((202, 0) if later else (200, 1))
            assert ("preference-applied" in answer.headers) == later
            if later:
                assert answer.headers["preference-applied"] == "respond-async"
                (receipt,) = answer.json()["receipts"]
                assert (receipt["id"], receipt["status"]) == ("7", "stored")
                again = await client.post("/functions/echo", content=b"1", headers=headers)
                assert again.json()["receipts"][0]["duplicate"] is True
                answer = await client.get("/web", headers=headers[-1:])
                assert answer.status_code == 202
                answer = await client.post("/functions/none", content=b"1", headers=headers)
                assert answer.status_code == 404
                host.receipts = [Receipt("refused", reason="the disk is full", error="full")]
                answer = await client.post("/functions/echo", content=b"1", headers=headers)
                assert answer.status_code == 507
                assert "preference-applied" not in answer.headers
                assert answer.json()["receipts"][0]["error"] == "full"

    run(test())


def test_only_an_admin_sees_a_traceback(tmp_path):
    async def fails(event, timeout_s):
        return Reply("error", (), Failure("KeyError", "'sku'", "main.py:14", "Traceback: line 14"))

    async def test():
        async with gateway() as (host, client):
            host.by_name["fails"] = fails
            answer = await client.post("/functions/fails", content=b"1", headers=CE)
            assert "traceback" not in answer.text.lower()
        async with admin_socket(tmp_path / "s") as host:
            host.by_name["fails"] = fails
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                answer = await client.post("/functions/fails", content=b"1", headers=CE)
                assert answer.json()["traceback"] == "Traceback: line 14"

    run(test())


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/functions/echo", {"POST"}),
        ("HEAD", "/functions/echo", {"POST"}),
        ("OPTIONS", "/functions/echo", {"POST"}),
        ("OPTIONS", "/topics/t/events", {"GET", "HEAD", "POST"}),
        ("DELETE", "/topics/t/events", {"GET", "HEAD", "POST"}),
        ("POST", "/topics", {"GET", "HEAD"}),
        ("OPTIONS", "/healthz", {"GET", "HEAD"}),
        ("POST", "/readyz", {"GET", "HEAD"}),
        ("OPTIONS", "/web", {"POST"}),
        ("HEAD", "/web", {"POST"}),
        ("TRACE", "/web", {"POST"}),
    ],
)
def test_another_method_is_405_with_those_that_are_taken(method, path, allow):
    async def test():
        async with gateway() as (host, client):
            host.routes["/web"] = Route("echo", "web", ("POST",), False)
            answer = await client.request(method, path)
            assert answer.status_code == 405
            assert {*answer.headers["allow"].split(", ")} == allow
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.content == b"") == (method == "HEAD")

    run(test())
