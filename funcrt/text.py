"""Showing text that is not to be trusted: names, ids, messages of functions."""

__all__ = ["safe"]


def safe(text: str) -> str:
    """`text` on one line, with control characters (line ends, terminal escapes, marks that turn
    the direction of writing) spelled out, so that it can neither forge a line nor a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
