"""Whether an event is a CloudEvents 1.0.2 event within the limits: names, types, sizes.

Sources: CloudEvents core 1.0.2 ("core"); RFC 3986 for URIs, RFC 3339 for times, RFC 2045 §5.1 for
media types. What was decided where they leave room:

- String (core, Type System): all 66 noncharacters of Unicode are refused, on every plane.
- URI-reference is RFC 3986 to the letter, which is ASCII: others are to be percent-encoded.
  `dataschema` must have a scheme; a fragment is taken, as the specification's own JSON Schema does.
- Time keeps any number of fractional digits, and `t` and `z` in lower case. Second 60 is taken
  where a leap second can be: 23:59:60 UTC on the last day of a month (RFC 3339 §5.7).
- A media type has no white space around it, none around a parameter's `=`, and no empty parameter.
- Attribute names may start with a digit and be longer than 20 characters (both are SHOULD).
- An extension may be an empty string; the core attributes that are set may not.
"""

import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from mesh.errors import EventError
from mesh.event import CONTEXT, AttributeValue, Event

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_EVENT_BYTES",
    "MAX_EXTENSIONS",
    "RESERVED_PREFIX",
    "is_json",
    "media_type",
    "validate",
    "validate_payload",
]

MAX_EVENT_BYTES = 1 << 20
"""Of an event's data."""
MAX_ATTRIBUTES = 3 << 16
"""Characters of all attributes' names and values together. Events of 64 KiB must be forwarded
(core, Size Limits), and an output repeats its cause's id in two extensions."""
MAX_EXTENSIONS = 1024
MAX_NAME = 256
RESERVED_PREFIX = "funcrt"
"""Extensions so named are the host's own and refused from outside."""

_CACHED = 256
"""Longer values are checked each time, so that the caches stay small."""

_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
_LAST = "".join(chr(plane << 16 | code) for plane in range(17) for code in (0xFFFE, 0xFFFF))
_BAD = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST}]")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_HEX = "%[0-9A-Fa-f]{2}"
_PLAIN = r"A-Za-z0-9\-._~!$&'()*+,;="


def _run(more: str) -> str:
    """Unreserved characters, sub-delims, those given and percent-escapes, any number."""
    return f"[{_PLAIN}{more}]*(?:{_HEX}[{_PLAIN}{more}]*)*"


_URI = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.\-]*):|(?![^/?#]*:))"
    rf"(?://(?:{_run(':')}@)?(?:\[([0-9A-Fa-f:.]+)\]|\[[vV][0-9A-Fa-f]+\.[{_PLAIN}:]+\]|{_run('')})"
    rf"(?::[0-9]*)?(?:/{_run(':@/')})?|(?!//){_run(':@/')})"
    rf"(?:\?{_run(':@/?')})?(?:\#{_run(':@/?')})?",
    re.ASCII,
)
_TOKEN = r"[!#$%&'*+\-.^_`{|}~0-9A-Za-z]+"
_MEDIA = re.compile(
    rf'({_TOKEN}/{_TOKEN})(?:[ ]*;[ ]*{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*"))*', re.ASCII
)
_JSON_TYPE = re.compile(rf"{_TOKEN}/(?:{_TOKEN}\+)?json", re.ASCII)


def media_type(value: str | None) -> str:
    """A media type without its parameters, in lower case; empty for none."""
    return value.split(";", 1)[0].strip().lower() if value else ""


@lru_cache(maxsize=256)
def is_json(content_type: str | None) -> bool:
    """Whether data of this content type is JSON: `*/json` or `*/*+json`; none means it is
    (JSON event format §3.1)."""
    return content_type is None or _JSON_TYPE.fullmatch(media_type(content_type)) is not None


def _text(name: str, value: str) -> None:
    if not value:
        raise EventError("must not be empty (core, Context Attributes)", attribute=name)
    if not (value.isascii() and value.isprintable()):
        _characters(name, value)


def _characters(name: str, value: str) -> None:
    if found := _BAD.search(value):
        code = ord(found.group())
        raise EventError(f"holds U+{code:04X}, which no attribute may", attribute=name)


def _uri(name: str, value: str) -> None:
    _text(name, value)
    found = _URI.fullmatch(value)
    if found is not None and found.group(2) is not None:
        try:
            ipaddress.IPv6Address(found.group(2))
        except ValueError:
            found = None
    if found is None:
        mend = "" if value.isascii() else "; percent-encode what is not ASCII"
        raise EventError(f"{value[:80]!r} is no URI-reference (RFC 3986){mend}", attribute=name)
    if name == "dataschema" and found.group(1) is None:
        raise EventError(f"{value[:80]!r} is no absolute URI (RFC 3986 §4.3)", attribute=name)


def _content_type(value: str) -> None:
    _text("datacontenttype", value)
    if not value.isascii() or not _MEDIA.fullmatch(value):
        raise EventError(f"{value[:80]!r} is no media type (RFC 2046)", attribute="datacontenttype")


@lru_cache(maxsize=256)
def _time(value: str) -> None:
    """RFC 3339 §5.6, with real dates."""
    if (found := _TIME.fullmatch(value)) is not None:
        west, hours, minutes = found.groups()
        if hours is None or (hours < "24" and minutes < "60"):
            try:
                datetime.fromisoformat(value[:19])
                return
            except ValueError:
                offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
                if _odd(value[:19], -offset if west == "-" else offset):
                    return
    raise EventError(f"{value[:80]!r} is no RFC 3339 time", attribute="time")


def _odd(text: str, offset: timedelta) -> bool:
    """Whether a moment that Python does not know is one: of the year 0, or a leap second."""
    year, leap = int(text[:4]), text.endswith(":60")
    try:
        # The calendar repeats after 400 years.
        same = f"{year % 400 + 400:04}{text[4:17]}{'59' if leap else text[17:]}"
        utc = datetime.fromisoformat(same) - offset
    except ValueError:
        return False
    last = (utc.hour, utc.minute) == (23, 59) and (utc + timedelta(days=1)).day == 1
    return last or not leap


@lru_cache(maxsize=1024)
def _extension_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        reason = f"an attribute name is 1 to {MAX_NAME} of a-z and 0-9"
        raise EventError(reason, attribute=name[:80] or '""')
    if name.startswith(RESERVED_PREFIX):
        raise EventError("names that begin with funcrt are the host's own", attribute=name)
    if name in CONTEXT or name in ("specversion", "data"):
        raise EventError("an extension may not have this name", attribute=name)


_text_cached = lru_cache(maxsize=4096)(_text)
_uri_cached = lru_cache(maxsize=4096)(_uri)
_content_type_cached = lru_cache(maxsize=256)(_content_type)


def validate(event: Event) -> None:
    """Check an event that came typed. Raises EventError."""
    try:
        size = _attributes(event)
    except (TypeError, AttributeError):
        _types(event)
        raise
    if size > MAX_ATTRIBUTES:
        reason = f"attributes of {size} characters in all; at most {MAX_ATTRIBUTES}"
        raise EventError(reason, status=413)
    data = event.data
    if data is not None and (data.__class__ is not bytes or len(data) > MAX_EVENT_BYTES):
        _data(event, data)


def validate_payload(event: Event) -> None:
    """The same of an event of which all but the data and its type is known to be valid, and short:
    most of the time of `validate` goes into the rest."""
    kind, data = event.datacontenttype, event.data
    if kind is not None:
        if not isinstance(kind, str) or len(kind) > _CACHED:
            validate(event)
            return
        _content_type_cached(kind)
    if data is not None and (data.__class__ is not bytes or len(data) > MAX_EVENT_BYTES):
        _data(event, data)


def _data(event: Event, data: bytes) -> None:
    """Raises EventError for data that is no bytes, or too long."""
    if not isinstance(data, bytes):
        _types(event)
    if len(data) > MAX_EVENT_BYTES:
        reason = f"{len(data)} bytes; at most {MAX_EVENT_BYTES}"
        raise EventError(reason, attribute="data", status=413)


def _attributes(event: Event) -> int:
    """Checks all but the data; the characters that they have."""
    id, source, type = event.id, event.source, event.type
    _text("id", id)
    (_uri_cached if len(source) <= _CACHED else _uri)("source", source)
    (_text_cached if len(type) <= _CACHED else _text)("type", type)
    size = len(id) + len(source) + len(type)
    if (subject := event.subject) is not None:
        _text("subject", subject)
        size += len(subject)
    if (time := event.time) is not None:
        _time(time)
        size += len(time)
    if (kind := event.datacontenttype) is not None:
        (_content_type_cached if len(kind) <= _CACHED else _content_type)(kind)
        size += len(kind)
    if (schema := event.dataschema) is not None:
        (_uri_cached if len(schema) <= _CACHED else _uri)("dataschema", schema)
        size += len(schema)
    return size + _extensions(event.extensions) if event.extensions else size


def _extensions(extensions: Mapping[str, AttributeValue]) -> int:
    if len(extensions) > MAX_EXTENSIONS:
        reason = f"{len(extensions)} extensions; at most {MAX_EXTENSIONS}"
        raise EventError(reason, status=413)
    size = 0
    for name, value in extensions.items():
        (_extension_name if len(name) <= _CACHED else _extension_name.__wrapped__)(name)
        size += len(name)
        if isinstance(value, str):
            if not (value.isascii() and value.isprintable()):
                _characters(name, value)
            size += len(value)
        elif isinstance(value, int):
            if not -(2**31) <= value < 2**31:
                reason = "is no 32-bit integer (core, Type System)"
                raise EventError(reason, attribute=name)
        else:
            raise TypeError
    return size


def _types(event: Event) -> None:
    """Raises EventError for the first value of a type that no event holds, as untyped code makes
    them."""
    values: dict[Any, Any] = {name: getattr(event, name) for name in CONTEXT}
    for name, value in values.items():
        if not isinstance(value, str) and (value is not None or name in ("id", "source", "type")):
            reason = f"must be a string, found {value.__class__.__name__}"
            raise EventError(reason, attribute=name)
    for key, value in event.extensions.items():
        if not isinstance(key, str) or not isinstance(value, str | int):
            reason = f"must be a string, integer or boolean, found {value.__class__.__name__}"
            raise EventError(reason, attribute=str(key)[:80])
    if event.data is not None and not isinstance(event.data, bytes):
        reason = f"must be bytes, found {event.data.__class__.__name__}"
        raise EventError(reason, attribute="data")
