"""Attacks on a real `funcrt serve` over its port: each must fail, and leave the host answering."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from funcrt.auth import new_token, token_line
from tests.serving import FUNCRT, Serving, rows, until

ECHO = """
import os, time
def handler(event):
    data = event.json() if event.data else None
    if isinstance(data, dict):
        if "sleep" in data:
            time.sleep(data["sleep"])
        if "die" in data: os._exit(3)
        if "fail" in data: raise ValueError(data["fail"])
        if "later" in data:
            from funcrt import Retry
            raise Retry("not now", after=7)
    return data
---
[[trigger]]
kind = "http"
path = "/echo"
[[trigger]]
topic = "in"
[scale]
max = 1
[retry]
attempts = 1
"""
HEAD = b"POST /topics/a/events HTTP/1.1\r\nHost: localhost\r\n"
CE = b"ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
FORGED = "a\x1b[31m\r\n2026-01-01 ERROR root: forged\u202e"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    one = Serving(tmp_path_factory.mktemp("open") / "data", echo=ECHO)
    yield one
    assert one.stop(signal.SIGTERM) == 0


@pytest.fixture(autouse=True)
def still_answers(serving: Serving) -> Iterator[None]:
    yield
    answer = httpx.post(f"{serving.url}/echo", json={"a": 1}, timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"a": 1})


def dial(serving: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", serving.port), timeout=5)


def ask(serving: Serving, request: bytes) -> list[int]:
    """The statuses of all answers, until the host hangs up or says no more."""
    with dial(serving) as sock:
        found = b""
        with contextlib.suppress(OSError):
            sock.sendall(request)
            while data := sock.recv(65536):
                found += data
                sock.settimeout(0.1)
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d+)", found, re.MULTILINE)]


@pytest.mark.parametrize(
    "request_",
    [
        # Content-Length and Transfer-Encoding together, or twice, or odd (RFC 9112 §6)
        HEAD + CE + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        HEAD + CE + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        HEAD + CE + b"content-length: 2, 2\r\n\r\n{}",
        HEAD + CE + b"content-length: +2\r\n\r\n{}",
        HEAD + CE + b"content-length: -1\r\n\r\n{}",
        HEAD + CE + b"content-length : 2\r\n\r\n{}",
        HEAD + CE + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding:\x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: chunked\r\n\r\n2;\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        HEAD + CE + b"transfer-encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
        # Heads that another server would read otherwise
        b"GET /topics HTTP/1.1\nHost: localhost\n\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nx: a\rb\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nx: a\0b\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nx: a\r\n b\r\n\r\n",
        b"GET /topics HTTP/1.1\r\n Host: localhost\r\nHost: localhost\r\n\r\n",
        # Hosts that are not ours (DNS rebinding), or two at once
        b"GET /topics HTTP/1.1\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost:evil.example\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: [::1]evil\r\n\r\n",
        b"GET http://evil.example/topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/topics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://localhost:1/topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        # Pages of other sites, also with what a form may send unasked
        HEAD + CE + b"Origin: http://evil.example\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\ncontent-type: text/plain\r\n"
        b"content-length: 2\r\n\r\n{}",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: evil://localhost\r\n"
        b"content-length: 0\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n",
        # What only an admin may, by every spelling
        *(
            b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for path in (
                b"/admin/functions",
                b"/admin%2ffunctions",
                b"/%61dmin/functions",
                b"//admin/functions",
                b"/./admin/functions",
                b"/topics/../admin/functions",
                b"/topics/%2e%2e%2fadmin%2ffunctions",
                b"/ADMIN/functions",
                b"/admin;x/functions",
                b"/topics/a%00b/events",
                b"/topics/a%0d%0ax:%20y/events",
                b"/topics/a%2fb/events",
                b"/topics/%ff/events",
                b"/topics/funcrt%2ecall.echo/events",
            )
        ),
        # Events that are not an outsider's to send, and bodies that hide something
        HEAD + CE + b"ce-funcrtattempt: 2\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + CE + b"ce-id: 2\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + CE.replace(b": 1\r", b": a%1b[31m\r") + b"content-length: 2\r\n\r\n{}",
        HEAD + CE.replace(b"/s", b"/funcrt/echo") + b"content-length: 2\r\n\r\n{}",
        HEAD + CE + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + CE + b"content-encoding: gzip\r\ncontent-encoding: identity\r\n"
        b"content-length: 2\r\n\r\n{}",
        HEAD.replace(b"/a/", b"/echo.dlq/") + CE + b"content-length: 2\r\n\r\n{}",
        HEAD + b"content-type: application/cloudevents+json\r\ncontent-length: 100008\r\n\r\n"
        + b'{"data":' + b"[" * 100_000,
        b"GET /topics?" + b"&".join([b"a=b"] * 5000) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /topics?" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
def test_it_is_refused(serving: Serving, request_: bytes) -> None:
    found = ask(serving, request_)
    assert found
    assert all(400 <= status < 500 or status == 501 for status in found), found
    assert httpx.get(f"{serving.url}/topics/a/events").json()["events"] == []


def test_what_follows_a_refused_body_is_never_a_request(serving: Serving) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % len(smuggled)
    assert ask(serving, HEAD + CE + both + smuggled) == [400]
    chunked = b"transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"
    assert ask(serving, HEAD + CE + chunked + smuggled) == [400]


def test_trailers_reach_nobody(serving: Serving) -> None:
    """Sent apart, so that the head has passed its checks before they come."""
    with dial(serving) as sock:
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n"
        sock.sendall(head + b"transfer-encoding: chunked\r\n\r\n7\r\n" + b'{"a":1}' + b"\r\n0\r\n")
        time.sleep(0.1)
        sock.sendall(CE + b"ce-evil: 1\r\n\r\n")
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"ce-causationid: 1\r\n" not in answer
    before = most = memory(serving)
    with dial(serving) as sock:
        sock.sendall(
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        sock.sendall(b"0\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                sock.sendall(b"a: b\r\n" * 10_000)
                most = max(most, memory(serving))
    assert most - before < 32


def memory(serving: Serving) -> int:
    """The host's, in MiB."""
    text = Path(f"/proc/{serving.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found
    return int(found[1]) >> 10


@contextlib.contextmanager
def many(serving: Serving, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                sock = stack.enter_context(dial(serving))
                if data:
                    sock.sendall(data)
                socks.append(sock)
        yield socks


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        (b"", 10_000),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nx: ", 10_000),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\ncontent-length: 9\r\n\r\n1", 2000),
    ],
)
def test_connections_that_stand_still_keep_nobody_out(
    serving: Serving, sent: bytes, count: int
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"needs {count + 500} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    before = memory(serving)
    try:
        with many(serving, count, sent) as socks:
            assert len(socks) == count
            time.sleep(1.1)
            for _ in range(3):
                answer = httpx.post(f"{serving.url}/echo", json=[1], timeout=10)
                assert answer.status_code == 200
            assert memory(serving) - before < 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_requests_sent_ahead_are_all_answered_in_bounded_memory(serving: Serving) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    count, before, most = 30_000, memory(serving), 0
    with dial(serving) as sock:
        sender = threading.Thread(target=sock.sendall, args=(one * count,))
        sender.start()
        found, rest, asked = 0, b"", time.monotonic()
        while found < count:
            data = rest + sock.recv(1 << 20)
            found += data.count(b"HTTP/1.1 200")
            rest = data[-11:] if data[-12:] != b"HTTP/1.1 200" else b""
            if time.monotonic() - asked > 0.5:
                asked, most = time.monotonic(), max(most, memory(serving))
        sender.join()
    assert most - before < 32


def test_a_body_and_the_next_head_may_share_a_piece(serving: Serving) -> None:
    body = json.dumps("x" * 100_000).encode()
    one = b"POST /echo HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n"
    one += b"content-length: %d\r\n\r\n" % len(body) + body
    with dial(serving) as sock:
        sock.sendall(one + one[:20])
        found = sock.recv(1 << 20)
        sock.sendall(one[20:])
        while found.count(b"HTTP/1.1 200") < 2:
            data = sock.recv(1 << 20)
            assert data, found[-300:]
            found += data


def test_nothing_that_is_logged_or_printed_passes_for_a_line_of_its_own(
    serving: Serving, tmp_path: Path
) -> None:
    answer = httpx.post(f"{serving.url}/echo", json={"fail": FORGED})
    assert answer.status_code == 500
    assert "traceback" not in answer.json()
    event = {
        "specversion": "1.0", "id": "id\u202e1", "source": "/s", "type": "t",
        "datacontenttype": "application/json", "data": {"fail": FORGED},
    }  # fmt: skip
    structured = {"content-type": "application/cloudevents+json"}
    url = f"{serving.url}/topics/in/events"
    assert httpx.post(url, content=json.dumps(event), headers=structured).status_code == 202
    until(lambda: rows(serving.run("dlq", "ls", "echo", "--json")))
    log = Path(serving.env["FUNCRT_DATA"]).with_name("serve.err").read_text()
    assert "ValueError" in log
    shown = serving.run("dlq", "ls", "echo").stdout + serving.run("ls").stdout
    shown += serving.run("dlq", "show", "echo", "--id", "1").stdout
    shown += serving.run("tail", "in", "--from", "earliest", "--limit", "1").stdout
    shown += serving.run("tail", "echo.dlq", "--from", "earliest", "--limit", "1").stdout
    for text in (log, shown):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
        assert not re.search("^2026-01-01 ERROR root", text, re.MULTILINE)


def test_a_call_that_had_not_begun_outlives_the_death_of_its_instance(serving: Serving) -> None:
    def call(number: int) -> int:
        data = {"die": 1} if number == 2 else {"sleep": 0.05}
        return httpx.post(f"{serving.url}/echo", json=data, timeout=20).status_code

    with ThreadPoolExecutor(10) as pool:
        found = sorted(pool.map(call, range(10)))
    assert found == [200] * 9 + [502]


def test_a_function_that_asks_for_later_is_503_with_its_wish(serving: Serving) -> None:
    answer = httpx.post(f"{serving.url}/echo", json={"later": 1})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


def test_files_and_sockets_are_the_owners_alone(serving: Serving) -> None:
    data = Path(serving.env["FUNCRT_DATA"])
    for name in ("admin.sock", "mesh.db", "mesh.db.sock", "mesh.db-wal"):
        assert stat.S_IMODE((data / name).stat().st_mode) & 0o077 == 0, name


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"])
def test_other_machines_are_let_in_only_by_tokens(host: str, tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    refused = subprocess.run(
        [*FUNCRT, "serve", str(tmp_path / "functions"), "--host", host, "--port", "0"],
        env={**os.environ, "FUNCRT_DATA": str(tmp_path / "data")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "no tokens are configured" in refused.stderr
    assert not (tmp_path / "data" / "mesh.db").exists()


def test_with_tokens_nothing_goes_without_the_right_one(tmp_path: Path) -> None:
    secrets = {scope: new_token() for scope in ("publish", "read", "admin")}
    lines = [token_line(secret, [scope], scope) for scope, secret in secrets.items()]
    (tmp_path / "tokens").write_text("\n".join(lines))
    (tmp_path / "tokens").chmod(0o600)
    options = ["--host", "0.0.0.0", "--tokens", str(tmp_path / "tokens")]
    one = Serving(tmp_path / "data", options, echo=ECHO)
    try:
        routes = {
            ("POST", "/topics/a/events"): "publish",
            ("POST", "/functions/echo"): "publish",
            ("POST", "/echo"): "publish",
            ("GET", "/topics"): "read",
            ("GET", "/topics/a/events"): "read",
            ("GET", "/admin/functions"): "admin",
            ("POST", "/admin/functions/echo/dlq/replay"): "admin",
        }
        for (method, path), needed in routes.items():
            url = f"{one.url}{path}"
            assert httpx.request(method, url, headers=EVENT).status_code == 401
            for scope, secret in secrets.items():
                headers = {**EVENT, "authorization": f"Bearer {secret}"}
                status = httpx.request(method, url, headers=headers).status_code
                assert (status == 403) == (scope != needed), (path, scope)
            in_query = httpx.request(method, f"{url}?t={secrets[needed]}", headers=EVENT)
            assert in_query.status_code == 400
        for path in ("/healthz", "/readyz"):
            assert httpx.get(f"{one.url}{path}").status_code == 200
            assert (
                httpx.get(f"{one.url}{path}", headers={"host": "evil.example"}).status_code == 403
            )
    finally:
        assert one.stop(signal.SIGTERM) == 0
    said = (tmp_path / "serve.err").read_text() + (tmp_path / "data" / "mesh.db").read_bytes().hex()
    assert not any(s in said or s.encode().hex() in said for s in secrets.values())


SLOW_START = "import time\ntime.sleep(1.5)\n" + ECHO


def test_readiness_while_starting_and_while_draining(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    seen: list[tuple[int, int]] = []

    def watch() -> None:
        while not seen or seen[-1] != (200, 200):
            with contextlib.suppress(httpx.ConnectError):
                status = httpx.get(f"{url}/readyz").status_code
                answer = httpx.post(f"{url}/echo", json=1)
                assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
                seen.append((status, answer.status_code))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    one = Serving(tmp_path / "data", ["--port", str(port)], echo=SLOW_START)
    watcher.join(20)
    assert seen[0] == (503, 503)
    assert seen[-1] == (200, 200)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(httpx.post, f"{url}/echo", json={"sleep": 3})
        time.sleep(0.5)
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "draining")
        assert httpx.get(f"{url}/healthz").status_code == 200
        refused = httpx.post(f"{url}/echo", json=1)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert call.result().status_code == 200
    assert one.ended() == 0
