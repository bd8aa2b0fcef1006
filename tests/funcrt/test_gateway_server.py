"""The server itself: bodies and heads on raw sockets, slow clients, the admin socket."""

import asyncio
import contextlib
import os
import stat

import httpx
import msgspec
import pytest

from funcrt.api import Reply
from funcrt.gateway import GatewayConfig, PortTaken, bind_tcp
from funcrt.sockets import SocketTaken, bind_unix, connect_unix, unlink_unix
from mesh.event import Event
from tests.funcrt.gateway_fakes import admin_socket, gateway

HEAD = (
    b"POST /topics/t/events HTTP/1.1\r\nHost: localhost\r\nce-specversion: 1.0\r\nce-id: 1\r\n"
    b"ce-source: /s\r\nce-type: t\r\ncontent-type: text/plain\r\n"
)
DEEP = b'{"ids": ' + b"[" * 10_000
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("funcrt.gateway.server.SWEEP_S", 0.05)


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


@contextlib.asynccontextmanager
async def dial(client):
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def raw(**settings):
    async with gateway(**settings) as (_, client), dial(client) as (reader, writer):
        yield client, reader, writer


async def answer_of(reader):
    """Status and headers of one response, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


def test_a_body_that_says_it_is_too_large_is_refused_unread():
    async def test():
        async with raw(event_bytes=1000) as (_, reader, writer):
            writer.write(HEAD + b"content-length: 5000000\r\nexpect: 100-continue\r\n\r\n")
            status, headers, _ = await answer_of(reader)
            assert (status, headers["connection"]) == (413, "close")
            assert await reader.read() == b""

    run(test())


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large():
    async def test():
        async with raw(event_bytes=1000) as (_, reader, writer):
            writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                writer.write(b"190\r\n" + b"x" * 400 + b"\r\n")
                await writer.drain()
            status, headers, body = await answer_of(reader)
            assert (status, headers["connection"]) == (413, "close")
            assert msgspec.json.decode(body)["limit"] == 1000
            writer.write(b"0\r\n\r\n")
            assert await reader.read() == b""

    run(test())


def test_a_client_that_sends_all_of_a_large_body_still_gets_its_413():
    async def test():
        async with raw(event_bytes=1000) as (_, reader, writer):
            writer.write(HEAD + b"content-length: 3000000\r\n\r\n" + b"x" * 3_000_000)
            await writer.drain()
            assert (await answer_of(reader))[0] == 413

    run(test())


def test_a_chunked_body_within_the_limit_keeps_the_connection():
    async def test():
        async with raw() as (_, reader, writer):
            for _ in range(2):
                writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
                status, headers, _ = await answer_of(reader)
                assert status == 202
                assert "connection" not in headers
            wrong = HEAD.replace(b"ce-id: 1\r\n", b"")
            writer.write(wrong + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            assert (await answer_of(reader))[0] == 400
            writer.write(HEALTH)
            assert (await answer_of(reader))[0] == 200

    run(test())


@pytest.mark.parametrize("pieces", [1, 40])
@pytest.mark.parametrize("large", [b"x-a: " + b"a" * 40_000, b"x: y\r\n" * 7000])
def test_heads_that_are_too_large(pieces, large):
    async def test():
        async with raw() as (_, reader, writer):
            data = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + large + b"\r\n\r\n"
            step = len(data) // pieces + 1
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
                await asyncio.sleep(0.001)
            status, headers, _ = await answer_of(reader)
            assert (status, headers["connection"]) == (431, "close")
            assert headers["content-type"] == "application/problem+json"

    run(test())


def test_too_many_headers():
    async def test():
        async with gateway(header_count=50) as (_, client):
            headers = {f"x-{number}": "1" for number in range(60)}
            assert (await client.get("/healthz", headers=headers)).status_code == 431

    run(test())


@pytest.mark.parametrize("name", ["Host: localhost", "Content-Type: text/html"])
def test_headers_that_count_may_come_once(name):
    async def test():
        async with raw() as (_, reader, writer):
            writer.write(HEAD + name.encode() + b"\r\ncontent-length: 1\r\n\r\nx")
            assert (await answer_of(reader))[0] == 400

    run(test())


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HTTP/1.1\r\nHo", HEAD + b"content-length: 10\r\n\r\nabc"],
)
def test_slow_clients_are_cut_off(sent):
    async def test():
        async with raw(head_timeout_s=0.3, body_timeout_s=0.3) as (_, reader, writer):
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 5)
            if not sent.startswith(HEAD):
                assert answer.startswith(b"HTTP/1.1 408 ")

    run(test())


def test_a_head_that_trickles_is_cut_off():
    async def test():
        async with raw(head_timeout_s=0.5) as (_, reader, writer):
            answer = asyncio.create_task(answer_of(reader))
            for byte in b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 100:
                if answer.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
            assert (await answer)[0] == 408

    run(test())


def test_a_client_that_does_not_read_its_answers_is_cut_off():
    async def large(event, timeout_s):
        return Reply(
            "ok", (Event("1", "/f", "t", datacontenttype="a/b", data=bytes(1 << 20)),) * 16
        )

    async def test():
        async with gateway(body_timeout_s=0.3) as (host, client), dial(client) as (reader, writer):
            host.by_name["large"] = large
            writer.transport.pause_reading()
            writer.write(b"POST /functions/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(2)
            writer.transport.resume_reading()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await answer_of(reader)

    run(test())


def test_answers_do_not_wait_for_delayed_acknowledgements():
    async def test():
        async with gateway() as (_, client):
            await client.get("/healthz")
            began = asyncio.get_running_loop().time()
            for _ in range(10):
                await client.get("/healthz")
            assert asyncio.get_running_loop().time() - began < 0.3

    run(test())


def test_a_slow_call_is_not_a_slow_client():
    async def test():
        async with gateway(head_timeout_s=0.2, body_timeout_s=0.2, keep_alive_s=1) as (_, client):
            answer = await client.post("/functions/slow?timeout=800ms", content=b"1")
            assert answer.status_code == 504

    run(test())


def test_more_connections_than_allowed_are_closed():
    async def test():
        async with gateway(connections=2) as (_, client), contextlib.AsyncExitStack() as stack:
            kept = [await stack.enter_async_context(dial(client)) for _ in range(2)]
            async with dial(client) as (reader, writer):
                writer.write(HEALTH)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await answer_of(reader)
            for reader, writer in kept:
                writer.write(HEALTH)
                assert (await answer_of(reader))[0] == 200

    run(test())


def test_garbage_is_no_reason_to_fall_over():
    async def test():
        async with gateway() as (_, client):
            for garbage in (b"\x00\xff" * 100, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"):
                async with dial(client) as (reader, writer):
                    writer.write(garbage)
                    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            assert (await client.get("/healthz")).status_code == 200

    run(test())


def test_leaving_waits_for_calls_in_flight_and_not_for_idle_connections():
    async def test():
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            async with gateway() as (host, client):
                base = str(client.base_url)
                idle = await stack.enter_async_context(httpx.AsyncClient(base_url=base))
                busy = await stack.enter_async_context(httpx.AsyncClient(base_url=base))
                await idle.get("/healthz")
                path = "/functions/slow?timeout=300ms"
                call = asyncio.create_task(busy.post(path, content=b"1"))
                while not host.calls:
                    await asyncio.sleep(0.01)
                left_at = loop.time()
            assert (await call).status_code == 504
            assert 0.2 < loop.time() - left_at < 1

    run(test())


def test_leaving_cancels_what_outlasts_the_drain():
    async def test():
        async with contextlib.AsyncExitStack() as stack:
            async with gateway(drain_s=0.1) as (host, client):
                base = str(client.base_url)
                busy = await stack.enter_async_context(httpx.AsyncClient(base_url=base))
                call = asyncio.create_task(busy.post("/functions/slow", content=b"1"))
                while not host.calls:
                    await asyncio.sleep(0.01)
            assert (await call).status_code == 503
            assert host.cancelled == ["slow"]

    run(test())


def test_port_taken():
    sock = bind_tcp(GatewayConfig(port=0))
    sock.listen()
    port = sock.getsockname()[1]
    with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
        bind_tcp(GatewayConfig(port=port))
    sock.close()


def unix(path):
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def test_the_admin_socket_is_the_owners_alone(tmp_path):
    path = tmp_path / "new" / "admin.sock"

    async def test():
        async with admin_socket(path) as host:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            async with unix(path) as client:
                status = (await client.get("/admin/status")).json()
                assert status["state"] == "ready"
                assert status["pid"] == os.getpid()
                assert "memory" in status["durability"]
                found = (await client.get("/admin/functions")).json()["functions"]
                assert [each["name"] for each in found] == ["echo", "quiet", "slow"]
                page = (await client.get("/admin/functions/echo/dlq?after=1&limit=1")).json()
                (letter,) = page["dead_letters"]
                assert letter["id"] == 2
                assert letter["event"]["type"] == "order.placed"
                assert (await client.get("/admin/functions/none/dlq")).status_code == 404
                path_ = "/admin/functions/echo/dlq/replay"
                assert (await client.post(path_, json={"ids": [1, 9]})).json() == {"replayed": 1}
                assert (await client.post(path_, json={"all": True})).json() == {"replayed": 3}
                assert host.redriven == [[1, 9], None]
        assert not path.exists()

    run(test())


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"all": true}', "text/plain", 415),
        (b'{"all": true}', "application/x-www-form-urlencoded", 415),
        (b"{}", "application/json", 400),
        (b'{"all": true, "ids": [1]}', "application/json", 400),
        (b'{"ids": ["1"]}', "application/json", 400),
        (b'{"id": [1]}', "application/json", 400),
        (DEEP, "application/json", 400),
    ],
)
def test_bad_admin_bodies(tmp_path, body, kind, status):
    async def test():
        async with admin_socket(tmp_path / "s") as host, unix(tmp_path / "s") as client:
            path = "/admin/functions/echo/dlq/replay"
            answer = await client.post(path, content=body, headers={"content-type": kind})
            assert answer.status_code == status
            assert host.redriven == []
            wrong = await client.get(path)
            assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
            for answer in (wrong, await client.get("/admin/none"), await client.get("/admin/")):
                assert answer.headers["content-type"] == "application/problem+json"

    run(test())


def test_each_admin_act_is_audited(tmp_path, caplog):
    async def test():
        async with admin_socket(tmp_path / "s"), unix(tmp_path / "s") as client:
            await client.post("/admin/functions/echo/dlq/replay", json={"ids": [2]})
            (kept,) = (await client.get("/admin/audit")).json()["acts"]
            assert (kept["seq"], kept["by"], kept["ids"]) == (1, "admin socket", [2])
            assert (await client.get("/admin/audit?after=1")).json() == {"acts": []}

    with caplog.at_level("INFO", "funcrt.audit"):
        run(test())
    (record,) = [each for each in caplog.records if each.name == "funcrt.audit"]
    said = msgspec.json.decode(record.getMessage())
    assert said == {
        "act": "dlq.replay",
        "by": "admin socket",
        "function": "echo",
        "ids": [2],
        "replayed": 1,
    }


def test_unix_sockets_are_made_safely(tmp_path):
    path = tmp_path / "a.sock"
    first = bind_unix(path)
    first.listen()
    with pytest.raises(SocketTaken, match="another host answers"):
        bind_unix(path)
    unlink_unix(path)
    assert path.exists(), "another host's socket must stay"
    first.close()
    second = bind_unix(path)  # nobody answers on the old one any more
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second.close()
    unlink_unix(path)
    path.write_text("mine")
    with pytest.raises(SocketTaken, match="no socket"):
        bind_unix(path)
    assert path.read_text() == "mine"


def test_a_symbolic_link_is_not_followed(tmp_path):
    target = tmp_path / "target.sock"
    bind_unix(target).close()
    link = tmp_path / "link.sock"
    link.symlink_to(target)
    with pytest.raises(SocketTaken, match="no socket"):
        bind_unix(link)
    assert target.exists()


def test_long_paths_work(tmp_path):
    path = tmp_path / ("d" * 100) / ("e" * 50) / "admin.sock"
    sock = bind_unix(path)
    sock.listen()
    connect_unix(path, 1.0).close()
    sock.close()
