"""What others have written is walked, made plain and removed, whatever they made of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from funcrt.tree import DEEPEST, DIRECTORY, entries, remove, size, tidy


def deep(root: Path, levels: int, mode: int = 0o755) -> None:
    """Directories within each other, deeper than a path can tell."""
    here = os.open(root, DIRECTORY)
    made = []
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", DIRECTORY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=below))
        made.append(here)
        here = below
        if len(made) > 20:
            os.close(made.pop(0))
        os.fchmod(here, 0o700)
    for each in (*made, here):
        os.fchmod(each, mode)
        os.close(each)


def names(root: Path) -> list[str]:
    top = os.open(root, DIRECTORY)
    try:
        return [name for _, name, _ in entries(top)]
    finally:
        os.close(top)


def test_a_directory_comes_before_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("")
    (tmp_path / "outside").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "outside")
    found = names(tmp_path / "a")
    assert sorted(found) == ["b", "c", "link"]
    assert found.index("b") < found.index("c")


def test_what_is_too_deep_is_removed(tmp_path: Path) -> None:
    deep(tmp_path, 3000)
    before = len(os.listdir("/proc/self/fd"))
    assert names(tmp_path).count("d") == DEEPEST
    assert len(os.listdir("/proc/self/fd")) == before
    assert names(tmp_path).count("d") == DEEPEST - 1
    assert names(tmp_path).count("file") == DEEPEST - 1


def test_what_others_made_becomes_plain(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "closed" / "in").mkdir(parents=True)
    (root / "closed" / "in" / "module.py").write_text("x")
    (root / "program").write_text("x")
    (root / "program").chmod(0o6711)
    (root / "closed" / "in" / "module.py").chmod(0)
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)
    (root / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe")
    (root / "closed").chmod(0)
    tidy(root)
    modes = {each.name: each.lstat().st_mode & 0o7777 for each in root.rglob("*")}
    assert modes == {"closed": 0o755, "in": 0o755, "module.py": 0o644, "program": 0o755}
    assert (tmp_path / "secret").stat().st_mode & 0o7777 == 0o600


def test_it_is_removed_whatever_it_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    deep(root, 3000)
    (root / "closed" / "in").mkdir(parents=True)
    (root / "closed").chmod(0)
    remove(root)
    assert not root.exists()
    remove(root)


def test_its_size_is_counted_up_to_a_bound(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(100_000))
    (tmp_path / "link").symlink_to("/")
    found = size(tmp_path, 1 << 30)
    assert 100_000 <= found < 200_000
    (tmp_path / "b").write_bytes(bytes(100_000))
    assert size(tmp_path, 1000) > 1000
    assert size(tmp_path / "nowhere", 1) == 0
    deep(tmp_path / "a", 3000)
    assert size(tmp_path, 1 << 30) > 200_000
    remove(tmp_path / "a")  # which the test's own end could not


def test_a_link_that_takes_a_file_s_place_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is root looks at what a build has written: a process may have been left of it."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    for file in (root / "file", secret):
        file.write_text("s")
        file.chmod(0o600)

    def swapped(top: int) -> Iterator[tuple[int, str, os.stat_result]]:
        for each in entries(top):
            (root / "file").unlink()
            (root / "file").symlink_to(secret)
            yield each

    monkeypatch.setattr("funcrt.tree.entries", swapped)
    with pytest.raises(OSError, match=r"not supported|symbolic links"):
        tidy(root)
    assert secret.stat().st_mode & 0o7777 == 0o600
