"""What is said of a module that a function imports and that is not there."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from funcrt.errors import ManifestError, nearest
from funcrt.requirements import FILE, Needs, name_of, read_needs

__all__ = ["absent"]

NAMED = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "grpc": "grpcio",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "kafka": "kafka-python",
    "magic": "python-magic",
    "MySQLdb": "mysqlclient",
    "nacl": "pynacl",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "socks": "pysocks",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
"""Modules whose package has another name."""


def absent(module: str, path: Path) -> str:
    """What is wrong with an import of `module`, which was not found, in the function in `path`, and
    what to do."""
    top = module.partition(".")[0]
    if top != module and _there(top):
        return f"cannot import {module!r}: {top} is there, and has no such module"
    if near := nearest(top, _own(path)):
        return f"cannot import {module!r}: no such module beside it; did you mean {near[0]!r}?"
    package, needs = NAMED.get(top, top), _needs(path)
    if name_of(package) in needs.names:
        return f"cannot import {module!r}: {_named(package, needs, path)}"
    if needs.file:
        return (
            f'cannot import {module!r}: not in {needs.file}. Add "{package}" there and deploy again'
        )
    return (
        f"cannot import {module!r}: no such module beside it, and it has no {FILE}."
        f' Make one with the line "{package}" and deploy again'
    )


def _named(package: str, needs: Needs, path: Path) -> str:
    """Of a package that is asked for."""
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        what = f"-r {FILE} in its folder" if (path / FILE).is_file() else f"'{package}'"
        return (
            f"{package} is in {needs.file} and was not installed, as this ran with --no-install, in"
            f" a test or in a container; {sys.executable} -m pip install {what}"
        )
    return f"{package} {found} is installed, and has no such module"


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _own(path: Path) -> list[str]:
    return [each.stem for each in path.iterdir() if each.suffix == ".py" or each.is_dir()]


def _needs(path: Path) -> Needs:
    import tomllib

    try:
        text = (path / "funcrt.toml").read_text("utf-8-sig")
        own = tomllib.loads(text).get("dependencies", [])
    except (OSError, ValueError):
        own = []
    try:
        return read_needs(path, "funcrt.toml", own)
    except ManifestError:
        return Needs()
