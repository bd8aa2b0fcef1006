"""Syncing the mesh's file while commits go on beside."""

import ctypes
import errno
import os

__all__ = ["sync_file"]

PIECE_BYTES = 1 << 20
"""Written before the next is begun: a commit's sync waits for what the disk was given before it."""
PIECES = 256
"""At most, of a large file, whose pieces are larger."""
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # sync_file_range(2)
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM)


def sync_file(path: str) -> None:
    """Sync a file that SQLite has open in this process, by its descriptor: to open it, and close
    that, would give up this process's locks on it. Raises OSError."""
    if not os.path.isdir("/dev/fd"):  # noqa: PTH112
        return  # there is no /proc: the last checkpoint syncs it all, as SQLite does
    own = os.stat(path)  # noqa: PTH116
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        try:
            mine = os.path.samestat(own, os.fstat(int(name)))
        except OSError:
            continue  # it was closed meanwhile
        if mine:
            _write_back(int(name), own.st_size)
            os.fsync(int(name))
            return


def _write_back(fd: int, size: int) -> None:
    """Have Linux write what is to be synced in pieces. Raises OSError."""
    write = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if write is None:
        return
    piece = max(PIECE_BYTES, size // PIECES)
    for at in range(0, size, piece):
        at64, piece64 = ctypes.c_int64(at), ctypes.c_int64(piece)
        if write(fd, at64, piece64, ctypes.c_uint(_WAIT_BEFORE | _WRITE | _WAIT_AFTER)):
            if (number := ctypes.get_errno()) in _UNKNOWN:
                return  # the kernel or the file system has none
            raise OSError(number, os.strerror(number))
