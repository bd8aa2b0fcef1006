"""Who gets in: Host, Origin, tokens, the state of the host, how many at once."""

import asyncio
import os

import pytest

from funcrt.api import Reply
from funcrt.auth import (
    TokenFileInvalid,
    Tokens,
    UnsafeBind,
    check_bind,
    is_loopback,
    new_token,
    token_line,
)
from funcrt.gateway import GatewayConfig, bind_tcp, make_app
from mesh.schemes import connect
from tests.funcrt.gateway_fakes import FakeHost, gateway

CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
SECRETS = {scope: new_token() for scope in ("publish", "read", "admin")}


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    lines = [token_line(secret, [scope], scope) for scope, secret in SECRETS.items()]
    path.write_text("\ufeff# who may what\r\n\r\n" + "\r\n".join(lines))
    return Tokens.load(path)


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/topics", "/functions/echo", "/admin/x"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("[::1].evil.example", 403),
        ("10.0.0.1", 403),
        ("", 400),
    ],
)
def test_foreign_host_names_are_refused_on_every_route(path, host, status):
    async def test():
        async with gateway() as (fake, client):
            answer = await client.post(path, content=b"1", headers={**CE, "host": host})
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert fake.calls == []

    run(test())


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:8", "fn.corp"])
def test_own_host_names_pass(host):
    async def test():
        async with gateway(allowed_hosts=("fn.corp",)) as (_, client):
            answer = await client.get("/healthz", headers={"host": host})
            assert answer.status_code == 200

    run(test())


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": "http://fn.corp.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/topics", "/admin/functions"])
def test_pages_of_other_origins_are_refused_on_every_route(headers, path):
    async def test():
        async with gateway(allowed_origins=("https://fn.corp",)) as (_, client):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:funcrt:problem:origin"
            assert "access-control-allow-origin" not in answer.headers
            answer = await client.options(path, headers=headers)
            assert answer.status_code == 403

    run(test())


def test_own_and_allowed_origins_pass():
    async def test():
        async with gateway(allowed_origins=("https://ops.corp",)) as (_, client):
            own = str(client.base_url).rstrip("/")
            for origin in (own, own.upper(), "https://ops.corp"):
                answer = await client.get("/topics", headers={"origin": origin})
                assert answer.status_code == 200, origin

    run(test())


def test_loopback_without_tokens_publishes_reads_and_calls_but_is_no_admin():
    async def test():
        async with gateway() as (_, client):
            assert (await client.get("/topics")).status_code == 200
            answer = await client.post("/functions/echo", content=b"1", headers=CE)
            assert answer.status_code == 200
            for path in ("/admin", "/admin/functions", "/%61dmin/functions", "/admin/none"):
                answer = await client.get(path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Bearer")

    run(test())


def test_scopes(tokens):
    asked = [
        ("GET", "/topics", "read"),
        ("GET", "/topics/t/events", "read"),
        ("POST", "/topics/t/events", "publish"),
        ("POST", "/functions/echo", "publish"),
        ("GET", "/nowhere", "publish"),
        ("GET", "/admin/functions", "admin"),
        ("POST", "/admin/functions/echo/dlq/replay", "admin"),
    ]

    async def test():
        async with gateway(tokens=tokens) as (fake, client):
            for method, path, needed in asked:
                answer = await client.request(method, path, content=b"1")
                assert answer.status_code == 401, path
                for scope, secret in SECRETS.items():
                    headers = {**CE, **bearer(secret)}
                    answer = await client.request(method, path, content=b"1", headers=headers)
                    if scope == needed:
                        assert answer.status_code not in (401, 403), (path, scope)
                    else:
                        assert answer.status_code == 403, (path, scope)
                        assert answer.json()["scope"] == needed
                        assert "insufficient_scope" in answer.headers["www-authenticate"]
            assert [name for name, *_ in fake.calls] == ["echo"]

    run(test())


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer nope",
        "Basic YTpi",
        pytest.param(SECRETS["read"], id="no scheme"),
        "Bearer \xff\xfe",
    ],
)
def test_bad_credentials(tokens, value):
    async def test():
        async with gateway(tokens=tokens) as (_, client):
            headers = [("authorization", value.encode("latin-1"))]
            answer = await client.get("/topics", headers=headers)
            assert answer.status_code == 401
            assert SECRETS["read"] not in answer.text

    run(test())


def test_a_token_in_the_query_or_sent_twice_is_refused(tokens):
    async def test():
        async with gateway(tokens=tokens) as (_, client):
            for name in ("access_token", "token", "x"):
                answer = await client.get("/topics", params={name: SECRETS["read"]})
                assert answer.status_code == 400
                assert SECRETS["read"] not in answer.text
            pair = [("authorization", f"Bearer {SECRETS['read']}"), ("authorization", "Bearer x")]
            assert (await client.get("/topics", headers=pair)).status_code == 400
            # A function's own parameter of that name is no token.
            answer = await client.get("/topics?token=abc", headers=bearer(SECRETS["read"]))
            assert answer.status_code == 200

    run(test())


def test_every_entry_is_compared(tokens, monkeypatch):
    seen = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: seen.append(b) or a == b)
    assert tokens.check(SECRETS["publish"].encode()).scopes == {"publish"}
    assert len(seen) == len(SECRETS)


def test_states_of_the_host(tokens):
    async def test():
        async with gateway() as (fake, client):
            for state in ("starting", "draining", "stopped"):
                fake.state = state
                answer = await client.post("/functions/echo", content=b"1", headers=CE)
                assert answer.status_code == 503
                assert answer.headers["connection"] == "close"
                assert answer.json()["state"] == state
                assert (await client.get("/healthz")).status_code == 200
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()) == (503, {"state": state})
            fake.state = "ready"
            assert (await client.get("/readyz")).json() == {"state": "ready"}

    run(test())


def test_draining_finishes_what_is_in_flight():
    async def test():
        async with gateway() as (fake, client):
            leave = asyncio.Event()

            async def waits(event, timeout_s):
                await leave.wait()
                return Reply("ok", (event,))

            fake.by_name["waits"] = waits
            call = asyncio.create_task(client.post("/functions/waits", content=b"1", headers=CE))
            while not fake.calls:
                await asyncio.sleep(0.01)
            fake.state = "draining"
            answer = await client.post("/functions/waits", content=b"1", headers=CE)
            assert answer.status_code == 503
            leave.set()
            assert (await call).status_code == 200

    run(test())


def test_too_many_requests_at_once():
    async def test():
        async with gateway(concurrent=2) as (fake, client):
            path = "/functions/slow?timeout=300ms"
            slow = [
                asyncio.create_task(client.post(path, content=b"1", headers=CE)) for _ in range(2)
            ]
            while len(fake.calls) < 2:
                await asyncio.sleep(0.01)
            answer = await client.post("/functions/echo", content=b"1", headers=CE)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert (await client.get("/healthz")).status_code == 200
            assert {(await each).status_code for each in slow} == {504}
            answer = await client.post("/functions/echo", content=b"1", headers=CE)
            assert answer.status_code == 200

    run(test())


def test_binding_where_others_reach_needs_tokens(tokens):
    for host in ("0.0.0.0", "::", "", "10.1.2.3", "example.com", "::ffff:127.0.0.1"):
        assert not is_loopback(host)
        with pytest.raises(UnsafeBind, match="no tokens"):
            bind_tcp(GatewayConfig(host=host, port=0))
        check_bind(host, tokens)
    bind_tcp(GatewayConfig(host="0.0.0.0", port=0, tokens=tokens)).close()
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_bind(host, Tokens())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        ("publish abc\n", "tokens:1: found 2 words"),
        ("\npublish " + "a" * 63 + " ci\n", "tokens:2: the second word is no SHA-256"),
        ("publish " + "A" * 64 + " ci\n", "tokens:1: the second word"),
        ("write " + "a" * 64 + " ci\n", "no scope is named 'write'"),
        (", " + "a" * 64 + " ci\n", "no scope is named ''"),
    ],
)
def test_bad_token_files(tmp_path, text, message):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(TokenFileInvalid, match=message):
        Tokens.load(path)


def test_token_files_that_cannot_be_trusted(tmp_path):
    path = tmp_path / "tokens"
    with pytest.raises(TokenFileInvalid, match="cannot be read"):
        Tokens.load(path)
    path.write_text(token_line(new_token(), ["read"], "ci"))
    os.chmod(path, 0o666)
    with pytest.raises(TokenFileInvalid, match="every user may write"):
        Tokens.load(path)
    path.write_bytes(b"\xff\xfe")
    os.chmod(path, 0o600)
    with pytest.raises(TokenFileInvalid, match="UTF-8"):
        Tokens.load(path)


@pytest.mark.parametrize(
    ("scopes", "name"), [(["write"], "ci"), ([], "ci"), (["read"], "a b"), (["read"], "#x")]
)
def test_token_lines_that_could_not_be_read_back(scopes, name):
    with pytest.raises(ValueError):
        token_line(new_token(), scopes, name)


def test_a_websocket_is_closed():
    async def test():
        mesh = await connect("embedded::memory:")
        sent = []

        async def send(message):
            sent.append(message)

        await make_app(FakeHost(mesh), GatewayConfig())({"type": "websocket"}, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
        await mesh.close()

    run(test())
