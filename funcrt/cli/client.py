"""The admin API as the commands use it: JSON over the host's Unix socket."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import quote

import msgspec

from funcrt.cli.errors import FAILED, UNREACHABLE, CliError
from funcrt.sockets import connect_unix

__all__ = ["AdminClient"]

TIMEOUT_S = 30.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self.path = path
        self.sock: socket | None

    def connect(self) -> None:
        self.sock = connect_unix(self.path, TIMEOUT_S)


class AdminClient:
    """Requests to one host. Raises CliError, with code 3 where no host answers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, *parts: str, **query: Any) -> Any:
        """The JSON at a path below `/admin`."""
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return self._ask("GET", _path(parts) + ("?" + words if words else ""), None)

    def post(self, *parts: str, body: Any) -> Any:
        """Send JSON, return JSON."""
        return self._ask("POST", _path(parts), msgspec.json.encode(body))

    def stream(self, *parts: str, **query: Any) -> Iterator[Any]:
        """The JSON lines at a path below `/admin`, as they come; ends where the host stops."""
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        connection = _Connection(self.path)
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
        self, function: str, event: bytes, *, later: bool = False
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Call a function with an event as JSON: status, headers and body of the answer. With
        `later` the call is queued."""
        headers = {"content-type": "application/cloudevents+json"}
        if later:
            headers["prefer"] = "respond-async"
        return self._exchange("POST", f"/functions/{quote(function, safe='')}", event, headers)

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        status, _, content = self._exchange(method, path, body, headers)
        if status >= 400:
            raise _refused(status, content)
        return msgspec.json.decode(content)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = _Connection(self.path)
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
                f"{self.path} belongs to another user", "the same with sudo", UNREACHABLE
            )
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return CliError(
            f"no host answers at {self.path} ({why})",
            "funcrt serve DIR   # in another terminal, with the same --data",
            UNREACHABLE,
        )


def _refused(status: int, content: bytes) -> CliError:
    hint = "funcrt ls" if status == 404 else ""
    code = UNREACHABLE if status == 503 else FAILED
    return CliError(msgspec.json.decode(content)["detail"], hint, code)


def _path(parts: tuple[str, ...]) -> str:
    return "/admin/" + "/".join(quote(part, safe="") for part in parts)
