"""CloudEvents 1.0.2 at the edge: the HTTP binding's three modes and the JSON format, strictly.

Nothing is invented, dropped or changed: what is no CloudEvent is an EventError that names the
attribute and the reason. Sources: CloudEvents core 1.0.2 ("core"), HTTP protocol binding ("HTTP"),
JSON event format ("JSON"). `validation` says what an attribute may be. What was decided here:

- A Content-Type that begins with application/cloudevents is never binary mode: +json and
  -batch+json are decoded, all others are 415 (HTTP §3 would allow passing them on). ce- headers
  beside them are ignored (§3.2.3: the payload has every attribute).
- Header values (HTTP §3.1.3.2): quoted strings are unquoted, also as parts of a value, since older
  senders wrote them; then one round of percent-decoding. Broken escapes, quotes that do not end,
  and characters outside ASCII are refused; a bare space or quote inside is not. A ce- header given
  twice is refused. Every value is a string: binary mode says no types, and none are guessed.
- An empty body without a Content-Type is no data; with one it is data of no bytes. So an event
  with a datacontenttype and no data comes back from binary mode with empty data.
- An event whose own datacontenttype begins with application/cloudevents would be taken for
  structured mode by any receiver: it is sent in structured mode where binary was asked for.
- JSON data without a datacontenttype is application/json (JSON §3.1). In binary mode that is said
  in Content-Type, as the specification's example does; the JSON format leaves it unsaid as it came.
- A JSON `data` is kept byte for byte, and must be a string where datacontenttype is no JSON
  (JSON §3.1.2); its bytes are then in the charset that datacontenttype names. Lone surrogates are
  refused everywhere, numbers of any size are taken in `data`.
- Written as JSON, data that is not JSON becomes text where its type is textual and base64
  elsewhere; also where only base64 gives the same bytes again.
- `data` and `data_base64` together are refused, even where `data` is null, which is a value
  (JSON §3.1.1); a null `data_base64` is absent. Base64 is RFC 4648 §4, padded, without line ends.
- An attribute given twice is refused; names inside `data` are the author's affair.
- A byte order mark is refused (RFC 8259 §8.1), and so is JSON in other charsets than UTF-8 (415).
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mesh.errors import EventError
from mesh.event import CONTEXT, AttributeValue, Event, canonical, nested_deeper
from mesh.validation import (
    MAX_EVENT_BYTES,
    MAX_EXTENSIONS,
    RESERVED_PREFIX,
    is_json,
    media_type,
    validate,
)

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

MAX_STRUCTURED_BYTES = 3 * MAX_EVENT_BYTES
"""Room for any event's data in base64 and its attributes in UTF-8."""
MAX_BATCH_BYTES = 8 << 20
MAX_DEPTH = 200
"""Nesting of a structured event's JSON, the event itself included."""

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*(?:"([^"]*)"|([^";\s]+))', re.IGNORECASE)
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|iso-8859-(?:[1-9]|1[013456])|windows-125[0-8]|utf-(?:16|32)(?:be|le)"
)
_TEXTUAL = re.compile(
    r"text/.*|.*[/+](?:xml|yaml)|application/(?:javascript|x-www-form-urlencoded|toml|x-ndjson)"
)

_raw = msgspec.json.Decoder(msgspec.Raw).decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


# The JSON format, read

_SPACE = re.compile(rb"[ \t\r\n]*")
_NAME = re.compile(rb'[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_INTEGER = re.compile(rb"-?[0-9]{1,10}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_json(body: bytes) -> Event:
    """An event in the JSON format. Raises EventError."""
    _check_json(body, MAX_DEPTH)
    return _decode(body)


def _check_json(body: bytes, depth: int) -> None:
    if body.startswith(b"\xef\xbb\xbf"):
        raise EventError("begins with a byte order mark (RFC 8259 §8.1 forbids it)")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise EventError(f"is no UTF-8: {error.reason} at byte {error.start}") from None
    if nested_deeper(body, depth):
        raise EventError(f"JSON nested more than {depth} deep")


def _decode(body: bytes) -> Event:
    try:
        members = _raw_members(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(body, "no JSON object of attributes", error) from None
    _once(body, members)
    return _from_members(members)


def _no_json(body: bytes, what: str, error: Exception) -> EventError:
    """The error for JSON that msgspec refuses. It does not name lone surrogates."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return EventError(f"{what}: {error}")
    names = found if isinstance(found, dict) else {"": found}
    for name, value in names.items():
        if any(_SURROGATE.search(text) for text in _strings([name, value])):
            return EventError("holds a lone surrogate", attribute=name or None)
    return EventError(f"{what}: {error}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _strings(item)


def _once(body: bytes, members: dict[str, msgspec.Raw]) -> None:
    """Refuse a name given twice, of which parsers keep the last and say nothing."""
    seen = set()
    index = body.index(b"{") + 1
    while found := _NAME.match(body, index):
        token = found.group(1)
        name = msgspec.json.decode(b'"%b"' % token) if b"\\" in token else token.decode()
        value = bytes(members[name])
        index = found.end() + len(value)
        if name in seen or not body.startswith(value, found.end()):
            raise EventError("given twice", attribute=name[:80])
        seen.add(name)
        index = _SPACE.match(body, index).end()  # type: ignore[union-attr]
        if body[index] == 0x7D:
            return
        if body[index] != 0x2C:
            # A number that begins as the last one of this name does: `1` of `12`.
            raise EventError("given twice", attribute=name[:80])
        index += 1


def _from_members(members: dict[str, msgspec.Raw]) -> Event:
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    values: dict[str, Any] = {}
    extensions: dict[str, AttributeValue] = {}
    for name, raw in members.items():
        value = _attribute(name, bytes(raw))
        if value is None:
            continue  # JSON §2.2: null is absent
        if name in CONTEXT or name == "specversion":
            if not isinstance(value, str):
                raise EventError(f"must be a string, found {value!r}", attribute=name)
            values[name] = value
        else:
            extensions[name] = value
    event = _event(values, extensions, None)
    if data is not None or encoded is not None:
        event = msgspec.structs.replace(event, data=_data(data, encoded, event.datacontenttype))
    validate(event)
    return event


def _event(
    values: dict[str, Any], extensions: dict[str, AttributeValue], data: bytes | None
) -> Event:
    version = values.pop("specversion", None)
    if version is None:
        raise EventError("is required and missing", attribute="specversion")
    if version != "1.0":
        raise EventError(f"found {version[:40]!r}, expected '1.0'", attribute="specversion")
    for name in ("id", "source", "type"):
        if name not in values:
            raise EventError("is required and missing", attribute=name)
    return Event(**values, extensions=extensions, data=data)


def _attribute(name: str, raw: bytes) -> AttributeValue | None:
    first = raw[0]
    if first == 0x22:
        text: str = msgspec.json.decode(raw)
        return text
    if raw == b"null":
        return None
    if raw in (b"true", b"false"):
        return raw == b"true"
    if _INTEGER.fullmatch(raw):
        return int(raw)
    kinds = {0x7B: "an object", 0x5B: "an array"}
    reason = "must be a string, a 32-bit integer or a boolean, found "
    found = kinds.get(first) or f"the number {raw[:40].decode()}"
    raise EventError(reason + found, attribute=name[:80])


def _data(
    data: msgspec.Raw | None, encoded: msgspec.Raw | None, content_type: str | None
) -> bytes | None:
    if encoded is not None and (written := bytes(encoded)) != b"null":
        if data is not None:
            raise EventError("both data and data_base64 (JSON §3.1)", attribute="data")
        if not written.startswith(b'"'):
            raise EventError("must be a string", attribute="data_base64")
        try:
            return base64.b64decode(msgspec.json.decode(written), validate=True)
        except (binascii.Error, ValueError) as error:
            raise EventError(f"no base64: {error}", attribute="data_base64") from None
    if data is None:
        return None
    body = bytes(data)
    if is_json(content_type):
        return body
    if not body.startswith(b'"'):
        reason = f"must be a string where datacontenttype is {content_type!r} (JSON §3.1.2)"
        raise EventError(reason, attribute="data")
    charset = _charset(content_type)
    if charset is None:
        reason = f"a string in the charset of {content_type!r} is not understood; use data_base64"
        raise EventError(reason, attribute="data", status=415)
    try:
        text: str = msgspec.json.decode(body)
        return text.encode(charset)
    except UnicodeEncodeError as error:
        reason = f"U+{ord(error.object[error.start]):04X} is not in the charset {charset}"
        raise EventError(reason, attribute="data") from None


def _charset(content_type: str | None) -> str | None:
    """The charset of a content type, UTF-8 where it names none; None for an unknown one."""
    if content_type is None or (found := _CHARSET.search(content_type)) is None:
        return "utf-8"
    name = (found.group(1) or found.group(2) or "").lower()
    return name if _CHARSETS.fullmatch(name) else None


# The JSON format, written


def encode_json(event: Event) -> bytes:
    """An event in the JSON format: data as JSON where it is, as text where its type is textual
    and no JSON, else in base64."""
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
        if _whole_json(data):
            return "data", msgspec.Raw(data)
    elif _TEXTUAL.fullmatch(media_type(content_type)) and (charset := _charset(content_type)):
        try:
            text = data.decode(charset)
            # Some charsets write one text in several ways; and escapes may take six bytes for one.
            written = msgspec.json.encode(text)
            if text.encode(charset) == data and len(written) <= max(4096, len(data) * 4 // 3):
                return "data", msgspec.Raw(written)
        except UnicodeError:
            pass
    return "data_base64", base64.b64encode(data).decode()


def _whole_json(data: bytes) -> bool:
    """Whether data is a JSON text that reads back as the same bytes from inside an event."""
    if not data or data[0] <= 0x20 or data[-1] <= 0x20 or nested_deeper(data, MAX_DEPTH - 1):
        return False
    try:
        _raw(data)
        return data.isascii() or bool(data.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


# The HTTP binding, read

_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})?")


def _decode_header(name: str, value: str) -> str:
    """HTTP §3.1.3.2: unquote, then percent-decode."""
    value = value.strip(" \t")
    if not value.isascii():
        raise EventError("holds what is not ASCII; percent-encode it", attribute=name)
    if '"' in value:
        if '"' in _QUOTED.sub("", value):
            raise EventError("holds a quoted string that does not end", attribute=name)
        value = _QUOTED.sub(lambda part: _ESCAPED.sub(r"\1", part.group(1)), value)
    if "%" not in value:
        return value
    if any(part.group(1) is None for part in _PERCENT.finditer(value)):
        raise EventError("holds an invalid percent-escape", attribute=name)
    head, *parts = value.encode().split(b"%")
    try:
        return b"".join([head, *(bytes([int(p[:2], 16)]) + p[2:] for p in parts)]).decode()
    except UnicodeDecodeError:
        raise EventError("is no UTF-8 once decoded", attribute=name) from None


def decode_http(headers: Sequence[tuple[str, str]], body: bytes) -> list[Event]:
    """The events of an HTTP message: binary, structured or batch mode, by its Content-Type
    (HTTP §3). Header names in any case, values as Latin-1. Raises EventError with the status to
    answer."""
    content_type: str | None = None
    named: list[tuple[str, str]] = []
    for header, value in headers:
        name = header.lower()
        if name[:3] == "ce-":
            named.append((name if header.isascii() else header, value))
        elif name == "content-type":
            if content_type is not None:
                raise EventError("given twice", attribute="content-type")
            content_type = value.strip(" \t")
    if content_type is not None and content_type[:23].lower() == "application/cloudevents":
        return _structured(media_type(content_type), content_type, body)
    if len(body) > MAX_EVENT_BYTES:
        found = f"{len(body)} bytes; at most {MAX_EVENT_BYTES}"
        raise EventError(found, attribute="data", status=413)
    return [_binary(named, content_type, body)]


def _structured(kind: str, content_type: str, body: bytes) -> list[Event]:
    charset = _CHARSET.search(content_type)
    if charset and (charset[1] or charset[2] or "").lower() not in ("utf-8", "utf8", "us-ascii"):
        found = f"the charset of {content_type[:80]!r} is not UTF-8"
        raise EventError(found, attribute="content-type", status=415)
    if kind not in (STRUCTURED, BATCH):
        found = f"{kind[:80]}: only {STRUCTURED} and {BATCH} are understood"
        raise EventError(found, attribute="content-type", status=415)
    limit = MAX_STRUCTURED_BYTES if kind == STRUCTURED else MAX_BATCH_BYTES
    if len(body) > limit:
        raise EventError(f"{len(body)} bytes; at most {limit}", status=413)
    if kind == STRUCTURED:
        return [decode_json(body)]
    _check_json(body, MAX_DEPTH + 1)
    try:
        raws = _raw_items(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(body, "no JSON array of events", error) from None
    return [_nth(index, bytes(raw)) for index, raw in enumerate(raws)]


def _nth(index: int, body: bytes) -> Event:
    try:
        return _decode(body)
    except EventError as error:
        raise EventError(
            f"event {index}: {error.reason}", attribute=error.attribute, status=error.status
        ) from None


def _binary(headers: Sequence[tuple[str, str]], content_type: str | None, body: bytes) -> Event:
    values: dict[str, Any] = {}
    extensions: dict[str, AttributeValue] = {}
    for header, raw in headers:
        name = header[3:]
        if name in values or name in extensions:
            raise EventError("given twice", attribute=name)
        if name in ("datacontenttype", "data"):
            raise EventError("goes in no ce- header (HTTP §3.1)", attribute=f"ce-{name}")
        value = _decode_header(name, raw)
        if name in CONTEXT or name == "specversion":
            values[name] = value
        else:
            extensions[name] = value
    if content_type is not None:
        values["datacontenttype"] = content_type
    data = body if body or content_type is not None else None
    event = _event(values, extensions, data)
    validate(event)
    return event


# The HTTP binding, written

_TO_ENCODE = re.compile(rb"[^!#$&-~]")
_AS_IT_IS = re.compile(r"[!#$&-~]*")


def _encode_header(value: AttributeValue) -> str:
    if type(value) is str and _AS_IT_IS.fullmatch(value):
        return value
    raw = canonical(value).encode()
    return _TO_ENCODE.sub(lambda byte: b"%%%02X" % ord(byte.group()), raw).decode()


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
    if mode not in ("binary", "structured"):
        raise ValueError(f"no mode is named {mode!r}: use binary, structured or batch")
    kind = one.datacontenttype
    if mode == "structured" or (kind and kind[:23].lower() == "application/cloudevents"):
        return [("content-type", STRUCTURED)], encode_json(one)
    headers = [("ce-specversion", "1.0")]
    for name in ("id", "source", "type", "subject", "time", "dataschema"):
        value = getattr(one, name)
        if value is not None:
            headers.append((f"ce-{name}", _encode_header(value)))
    headers.extend((f"ce-{name}", _encode_header(v)) for name, v in one.extensions.items())
    if kind is None and one.data and _whole_json(one.data):
        kind = "application/json"
    if kind is not None:
        headers.append(("content-type", kind))
    return headers, one.data or b""
