"""An index, or who answers in its place, that leads an installer elsewhere, or gives it no end:
real ones, and the table of docs/dependencies.md."""

import asyncio
import contextlib
import http.server
import os
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from funcrt.installer import DependencyError
from funcrt.packages import Packages
from funcrt.requirements import Needs
from funcrt.sandbox.levels import IsolationMissing, Policy
from tests.installs import in_sandbox
from tests.users import CLOSED
from tests.wheels import wheel

PAGE = Path(__file__).parents[2] / "docs" / "dependencies.md"
NAME = "paint-1.0-py3-none-any.whl"
GIVEN_UP_S = 3.0
STORED = (
    struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 1 << 31, 1 << 31, 8, 0) + b"paint/__"
)
"""Where a file begins in an archive, of 2 GiB."""
LEADS = {
    "the host's loopback": "http://127.0.0.1:{port}",
    "the host's loopback, by `::1`": "http://[::1]:{port}",
    "the host's loopback, in IPv6's clothes": "http://[::ffff:127.0.0.1]:{port}",
    "the host's loopback, by a number": "http://2130706433:{port}",
    "the host's loopback, by name": "http://localhost:{port}",
    "the host's loopback, by 0": "http://0.0.0.0:{port}",
    "the cloud's metadata": "http://169.254.169.254",
    "a private network": "http://10.255.255.1",
    "a file of the host": "file://{secret}",
    "a Unix socket": "unix://{secret}",
    "a repository": "git+ssh://127.0.0.1:{port}",
}
GIVES = {
    "another file than its hash says": "stopped",
    "names with `..`": "stopped",
    "a page without end": "bounded",
    "a file without end": "bounded",
    "a page that takes its time": "bounded",
}


class Index(http.server.ThreadingHTTPServer):
    """One that does to who asks what `does` says."""

    daemon_threads = True
    does = target = ""

    def __init__(self, file: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.file = file
        self.over = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Index
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.path.startswith("/simple/")
        does = self.server.does
        with contextlib.suppress(OSError):
            if does == f"redirects {'page' if page else 'file'}":
                self.send_response(302)
                self.send_header("Location", f"{self.server.target}/{NAME}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif does == "a page without end" and page:
                self.endless(b'<a href="/old-0.1.whl">old-0.1.whl</a>' * 1000)
            elif does == "a page that takes its time" and page:
                self.endless(b" ")
            elif does == "a file without end" and not page:
                self.endless(bytes(4096), STORED)
            elif page:
                self.send(self.links().encode(), "text/html")
            else:
                self.send(self.server.file, "application/zip")

    do_HEAD = do_GET

    def links(self) -> str:
        match self.server.does:
            case "links":
                return f'<a href="{self.server.target}/{NAME}">{NAME}</a>'
            case "another file than its hash says":
                return f'<a href="/{NAME}#sha256={"0" * 64}">{NAME}</a>'
            case "names with `..`":
                return f'<a href="/x/../../../{NAME}">../../../../../{NAME}</a>'
        return f'<a href="/{NAME}">{NAME}</a>'

    def send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Disposition", f'attachment; filename="../../../planted/{NAME}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def endless(self, piece: bytes, first: bytes = b"") -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = first + piece
        while self.command == "GET" and not self.server.over.wait(0.01):
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            piece = piece[len(first) :] or piece
            first = b""

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def serving(server: Index) -> Iterator[Index]:
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def table() -> dict[str, str]:
    here = PAGE.read_text().split("## What an index reaches")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (stopped|bounded|open) \|$", here, re.M))


async def came_of(packages: Packages, number: int) -> str:
    """What came of an installation, which has nothing from one before."""
    for cache in packages.root.glob(".cache*"):
        shutil.rmtree(cache)
    began = time.monotonic()
    try:
        needs = Needs((f"paint>=0.{number}",), "requirements.txt")
        found = await packages.get("f", needs)
        assert found is not None
        kept = {path.name for path in found.path.iterdir()}
        plain = kept - {".lock"} == {"paint", "paint-1.0.dist-info"}
        return "stopped" if plain else f"open: {kept}"
    except DependencyError as error:
        told = str(error)
    assert "of the host" not in told
    assert list(packages.root.glob(".install-*")) == []
    late = "given up after" in told
    assert not late or time.monotonic() - began < GIVEN_UP_S + 15
    return "bounded" if late else "stopped"


@pytest.mark.parametrize(
    ("kind", "level"), [("uv", "process"), ("uv", "sandbox"), ("pip", "sandbox")]
)
def test_an_index_is_stopped_as_the_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: str
) -> None:
    if level == "process" and os.geteuid() == 0 and CLOSED:
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    (tmp_path / "secret").mkdir()
    wheel(tmp_path / "secret", "paint", "1.0", files={"secret.txt": "of the host"})
    file = wheel(tmp_path / "wheels", "paint", "1.0").read_bytes()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("funcrt.installer.MOST_S", GIVEN_UP_S)
    packages = Packages(tmp_path / "packages")
    found: dict[str, set[str]] = {}

    async def main() -> None:
        for number, (what, does, target) in enumerate(attacks):
            server.does, server.target = does, target
            found.setdefault(what, set()).add(await came_of(packages, number))

    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as near:
        given = {"port": near.getsockname()[1], "secret": tmp_path / "secret"}
        attacks = [
            (what, does, to.format(**given))
            for what, to in LEADS.items()
            for does in ("links", "redirects page", "redirects file")
        ]
        attacks += [(what, what, "") for what in GIVES]
        with serving(Index(file)) as server:
            place = f"127.0.0.1:{server.server_port}"
            url = f"http://{place}/simple"
            pip = {"PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": place, "PIP_RETRIES": "0"}
            uv = {"UV_DEFAULT_INDEX": url, "UV_HTTP_RETRIES": "0"}
            for name, value in {"NO_PROXY": "*", **(uv if kind == "uv" else pip)}.items():
                monkeypatch.setenv(name, value)
            policy = Policy(forced=level)  # type: ignore[arg-type]
            try:
                asyncio.run(in_sandbox(packages, main, policy))
            except IsolationMissing as error:
                pytest.skip(str(error))
        near.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            near.accept()
    assert found == {what: {how} for what, how in table().items()}
    assert table() == dict.fromkeys(LEADS, "stopped") | GIVES
    assert not list(tmp_path.rglob("planted"))
