"""Small packages made here, so that installing needs no registry."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["built", "digest", "offline", "sdist", "wheel"]

BACKEND = """
import json
import pathlib
import sys

sys.path.insert(0, ".")
import told
from wheels import wheel

NAME, VERSION = told.NAME, told.VERSION


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory, f"{NAME}-{VERSION}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n")
    return info.name


def build_wheel(directory, config_settings=None, metadata_directory=None):
    import build

    found = json.dumps(build.run())
    return wheel(pathlib.Path(directory), NAME, VERSION, files={f"{NAME}/found.json": found}).name
"""
PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "NAME"
version = "VERSION"
"""


def wheel(
    directory: Path,
    name: str,
    version: str,
    needs: Sequence[str] = (),
    *,
    tag: str = "py3-none-any",
    files: Mapping[str, str] = {},
) -> Path:
    """`NAME-VERSION-TAG.whl` in a directory; its module has the version as VERSION."""
    directory.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {each}\n" for each in needs)
    inside = {
        f"{module}/__init__.py": f"VERSION = {version!r}\n",
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = [f"{path},sha256={digest(text)},{len(text)}\n" for path, text in inside.items()]
    inside[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    target = directory / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in inside.items():
            archive.writestr(path, text)
    return target


def digest(content: str | bytes) -> str:
    """As a wheel's RECORD has it."""
    body = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def sdist(directory: Path, name: str, version: str, setup: str) -> None:
    """`NAME-VERSION.tar.gz` with this `setup.py`."""
    _source(directory, name, version, {"setup.py": setup})


def built(directory: Path, name: str, version: str, code: str, **files: str) -> None:
    """`NAME-VERSION.tar.gz` that is built by code of its own and needs nothing for that. What
    `run()` of that code returns is in `NAME/found.json` of the package. `files` are modules beside
    it."""
    modules = {f"{module}.py": text for module, text in files.items()}
    held = {
        "backend.py": BACKEND,
        "wheels.py": Path(__file__).read_text(),
        "told.py": f"NAME, VERSION = {name!r}, {version!r}\n",
        "build.py": code,
        "pyproject.toml": PROJECT.replace("NAME", name).replace("VERSION", version),
    }
    _source(directory, name, version, held | modules)


def _source(directory: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    directory.mkdir(exist_ok=True)
    with tarfile.open(directory / f"{name}-{version}.tar.gz", "w:gz") as archive:
        info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for file, text in {**files, "PKG-INFO": info}.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def offline(wheels: Path, kind: str = "pip") -> dict[str, str]:
    """The environment of a host that installs from a directory alone, by `pip` or by `uv`."""
    wheels.mkdir(exist_ok=True)
    settings = wheels / "uv.toml"
    settings.write_text(f"no-index = true\nfind-links = [{str(wheels)!r}]\n")
    pip = {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1", "UV_CONFIG_FILE": ""}
    uv = {"PIP_FIND_LINKS": "", "PIP_NO_INDEX": "", "UV_CONFIG_FILE": str(settings)}
    return uv if kind == "uv" else pip
