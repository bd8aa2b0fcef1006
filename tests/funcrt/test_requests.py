"""Handlers that take Starlette's Request, in a real host over real sockets."""

import asyncio
import json
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from funcrt.auth import new_token, token_line
from tests.serving import Serving, rows, until

pytestmark = pytest.mark.usefixtures("unconfined")

SHOW = """
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from funcrt import Context, Event, Reject
async def handler(request: Request, ctx: Context) -> Response:
    path = request.url.path
    if path.endswith("/away"): return RedirectResponse("/elsewhere", 307)
    if path.endswith("/none"): raise HTTPException(404, "no such order", {"x-why": "none"})
    if path.endswith("/reject"): raise Reject("no thanks")
    if path.endswith("/fails"): raise KeyError("sku")
    if path.endswith("/plain"): return {"plain": True}
    if path.endswith("/bad"): return Response("x", headers={"x-a": "1"}, status_code=99)
    if path.endswith("/emits"):
        ctx.emit(Event.create("order.seen", {"n": 1}))
        return Response(status_code=204)
    if path.endswith("/cookies"):
        answer = Response("ok", 201, {"x-own": "1", "connection": "close"})
        answer.set_cookie("a", "1"); answer.set_cookie("b", "2")
        return answer
    return JSONResponse({
        "method": request.method, "path": path, "query": list(request.query_params.multi_items()),
        "cookie": request.cookies, "agent": request.headers.get("user-agent"),
        "body": (await request.body()).decode(), "params": {
            k: [type(v).__name__, str(v)] for k, v in request.path_params.items()},
        "ctx": {k: str(v) for k, v in ctx.path_params.items()}, "trigger": ctx.trigger,
        "authorization": request.headers.get("authorization"),
    }, 418)
---
[[trigger]]
kind = "http"
path = "/show/{id:int}"
[[trigger]]
kind = "http"
path = "/show/{rest:path}"
[[trigger]]
kind = "http"
path = "/item/{key:uuid}/{name}"
methods = ["PUT"]
[output]
topic = "seen"
"""
FLOWS = """
import asyncio, os
from starlette.requests import Request
from starlette.responses import StreamingResponse
from funcrt import Context
SENT = os.environ["SENT"]
async def chunks(kind, ctx):
    count = 0
    try:
        while True:
            yield (b"x" * 65536 if kind == "much" else b"tick %d\\n" % count)
            count += 1
            open(SENT, "w").write(str(count))
            if kind == "fails" and count == 3: raise ValueError("half way")
            if kind == "three" and count == 3: return
            if kind != "much": await asyncio.sleep(0.05)
    finally:
        open(SENT + ".ended", "a").write("ended\\n")
async def handler(request: Request, ctx: Context):
    return StreamingResponse(chunks(request.path_params["kind"], ctx), media_type="text/plain")
---
timeout = "60s"
[[trigger]]
kind = "http"
path = "/flow/{kind}"
[env]
SENT = "SENT_PATH"
"""
SYNC = """
from dataclasses import dataclass
import time
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
@dataclass
class Order:
    total: int
def pieces():
    for n in range(3):
        yield f"{n} "
        time.sleep(0.1)
def handler(request: Request, order: Order):
    if request.method == "DELETE": return StreamingResponse(pieces())
    return PlainTextResponse(f"{request.method} {order.total} {request.query_params.get('q')}")
"""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("requests")
    flows = FLOWS.replace("SENT_PATH", str(root / "sent"))
    one = Serving(root / "data", show=SHOW, flows=flows, sync=SYNC)
    yield one
    assert one.stop(signal.SIGTERM) == 0


@pytest.fixture
def sent(serving: Serving) -> Path:
    return Path(serving.env["FUNCRT_DATA"]).parent / "sent"


def count(sent: Path) -> int:
    return int(until(sent.read_text))  # which is empty for a moment


def test_a_request_comes_whole_and_the_response_goes_as_it_is(serving: Serving) -> None:
    answer = httpx.request(
        "PATCH", f"{serving.url}/show/17?a=1&a=2", content=b"hello",
        headers={"user-agent": "t", "cookie": "c=3", "authorization": "Basic eDp5"},
    )  # fmt: skip
    assert answer.status_code == 418
    assert answer.json() == {
        "method": "PATCH", "path": "/show/17", "query": [["a", "1"], ["a", "2"]],
        "cookie": {"c": "3"}, "agent": "t", "body": "hello", "params": {"id": ["int", "17"]},
        "ctx": {"id": "17"}, "trigger": "show-id-int", "authorization": "Basic eDp5",
    }  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"
    answer = httpx.request("MKCOL", f"{serving.url}/functions/show")
    assert (answer.json()["method"], answer.json()["trigger"]) == ("MKCOL", "http")


HEADS = """
from starlette.requests import Request
from starlette.responses import JSONResponse
def handler(request: Request):
    return JSONResponse([list(each) for each in request.headers.items()])
"""
SEES = """
def handler(event, ctx):
    seen = {name: getattr(ctx, name, None) for name in dir(ctx) if name[0] != "_"}
    return [event.to_json().decode(), repr(seen)]
---
[[trigger]]
kind = "http"
path = "/sees/{id}"
"""


def test_no_function_sees_the_gateway_s_token(tmp_path: Path) -> None:
    secret = new_token()
    (tmp_path / "tokens").write_text(token_line(secret, ["publish"], "ci"))
    options = ["--tokens", str(tmp_path / "tokens")]
    one = Serving(tmp_path / "data", options, heads=HEADS, sees=SEES)
    try:
        heads = {"authorization": f"Bearer {secret}", "x-own": "kept"}
        for path in ("/functions/heads", "/functions/sees", "/sees/1"):
            assert httpx.post(f"{one.url}{path}", json=1).status_code == 401
            answer = httpx.post(f"{one.url}{path}", json=1, headers=heads)
            assert answer.status_code == 200
            assert secret not in answer.text
            assert "authorization" not in answer.text.lower()
            assert "heads" not in path or ["x-own", "kept"] in answer.json()
    finally:
        assert one.stop(signal.SIGTERM) == 0


def test_the_most_particular_path_is_meant(serving: Serving) -> None:
    key = str(uuid.uuid4())
    got = httpx.get(f"{serving.url}/show/a%20b/c").json()
    assert got["params"] == {"rest": ["str", "a b/c"]}
    got = httpx.put(f"{serving.url}/item/{key}/x").json()
    assert got["params"] == {"key": ["UUID", key], "name": ["str", "x"]}
    refused = httpx.get(f"{serving.url}/item/{key}/x")
    assert (refused.status_code, refused.headers["allow"]) == (405, "PUT")
    assert httpx.put(f"{serving.url}/item/none/x").status_code == 404


def test_responses_of_every_sort(serving: Serving) -> None:
    with httpx.Client(base_url=serving.url) as client:
        away = client.get("/show/away")
        assert (away.status_code, away.headers["location"]) == (307, "/elsewhere")
        cookies = client.get("/show/cookies")
        assert cookies.status_code == 201
        assert cookies.headers.get_list("set-cookie") == [
            "a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax",
        ]  # fmt: skip
        assert "connection" not in cookies.headers
        none = client.get("/show/none")
        assert (none.status_code, none.text, none.headers["x-why"]) == (
            404,
            "no such order",
            "none",
        )
        reject = client.get("/show/reject")
        assert (reject.status_code, reject.json()["message"]) == (422, "no thanks")
        fails = client.get("/show/fails").json()
        assert (fails["status"], fails["error"], fails["where"]) == (
            500, "KeyError", "main.py:11 in handler",
        )  # fmt: skip
        plain = client.get("/show/plain")
        assert (plain.json(), plain.headers["ce-type"]) == ({"plain": True}, "funcrt.show.result")
        bad = client.get("/show/bad")
        assert bad.status_code == 500
        assert bad.json()["message"] == (
            "the response cannot be sent: its status is 99, expected 200 to 599, once"
        )
        head = client.head("/show/1")
        assert (head.status_code, head.content) == (418, b"")
        assert int(head.headers["content-length"]) > 100


def test_what_it_emits_is_stored_before_the_caller_is_told(serving: Serving) -> None:
    before = httpx.get(f"{serving.url}/topics").json()["topics"].get("seen", 0)
    assert httpx.get(f"{serving.url}/show/emits").status_code == 204
    assert httpx.get(f"{serving.url}/topics").json()["topics"]["seen"] == before + 1


def test_a_large_body_up_to_the_limit(serving: Serving) -> None:
    body = b"y" * (8 << 20)
    answer = httpx.post(f"{serving.url}/show/large", content=body, timeout=30)
    assert len(answer.json()["body"]) == len(body)
    refused = httpx.post(f"{serving.url}/show/large", content=body + b"y")
    assert (refused.status_code, refused.json()["limit"]) == (413, 8 << 20)


def test_a_synchronous_handler_and_its_typed_body(serving: Serving) -> None:
    url = f"{serving.url}/functions/sync"
    assert httpx.post(f"{url}?q=7", json={"total": 3}).text == "POST 3 7"
    wrong = httpx.post(url, json={"total": "x"})
    assert (wrong.status_code, wrong.json()["error"]) == (422, "NotAnEvent")
    with httpx.stream("DELETE", url, content=b'{"total": 0}') as answer:
        pieces = [(time.monotonic(), piece) for piece in answer.iter_text() if piece]
    assert "".join(piece for _, piece in pieces) == "0 1 2 "
    assert pieces[-1][0] - pieces[0][0] > 0.1


def test_chunks_flow_as_they_are_made(serving: Serving, sent: Path) -> None:
    with httpx.stream("GET", f"{serving.url}/flow/three") as answer:
        lines = [(time.monotonic(), line) for line in answer.iter_lines()]
    assert [line for _, line in lines] == ["tick 0", "tick 1", "tick 2"]
    assert lines[2][0] - lines[0][0] > 0.05


def test_a_response_that_fails_half_way_is_seen_to_be_cut_off(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), 20) as client:
        client.sendall(b"GET /flow/fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b"".join(iter(partial(client.recv, 1 << 16), b""))
    assert got.startswith(b"HTTP/1.1 200")
    assert b"tick 2" in got
    assert not got.endswith(b"0\r\n\r\n")  # the chunk that would end it
    assert httpx.get(f"{serving.url}/flow/three").text == "tick 0\ntick 1\ntick 2\n"


def test_a_client_that_leaves_ends_the_generator(serving: Serving, sent: Path) -> None:
    ended = sent.with_name("sent.ended")
    before = ended.read_text().count("ended") if ended.exists() else 0
    with httpx.stream("GET", f"{serving.url}/flow/endless") as answer:
        next(answer.iter_lines())
    until(lambda: ended.exists() and ended.read_text().count("ended") > before)
    made = count(sent)
    time.sleep(0.3)
    assert count(sent) == made


def test_a_client_that_does_not_read_stops_the_generator(serving: Serving, sent: Path) -> None:
    """What lies between the two: the window, the sockets' buffers, the gateway's."""
    with socket.create_connection(("127.0.0.1", serving.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /flow/much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1024).startswith(b"HTTP/1.1 200")

        def still() -> int | None:
            before = count(sent)
            time.sleep(0.5)
            return before if before == count(sent) else None

        made = until(still)
        assert made < 200, f"{made * 65536} bytes made for a client that read nothing"
        left = 20 << 20
        while left > 0:  # and goes on once it reads
            left -= len(client.recv(1 << 20))
        assert count(sent) > made
    host = next(row for row in rows(serving.run("ls", "--json")) if row["name"] == "flows")
    assert host["state"] == "ready"


def test_many_streams_at_once_each_get_their_own(serving: Serving) -> None:
    async def all_at_once() -> None:
        async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
            answers = await asyncio.gather(*(client.get("/flow/three") for _ in range(40)))
        assert {answer.text for answer in answers} == {"tick 0\ntick 1\ntick 2\n"}

    asyncio.run(all_at_once())


def test_prefer_is_not_applied_where_a_request_could_not_be_kept(serving: Serving) -> None:
    answer = httpx.get(f"{serving.url}/show/1", headers={"prefer": "respond-async"})
    assert (answer.status_code, "preference-applied" in answer.headers) == (418, False)
    assert json.loads(answer.text)["trigger"] == "show-id-int"
