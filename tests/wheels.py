"""Small packages made here, so that installing needs no registry."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["offline", "sdist", "wheel"]


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
    rows = [f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in inside.items()]
    inside[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    target = directory / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in inside.items():
            archive.writestr(path, text)
    return target


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def sdist(directory: Path, name: str, version: str, setup: str) -> None:
    """`NAME-VERSION.tar.gz` with this `setup.py`."""
    directory.mkdir(exist_ok=True)
    with tarfile.open(directory / f"{name}-{version}.tar.gz", "w:gz") as archive:
        info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for file, text in {"setup.py": setup, "PKG-INFO": info}.items():
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
