"""Syncing the mesh's file while commits go on beside."""

import ctypes
import errno
import os
import struct

from mesh.integrity import COPIED_AT

__all__ = ["copy_anew", "sync_file"]

PIECE_BYTES = 1 << 20
"""Written before the next is begun: a commit's sync waits for what the disk was given before it."""
PIECES = 256
"""At most, of a large file, whose pieces are larger."""
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # sync_file_range(2)
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM)
_INDEX_VERSION = struct.pack("=I", 3007000)


def sync_file(path: str) -> None:
    """Sync a file that SQLite has open in this process; where that cannot be told, the last
    checkpoint syncs it all, as SQLite does. Raises OSError where the sync itself failed: what the
    file holds is then unknown, whatever the error, and the next sync would not tell of it."""
    fd = _descriptor(path)
    if fd is not None:
        _write_back(fd, os.fstat(fd).st_size)
        os.fsync(fd)


def copy_anew(path: str) -> None:
    """Have SQLite copy the whole log of a file once more: it takes what it has copied for stored,
    and the sync of that failed. The file's last connection does it as it closes, at the latest."""
    index = _descriptor(path + "-shm")
    if index is not None and os.pread(index, 4, 0) == _INDEX_VERSION:
        os.pwrite(index, bytes(4), COPIED_AT)


def _descriptor(path: str) -> int | None:
    """A descriptor that SQLite has of a file: to open it, and close that, would give up this
    process's locks on it."""
    try:
        own = os.stat(path)  # noqa: PTH116
        names = os.listdir("/dev/fd")  # noqa: PTH208
    except OSError:
        return None  # there is no /proc, no descriptor is left, or the file was moved
    for name in names:
        try:
            if os.path.samestat(own, os.fstat(int(name))):
                return int(name)
        except OSError:
            pass  # it was closed meanwhile
    return None


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
