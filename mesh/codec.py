"""CloudEvents 1.0.2 at the edge: the HTTP binding's three modes and the JSON format, strictly.

Nothing is invented, dropped or changed: what is no CloudEvent is an EventError that names the
attribute and the reason. Sources: CloudEvents core 1.0.2 ("core"), HTTP protocol binding ("HTTP"),
JSON event format ("JSON").
"""

import base64
import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from mesh.errors import EventError
from mesh.event import CONTEXT, AttributeValue, Event, canonical

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_EXTENSIONS",
    "RESERVED_PREFIX",
    "decode_http",
    "decode_json",
    "encode_http",
    "encode_json",
    "validate",
]

MAX_EVENT_BYTES = 1 << 20
"""Of an event's data."""
MAX_BATCH_BYTES = 8 << 20
MAX_EXTENSIONS = 64
MAX_VALUE = 8192
"""Characters of an attribute's value."""
MAX_DEPTH = 200
"""Nesting of a structured event's JSON."""
RESERVED_PREFIX = "funcrt"
"""Extensions so named are the host's own and refused from outside."""

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_NAME = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
# core, "Type System", String: no control characters, no surrogates, no noncharacters.
_BAD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.\d+)?(?:[Zz]|[+-](\d{2}):(\d{2}))",
    re.ASCII,
)
_URI = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2}|[^\x00-\x7f])+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:.+", re.ASCII | re.DOTALL)
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEDIA = re.compile(
    rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*"))*[ \t]*', re.ASCII
)
_JSON_TYPE = re.compile(rf"(?:application|text)/json|{_TOKEN}/{_TOKEN}\+json", re.ASCII)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def media_type(value: str | None) -> str:
    """A media type without its parameters, in lower case; empty for none."""
    return value.split(";", 1)[0].strip().lower() if value else ""


def is_json(content_type: str | None) -> bool:
    """Whether data of this content type is JSON; none means it is (JSON §3.1)."""
    return content_type is None or _JSON_TYPE.fullmatch(media_type(content_type)) is not None


# Checking


@lru_cache(maxsize=4096)
def _text(name: str, value: str) -> None:
    if not value:
        raise EventError("must not be empty (core, Context Attributes)", attribute=name)
    if len(value) > MAX_VALUE:
        raise EventError(f"longer than {MAX_VALUE} characters", attribute=name)
    if found := _BAD.search(value):
        code = ord(found.group())
        raise EventError(f"holds U+{code:04X}, which no attribute may", attribute=name)


@lru_cache(maxsize=4096)
def _uri(name: str, value: str) -> None:
    _text(name, value)
    if not _URI.fullmatch(value):
        raise EventError(f"{value[:80]!r} is no URI-reference (RFC 3986)", attribute=name)
    if name == "dataschema" and not _SCHEME.fullmatch(value):
        raise EventError(f"{value[:80]!r} is no absolute URI", attribute=name)


@lru_cache(maxsize=256)
def _content_type(value: str) -> None:
    _text("datacontenttype", value)
    if not _MEDIA.fullmatch(value):
        raise EventError(f"{value[:80]!r} is no media type", attribute="datacontenttype")


@lru_cache(maxsize=256)
def _time(value: str) -> None:
    """RFC 3339 §5.6, with real dates; second 60 is a leap second and allowed."""
    found = _TIME.fullmatch(value)
    if found is not None:
        year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        last = 28 if month == 2 and not leap else _DAYS[month - 1] if 1 <= month <= 12 else 0
        zone = found.group(7) is None or (int(found.group(7)) < 24 and int(found.group(8)) < 60)
        if 1 <= day <= last and hour < 24 and minute < 60 and second <= 60 and zone:
            return
    raise EventError(f"{value[:80]!r} is no RFC 3339 time", attribute="time")


@lru_cache(maxsize=1024)
def _extension_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise EventError("an attribute name is 1 to 64 of a-z and 0-9", attribute=name[:80])
    if name.startswith(RESERVED_PREFIX):
        raise EventError("names that begin with funcrt are the host's own", attribute=name)
    if name in CONTEXT or name in ("specversion", "data"):
        raise EventError("an extension may not have this name", attribute=name)


def validate(event: Event) -> None:
    """Check an event that came typed. Raises EventError."""
    if len(event.id) > MAX_VALUE or not event.id or _BAD.search(event.id):
        _text("id", event.id)
    _uri("source", event.source)
    _text("type", event.type)
    if event.subject is not None and (
        not event.subject or len(event.subject) > MAX_VALUE or _BAD.search(event.subject)
    ):
        _text("subject", event.subject)
    if event.time is not None:
        _time(event.time)
    if event.datacontenttype is not None:
        _content_type(event.datacontenttype)
    if event.dataschema is not None:
        _uri("dataschema", event.dataschema)
    if event.extensions:
        _extensions(event.extensions)
    if event.data is not None and len(event.data) > MAX_EVENT_BYTES:
        raise EventError(
            f"{len(event.data)} bytes; at most {MAX_EVENT_BYTES}", attribute="data", status=413
        )


def _extensions(extensions: dict[str, AttributeValue]) -> None:
    if len(extensions) > MAX_EXTENSIONS:
        raise EventError(f"{len(extensions)} extensions; at most {MAX_EXTENSIONS}")
    for name, value in extensions.items():
        _extension_name(name)
        if isinstance(value, str):
            if len(value) > MAX_VALUE or _BAD.search(value):
                _text(name, value)
        elif not isinstance(value, bool) and not -(2**31) <= value < 2**31:
            raise EventError(f"{value} is no 32-bit integer (core, Integer)", attribute=name)


# The JSON format

_KEY = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def _scan(body: bytes) -> None:
    """Refuse nesting too deep for a parser, and names given twice, which parsers overlook."""
    stack: list[set[bytes] | None] = []
    names: set[bytes] | None = None
    want = False
    for match in _KEY.finditer(body):
        token = match.group()
        if token[0] == 0x22:
            if want and names is not None:
                _once(token, names, len(stack))
            want = False
        elif token in b"{[":
            if len(stack) >= MAX_DEPTH:
                raise EventError(f"JSON nested more than {MAX_DEPTH} deep")
            stack.append(names)
            # Names inside data are the author's own affair: only attributes are looked at.
            names = set() if token == b"{" and len(stack) <= 2 else None
            want = token == b"{"
        elif token in b"}]":
            names = stack.pop() if stack else None
            want = False
        else:
            want = names is not None


def _once(token: bytes, names: set[bytes], depth: int) -> None:
    name = token
    if b"\\" in token:
        try:
            name = msgspec.json.encode(msgspec.json.decode(token))
        except (msgspec.DecodeError, UnicodeError):
            return
    if name in names and depth == 1:
        raise EventError("given twice", attribute=name[1:-1].decode(errors="replace")[:80])
    names.add(name)


_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def decode_json(body: bytes) -> Event:
    """An event in the JSON format. Raises EventError."""
    if body.startswith(b"\xef\xbb\xbf"):
        raise EventError("begins with a byte order mark (RFC 8259 §8.1 forbids it)")
    _scan(body)
    try:
        members = _decode_raw(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"no JSON object of attributes: {error}") from None
    return _from_members(members)


def _from_members(members: dict[str, msgspec.Raw]) -> Event:
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    values: dict[str, Any] = {}
    extensions: dict[str, AttributeValue] = {}
    for name, raw in members.items():
        value = _attribute(name, raw)
        if value is None:
            continue  # JSON §2.2: null is absent
        if name in CONTEXT or name == "specversion":
            if not isinstance(value, str):
                raise EventError(f"must be a string, found {value!r}", attribute=name)
            values[name] = value
        else:
            extensions[name] = value
    _version(values.pop("specversion", None))
    for name in ("id", "source", "type"):
        if name not in values:
            raise EventError("is required and missing", attribute=name)
    content_type = values.get("datacontenttype")
    event = Event(**values, extensions=extensions, data=_data(data, encoded, content_type))
    validate(event)
    return event


def _version(found: str | None) -> None:
    if found is None:
        raise EventError("is required and missing", attribute="specversion")
    if found != "1.0":
        raise EventError(f"found {found[:40]!r}, expected '1.0'", attribute="specversion")


def _attribute(name: str, raw: msgspec.Raw) -> AttributeValue | None:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not JSON: {error}", attribute=name[:80]) from None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise EventError(
        f"must be a string, integer or boolean, found {type(value).__name__}", attribute=name[:80]
    )


def _data(
    data: msgspec.Raw | None, encoded: msgspec.Raw | None, content_type: str | None
) -> bytes | None:
    if encoded is not None and bytes(encoded) != b"null":
        if data is not None:
            raise EventError("both data and data_base64 (JSON §3.1)", attribute="data")
        text = _attribute("data_base64", encoded)
        if not isinstance(text, str):
            raise EventError("must be a string", attribute="data_base64")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise EventError(f"no base64: {error}", attribute="data_base64") from None
    if data is None:
        return None
    body = bytes(data)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not JSON: {error}", attribute="data") from None
    if isinstance(value, str) and not is_json(content_type):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise EventError("holds a lone surrogate", attribute="data") from None
    return body


def encode_json(event: Event) -> bytes:
    """An event in the JSON format: data as JSON where it is, as text where its type is no JSON
    and it is UTF-8, else in base64."""
    members: dict[str, Any] = {"specversion": "1.0"}
    for name in CONTEXT:
        value = getattr(event, name)
        if value is not None:
            members[name] = value
    members.update(event.extensions)
    data = event.data
    if data is not None:
        name, member = _member(data, event.datacontenttype)
        members[name] = member
    return msgspec.json.encode(members)


def _member(data: bytes, content_type: str | None) -> tuple[str, Any]:
    if is_json(content_type):
        try:
            msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return "data_base64", base64.b64encode(data).decode()
        return "data", msgspec.Raw(data)
    if media_type(content_type).startswith("text/"):
        try:
            return "data", data.decode()
        except UnicodeDecodeError:
            pass
    return "data_base64", base64.b64encode(data).decode()


# The HTTP binding

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_PRINTABLE = frozenset(range(0x21, 0x7F)) - {0x22, 0x25}


def _decode_header(name: str, value: str) -> str:
    """HTTP §3.1.3.2: unquote, then percent-decode. Servers hand over header bytes as Latin-1."""
    value = value.strip(" \t")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raw = value.encode(errors="surrogatepass")
    out = bytearray()
    index = 0
    while (at := raw.find(b"%", index)) >= 0:
        out += raw[index:at]
        try:
            digits = raw[at + 1 : at + 3].decode("ascii")
            if len(digits) != 2 or not _ESCAPE.fullmatch("%" + digits):
                raise ValueError
            out.append(int(digits, 16))
        except (ValueError, UnicodeDecodeError):
            raise EventError("holds an invalid percent-escape", attribute=name) from None
        index = at + 3
    out += raw[index:]
    try:
        return out.decode()
    except UnicodeDecodeError:
        raise EventError("is no UTF-8 once decoded", attribute=name) from None


def _encode_header(value: AttributeValue) -> str:
    text = canonical(value)
    return "".join(chr(byte) if byte in _PRINTABLE else f"%{byte:02X}" for byte in text.encode())


def decode_http(headers: Sequence[tuple[str, str]], body: bytes) -> list[Event]:
    """The events of an HTTP message: binary, structured or batch mode, by its Content-Type
    (HTTP §3). Header names in any case. Raises EventError with the status to answer."""
    types = [value for name, value in headers if name.lower() == "content-type"]
    if len(types) > 1:
        raise EventError("given twice", attribute="content-type")
    content_type = types[0].strip() if types else None
    kind = media_type(content_type)
    if kind.startswith("application/cloudevents"):
        return _structured(kind, content_type or "", body)
    if len(body) > MAX_EVENT_BYTES:
        found = f"{len(body)} bytes; at most {MAX_EVENT_BYTES}"
        raise EventError(found, attribute="data", status=413)
    return [_binary(headers, content_type, body)]


def _structured(kind: str, content_type: str, body: bytes) -> list[Event]:
    charset = re.search(r'charset\s*=\s*"?([^";\s]+)', content_type, re.IGNORECASE)
    if charset and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise EventError(f"charset {charset.group(1)!r} is not UTF-8", status=415)
    if kind == STRUCTURED:
        if len(body) > 2 * MAX_EVENT_BYTES:
            raise EventError(f"{len(body)} bytes; at most {2 * MAX_EVENT_BYTES}", status=413)
        return [decode_json(body)]
    if kind == BATCH:
        if len(body) > MAX_BATCH_BYTES:
            raise EventError(f"{len(body)} bytes; at most {MAX_BATCH_BYTES}", status=413)
        _scan(body)
        try:
            raws = _decode_batch(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EventError(f"no JSON array of events: {error}") from None
        return [_nth(index, bytes(raw)) for index, raw in enumerate(raws)]
    raise EventError(
        f"{kind}: only {STRUCTURED} and {BATCH} are understood",
        attribute="content-type", status=415,
    )  # fmt: skip


def _nth(index: int, body: bytes) -> Event:
    try:
        return decode_json(body)
    except EventError as error:
        raise EventError(
            f"event {index}: {error.reason}", attribute=error.attribute, status=error.status
        ) from None


def _binary(headers: Sequence[tuple[str, str]], content_type: str | None, body: bytes) -> Event:
    values: dict[str, Any] = {}
    extensions: dict[str, AttributeValue] = {}
    for header, raw in headers:
        name = header.lower()
        if not name.startswith("ce-"):
            continue
        name = name[3:]
        if name in values or name in extensions:
            raise EventError("given twice", attribute=name)
        if name in ("datacontenttype", "data"):
            raise EventError("goes in no ce- header (HTTP §3.1)", attribute=f"ce-{name}")
        value = _decode_header(name, raw)
        if name in CONTEXT or name == "specversion":
            values[name] = value
        else:
            extensions[name] = value
    _version(values.pop("specversion", None))
    for name in ("id", "source", "type"):
        if name not in values:
            raise EventError("is required and missing", attribute=name)
    if content_type is not None:
        values["datacontenttype"] = content_type
    data = body if body or content_type is not None else None
    event = Event(**values, extensions=extensions, data=data)
    validate(event)
    return event


def encode_http(
    event: Event | Sequence[Event], mode: str = "binary"
) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of an event in `binary` or `structured` mode, or of one or several in
    `batch` mode. Raises EventError for an event that is not valid, ValueError for the mode."""
    events = [event] if isinstance(event, Event) else list(event)
    for each in events:
        validate(each)
    if mode == "batch":
        body = b"[" + b",".join(encode_json(each) for each in events) + b"]"
        return [("content-type", BATCH)], body
    if len(events) != 1:
        raise ValueError(f"{mode} mode carries one event, not {len(events)}")
    (one,) = events
    if mode == "structured":
        return [("content-type", STRUCTURED)], encode_json(one)
    if mode != "binary":
        raise ValueError(f"no mode is named {mode!r}: use binary, structured or batch")
    headers = [("ce-specversion", "1.0")]
    for name in ("id", "source", "type", "subject", "time", "dataschema"):
        value = getattr(one, name)
        if value is not None:
            headers.append((f"ce-{name}", _encode_header(value)))
    headers.extend((f"ce-{name}", _encode_header(v)) for name, v in one.extensions.items())
    if one.datacontenttype is not None:
        headers.append(("content-type", one.datacontenttype))
    return headers, one.data or b""
