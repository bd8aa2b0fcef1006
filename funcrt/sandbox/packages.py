"""What a function needs, put where its imports look. Runs in the sandbox."""

import site
import sys
import sysconfig
from pathlib import Path

__all__ = ["add_packages"]

REPLACED = ("typing_extensions",)
"""What the runtime has imported and a function may bring in another version."""


def add_packages(directory: str) -> None:
    """Let imports look in a directory of packages: after the standard library, before what the host
    has itself. Its `.pth` files count. Again is harmless, as is an empty name."""
    if not directory or directory in sys.path:
        return
    before = list(sys.path)
    site.addsitedir(directory)
    added = [path for path in sys.path if path not in before]
    library = [path for path in before if _is_library(path)]
    sys.path[:] = [*library, *added, *(path for path in before if path not in library)]
    for name in REPLACED:
        if Path(directory, f"{name}.py").is_file():
            sys.modules.pop(name, None)


def _is_library(path: str) -> bool:
    """Whether a directory (or archive) is the standard library's."""
    if "site-packages" in path or "dist-packages" in path:
        return False
    places = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    above = {str(Path(place).parent) for place in places}
    return any(path.startswith(place) for place in places) or (
        path.endswith(".zip") and str(Path(path).parent) in above
    )
