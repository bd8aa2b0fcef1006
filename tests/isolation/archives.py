"""Wheels that attack as they are unpacked, beside `builds.py`, whose packages attack as they are
built.

No code of a wheel runs before a function imports it: what there is to attack with is names, what
the archive says of its members, and metadata."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.wheels import digest

__all__ = ["ATTACKS", "Wheel", "write"]

UP = "../" * 12
INFO = "evil-1.0.dist-info"
DATA = "evil-1.0.data"
PLAIN = "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
RUNS = """
import os
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "ran"), "w"):
    raise SystemExit(99)
"""
PTH = "import os, sys; open(os.path.join(sys.path[-1], 'ran'), 'w'); sys.exit(99)\n"


class Member(NamedTuple):
    """One of an archive, whatever it says of itself."""

    name: str
    content: str | bytes = "planted"
    mode: int = 0o100644


class Wheel(NamedTuple):
    """What one of `evil` holds."""

    members: tuple[Member, ...] = ()
    needs: str = ""
    metadata: str | bytes = PLAIN
    record: str = ""
    """More lines of it."""


Asked = dict[str, Any]
Attack = Callable[[Asked], Wheel]


def write(directory: Path, wheel: Wheel) -> None:
    """`evil-1.0-py3-none-any.whl` in a directory, its members in their order."""
    required = f"Requires-Dist: {wheel.needs}\n" if wheel.needs else ""
    metadata = wheel.metadata + required if isinstance(wheel.metadata, str) else wheel.metadata
    whole = [
        Member("evil/__init__.py", "VERSION = '1.0'\n"),
        *wheel.members,
        Member(f"{INFO}/METADATA", metadata),
        Member(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    rows = [f'"{each.name}",sha256={digest(each.content)},{len(each.content)}\n' for each in whole]
    whole.append(Member(f"{INFO}/RECORD", "".join(rows) + wheel.record + f"{INFO}/RECORD,,\n"))
    directory.mkdir(exist_ok=True)
    with zipfile.ZipFile(directory / "evil-1.0-py3-none-any.whl", "w") as file:
        for each in whole:
            info = zipfile.ZipInfo("x")
            info.filename = each.name  # which the class would cut at a NUL
            info.external_attr = each.mode << 16
            info.create_system = 3
            file.writestr(info, each.content)


def link(name: str, target: str) -> Member:
    """A member that says it is a link."""
    return Member(name, target, stat.S_IFLNK | 0o777)


def scripts(text: str) -> Attack:
    """What asks for programs, by their names."""
    return lambda asked: Wheel(
        (Member(f"{INFO}/entry_points.txt", "[console_scripts]\n" + text.format(**asked)),)
    )


def outside(*names: str) -> Attack:
    """Members with names that lead elsewhere."""
    return lambda asked: Wheel(tuple(Member(name.format(up=UP, **asked)) for name in names))


def part(kind: str) -> Attack:
    """One of a wheel's parts that are put elsewhere."""
    return outside(
        *(f"{DATA}/{kind}/{way}/planted" for way in ("{up}{data}", "../../../{cache}")),
        f"{DATA}/{kind}/{{up}}{{mesh}}",
    )


def modules(*names: str) -> Attack:
    """What would run where somebody imports it."""
    return lambda asked: Wheel(tuple(Member(name, RUNS) for name in names))


def needs(what: str) -> Attack:
    """Metadata that asks for another package."""
    return lambda asked: Wheel(needs=what.format(**asked))


def says(metadata: str | bytes) -> Attack:
    """Metadata that is not what it should be."""
    return lambda asked: Wheel(metadata=metadata)


def is_one(name: str, kind: int) -> Attack:
    """A member that says it is no file."""
    return lambda asked: Wheel((Member(name, "", kind | 0o6777),))


ATTACKS: dict[str, Attack] = {
    "names with `..`": outside("{up}{data}/planted", "evil/../../../{cache}/planted", "{up}{mesh}"),
    "absolute names": outside("{data}/planted", "{mesh}"),
    "names with `\\`": outside("..\\..\\{cache}\\planted", "..\\..\\..\\mesh.db"),
    **{f"`{kind}` with `..`": part(kind)
       for kind in ("purelib", "platlib", "headers", "scripts", "data", "..")},
    "a script's name with `..`": scripts("../../../{cache}/planted = evil:x\n../{mesh} = evil:x\n"),
    "a script's absolute name": scripts("{data}/planted = evil:x\n{mesh} = evil:x\n"),
    "a link to a file": lambda a: Wheel((
        link("evil/link", a["mesh"]), Member("evil/link"), link("evil/key", a["secret"]),
    )),
    "a link to a directory": lambda a: Wheel((
        link("evil/link", a["data"]), Member("evil/link/planted"), Member("evil/link/mesh.db"),
        link("link", f"../../{a['cache']}"), Member("link/planted"),
    )),
    "a record of others' files": lambda a: Wheel(
        record=f"{a['mesh']},sha256=x,1\n../../../mesh.db,,\n../../{a['cache']}/victim,,\n"
    ),
    "a name with NUL": outside("evil/a\0/../../../planted", "evil/b\0.py"),
    "names of two lines, and with escapes": outside("evil/a\nb.py", "evil/\x1b[2Jc.py"),
    "names that differ in case": outside("Evil/__init__.py", "evil/A.py", "evil/a.py"),
    "a name twice": lambda a: Wheel((Member("evil/a.py"), link("evil/a.py", a["secret"]))),
    "a setuid program": is_one(f"{DATA}/scripts/p", stat.S_IFREG),
    "a device": is_one("evil/null", stat.S_IFCHR),
    "a pipe": is_one("evil/pipe", stat.S_IFIFO),
    "two sets of metadata": outside("x-1.0.dist-info/METADATA"),
    "`sitecustomize`": modules("sitecustomize.py", "usercustomize.py"),
    "a `.pth` file": lambda a: Wheel((Member("evil.pth", PTH),)),
    "modules that installers use": modules(*(f"{name}.py" for name in (
        "compileall", "py_compile", "encodings", "os", "site", "pip", "sysconfig",
        "multiprocessing", "concurrent", "pip_compileall",
    ))),
    "funcrt's own modules": modules(
        "funcrt/__init__.py", "funcrt/sandbox/worker.py", "mesh/__init__.py", "mesh/event.py",
        "msgspec/__init__.py", "starlette/__init__.py",
    ),
    "another name than the file's": says(PLAIN.replace("evil", "plain")),
    "another version than the file's": says(PLAIN.replace("1.0", "9.0")),
    "metadata that is no text": says(PLAIN.encode() + b"\n\xff\xfe"),
    "metadata within metadata": says(
        f"{PLAIN}Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n" * 5000
    ),
    "metadata of 6 MiB": says(f"{PLAIN}\n" + "x" * (6 << 20)),
    "a dependency that is a file of the host": needs("x @ file://{secret}"),
    "a dependency that is a directory of the host": needs("x @ file://{data}"),
    "a dependency on the host's loopback": needs("x @ http://127.0.0.1:{port}/x-1-py3-none-any.whl"),
    "a dependency of the cloud's metadata": needs("x @ http://169.254.169.254/x-1-py3-none-any.whl"),
    "a dependency by `git+file`": needs("x @ git+file://{data}"),
    "a dependency by `git+ssh`": needs("x @ git+ssh://-oProxyCommand=touch%20ran/x"),
}  # fmt: skip
"""What each makes of its wheel."""
