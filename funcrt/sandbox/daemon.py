"""The Docker daemon of this machine, asked through its SDK in threads, and what is left there of a
host that has ended."""

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from funcrt.errors import ImageUnusable, SandboxError
from funcrt.sandbox.levels import DockerUnavailable

__all__ = ["DIRECTORY", "HOST", "PREFIX", "Daemon", "docker_missing", "ended", "host_id", "outlive"]

HOST = "funcrt.host"
"""The label of our containers that says which process they belong to, and that"""
DIRECTORY = "funcrt.directory"
"""which says where its sockets are."""
PREFIX = "funcrt-docker-"
"""Of the names of those directories."""
THREADS = 4
ANSWER_S = 60
SOCKET = "unix://"
Reply = TypeVar("Reply")


def host_id() -> str:
    """This process, told from any other of this machine at any time: boot, pid namespace, pid and
    when it started."""
    return _identity(os.getpid()) or ""


def _identity(pid: int) -> str | None:
    """None for a process that is not there."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    started = stat.rpartition(")")[2].split()[19]
    space = Path("/proc/self/ns/pid").readlink()
    return f"{boot}/{space}/{pid}/{started}"


def ended(host: str) -> bool:
    """Whether a host is known to have ended: of another pid namespace nobody here can say."""
    boot, _, rest = host.partition("/")
    space, _, process = rest.partition("/")
    pid = process.partition("/")[0]
    ours = (_identity(os.getpid()) or "").split("/")
    if boot != ours[0]:
        return True
    return space == ours[1] and pid.isdecimal() and _identity(int(pid)) != host


class Daemon:
    """A connection to it. Raises DockerUnavailable, ImageUnusable, SandboxError."""

    def __init__(self) -> None:
        self._client: Any = None
        self._threads = ThreadPoolExecutor(THREADS, "docker")

    async def open(self) -> None:
        """Connect, and see that it answers."""
        if why := docker_missing():
            raise DockerUnavailable(why)
        import docker.errors

        try:
            self._client = await self._run(_connect)
        except (docker.errors.DockerException, OSError) as error:
            raise DockerUnavailable(_no_answer(error)) from None

    async def _run(self, ask: Callable[[], Reply]) -> Reply:
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    async def ask(self, ask: Callable[[Any], Reply]) -> Reply:
        """Call something of the client, in a thread."""
        import docker.errors

        try:
            return await self._run(lambda: ask(self._client))
        except docker.errors.ImageNotFound as error:
            raise ImageUnusable(str(error.explanation)) from None
        except docker.errors.APIError as error:
            raise SandboxError(f"docker: {error.explanation or error}") from None
        except (docker.errors.DockerException, OSError) as error:
            raise DockerUnavailable(_no_answer(error)) from None

    async def pause(self, container: str, paused: bool) -> None:
        """Have it stand still, or go on."""
        await self.ask(lambda client: (client.pause if paused else client.unpause)(container))

    async def remove(self, container: str) -> None:
        """End it and take it away. One that is gone is no matter."""
        await self.ask(lambda client: _remove(client, container))

    async def sweep(self) -> None:
        """Take away what hosts left that have ended."""
        await self.ask(lambda client: _sweep(client, ended))

    def close(self) -> None:
        """Twice is harmless."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
            self._client = None


def docker_missing() -> str:
    """Why there can be no containers here; nothing where there can, it seems."""
    where = _where()
    if not where.startswith(SOCKET):
        return (
            f"DOCKER_HOST is {where}, and a container is reached through a directory that it shares"
            " with the host"
        )
    try:  # the SDK would wrap why it cannot, several times
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(where.removeprefix(SOCKET))
    except OSError as error:
        return _no_answer(error)
    if "docker" not in sys.modules and importlib.util.find_spec("docker") is None:
        return "the docker package is not installed"
    return ""


def _where() -> str:
    return os.environ.get("DOCKER_HOST") or f"{SOCKET}/var/run/docker.sock"


def _no_answer(error: BaseException) -> str:
    return f"no Docker daemon answers at {_where()} ({_cause(error)})"


def _connect() -> Any:
    import docker

    return docker.APIClient(_where(), timeout=ANSWER_S, version="auto")


def _cause(error: BaseException) -> str:
    """The innermost of what the SDK wraps, which is what happened."""
    while error.__context__ is not None:
        error = error.__context__
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _remove(client: Any, container: str) -> None:
    import docker.errors

    try:
        client.remove_container(container, force=True, v=True)
    except docker.errors.APIError as error:
        if error.response is None or error.response.status_code not in (404, 409):
            raise  # else it is gone, or about to be


def _sweep(client: Any, whose: Callable[[str], bool]) -> None:
    for found in client.containers(all=True, filters={"label": HOST}):
        labels: Mapping[str, str] = found["Labels"]
        if whose(labels[HOST]):
            _remove(client, found["Id"])
            left = Path(labels.get(DIRECTORY, ""))
            if left.parent == Path(tempfile.gettempdir()) and left.name.startswith(PREFIX):
                shutil.rmtree(left, ignore_errors=True)  # anyone could have named any other


def outlive(host: str) -> None:
    """A process's life that is to end after the host's: when standard input ends before it has said
    a word, take the host's containers away. They may be paused, and not notice."""
    if sys.stdin.buffer.read(1):
        return
    _sweep(_connect(), host.__eq__)
