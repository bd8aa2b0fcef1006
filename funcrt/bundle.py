"""A function's directory as one blob with a digest, and back into a directory.

The format holds regular files and nothing else, so links, devices, modes and owners cannot be
written in it. Nothing in it depends on the machine: same content, same digest.

    magic, then for each file, in the order of its path's bytes:
    kind (1 byte: "f", or "x" for executable), path length (2), size (8), big-endian; path; content

It is not compressed: a compressor's output differs between versions, and what claims more bytes
than it has is found by its length alone.
"""

import errno
import fnmatch
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from funcrt.errors import DeployError, Problem
from funcrt.tree import DIRECTORY, Member, sync, write_tree
from mesh.failpoint import point

__all__ = ["Bundle", "BundleError", "Caps", "files", "ignored", "pack", "sweep", "unpack"]

MAGIC = b"funcrt bundle 1\n"
_HEAD = struct.Struct(">cHQ")
UNPACKING = ".unpack-"
VENV = "pyvenv.cfg"
"""A directory with this file is a virtual environment, whatever its name."""
_SKIPPED = (
    # Version control, caches, environments, what a host keeps, and secrets for local use only.
    *(".git", ".hg", ".svn", "__pycache__", "*.pyc", ".venv", "venv"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".funcrt", ".env"),
    # Editors' and systems' temporary files.
    *("*~", "*.sw[a-p]", ".#*", "#*#", "4913", ".DS_Store", ".idea", ".vscode"),
    *(".*.sw?", ".*.swpx", "*___jb_???___", ".goutputstream-*", "*.kate-swp", ".tox", ".nox"),
)


class BundleError(DeployError):
    """A directory that cannot be packed, or a bundle that is refused: every reason at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The most a bundle may hold."""

    entries: int = 10_000
    """Files and the directories they are in."""
    bytes: int = 64 << 20
    path_bytes: int = 1024
    depth: int = 32


class Bundle(msgspec.Struct, frozen=True):
    """A packed directory. `digest` is the SHA-256 of `body`, in hex."""

    digest: str
    body: bytes


CAPS = Caps()


def files(packed: Bundle) -> dict[str, str]:
    """Path -> what differs where the file does, of all files of a bundle made here."""
    return {
        member.path: f"{member.executable} {hashlib.sha256(member.content).hexdigest()}"
        for member in _parse(memoryview(packed.body), CAPS)
    }


def ignored(name: str) -> bool:
    """Whether a file or directory of this name stays out of bundles (and wakes no reload)."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _SKIPPED)


def pack(directory: Path, caps: Caps = CAPS) -> Bundle:
    """The bundle of a directory, without what `ignored` names; empty directories are not kept.

    Raises BundleError, each problem with its file: links and special files, names that `unpack`
    would refuse, over a cap, unreadable, or changed while it was read.
    """
    directory = Path(directory)
    before = _scan(directory, caps, read=True)
    after = _scan(directory, caps, read=False)
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    if changed:
        raise _refused((directory / path, _CHANGED) for path in changed)
    parts = [MAGIC]
    for path, file in sorted(before.items(), key=lambda item: item[0].encode()):
        name = path.encode()
        kind = b"x" if file.executable else b"f"
        parts += [_HEAD.pack(kind, len(name), len(file.content)), name, file.content]
    body = b"".join(parts)
    return Bundle(hashlib.sha256(body).hexdigest(), body)


_CHANGED = "changed while it was packed; try again"


@dataclass(frozen=True)
class _File:
    """A file as it was found: enough to notice a change."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool
    content: bytes = field(default=b"", compare=False)

    @classmethod
    def of(cls, info: os.stat_result, content: bytes = b"") -> "_File":
        executable = bool(info.st_mode & stat.S_IXUSR)
        times = info.st_mtime_ns, info.st_ctime_ns
        return cls(info.st_size, *times, info.st_ino, executable, content)


def _refused(problems: Iterable[tuple[Path | str, str]]) -> BundleError:
    return BundleError([Problem(file=_safe(str(file)), message=why) for file, why in problems])


def _safe(name: str) -> str:
    """A name for a message: what is not printable is escaped, so that it forges no line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _scan(directory: Path, caps: Caps, *, read: bool) -> dict[str, _File]:
    """Relative path -> what was found, with its content if asked. Raises BundleError."""
    scan = _Scan(caps, read)
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused([(directory, f"cannot be read: {error.strerror}")]) from None
    try:
        scan.directory(top, "")
    finally:
        os.close(top)
    wrong = [*scan.wrong, *_check_paths(scan.found, caps)]
    if wrong:
        raise _refused((directory / path, why) for path, why in wrong)
    return scan.found


class _Scan:
    """Goes through a directory by descriptors, so that no link put there meanwhile is followed."""

    def __init__(self, caps: Caps, read: bool) -> None:
        self.caps = caps
        self.read = read
        self.found: dict[str, _File] = {}
        self.wrong: list[tuple[str, str]] = []
        self.total = 0

    def directory(self, fd: int, prefix: str) -> None:
        names = os.listdir(fd)
        if prefix and VENV in names:
            return
        for name in sorted(name for name in names if not ignored(name)):
            path = prefix + name
            try:
                self.entry(fd, name, path)
            except UnicodeEncodeError:
                self.wrong.append((path, "its name is not UTF-8"))
            except OSError as error:
                gone = error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
                why = _CHANGED if gone else f"cannot be read: {error.strerror}"
                self.wrong.append((path, why))

    def entry(self, parent: int, name: str, path: str) -> None:
        path.encode()
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode):
            self.file(parent, name, path, info)
        elif stat.S_ISLNK(info.st_mode):
            target = os.readlink(name, dir_fd=parent)
            self.wrong.append((path, f"a symbolic link to {target!r}; put a copy there instead"))
        elif not stat.S_ISDIR(info.st_mode):
            self.wrong.append((path, "neither a file nor a directory; remove it"))
        elif path.count("/") >= self.caps.depth:
            self.wrong.append((path, f"more than {self.caps.depth} directories deep"))
        else:
            fd = os.open(name, DIRECTORY, dir_fd=parent)
            try:
                self.directory(fd, f"{path}/")
            finally:
                os.close(fd)

    def file(self, parent: int, name: str, path: str, info: os.stat_result) -> None:
        within = self.total <= self.caps.bytes
        self.total += info.st_size
        if self.total > self.caps.bytes:
            if within:  # named once, at the file that goes over
                why = f"with it the files come to over {_size(self.caps.bytes)}"
                self.wrong.append((path, why))
        elif len(self.found) <= self.caps.entries:  # _check_paths names the one too many
            content = self.content(parent, name, path, info) if self.read else b""
            self.found[path] = _File.of(info, content)

    def content(self, parent: int, name: str, path: str, info: os.stat_result) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as opened:
            content = opened.read(info.st_size + 1)
            same = _File.of(os.fstat(opened.fileno())) == _File.of(info)
        if not same or len(content) != info.st_size:
            self.wrong.append((path, _CHANGED))
        return content


def _check_paths(paths: Iterable[str], caps: Caps) -> Iterator[tuple[str, str]]:
    """(path, reason) of what no bundle may hold: the same for packing and unpacking."""
    taken: dict[str, tuple[str, bool]] = {}
    for path in paths:
        reason = _bad_path(path, caps) or _collision(path, taken)
        if reason:
            yield path, reason
        elif len(taken) > caps.entries:
            yield path, f"with it there are over {caps.entries} files and directories"
            return


def _bad_path(path: str, caps: Caps) -> str:
    parts = path.split("/")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "its name holds a control character"
    if "\\" in path:
        return "its name holds a backslash"
    if path.startswith("/"):
        return "an absolute path"
    if any(part in ("", ".", "..") for part in parts):
        return "its path has an empty, . or .. part"
    if len(path.encode()) > caps.path_bytes or any(len(part.encode()) > 255 for part in parts):
        return f"its path is longer than {caps.path_bytes} bytes, or a name in it than 255"
    if len(parts) > caps.depth:
        return f"more than {caps.depth} directories deep"
    return ""


def _collision(path: str, taken: dict[str, tuple[str, bool]]) -> str:
    """Why the path cannot be beside those `taken`, among which it is put.

    Names that differ only in case or Unicode form are one file on some machines.
    """
    parts = path.split("/")
    for length in range(1, len(parts) + 1):
        here, is_file = "/".join(parts[:length]), length == len(parts)
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", here).casefold())
        other, other_is_file = taken.setdefault(folded, (here, is_file))
        if other != here:
            return f"differs from {other!r} only in case or Unicode form"
        if is_file != other_is_file:
            return "both a file and a directory"
    return ""


def unpack(
    body: bytes, digest: str, dest_root: Path, caps: Caps = CAPS, *, durable: bool = True
) -> Path:
    """The directory `dest_root/<digest>`, made of the bundle unless it is there already.

    It appears whole or not at all, and is `durable` unless its owner makes it anew after a crash of
    the machine. Everyone may read it; no one but the owner may write. Raises
    BundleError where the bundle is not what the digest says, or breaks a rule: nothing is written
    then.
    """
    if hashlib.sha256(body).hexdigest() != digest:
        raise _refused([("bundle", f"its content is not that of the digest {digest[:80]!r}")])
    members = _members(body, caps)
    dest_root = Path(dest_root)
    dest_root.mkdir(parents=True, exist_ok=True)
    target = dest_root / digest
    if _is_there(target):
        return target
    temporary = Path(tempfile.mkdtemp(prefix=UNPACKING, dir=dest_root))
    try:
        point("unpack.before")
        write_tree(temporary, members, durable=durable)
        point("unpack.written")
        try:
            temporary.rename(target)
            point("unpack.renamed")
        except OSError:  # another process was faster, or something is in the way
            if not _is_there(target):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if durable:
        sync(dest_root)
    point("unpack.after")
    return target


def sweep(dest_root: Path) -> None:
    """Remove what an unpacking that was killed left behind. Only while none is under way."""
    for left in Path(dest_root).glob(f"{UNPACKING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _is_there(target: Path) -> bool:
    """Whether an earlier unpacking made it. Raises BundleError for anything else of that name."""
    try:
        info = target.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
        return True
    raise _refused([(target, "is in the way: no directory of this user's; remove it")])


def _members(body: bytes, caps: Caps) -> list[Member]:
    """What a bundle holds, every rule checked before anything is written."""
    members = list(_parse(memoryview(body), caps))
    wrong = list(_check_paths((member.path for member in members), caps))
    names = [member.path.encode() for member in members]
    wrong += [
        (name.decode(), "there twice" if name == last else "out of order")
        for last, name in pairwise(names)
        if name <= last
    ]
    if wrong:
        raise _refused(wrong)
    return members


def _parse(view: memoryview, caps: Caps) -> Iterator[Member]:
    if view[: len(MAGIC)] != MAGIC:
        raise _refused([("bundle", "not a funcrt bundle")])
    at, count, total = len(MAGIC), 0, 0
    while at < len(view):
        head = view[at : at + _HEAD.size]
        kind, length, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0, 0)
        at += _HEAD.size
        if at + length > len(view):
            raise _refused([("bundle", "cut short")])
        try:
            path = str(view[at : at + length], "utf-8")
        except UnicodeDecodeError:
            name = repr(bytes(view[at : at + length]))
            raise _refused([(name, "not UTF-8")]) from None
        if kind not in (b"f", b"x"):
            raise _refused([(path, f"expected a regular file, found the kind {kind!r}")])
        at += length
        count, total = count + 1, total + size
        if count > caps.entries:
            raise _refused([(path, f"with it there are over {caps.entries} files and directories")])
        if total > caps.bytes:
            raise _refused([(path, f"with it the files come to over {_size(caps.bytes)}")])
        if at + size > len(view):
            raise _refused(
                [(path, f"cut short: it claims {size} bytes, {len(view) - at} are left")]
            )
        yield Member(path, kind == b"x", view[at : at + size])
        at += size


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
