"""Environment files: `NAME=value` lines, for local use only."""

from collections.abc import Sequence
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream

from funcrt.errors import FuncrtError
from funcrt.text import safe

__all__ = ["NAME", "EnvFileInvalid", "read_env"]

NAME = ".env"


class EnvFileInvalid(FuncrtError):
    """A line of an environment file that is none."""

    def __init__(self, file: Path, line: int, found: str) -> None:
        super().__init__(f"{file}:{line}: expected NAME=value, found {safe(found)[:60]!r}")


def read_env(files: Sequence[Path]) -> dict[str, str]:
    """What the files say, those that are there; a later one beats an earlier. `${NAME}` stands for
    what came before it. Raises EnvFileInvalid."""
    found: dict[str, str] = {}
    for file in files:
        try:
            with file.open(encoding="utf-8") as opened:
                bindings = list(parse_stream(opened))
        except FileNotFoundError:
            continue
        pairs = []
        for binding in bindings:
            line = binding.original.string.strip()
            if binding.error or (binding.key is not None and binding.value is None):
                before = binding.original.string[: len(binding.original.string.lstrip())]
                skipped = binding.original.string.index(line) if before else 0
                skipped = binding.original.string.count("\n", 0, skipped)
                raise EnvFileInvalid(file, binding.original.line + skipped, line)
            if binding.key is not None and binding.value is not None:
                pairs.append((binding.key, binding.value))
        resolved = resolve_variables([*found.items(), *pairs], override=True)
        found = {name: value for name, value in resolved.items() if value is not None}
    return found
