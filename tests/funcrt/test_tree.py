"""What others have written is walked, made plain and removed, whatever they made of it."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcrt.tree import (
    DEEPEST,
    DEEPEST_SEEN,
    DIRECTORY,
    Taken,
    entries,
    held_anew,
    hold,
    remove,
    size,
    tidy,
    unheld,
)

ROOT = Path(__file__).parents[2]


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


Tree = dict[str, "Tree"] | str
trees: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from(["file", "link", "pipe"]),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=25,
)


def made(root: Path, tree: Tree) -> None:
    """What the tree says, in a directory."""
    for name, each in tree.items() if isinstance(tree, dict) else ():
        path = root / name
        match each:
            case "file":
                path.write_text(name)
            case "link":
                path.symlink_to(root)
            case "pipe":
                os.mkfifo(path)
            case _:
                path.mkdir()
                made(path, each)


def below(tree: Tree, deepest: int, path: str = "") -> Iterator[tuple[str, bool]]:
    """(path, whether it is a directory that is too deep), of what there is to meet."""
    for name, each in tree.items() if isinstance(tree, dict) else ():
        there = f"{path}/{name}"
        directory = isinstance(each, dict)
        yield there, directory and deepest == 1
        if directory and deepest > 1:
            yield from below(each, deepest - 1, there)


@settings(max_examples=60, deadline=None)
@given(tree=trees, deepest=st.integers(1, 4), only_look=st.booleans())
def test_each_is_met_once_and_what_is_too_deep_goes(
    tree: Tree, deepest: int, only_look: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        made(root, tree)
        whole = {str(path) for path in root.rglob("*")}
        top = os.open(root, DIRECTORY)
        met = []
        for parent, name, info in entries(top, deepest, only_look=only_look):
            path = f"{Path(f'/proc/self/fd/{parent}').readlink()}/{name}"
            assert os.path.samestat(info, os.lstat(path))
            met.append(path)
        os.close(top)
        expected = {f"{root}{path}": deep for path, deep in below(tree, deepest)}
        assert sorted(met) == sorted(expected)
        assert all(met.index(str(Path(path).parent)) < at for at, path in enumerate(met)
                   if Path(path).parent != root)  # fmt: skip
        left = whole if only_look else {path for path, deep in expected.items() if not deep}
        assert {str(path) for path in root.rglob("*")} == left
        taken = size(root, Taken(1 << 30, 1 << 30))
        assert taken == (sum(os.lstat(path).st_size for path in left), len(left))


def test_who_only_looks_passes_over_what_is_gone_or_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "in").mkdir(parents=True)
    real = os.open

    def refused(path: str, *how: Any, **more: Any) -> int:
        if path == "b":
            raise PermissionError(13, "closed", path)
        return real(path, *how, **more)

    top = os.open(tmp_path, DIRECTORY)
    monkeypatch.setattr(os, "open", refused)
    met = []
    for _, name, _ in entries(top, only_look=True):
        met.append(name)
        if name == "c":
            shutil.rmtree(tmp_path / "c")
    assert sorted(met) == ["a", "b", "c", "in"]
    with pytest.raises(PermissionError):
        list(entries(top))
    os.close(top)


def test_a_directory_is_held_while_it_is_there_and_by_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    first = hold(tmp_path / "d", fcntl.LOCK_SH | fcntl.LOCK_NB)
    second = hold(tmp_path / "d", fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert min(first, second) >= 0
    before = len(os.listdir("/proc/self/fd"))
    assert hold(tmp_path / "d", fcntl.LOCK_EX | fcntl.LOCK_NB) == -1
    os.close(first)
    os.close(second)
    held = hold(tmp_path / "d", fcntl.LOCK_EX | fcntl.LOCK_NB)
    waits = threading.Thread(target=lambda: found.append(hold(tmp_path / "d", fcntl.LOCK_EX)))
    found: list[int] = []
    waits.start()
    (tmp_path / "d").rmdir()
    os.close(held)
    waits.join()
    assert found == [-1], "it was taken away by who held it"
    assert hold(tmp_path / "d", fcntl.LOCK_EX) == -1
    assert len(os.listdir("/proc/self/fd")) == before - 2


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
    whole = Taken(1 << 30, 1 << 30)
    found = size(tmp_path, whole)
    assert 100_000 <= found.bytes < 200_000
    assert found.files == 3
    (tmp_path / "b").write_bytes(bytes(100_000))
    assert size(tmp_path, Taken(1000, 1 << 30)).bytes > 1000
    assert size(tmp_path, Taken(1 << 30, 2)).files == 3
    assert size(tmp_path / "nowhere", whole) == size(tmp_path / "b", whole) == (0, 0)
    before = len(os.listdir("/proc/self/fd"))
    deep(tmp_path / "a", 3000)
    assert size(tmp_path, whole).files == 4 + 2 * DEEPEST_SEEN - 3
    assert size(tmp_path, whole).bytes > 200_000
    assert len(os.listdir("/proc/self/fd")) == before
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


HOSTS = """
import os, random, sys, tempfile, time
from pathlib import Path
from funcrt.tree import held_anew, remove, unheld
root, chance = Path(sys.argv[1]), random.Random(sys.argv[2])
def make():
    made = tempfile.mkdtemp(prefix="own-", dir=root)
    time.sleep(chance.random() / 500)  # for others to find it before it is locked
    return made
for _ in range(60):
    for left in unheld(root, "own-"):
        remove(left)
    made, held = held_anew(make)
    (made / "file").touch()
    time.sleep(chance.random() / 500)
    assert (made / "file").exists()
    if chance.random() < 0.5:  # else it was killed
        remove(made)
    os.close(held)
"""


def test_without_a_descriptor_left_none_is_kept_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    top = os.open(tmp_path / "tree", DIRECTORY)
    (tmp_path / "made").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = os.dup(top)
    os.close(room)
    try:
        for more in (0, 1, 2):
            resource.setrlimit(resource.RLIMIT_NOFILE, (room + more, most[1]))
            with pytest.raises(OSError, match="Too many open files"):
                list(entries(top))
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, most[1]))
        with pytest.raises(OSError, match="Too many open files"):
            held_anew(partial(tempfile.mkdtemp, dir=tmp_path / "made"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list((tmp_path / "made").iterdir()) == []
    os.close(top)


def test_several_that_begin_at_once_leave_each_other_s_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOSTS, str(tmp_path)]
    hosts = [subprocess.Popen([*command, str(n)], cwd=ROOT) for n in range(4)]
    assert [host.wait(60) for host in hosts] == [0, 0, 0, 0]
    for left in unheld(tmp_path, "own-"):
        remove(left)
    assert list(tmp_path.iterdir()) == []


def test_a_walk_without_room_for_another_open_file_leaves_none_open(tmp_path: Path) -> None:
    top = os.open(tmp_path, DIRECTORY)
    free = os.dup(top)
    os.close(free)
    opened = set(os.listdir("/proc/self/fd"))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, most[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            list(entries(top))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert len(os.listdir("/proc/self/fd")) == len(opened)
    os.close(top)
