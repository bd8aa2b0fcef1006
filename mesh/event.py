"""The event: CloudEvents 1.0 attributes and the data as bytes, immutable."""

import json
import re
from typing import Any, NoReturn

import msgspec

from mesh.errors import EventError

__all__ = [
    "CONTEXT",
    "MAX_JSON_DEPTH",
    "AttributeValue",
    "Event",
    "Extensions",
    "canonical",
    "nested_deeper",
    "parse_json",
]

AttributeValue = str | int | bool
"""What an extension may hold (CloudEvents 1.0 §3.1): Integer is 32 bits; Binary, URI and
Timestamp values are kept as their canonical string, which is all that any wire format carries."""

CONTEXT = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
"""The context attributes that have a field of their own; `specversion` is always "1.0"."""


MAX_JSON_DEPTH = 500
"""Deeper data is no JSON to filters and `Event.json`: parsers run out of stack near 1,000."""
_SHOWN = 200
"""Characters of a value in an event's repr."""


def canonical(value: AttributeValue) -> str:
    """The canonical string of an attribute's value (core, Type System): `true`, never `True`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def nested_deeper(body: bytes, depth: int) -> bool:
    """Whether JSON nests arrays and objects more than `depth` deep. Parsers recurse."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    now = 0
    for found in _NESTING.finditer(body):
        token = found.group()
        if token in (b"[", b"{"):
            now += 1
            if now > depth:
                return True
        elif token in (b"]", b"}"):
            now -= 1
    return False


def parse_json(body: bytes) -> Any:
    """A JSON text (RFC 8259, UTF-8) as Python values. Raises ValueError, also for text nested
    more than MAX_JSON_DEPTH deep. Numbers beyond a double's range become infinite."""
    if nested_deeper(body, MAX_JSON_DEPTH):
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        # Numbers out of range, and lone surrogates in escapes, are JSON all the same.
        try:
            return json.loads(body.decode(), parse_int=_int, parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("nested too deep") from None


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 4000 else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class Extensions(dict[str, AttributeValue]):
    """An event's extensions: a dict that cannot be changed, and tells `1` from `True`."""

    __slots__ = ()

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an event is immutable: make another with msgspec.structs.replace")

    __setitem__ = __delitem__ = __ior__ = _fixed
    clear = pop = popitem = setdefault = update = _fixed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict) or not dict.__eq__(self, other):
            return False
        return all(
            isinstance(found, bool) is isinstance(other[k], bool) for k, found in self.items()
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Extensions, (dict(self),)


_NONE = Extensions()
_set = msgspec.structs.force_setattr


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One CloudEvents 1.0 event.

    `data` is the payload as bytes, exactly as it came, or None where there is none; nothing
    parses it unless asked. `time` is kept as its text, to the digit. An empty `id` or `source`
    marks an event that a handler made and the host has yet to name; the codec refuses both.

    The constructor does not check (it is on the hot path): `codec` does at the edge. Events are
    equal where every field is, data byte for byte; they can be hashed, copied and pickled.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, AttributeValue] = _NONE
    data: bytes | None = None

    def __post_init__(self) -> None:
        extensions = self.extensions
        if extensions.__class__ is not Extensions:
            _set(self, "extensions", Extensions(extensions) if extensions else _NONE)

    def __repr__(self) -> str:
        parts = []
        for name in (*CONTEXT, "extensions", "data"):
            value = getattr(self, name)
            if value or name in ("id", "source", "type"):
                text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
                more = len(value) - _SHOWN if isinstance(value, str | bytes) else len(text) - _SHOWN
                text = text if isinstance(value, str | bytes) else text[:_SHOWN]
                parts.append(f"{name}={text}" + (f"...+{more}" if more > 0 else ""))
        return f"Event({', '.join(parts)})"

    def attribute(self, name: str) -> AttributeValue | None:
        """The value of a context attribute or extension, or None where it is absent."""
        if name in CONTEXT:
            value: AttributeValue | None = getattr(self, name)
            return value
        if name == "specversion":
            return "1.0"
        return self.extensions.get(name)

    def json(self) -> Any:
        """`data` parsed as JSON. Raises EventError where it is missing or not JSON."""
        if self.data is None:
            raise EventError("the event has no data", attribute="data")
        try:
            return parse_json(self.data)
        except ValueError as error:
            raise EventError(f"not JSON: {error}", attribute="data") from None

    @staticmethod
    def create(
        type: str,
        data: Any = None,
        datacontenttype: str | None = None,
        *,
        source: str = "",
        id: str = "",
        subject: str | None = None,
        **extensions: AttributeValue,
    ) -> "Event":
        """An event from plain values, for handlers and tests.

        `data`: bytes as they are, a string as UTF-8 text, anything else as JSON; its type is
        said unless `datacontenttype` does. An empty `id` and `source` are the host's to fill.
        """
        body: bytes | None
        if data is None or isinstance(data, bytes):
            body, kind = data, "application/octet-stream" if data is not None else None
        elif isinstance(data, str):
            body, kind = data.encode(), "text/plain"
        else:
            body, kind = msgspec.json.encode(data), "application/json"
        return Event(
            id, source, type, subject, None, datacontenttype or kind, None, extensions, body
        )

    def to_json(self) -> bytes:
        """The event in the CloudEvents JSON format."""
        from mesh.codec import encode_json

        return encode_json(self)

    @staticmethod
    def from_json(body: bytes) -> "Event":
        """An event in the CloudEvents JSON format. Raises EventError."""
        from mesh.codec import decode_json

        return decode_json(body)
