"""Packing and unpacking; every attack of a deploy archive is a test."""

import errno
import os
import re
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcrt.bundle as module
from funcrt.bundle import MAGIC, BundleError, Caps, ignored, pack, sweep, unpack

HEAD = struct.Struct(">cHQ")


def write(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def read(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def member(
    path: str | bytes, content: bytes = b"x", *, kind: bytes = b"f", size: int = -1
) -> bytes:
    name = path if isinstance(path, bytes) else path.encode()
    return HEAD.pack(kind, len(name), len(content) if size < 0 else size) + name + content


def forge(*members: bytes) -> bytes:
    return MAGIC + b"".join(members)


def refused(body: bytes, root: Path, caps: Caps = module.CAPS) -> str:
    """What `unpack` says of a body that its digest fits; nothing may have been written."""
    with pytest.raises(BundleError) as caught:
        unpack(body, sha256(body).hexdigest(), root / "dest", caps)
    assert not (root / "dest").exists()
    return str(caught.value)


def pack_refused(root: Path, caps: Caps = module.CAPS) -> str:
    with pytest.raises(BundleError) as caught:
        pack(root, caps)
    return str(caught.value).replace(str(root), "FN")


# What goes in comes out


def test_a_directory_comes_back(tmp_path: Path) -> None:
    files = {"main.py": b"1", "lib/a.py": b"", "lib/deep/é.bin": bytes(range(256)), "lib.py": b"2"}
    bundle = pack(write(tmp_path / "fn", files))
    target = unpack(bundle.body, bundle.digest, tmp_path / "dest")
    assert target == tmp_path / "dest" / bundle.digest
    assert read(target) == files
    assert pack(target) == bundle
    assert os.listdir(tmp_path / "dest") == [bundle.digest]


NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\"), min_size=1, max_size=8
).filter(lambda name: name not in (".", "..") and not ignored(name))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary()))
def test_any_tree_comes_back_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "fn").mkdir()
    try:
        write(root / "fn", files)
    except OSError:  # a name that is both a file and a directory
        return
    try:
        bundle = pack(root / "fn")
    except BundleError as error:
        if "only in case or Unicode form" not in str(error):
            raise
        return
    assert read(unpack(bundle.body, bundle.digest, root / "dest")) == files


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    files = {f"{name}.py": name.encode() for name in "abcdef"}
    one = write(tmp_path / "one", files)
    old = os.umask(0o077)
    try:
        two = write(tmp_path / "two", dict(reversed(files.items())))
    finally:
        os.umask(old)
    for name in files:
        os.utime(two / name, (1, 1))
    assert pack(one) == pack(two)
    (two / "empty").mkdir()
    assert pack(one) == pack(two)
    # The format itself, for other machines and later versions: never to change.
    assert pack(one).digest == "4202a53c5a9387677c04b1997f254e9e5291be55161562408f13a4e63e90efa2"


@pytest.mark.parametrize("change", ["content", "name", "executable"])
def test_the_digest_depends_on_all_content(tmp_path: Path, change: str) -> None:
    root = write(tmp_path, {"a.py": b"1", "b.py": b"2"})
    before = pack(root).digest
    match change:
        case "content":
            (root / "a.py").write_bytes(b"3")
        case "name":
            (root / "a.py").rename(root / "c.py")
        case _:
            (root / "a.py").chmod(0o755)
    assert pack(root).digest != before


def test_versions_editors_and_secrets_stay_out(tmp_path: Path) -> None:
    kept = {"main.py": b"1", "events/a.json": b"{}", "tmp/x": b"", ".hidden": b"", "my.env": b""}
    left = (
        ".git/config", "__pycache__/a.pyc", "lib/__pycache__/a.pyc", "old.pyc", ".venv/bin/python",
        "main.py~", ".main.py.swp", ".#main.py", "#main.py#", "4913", ".DS_Store", ".env",
        ".funcrt/mesh.db", ".pytest_cache/x", ".mypy_cache/x", ".ruff_cache/x",
    )  # fmt: skip
    root = write(tmp_path, {**kept, **dict.fromkeys(left, b"x")})
    (root / ".venv/link").symlink_to("/etc/passwd")
    bundle = pack(root)
    assert read(unpack(bundle.body, bundle.digest, tmp_path / "dest")) == kept


def test_instances_of_another_user_may_read_and_not_write(tmp_path: Path) -> None:
    root = write(tmp_path / "fn", {"main.py": b"1", "bin/tool": b"2"})
    (root / "main.py").chmod(0o600)
    (root / "bin/tool").chmod(0o6777)
    old = os.umask(0o077)
    try:
        bundle = pack(root)
        target = unpack(bundle.body, bundle.digest, tmp_path / "dest")
    finally:
        os.umask(old)
    modes = {
        path.relative_to(target).as_posix(): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (target, *target.rglob("*"))
    }
    assert modes == {".": "0o755", "main.py": "0o644", "bin": "0o755", "bin/tool": "0o755"}


# What is not packed


def test_links_and_special_files_are_refused_all_at_once(tmp_path: Path) -> None:
    root = write(tmp_path, {"main.py": b"1"})
    (root / "data").symlink_to("/etc")
    (root / "dead").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    assert pack_refused(root) == (
        "FN/data: a symbolic link to '/etc'; put a copy there instead\n"
        "FN/dead: a symbolic link to 'nowhere'; put a copy there instead\n"
        "FN/pipe: neither a file nor a directory; remove it"
    )


def test_names_that_would_not_unpack_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, {"A.py": b"", "a.py": b"", "x\ny": b"", "b\\c": b""})
    os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT))
    assert pack_refused(root) == (
        "FN/\\udcff: its name is not UTF-8\n"
        "FN/a.py: differs from 'A.py' only in case or Unicode form\n"
        "FN/b\\c: its name holds a backslash\n"
        "FN/x\\ny: its name holds a control character"
    )


def test_caps_name_the_file(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": b"1234", "b": b"5678", "c": b"9", "d": b""})
    assert pack_refused(root, Caps(bytes=7)) == "FN/b: with it the files come to over 7 bytes"
    (root / "b").write_bytes(bytes(3 << 20))
    assert pack_refused(root, Caps(bytes=2 << 20)) == "FN/b: with it the files come to over 2 MiB"
    said = "FN/d: with it there are over 3 files and directories"
    assert pack_refused(root, Caps(entries=3)) == said
    write(root, {"p/q/r/s": b""})
    assert pack_refused(root, Caps(depth=2)) == "FN/p/q/r: more than 2 directories deep"
    assert pack_refused(root, Caps(path_bytes=6)).startswith(
        "FN/p/q/r/s: its path is longer than 6 bytes, or a name in it than 255"
    )


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert pack_refused(tmp_path / "no") == "FN: cannot be read: No such file or directory"


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, {"main.py": b"1", "secret": b"2"})
    real = os.open

    def guarded(path: str, flags: int, **more: int) -> int:
        if path == "secret":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, **more)

    monkeypatch.setattr(os, "open", guarded)
    assert pack_refused(root) == "FN/secret: cannot be read: Permission denied"


@pytest.mark.parametrize("change", ["write", "append", "remove", "add", "replace", "link"])
def test_a_change_while_packing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    root = write(tmp_path, {"a.py": b"1", "b.py": b"2"})
    real = module._Scan.content
    done: list[int] = []

    def meddle(
        self: module._Scan, parent: int, name: str, path: str, info: os.stat_result
    ) -> bytes:
        if name == "b.py" and not done:
            done.append(1)
            match change:
                case "write":
                    (root / "a.py").write_bytes(b"9")
                case "append":
                    (root / "b.py").write_bytes(b"222")
                case "remove":
                    (root / "b.py").unlink()
                case "add":
                    (root / "c.py").write_bytes(b"3")
                case "replace":
                    (root / "new").write_bytes(b"8")
                    (root / "new").rename(root / "a.py")
                case _:
                    (root / "b.py").unlink()
                    (root / "b.py").symlink_to("/etc/passwd")
        return real(self, parent, name, path, info)

    monkeypatch.setattr(module._Scan, "content", meddle)
    changed = {"write": "a", "append": "b", "remove": "b", "add": "c", "replace": "a", "link": "b"}
    said = pack_refused(root)
    assert said == f"FN/{changed[change]}.py: changed while it was packed; try again"


# Attacks: facts/threats.md, row 5


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../out", "its path has an empty, . or .. part"),
        ("a/../../out", "its path has an empty, . or .. part"),
        ("a/..", "its path has an empty, . or .. part"),
        ("./a", "its path has an empty, . or .. part"),
        ("a//b", "its path has an empty, . or .. part"),
        ("a/", "its path has an empty, . or .. part"),
        ("", "its path has an empty, . or .. part"),
        ("/etc/cron.d/x", "an absolute path"),
        ("..\\out", "its name holds a backslash"),
        ("a\x00.py", "its name holds a control character"),
        ("a\n.py", "its name holds a control character"),
        ("a\x1b[2J", "its name holds a control character"),
        ("a" * 256, "its path is longer than 1024 bytes, or a name in it than 255"),
        ("/".join(["a" * 200] * 6), "its path is longer than 1024 bytes, or a name in it than 255"),
        ("/".join("a" * 33), "more than 32 directories deep"),
    ],
)
def test_paths_that_lead_elsewhere(tmp_path: Path, path: str, reason: str) -> None:
    shown = path.replace("\x00", "\\x00").replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert refused(forge(member(path)), tmp_path) == f"{shown}: {reason}"


@pytest.mark.parametrize("kind", [b"l", b"h", b"d", b"c", b"b", b"p", b"s", b"\x00"])
def test_only_regular_files_can_be_said(tmp_path: Path, kind: bytes) -> None:
    said = refused(forge(member("a", b"/etc/passwd", kind=kind)), tmp_path)
    assert said == f"a: expected a regular file, found the kind {kind!r}"


def test_a_link_cannot_be_written_through(tmp_path: Path) -> None:
    """A link, then a file below it: refused at the link; two files so: a collision."""
    link = member("a", b"/etc", kind=b"l")
    assert "found the kind b'l'" in refused(forge(link, member("a/passwd")), tmp_path)
    said = refused(forge(member("a"), member("a/passwd")), tmp_path)
    assert said == "a/passwd: both a file and a directory"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("README", "readme"),
        ("Lib/a.py", "lib/b.py"),
        ("stra\u00dfe", "strasse"),
        ("e\u0301.py", "\u00e9.py"),
        ("K/a", "\u212a/b"),
        ("A", "a/b"),
    ],
)
def test_names_that_are_one_on_some_machines(tmp_path: Path, first: str, second: str) -> None:
    first, second = sorted((first, second), key=str.encode)
    said = refused(forge(member(first), member(second)), tmp_path)
    assert re.fullmatch(r".+: differs from '.+' only in case or Unicode form", said)


def test_a_name_there_twice(tmp_path: Path) -> None:
    assert refused(forge(member("a"), member("a", b"2")), tmp_path) == "a: there twice"
    assert refused(forge(member("b"), member("a")), tmp_path) == "a: out of order"


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    assert refused(forge(member(b"a\xff")), tmp_path) == "b'a\\xff': not UTF-8"
    said = refused(forge(member(b"\xed\xa0\x80")), tmp_path)
    assert said == "b'\\xed\\xa0\\x80': not UTF-8"


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    """A bomb or a sparse file would claim more than it brings."""
    said = refused(forge(member("a", size=2**63)), tmp_path)
    assert said == "a: with it the files come to over 64 MiB"
    said = refused(forge(member("a", size=1 << 20)), tmp_path)
    assert said == "a: cut short: it claims 1048576 bytes, 1 are left"


def test_too_many_bytes(tmp_path: Path) -> None:
    body = forge(member("a", bytes(600)), member("b", bytes(600)))
    said = refused(body, tmp_path, Caps(bytes=1000))
    assert said == "b: with it the files come to over 1000 bytes"


def test_too_many_members(tmp_path: Path) -> None:
    body = forge(*(member(f"{n:07}", b"") for n in range(200_000)))
    said = refused(body, tmp_path)
    assert said == "0010000: with it there are over 10000 files and directories"


def test_caps_hold_while_reading() -> None:
    """Not after: a million members are never in memory."""
    body = forge(*(member(f"{n:03}", b"") for n in range(100)))
    members = module._parse(memoryview(body), Caps(entries=10))
    assert len(list(islice(members, 10))) == 10
    with pytest.raises(BundleError):
        next(members)


def test_too_many_directories(tmp_path: Path) -> None:
    body = forge(*(member(f"{n:03}/a/b/c", b"") for n in range(100)))
    said = refused(body, tmp_path, Caps(entries=100))
    assert said == "025/a/b/c: with it there are over 100 files and directories"


@pytest.mark.parametrize("cut", [1, 2, 5, 12])
def test_a_body_cut_short(tmp_path: Path, cut: int) -> None:
    said = refused(forge(member("a", b"1"))[:-cut], tmp_path)
    longer = "a: cut short: it claims 1 bytes, 0 are left"
    assert said == (longer if cut == 1 else "bundle: cut short")


def test_trailing_bytes(tmp_path: Path) -> None:
    assert refused(forge(member("a")) + b"\x00", tmp_path) == "bundle: cut short"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_body_is_refused_or_is_a_bundle(data: st.DataObject) -> None:
    """No damage makes the reader raise anything else, or accept what packing would not make."""
    body = bytearray(forge(member("a.py", b"one"), member("lib/b.py", b"two", kind=b"x")))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        members = module._members(bytes(body), module.CAPS)
    except BundleError:
        return
    again = (
        member(one.path, bytes(one.content), kind=b"x" if one.executable else b"f")
        for one in members
    )
    assert forge(*again) == bytes(body)


def test_other_archives_are_not_bundles(tmp_path: Path) -> None:
    tar, zipped = BytesIO(), BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("../../etc/passwd")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as zipfile_:
        zipfile_.writestr("bomb", bytes(1 << 20))
    for body in (tar.getvalue(), zipped.getvalue(), b"", MAGIC[:-1]):
        assert refused(body, tmp_path) == "bundle: not a funcrt bundle"


@pytest.mark.parametrize("digest", ["0" * 64, "../../out", "", "/etc"])
def test_the_digest_is_pinned(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BundleError) as caught:
        unpack(forge(member("a")), digest, tmp_path / "dest")
    assert str(caught.value) == f"bundle: its content is not that of the digest {digest!r}"
    assert list(tmp_path.iterdir()) == []


# Whole or not at all


def test_what_is_there_is_used_again(tmp_path: Path) -> None:
    bundle = pack(write(tmp_path / "fn", {"main.py": b"1"}))
    target = unpack(bundle.body, bundle.digest, tmp_path / "dest")
    before = (target / "main.py").stat().st_ino
    assert unpack(bundle.body, bundle.digest, tmp_path / "dest") == target
    assert (target / "main.py").stat().st_ino == before
    assert os.listdir(tmp_path / "dest") == [bundle.digest]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    bundle = pack(write(tmp_path / "fn", {"main.py": b"1"}))
    (tmp_path / "real").mkdir()
    (tmp_path / "dest").symlink_to("real")
    assert read(unpack(bundle.body, bundle.digest, tmp_path / "dest")) == {"main.py": b"1"}


def test_a_link_in_the_way_is_not_used(tmp_path: Path) -> None:
    bundle = pack(write(tmp_path / "fn", {"main.py": b"1"}))
    (tmp_path / "evil").mkdir()
    (tmp_path / "dest").mkdir()
    for make in ((tmp_path / "dest" / bundle.digest).symlink_to, None):
        target = tmp_path / "dest" / bundle.digest
        if make:
            make(tmp_path / "evil")
        else:
            target.write_text("a file")
        with pytest.raises(BundleError) as caught:
            unpack(bundle.body, bundle.digest, tmp_path / "dest")
        said = "is in the way: no directory of this user's; remove it"
        assert str(caught.value) == f"{target}: {said}"
        target.unlink()
    assert list((tmp_path / "evil").iterdir()) == []


@pytest.mark.parametrize("at", range(1, 5))
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    bundle = pack(write(tmp_path / "fn", {"a/b.py": b"1", "c.py": b"2"}))
    syncs: list[int] = []

    def full(fd: int) -> None:
        syncs.append(fd)
        if len(syncs) == at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        unpack(bundle.body, bundle.digest, tmp_path / "dest")
    assert os.listdir(tmp_path / "dest") == []
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_all_is_synced_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pack(write(tmp_path / "fn", {"a/b.py": b"1", "c.py": b"2"}))
    synced: list[str] = []
    real = os.fsync

    def note(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path / "dest"))
        synced.append(re.sub(r"/\.unpack-\w+", "TEMP", path))
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    unpack(bundle.body, bundle.digest, tmp_path / "dest")
    assert sorted(synced[:-1]) == ["TEMP", "TEMP/a", "TEMP/a/b.py", "TEMP/c.py"]
    assert synced[-1] == ""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL after each of its fsyncs: what is there by its digest is whole, or not there."""
    files = {f"d{n}/f.py": b"%d" % n for n in range(3)}
    bundle = pack(write(tmp_path / "fn", files))
    (tmp_path / "body").write_bytes(bundle.body)
    program = (
        "import os, sys, signal, pathlib, funcrt.bundle as b\n"
        "left, root = int(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        "real = os.fsync\n"
        "def fsync(fd):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(fd)\n"
        "b.os.fsync = fsync\n"
        "b.unpack((root / 'body').read_bytes(), sys.argv[3], root / 'dest')\n"
    )
    for left in (0, 3, 6, 7, 8):
        command = [sys.executable, "-c", program, str(left), str(tmp_path), bundle.digest]
        ended = subprocess.run(command, check=False, cwd=Path(module.__file__).parents[1])
        target = tmp_path / "dest" / bundle.digest
        assert ended.returncode == (0 if left == 8 else -9)
        assert target.exists() == (left >= 7)
        if target.exists():
            assert read(target) == files
    sweep(tmp_path / "dest")
    assert os.listdir(tmp_path / "dest") == [bundle.digest]
