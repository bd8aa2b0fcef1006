"""Showing text that is not to be trusted: names, ids, messages of functions."""

import re
from collections.abc import Sequence

__all__ = ["frame", "installed", "safe", "several"]

_FRAME = re.compile(r'  File "([^"]+)", line (\d+), in (.+)')


def safe(text: str) -> str:
    """`text` on one line, with control characters (line ends, terminal escapes, marks that turn
    the direction of writing) spelled out, so that it can neither forge a line nor a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def frame(line: str) -> str:
    """A traceback's line; that of a frame as `main.py:14 in handler`."""
    found = _FRAME.fullmatch(line)
    return f"{found[1]}:{found[2]} in {found[3]}" if found else line


def several(names: Sequence[str], most: int = 6) -> str:
    """Names on one line, the first of many: `pillow, numpy and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return safe(", ".join(names[:most]) + more)


def installed(packages: Sequence[str], took_s: float | None) -> str:
    """What a function needs, and what its installation took, None where it was there: `pillow
    11.3.0, numpy 2.3.1 · 2.1 s`."""
    return f"{several(packages)} · {'cached' if took_s is None else f'{took_s:.1f} s'}"
