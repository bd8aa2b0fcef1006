"""What is written back before a sync: all of a file, in few pieces, and no error is lost."""

import ctypes
import errno
import os
from typing import Any

import pytest

import mesh.sync

MB = 1 << 20


class Kernel:
    """Has a sync_file_range that fails with `number`, after `good` calls."""

    def __init__(self, number: int = 0, good: int = 0) -> None:
        self.number, self.good = number, good
        self.asked: list[tuple[int, int, int]] = []

    def sync_file_range(self, fd: int, at: Any, size: Any, flags: Any) -> int:
        self.asked.append((at.value, size.value, flags.value))
        if self.number and len(self.asked) > self.good:
            ctypes.set_errno(self.number)
            return -1
        return 0


@pytest.mark.parametrize("size", [0, 1, MB, 3 * MB + 1, 1000 * MB, (7 << 40) + 5])
def test_a_file_is_written_whole_in_few_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    mesh.sync._write_back(0, size)
    end = 0
    for at, piece, flags in kernel.asked:
        assert (at, flags) == (end, 7)
        end = at + piece
    assert end >= size
    assert len(kernel.asked) <= 257


def test_an_error_of_the_disk_is_raised_for_a_later_sync_would_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(errno.EIO, good=2)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        mesh.sync._write_back(0, 10 * MB)
    for number in (errno.ENOSYS, errno.EINVAL):
        kernel = Kernel(number)
        mesh.sync._write_back(0, 10 * MB)
        assert len(kernel.asked) == 1
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    mesh.sync._write_back(0, 10 * MB)


def test_the_machine_s_own_takes_it(tmp_path: Any) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(3 * MB))
        file.flush()
        mesh.sync._write_back(file.fileno(), 3 * MB)


def test_where_no_descriptor_is_to_be_had_the_last_checkpoint_syncs(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of that is a sync that failed, which would end the host."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "file"
    with path.open("wb") as file:
        mesh.sync.sync_file(str(path))
        assert synced == [file.fileno()]
        mesh.sync.sync_file(str(tmp_path / "moved"))
        for number in (errno.EMFILE, errno.ENOENT, errno.EACCES):

            def listdir(_: str, number: int = number) -> list[str]:
                raise OSError(number, os.strerror(number))

            with monkeypatch.context() as patch:
                patch.setattr(os, "listdir", listdir)
                mesh.sync.sync_file(str(path))
    mesh.sync.sync_file(str(path))
    assert len(synced) == 1
