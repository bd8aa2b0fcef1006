"""Showing text that is not to be trusted: names, ids, messages of functions."""

import re

__all__ = ["frame", "safe"]

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
