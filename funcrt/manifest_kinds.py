"""The values that manifest keys take: each kind gives the value to keep, or raises Wrong.

Kinds are data where they have parameters, so that a JSON schema can later be made from them.
"""

import datetime
import difflib
import ipaddress
import math
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from funcrt.paths import PathInvalid, PathTemplate
from funcrt.schedule import NICKNAMES, Schedule, ScheduleInvalid
from funcrt.wrong import Wrong, describe, wrong
from mesh.errors import NameInvalid
from mesh.transport import check_name

__all__ = [
    "MOST_DESTINATIONS",
    "MOST_SOURCE",
    "OLDEST_PYTHON",
    "OWN_NAMES",
    "PYTHON",
    "RESERVED",
    "SECRET",
    "Anything",
    "Choice",
    "Duration",
    "Flag",
    "Int",
    "Name",
    "Number",
    "Size",
    "Text",
    "env_value",
    "http_path",
    "nearest",
    "network",
    "python_version",
    "schedule",
    "secret_source",
    "start",
    "timezone",
]

RESERVED = ("admin", "functions", "healthz", "readyz", "topics", "ui")
"""First parts of paths that are the gateway's own; a test holds them to its list."""

CRON = 'a cron expression such as "*/5 * * * *"'
OUTBOUND = "outbound"
MOST_DESTINATIONS = 100
MOST_SOURCE = 400
"""Characters that say where a secret is."""
PYTHON = r"[0-9]\.[0-9]{1,3}(\.[0-9]{1,3})?"
OLDEST_PYTHON = (3, 11)
"""What funcrt's own code, which is below every function, needs."""
OWN_NAMES = "funcrt."
"""Topics, functions and triggers whose names begin so are the host's own."""


@dataclass(frozen=True)
class Text:
    """A string, matched by `pattern` as a whole where there is one."""

    expected: str = "a string"
    pattern: str = ""

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or (
            self.pattern and not re.fullmatch(self.pattern, value, re.ASCII)
        ):
            raise wrong(self.expected, value)
        return value


@dataclass(frozen=True)
class Name:
    """A name of the mesh: of a `topic`, `function` or `trigger`."""

    kind: str

    def __call__(self, value: object) -> str:
        try:
            name = check_name(self.kind, Text(f"a {self.kind} name")(value))
        except NameInvalid as error:
            raise Wrong(str(error)) from None
        if name.startswith(OWN_NAMES):
            raise Wrong(f"names that begin with {OWN_NAMES} are the host's own, found {name!r}")
        return name


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def __call__(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise wrong("true or false", value)
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few strings."""

    values: tuple[str, ...]

    def __call__(self, value: object) -> str:
        if value not in self.values or not isinstance(value, str):
            same = [one for one in self.values if str(value).lower() == one.lower()]
            mend = f', write "{same[0]}"' if same else nearest(value, self.values)
            raise Wrong(f"{wrong(_one_of(self.values), value)}{mend}")
        return value


@dataclass(frozen=True)
class Int:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def __call__(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong("a whole number", value)
        if not self.least <= value <= self.most:
            raise wrong(f"{self.least} to {self.most}", value)
        return value


@dataclass(frozen=True)
class Number:
    """A number from `least` to `most`, whole or not."""

    least: float
    most: float

    def __call__(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong("a number", value)
        if not self.least <= value <= self.most:
            raise wrong(f"{self.least:g} to {self.most:g}", value)
        return float(value)


def _amount(value: object, units: Mapping[str, float], bare: str, expected: str) -> float:
    """A number, or a string of a number and a unit, in the base unit."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]+)", value, re.ASCII)
        if match is None or match[2] not in units:
            raise wrong(expected, value)
        return float(match[1]) * units[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"{expected} or a number of {bare}", value)
    if abs(value) > 1e18 or not math.isfinite(value):
        raise wrong(f"{expected} or a number of {bare}", value)
    return float(value)


@dataclass(frozen=True)
class Duration:
    """`"200ms"`, `"30s"`, `"5m"`, `"1h"`, or a number of seconds; gives seconds."""

    least_s: float
    most_s: float

    UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012 - no field

    def __call__(self, value: object) -> float:
        expected = 'a duration such as "30s" (ms, s, m, h)'
        seconds = _amount(value, self.UNITS, "seconds", expected)
        if not self.least_s <= seconds <= self.most_s:
            raise wrong(f"{self.write(self.least_s)} to {self.write(self.most_s)}", value)
        return seconds

    @classmethod
    def write(cls, seconds: float) -> str:
        """Seconds as one writes them: `"5m"`."""
        for unit in ("h", "m", "s"):
            count = seconds / cls.UNITS[unit]
            if count >= 1 and count == int(count):
                return f'"{int(count)}{unit}"'
        return f'"{seconds * 1000:g}ms"'


@dataclass(frozen=True)
class Size:
    """`"256MiB"`, `"1MB"`, or a number of bytes; gives bytes."""

    least: int
    most: int

    UNITS = {  # noqa: RUF012 - no field
        "B": 1,
        "kB": 10**3,
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
    }

    def __call__(self, value: object) -> int:
        size = _amount(value, self.UNITS, "bytes", 'a size such as "256MiB" (KiB, MiB, GiB)')
        if not self.least <= size <= self.most or size != int(size):
            raise wrong(f"{self.write(self.least)} to {self.write(self.most)}", value)
        return int(size)

    @classmethod
    def write(cls, size: int) -> str:
        """Bytes as one writes them: `"256MiB"`."""
        for unit in ("GiB", "MiB", "KiB"):
            if size >= cls.UNITS[unit] and size % cls.UNITS[unit] == 0:
                return f'"{size // cls.UNITS[unit]}{unit}"'
        return f'"{size}B"'


@dataclass(frozen=True)
class Anything:
    """A table that another check reads, such as a filter: kept as it is.

    With `json` it holds only what JSON can hold too.
    """

    json: bool = False

    def __call__(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong("a table", value)
        if self.json:
            _no_more_than_json(value)
        return value


def _no_more_than_json(value: object) -> None:
    """TOML has dates, infinities and integers of any length; a stored deployment has not."""
    match value:
        case dict():
            for inner in value.values():
                _no_more_than_json(inner)
        case list():
            for inner in value:
                _no_more_than_json(inner)
        case bool() | str():
            pass
        case int() if -(2**63) <= value < 2**63:
            pass
        case float() if math.isfinite(value):
            pass
        case _:
            raise wrong("strings, booleans and numbers that JSON has too", value)


def http_path(value: object) -> str:
    """A route of the gateway that is not its own: a path, or one with parameters."""
    path = Text('a path such as "/resize"')(value)
    if not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@/{}-]*", path) or len(path) > 1000:
        raise Wrong(
            f'expected a path such as "/resize" or "/orders/{{id}}", found {describe(path)}'
        )
    try:
        PathTemplate(path)
    except PathInvalid as error:
        raise Wrong(f"{error}, in {describe(path)}") from None
    parts = path[1:].split("/")
    if parts[0] in RESERVED:
        raise Wrong(f"paths below /{parts[0]} are the gateway's own, found {describe(path)}")
    if "" in parts[:-1] or "." in parts or ".." in parts:
        raise Wrong(f"expected no empty, . or .. part in a path, found {describe(path)}")
    return path


def start(value: object) -> str:
    """`new`, `earliest`, `@position` or a time with its offset, as a string or as TOML's own."""
    text = value.isoformat() if isinstance(value, datetime.datetime) else value
    if isinstance(text, str):
        if text in ("new", "earliest") or re.fullmatch(r"@[!-~]{1,200}", text):
            return text
        try:
            if datetime.datetime.fromisoformat(text).tzinfo is not None and len(text) > 10:
                return text
        except ValueError:
            pass
    expected = '"new", "earliest", a time with its offset such as "2026-01-31T12:00:00Z"'
    raise wrong(f'{expected}, or "@" and a position', value)


def network(value: object) -> tuple[str, ...]:
    """What a function may connect to, in small letters: nothing, `outbound`, hosts with ports."""
    if value == "none":
        return ()
    if value == OUTBOUND:
        return (OUTBOUND,)
    if not isinstance(value, list):
        raise wrong(f'"none", "{OUTBOUND}" or a list of hosts with ports', value)
    if not 1 <= len(value) <= MOST_DESTINATIONS:
        raise wrong(f'1 to {MOST_DESTINATIONS} hosts with ports ("none" for none)', value)
    return tuple(dict.fromkeys(_destination(each) for each in value))


def _destination(value: object) -> str:
    expected = f'"{OUTBOUND}", or a host and a port such as "api.example.com:443"'
    if not isinstance(value, str):
        raise wrong(expected, value)
    text = value.lower()
    if text == OUTBOUND:
        return text
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise wrong(f"{expected}, with a port of 1 to 65535", value)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if (address.version == 6) is (bare == host):
            raise wrong('an address of IPv6, and none else, in brackets: "[fd00::5]:443"', value)
        if address.is_unspecified or address.is_multicast or "%" in bare:
            raise wrong("the address of one host", value)
        return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    if host == "localhost":
        raise wrong('an address instead of localhost: "127.0.0.1" or "[::1]"', value)
    name = host.removeprefix("*.")
    label = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
    if len(name) > 253 or not re.fullmatch(rf"{label}(\.{label})*", name):
        raise wrong(expected, value)
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]):
        raise wrong(f"{expected}: an address as four numbers of 0 to 255", value)
    if name != host and "." not in name:
        raise wrong('a wildcard below two names at least, such as "*.example.com:443"', value)
    return text


def python_version(value: object) -> str:
    """A version of Python that functions can run in: `3.12`, or `3.12.1`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Wrong(f'expected a version in quotes, found {value}; write python = "3.12"')
    text = Text('a version of Python such as "3.12" or "3.12.1"', PYTHON)(value)
    major, minor = (int(part) for part in text.split(".")[:2])
    if (major, minor) < OLDEST_PYTHON:
        least = ".".join(map(str, OLDEST_PYTHON))
        raise Wrong(f"functions run in Python {least} or newer, found {describe(text)}")
    return text


def schedule(value: object) -> str:
    """A cron expression, or a nickname such as `@daily`."""
    text = Text(f"{CRON}, or one of {', '.join(NICKNAMES)}")(value)
    if text.startswith("@") and text not in NICKNAMES:
        near = nearest(text, list(NICKNAMES))
        raise Wrong(f"expected one of {', '.join(NICKNAMES)}, found {describe(text)}{near}")
    try:
        Schedule(text)
    except ScheduleInvalid as error:
        raise Wrong(f"expected {CRON}, found {describe(text)}: {error}") from None
    return text


def timezone(value: object) -> str:
    """The name of a time zone that this machine knows."""
    expected = 'a time zone such as "Europe/Berlin"'
    text = Text(expected)(value)
    known = zoneinfo.available_timezones()
    if text not in known:
        near = nearest(text, sorted(known)) or "; is the system's tzdata installed?" * (not known)
        raise Wrong(f"expected {expected}, found {describe(text)}{near}")
    return text


def env_value(value: object) -> str:
    """A string; a number is refused with how to write it."""
    if isinstance(value, bool | int | float):
        raise Wrong(f'expected a string, found {describe(value)}; write "{describe(value)}"')
    return Text("a string without NUL", r"(?s)[^\x00]*")(value)


SECRET = r"env:[A-Za-z_][A-Za-z0-9_]*|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"


def secret_source(value: object) -> str:
    """Where the host finds a secret: a file of its secrets directory, or a variable of its own."""
    expected = (
        'a file below the host\'s secrets directory, such as "stripe/key", or a variable of the'
        ' host\'s environment, such as "env:STRIPE_KEY"'
    )
    try:
        found = Text(expected, SECRET)(value)
    except Wrong:
        if not isinstance(value, str):
            raise
        # What stands there may be the value itself: it goes into no message.
        found = f"{len(value)} characters that are neither"
        raise Wrong(f"expected {expected}, found {found}") from None
    if len(found) > MOST_SOURCE:
        raise Wrong(f"{len(found)} characters; at most {MOST_SOURCE}")
    return found


def nearest(value: object, known: Sequence[str], likeness: float = 0.6) -> str:
    """`, did you mean "filters"?`, or nothing where no name is as near (0 to 1)."""
    close = difflib.get_close_matches(value, known, 1, likeness) if isinstance(value, str) else []
    return f', did you mean "{close[0]}"?' if close else ""


def _one_of(values: Sequence[str]) -> str:
    quoted = [f'"{value}"' for value in values]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 1 else quoted[0]
