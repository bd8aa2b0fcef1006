"""A new function from a template: a copy of its folder, whole or not at all."""

import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

from funcrt.errors import FuncrtError
from funcrt.manifest import MAX_NAME
from funcrt.manifest_kinds import OWN_NAMES

__all__ = [
    "TEMPLATES",
    "ScaffoldError",
    "check_free",
    "check_new_name",
    "make",
    "nearest_name",
    "templates",
]

TEMPLATES = {
    "event": "takes events of a topic, publishes what it returns",
    "typed": "the same with the data decoded into a dataclass",
    "http": "answers HTTP requests",
    "batch": "takes many events at once",
    "cron": "runs at times of day",
    "chain": "two functions, one after the other",
}
"""Each has a folder of its name in `templates/`."""
PLACEHOLDER = "NAME"
"""What stands for the function's name in a template's files."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


class ScaffoldError(FuncrtError):
    """A function that cannot be made: its name, or what is in its place. `instead` is a name that
    would do, or ""."""

    def __init__(self, message: str, instead: str = "") -> None:
        self.instead = instead
        super().__init__(message)


def templates() -> Path:
    """The folder of templates: in the package where it is installed, beside it in the sources."""
    package = Path(__file__).parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


def nearest_name(name: str) -> str:
    """The name most like `name` that a function may have; "" where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    while plain.startswith(OWN_NAMES):
        plain = plain.removeprefix(OWN_NAMES).lstrip("-._")
    return plain[:MAX_NAME].rstrip("-._")


def check_new_name(name: str) -> None:
    """Raises ScaffoldError, with the nearest good name, for one that no function may have."""
    if not _NAME.fullmatch(name):
        reason = "may have a-z A-Z 0-9 . _ - and begins with a letter or digit"
    elif len(name) > MAX_NAME:
        reason = f"has at most {MAX_NAME} characters"
    elif name.startswith(OWN_NAMES):
        reason = f"may not begin with {OWN_NAMES}, which is the host's own"
    else:
        return
    instead = nearest_name(name)
    shown = name if len(name) <= 60 else name[:59] + "…"
    mend = f"; {instead} would do" if instead and len(name) <= MAX_NAME else ""
    raise ScaffoldError(f"{shown!r} cannot be a function's name, which {reason}{mend}", instead)


def check_free(target: Path) -> None:
    """Raises ScaffoldError where there is something."""
    if os.path.lexists(target):
        what = "a directory" if target.is_dir() else "a file"
        raise ScaffoldError(f"{target} is there already ({what}), and is left as it is")


def make(name: str, template: str, directory: Path) -> list[Path]:
    """Make `directory/name` from a template; its files, relative to it. Raises ScaffoldError,
    OSError; nothing half-made stays behind."""
    check_new_name(name)
    target = directory / name
    check_free(target)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))
    try:
        files = _copy(templates() / template, temporary, name)
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return files


def _copy(template: Path, to: Path, name: str) -> list[Path]:
    files = []
    for source in sorted(template.rglob("*")):
        inner = source.relative_to(template)
        if source.is_dir() or "__pycache__" in inner.parts or inner.suffix == ".pyc":
            continue
        (to / inner).parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text("utf-8")
        (to / inner).write_text(re.sub(rf"\b{PLACEHOLDER}\b", lambda _: name, text), "utf-8")
        files.append(inner)
    return files


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
