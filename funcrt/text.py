"""Showing text: what is not to be trusted (names, ids, messages of functions), long lines, red."""

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

__all__ = ["RED", "alarm", "folded", "frame", "installed", "paint", "safe", "several"]

RED = "31"
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


def folded(text: str, indent: int, stream: TextIO | None = None) -> str:
    """A long line for a terminal, by default that of stdout: broken at blanks, and what follows
    indented. In a pipe as it is."""
    if not (stream or sys.stdout).isatty():
        return text
    import shutil
    import textwrap

    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def paint(colour: str, text: str, stream: TextIO | None = None) -> str:
    """In colour, on a terminal that wants it, by default that of stdout."""
    wanted = (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text


def alarm(text: str, hint: str, stream: TextIO) -> str:
    """What nobody is to overlook, and what to do about it: lines, in red on a terminal."""
    said = [folded(f"! {text}", 2, stream)]
    if hint:
        said.append(folded(f"  try: {hint}", 7, stream))
    return paint(RED, "\n".join(said), stream)
