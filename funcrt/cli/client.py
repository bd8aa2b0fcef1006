"""The admin API as the commands use it: JSON over the host's Unix socket, or its gateway."""

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from funcrt.cli.errors import FAILED, UNREACHABLE, USAGE, CliError
from funcrt.sockets import connect_unix
from mesh.event import Event

__all__ = ["AdminClient", "RemoteClient", "client_of"]

TIMEOUT_S = 30.0
TOKEN = "FUNCRT_TOKEN"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path
        self.sock: socket | None

    def connect(self) -> None:
        self.sock = connect_unix(self.path, TIMEOUT_S)
        self.sock.settimeout(self.timeout)


class AdminClient:
    """Requests to one host. Raises CliError, with code 3 where no host answers."""

    hint = "funcrt serve DIR   # in another terminal, with the same --data"
    """What to try where no host answers."""
    timeout_s: float | None = TIMEOUT_S
    """For an answer; None for however long it takes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, *parts: str, **query: Any) -> Any:
        """The JSON at a path below `/admin`."""
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return self._ask("GET", _path(parts) + ("?" + words if words else ""), None)

    def post(self, *parts: str, body: Any) -> Any:
        """Send JSON, return JSON."""
        return self._ask("POST", _path(parts), msgspec.json.encode(body))

    def upload(self, body: bytes, media_type: str, *parts: str) -> Any:
        """Send bytes, return JSON."""
        return self._ask("POST", _path(parts), body, media_type)

    def stream(self, *parts: str, **query: Any) -> Iterator[Any]:
        """The JSON lines at a path below `/admin`, as they come; ends where the host stops."""
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        connection = self._connect()
        try:
            try:
                connection.request("GET", f"{_path(parts)}?{words}")
                answer = connection.getresponse()
                if answer.status >= 400:
                    raise _refused(answer.status, answer.read())
                if connection.sock is not None:
                    connection.sock.settimeout(None)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
            try:
                for line in answer:
                    if line.strip():
                        yield msgspec.json.decode(line)
            except (OSError, http.client.HTTPException):
                return
        finally:
            connection.close()

    def call(
        self, function: str, event: Event, *, later: bool = False
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Call a function with an event: status, headers and body of the answer. With `later` the
        call is queued. An event that stands for a plain request is sent as that request, where the
        function has an HTTP trigger at its path."""
        from funcrt.sandbox.web import REQUEST_TYPE
        from mesh.codec import encode_http

        if event.type == REQUEST_TYPE and not later:
            path = event.source.removeprefix("/http")
            if path != event.source and self._serves(function, path):
                return self._request(event, path)
        # Binary, so that one that takes a Request finds the data where it looks for it.
        named, body = encode_http(event, "binary")
        headers = dict(named)
        if later:
            headers["prefer"] = "respond-async"
        return self._exchange("POST", f"/functions/{quote(function, safe='')}", body, headers)

    def _serves(self, function: str, path: str) -> bool:
        from funcrt.paths import Paths

        triggers = self.get("functions", function)["status"]["triggers"]
        paths = Paths((each["target"], True) for each in triggers if each["kind"] == "http")
        return paths.find(unquote(path)) is not None

    def _request(self, event: Event, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        extensions = event.extensions
        query = extensions.get("httpquery", "")
        headers = {"content-type": event.datacontenttype} if event.datacontenttype else {}
        method = str(extensions.get("httpmethod", "POST"))
        return self._exchange(method, f"{path}?{query}" if query else path, event.data, headers)

    def _ask(
        self, method: str, path: str, body: bytes | None, media_type: str = "application/json"
    ) -> Any:
        headers = {"content-type": media_type} if body is not None else {}
        status, _, content = self._exchange(method, path, body, headers)
        if status >= 400:
            raise _refused(status, content)
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise CliError(f"{self.shown} answered {status}, and not as a host of funcrt") from None

    @property
    def shown(self) -> str:
        """The host, for messages."""
        return str(self.path)

    def _connect(self) -> http.client.HTTPConnection:
        return _Connection(self.path, self.timeout_s)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = self._connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> CliError:
        if isinstance(error, PermissionError):
            return CliError(
                f"{self.shown} belongs to another user", "the same with sudo", UNREACHABLE
            )
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return CliError(f"no host answers at {self.shown} ({why})", self.hint, UNREACHABLE)


def _refused(status: int, content: bytes) -> CliError:
    try:
        found = msgspec.json.decode(content)
        detail = found["detail"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return CliError(f"the answer was {status}, and not that of a host of funcrt")
    if "mistakes" in found:  # of functions, as `serve` tells them
        first, *more = found["mistakes"]
        return CliError(first, code=USAGE, more=more, then=found["then"])
    hint = "funcrt ls" if status == 404 else ""
    if status in (401, 403):
        hint = f"{TOKEN}=... the same again; `funcrt token NAME --scope admin` makes one"
    return CliError(detail, hint, UNREACHABLE if status == 503 else FAILED)


class RemoteClient(AdminClient):
    """Requests to a host's gateway, with the token of FUNCRT_TOKEN."""

    hint = "funcrt serve DIR --host ... --port ... --tokens FILE   # there"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}", "http")
        try:
            name, port = parts.hostname, parts.port
        except ValueError:
            name, port = None, None
        if parts.scheme not in ("http", "https") or not name or parts.path not in ("", "/"):
            raise CliError(
                f"--host {url}: expected http:// or https://, a name, and perhaps a port",
                "--host http://127.0.0.1:8080",
                USAGE,
            )
        self.name, self.port, self.secure = name, port, parts.scheme == "https"
        self.url = f"{parts.scheme}://{parts.netloc}"

    @property
    def shown(self) -> str:
        """The host, for messages."""
        return self.url

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.name, self.port, timeout=self.timeout_s)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if token := os.environ.get(TOKEN):
            headers = {**headers, "authorization": f"Bearer {token}"}
        return super()._exchange(method, path, body, headers)


def client_of(url: str | None, socket: Path) -> AdminClient:
    """The host at a URL, or on this machine."""
    return RemoteClient(url) if url else AdminClient(socket)


def _path(parts: tuple[str, ...]) -> str:
    return "/admin/" + "/".join(quote(part, safe="") for part in parts)
