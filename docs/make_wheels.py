"""Prints funcrt/wheels.sha256: the hashes of the wheels that a function's process of another Python
is made of, in the versions of requirements.lock, as uv finds them where packages come from."""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from funcrt.manifest_kinds import OLDEST_PYTHON
from funcrt.packages import DEBUGGER, RUNTIME

LOCK = Path(__file__).parents[1] / "requirements.lock"
FITS = re.compile(r".+-cp\d+-(manylinux|musllinux)\S+_(x86_64|aarch64)\.whl|.+-none-any\.whl")
"""The names of those that functions can run with."""


def wanted() -> list[str]:
    """As requirements.lock has them: `msgspec==0.22.0`."""
    names = tuple(f"{name}==" for name in (*RUNTIME, DEBUGGER))
    return [line for line in LOCK.read_text().splitlines() if line.startswith(names)]


def found(requirements: list[str]) -> list[tuple[str, str]]:
    """The name of each wheel for Linux, and its hash."""
    least = ".".join(map(str, OLDEST_PYTHON))
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "pyproject.toml").write_text(
            f'[project]\nname = "asked"\nversion = "0"\nrequires-python = ">={least}"\n'
            f"dependencies = {requirements!r}\n"
        )
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "lock", "--quiet", "--directory", directory], check=True)
        locked = tomllib.loads((Path(directory) / "uv.lock").read_text())
    wheels = [wheel for package in locked["package"] for wheel in package.get("wheels", [])]
    named = [(wheel["url"].rpartition("/")[2], wheel["hash"]) for wheel in wheels]
    return sorted((name, digest) for name, digest in named if FITS.fullmatch(name))


if __name__ == "__main__":
    for name, digest in found(wanted()):
        print(f"{digest.removeprefix('sha256:')}  {name}")
