"""Tokens: who may publish, read or administer. Kept only as hashes.

A token file has one entry a line; `#` starts a comment line:

    scope[,scope] sha256hex name
    publish,read 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 ci

The scopes are `publish` (publish events, call functions), `read` (read topics) and `admin` (the
admin API); none implies another. A bare SHA-256 is enough because a token is 256 random bits, which
no dictionary holds; never put the hash of a password here. `funcrt token` makes both.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import msgspec

from funcrt.errors import FuncrtError

__all__ = [
    "SCOPES",
    "Grant",
    "Scope",
    "TokenFileInvalid",
    "Tokens",
    "UnsafeBind",
    "check_bind",
    "is_loopback",
    "new_token",
    "token_line",
]

Scope = Literal["publish", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TokenFileInvalid(FuncrtError):
    """A token file that cannot be used. Never quotes what it holds."""

    def __init__(self, path: Path, found: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {found}")


class UnsafeBind(FuncrtError):
    """An address that others can reach, without tokens."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"{host or '0.0.0.0'} can be reached from other machines, and no tokens are configured"
        )


class Grant(msgspec.Struct, frozen=True):
    """What the bearer of one token may do. `name` is for the audit log."""

    name: str
    scopes: frozenset[str]
    digest: str = ""
    """SHA-256 of the token, in hex."""


class Tokens:
    """The entries of a token file."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self.grants = tuple(grants)

    def __bool__(self) -> bool:
        return bool(self.grants)

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Read a token file.

        Raises TokenFileInvalid for a bad line, an empty file, a file that anyone may write, or
        one that cannot be read: a host must not start with fewer checks than it was asked for.
        """
        try:
            if path.stat().st_mode & stat.S_IWOTH:
                raise TokenFileInvalid(path, "every user may write it; chmod o-w")
            text = path.read_text("utf-8-sig")
        except OSError as error:
            raise TokenFileInvalid(path, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise TokenFileInvalid(path, "is not UTF-8 text") from None
        tokens = cls(
            _entry(path, number, line.split())
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.lstrip().startswith("#")
        )
        if not tokens:
            raise TokenFileInvalid(path, "holds no token")
        return tokens

    def check(self, token: bytes) -> Grant | None:
        """The grant of a token, or None. Compares with every entry, in constant time each."""
        digest = hashlib.sha256(token).hexdigest()
        found = None
        for grant in self.grants:
            if hmac.compare_digest(digest, grant.digest):
                found = grant
        return found


def _entry(path: Path, number: int, words: list[str]) -> Grant:
    if len(words) != 3:
        raise TokenFileInvalid(
            path, f"found {len(words)} words, expected `scope[,scope] sha256hex name`", number
        )
    scopes, digest, name = words
    for scope in scopes.split(","):
        if scope not in SCOPES:
            there = ", ".join(SCOPES)
            raise TokenFileInvalid(path, f"no scope is named {scope!r}; there are {there}", number)
    if not _HASH.fullmatch(digest):
        raise TokenFileInvalid(
            path, "the second word is no SHA-256 in hex (64 of 0-9 a-f); is it the token?", number
        )
    return Grant(name, frozenset(scopes.split(",")), digest)


def new_token() -> str:
    """A fresh token of 256 random bits. The prefix lets secret scanners find a leaked one."""
    return "funcrt_" + secrets.token_urlsafe(32)


def token_line(token: str, scopes: Iterable[str], name: str) -> str:
    """The line of a token file that grants `scopes` to `token`. Raises ValueError."""
    wanted = tuple(dict.fromkeys(scopes))
    wrong = [scope for scope in wanted if scope not in SCOPES]
    if wrong or not wanted:
        raise ValueError(f"no scope is named {(wrong or [''])[0]!r}; there are {', '.join(SCOPES)}")
    if not name or len(name.split()) != 1 or name.startswith("#") or not name.isprintable():
        raise ValueError(f"{name!r} is no token name: one word of printable characters")
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f"{','.join(wanted)} {digest} {name}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost is not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, tokens: Tokens) -> None:
    """Raises UnsafeBind for an address that others reach while no token is configured."""
    if not tokens and not is_loopback(host):
        raise UnsafeBind(host)
