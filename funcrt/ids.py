"""Ids that are derived, the same wherever and whenever they are made."""

import hashlib

__all__ = ["cause", "derived_id"]

_SPACE = hashlib.sha1(bytes.fromhex("b3c4d7a2f5b04f6e9d0c0b7a5a1f4e21"), usedforsecurity=False)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def cause(scope: str, source: str, event_id: str, replay: str) -> str:
    """One event as a trigger sees it. `scope` is namespace, function and trigger, joined by NUL,
    which none of the parts can hold."""
    return f"{scope}\0{source}\0{event_id}\0{replay}"


def derived_id(name: str) -> str:
    """uuid5 (RFC 9562 §5.5) of a name in funcrt's own space."""
    state = _SPACE.copy()
    state.update(name.encode())
    text = state.hexdigest()
    variant = _VARIANT[text[16]]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"
