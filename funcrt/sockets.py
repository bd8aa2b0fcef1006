"""Unix sockets: the admin socket is made so that nobody but its owner can ever connect to it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

from funcrt.errors import FuncrtError

__all__ = ["SocketTaken", "bind_unix", "connect_unix", "unlink_unix"]


class SocketTaken(FuncrtError):
    """The path of the admin socket cannot be used."""

    def __init__(self, path: Path, found: str) -> None:
        self.path = path
        super().__init__(f"{path}: {found}")


def bind_unix(path: Path) -> socket:
    """A bound Unix socket of mode 0600; its directory is made with mode 0700 where it is missing.

    The mode is set before the file exists, so there is no moment at which others could connect.
    A socket left behind by a dead host is replaced, but only after nobody answered on it. Raises
    SocketTaken.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(path)
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)
        with _short(path) as name:
            sock.bind(name)
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o177:
            path.unlink()
            raise SocketTaken(path, f"was made with mode {mode:04o}, expected 0600")
    except OSError as error:
        sock.close()
        raise SocketTaken(path, error.strerror or str(error)) from None
    except SocketTaken:
        sock.close()
        raise
    return sock


def connect_unix(path: Path, timeout_s: float) -> socket:
    """A socket connected to `path`. Raises OSError."""
    sock = socket(AF_UNIX, SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        with _short(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def unlink_unix(path: Path) -> None:
    """Remove the file of a socket that was closed, unless another host answers there by now."""
    with contextlib.suppress(OSError):
        if not _answers(path):
            path.unlink()


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketTaken(path, error.strerror or str(error)) from None
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketTaken(path, "is there already, and is no socket")
    if _answers(path):
        raise SocketTaken(path, "another host answers there; stop it first, or use another path")
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    try:
        connect_unix(path, 1.0).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` of less than 108 bytes, which is all that a Unix address holds."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
