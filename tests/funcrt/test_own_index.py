"""An index of the operator's own is reached, and no password of it is told."""

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from funcrt.errors import FuncrtError
from funcrt.installer import PasswordExposed
from funcrt.packages import Packages
from funcrt.sandbox.levels import Policy
from tests.funcrt.test_installing import KINDS, at_level, get, opened
from tests.wheels import wheel


class Index(http.server.ThreadingHTTPServer):
    """A simple index of a directory of wheels, on the loopback."""

    def __init__(self, wheels: Path, names: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(wheels)))
        self.names = names
        self.wheels = wheels
        self.asked: list[str] = []


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.removeprefix("/simple/").strip("/")
        if not self.path.startswith("/simple/"):
            super().do_GET()
            return
        files = sorted(self.server.wheels.glob(f"{name}-*.whl"))
        links = "".join(f'<a href="/{each.name}">{each.name}</a>' for each in files)
        body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        self.send_response(200 if files else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def index(wheels: Path) -> Iterator[Index]:
    server = Index(wheels, ["paint"])
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_an_index_of_the_hosts_own_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, kind: str, host: str
) -> None:
    """Where the operator says that packages come from there."""
    at_level(level)
    opened(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    with index(tmp_path / "wheels") as server:
        url = f"http://{host}:{server.server_port}/simple"
        for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("UV_DEFAULT_INDEX" if kind == "uv" else "PIP_INDEX_URL", url)
        if kind == "pip":  # which keeps nothing else that came without TLS
            monkeypatch.setenv("PIP_TRUSTED_HOST", f"{host}:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "*")
        policy = Policy(forced=level)  # type: ignore[arg-type]
        found = get(Packages(tmp_path / "packages"), "paint", policy=policy)
        assert found.packages == ("paint 1.0",)
        assert any(path.endswith(".whl") for path in server.asked)
        before = len(server.asked)
        again = get(Packages(tmp_path / "packages"), "paint>0", policy=policy)
        assert again.path != found.path
        fetched = [path for path in server.asked[before:] if path.endswith(".whl")]
        # By the same installer, which is another where tests beside this have the first.
        caches = len(list((tmp_path / "packages").glob(".cache*")))
        assert fetched == [] or caches > 1, "downloads are kept"


@pytest.mark.parametrize("kind", KINDS)
def test_no_password_of_an_index_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Neither to whom a package names, nor to who deploys it: uv puts what its environment holds
    into the URLs of metadata."""
    opened(tmp_path)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")
    with index(tmp_path / "wheels") as server:
        place = f"127.0.0.1:{server.server_port}"
        url = f"http://someone:hunter2@{place}/simple"
        variable = {"pip": "PIP_INDEX_URL", "uv": "UV_INDEX"}[kind]
        monkeypatch.setenv(variable, url)
        if kind == "pip":
            monkeypatch.setenv("PIP_TRUSTED_HOST", place)
        told = f"evil @ http://{place}/${{{variable}}}/evil-1.0-py3-none-any.whl"
        wheel(tmp_path / "wheels", "paint", "1.0", needs=[told])
        packages = Packages(tmp_path / "packages")
        for line in ("paint", f"paint @ http://{place}/paint-1.0-py3-none-any.whl"):
            with pytest.raises(FuncrtError) as caught:
                get(packages, line)
            assert "hunter2" not in str(caught.value)
            assert isinstance(caught.value, PasswordExposed) == (kind == "uv" and "://" in line)
        assert any("paint" in path for path in server.asked)
        assert "hunter2" not in " ".join(server.asked)
