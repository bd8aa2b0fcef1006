"""What of the host `sandbox.files` may show to a function. A path that would give it more than
files to read, or what is somebody else's, is refused as the function is deployed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from funcrt.errors import DeployError
from funcrt.sandbox.view import never, no_file

__all__ = ["FilesRefused", "check_apart", "check_files"]


class FilesRefused(DeployError):
    """`sandbox.files` has a path that no function may be shown, or that is not there."""

    def __init__(self, function: str, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"{function}: sandbox.files: {path} {why}")


def check_files(function: str, files: Sequence[str]) -> None:
    """Raises FilesRefused where a function may not be shown one of these, wherever links lead, or
    it is not there."""
    for path in files:
        real = os.path.realpath(path)
        if why := never(path):
            raise FilesRefused(function, path, why)
        if why := never(real):
            raise FilesRefused(function, path, f"leads to {real}, which {why}")
        if why := _unusable(real):
            raise FilesRefused(function, path, why)


def check_apart(function: str, files: Sequence[str], kept: Mapping[str, Path]) -> None:
    """Raises FilesRefused where one of these files would show what is `kept` from it, by what that
    is called, or is in it."""
    for path in files:
        shown = Path(os.path.realpath(path))
        for what, place in kept.items():
            there = place.resolve()
            if there.is_relative_to(shown) or shown.is_relative_to(there):
                told = f"would show it {what}, {place}; name what lies beside it"
                raise FilesRefused(function, path, told)


def _unusable(real: str) -> str:
    """What is wrong with what is there; empty where it is a file or directory."""
    try:
        mode = Path(real).stat().st_mode
    except PermissionError:
        return ""  # the host may have no right to look, and R, which shows it, has
    except OSError as error:
        found = os.strerror(error.errno or 0).lower()
        return f"cannot be shown: {found}; put it there on this host, or leave it out"
    return no_file(mode)
