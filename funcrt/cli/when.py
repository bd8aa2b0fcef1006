"""Moments as commands take them: how long ago, or a time."""

import re
import time
from datetime import UTC, datetime

from funcrt.cli.errors import USAGE, CliError

__all__ = ["ago", "start"]

_AGO = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def ago(option: str, text: str) -> float:
    """Wall-clock seconds of `10m`, that long ago, or of an RFC 3339 time. Raises CliError."""
    found = _AGO.fullmatch(text)
    if found:
        return time.time() - float(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"{option} {text}: expected how long ago, such as 10m (ms, s, m, h, d), or a time"
            " such as 2026-11-25T08:00:00Z",
            f"{option} 10m",
            USAGE,
        ) from None
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def start(option: str, text: str) -> str:
    """`earliest`, `now`, `@` and a position, or a moment, as the mesh takes it. Raises CliError."""
    if text in ("earliest", "now"):
        return text
    if text.startswith("@"):
        if not text[1:].isdigit():
            raise CliError(f"{option} {text}: a position is @ and a number", code=USAGE)
        return text
    return datetime.fromtimestamp(ago(option, text), UTC).isoformat().replace("+00:00", "Z")
