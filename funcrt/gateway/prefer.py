"""The Prefer header (RFC 7240): `respond-async` and `wait`; other preferences are ignored (§2)."""

import re

import msgspec

from funcrt.gateway.limits import Scope

__all__ = ["APPLIED_ASYNC", "Preferences", "preferences"]

APPLIED_ASYNC = (b"preference-applied", b"respond-async")

# §2: preference = token [ BWS "=" BWS word ] *( OWS ";" [ OWS parameter ] )
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_WORD = rf'{_TOKEN}|"(?:[^"\\]|\\.)*"'
_PREFERENCE = re.compile(
    rf"[\s,]*({_TOKEN})(?:\s*=\s*({_WORD}))?"
    rf"(?:\s*;\s*(?:{_TOKEN}(?:\s*=\s*(?:{_WORD}))?)?)*\s*(?=,|$)",
    re.ASCII,
)


class Preferences(msgspec.Struct, frozen=True):
    """What the caller would like."""

    respond_async: bool = False
    wait_s: float | None = None
    """The longest it will wait (§4.3)."""


def preferences(scope: Scope) -> Preferences:
    """The preferences of a request, over all its Prefer headers; of two of a name, the first
    counts (§2). What is not well-formed is ignored from there on, as preferences never bind."""
    text = b",".join(value for name, value in scope["headers"] if name == b"prefer")
    found: dict[str, str] = {}
    at = 0
    line = text[:4096].decode("latin-1")
    while match := _PREFERENCE.match(line, at):
        found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
        at = match.end()
    wait = found.get("wait", "")
    wait_s = max(float(wait), 0.001) if wait.isascii() and wait.isdigit() else None
    return Preferences("respond-async" in found, wait_s)
