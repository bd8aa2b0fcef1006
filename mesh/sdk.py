"""Events to and from those of the cloudevents SDK, for authors who use its types.

Every valid event crosses and comes back the same. The SDK holds `time` as a datetime: it gets one
that remembers the text it came from, to the digit, and says that where it is written; where no
datetime is that moment (a leap second, the year 0) it is the nearest one. JSON objects become a
dict that remembers its bytes; when the author changes it, it is written anew. Any other data stays
bytes.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from mesh.errors import EventError
from mesh.event import CONTEXT, Event
from mesh.validation import validate

__all__ = ["from_sdk", "to_sdk"]


class _Time(datetime):
    """A datetime that keeps its RFC 3339 text. What is computed from it is without one."""

    text = ""

    @classmethod
    def of(cls, text: str) -> "_Time":
        upper = text.upper().replace("Z", "+00:00")
        head, zone = upper[:19], upper[-6:]
        if head.endswith(":60"):
            head = head[:-2] + "59"
        if head.startswith("0000"):
            head = "0001" + head[4:].replace("-02-29", "-02-28")
        digits = upper[20:-6][:6].ljust(6, "0")
        found = cls.fromisoformat(f"{head}.{digits}{zone}")
        found.text = text
        return found

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        if self.text and sep == "T" and timespec == "auto":
            return self.text
        return super().isoformat(sep, timespec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (_Time.of, (self.text,)) if self.text else super().__reduce_ex__(protocol)


class _Object(dict[str, Any]):
    """A JSON object that keeps the bytes it was read from."""

    raw = b""


def to_sdk(event: Event) -> Any:
    """The event as `cloudevents.core.v1.event.CloudEvent`. JSON objects become a dict."""
    from cloudevents.core.v1.event import CloudEvent

    attributes: dict[str, Any] = {"specversion": "1.0", **event.extensions}
    for name in CONTEXT:
        value = getattr(event, name)
        if value is not None:
            attributes[name] = value
    # The SDK gives an event without a time the present one; it is taken away again below.
    attributes["time"] = datetime.now(UTC) if event.time is None else _Time.of(event.time)
    made = CloudEvent(attributes, _parsed(event))
    if event.time is None:
        del made.get_attributes()["time"]
    return made


def _parsed(event: Event) -> Any:
    from cloudevents.core.formats.json import JSONFormat

    # Only what the SDK knows to be JSON: of any other dict it would write Python's repr.
    kind = event.datacontenttype or ""
    if event.data is None or not JSONFormat.JSON_CONTENT_TYPE_PATTERN.match(kind):
        return event.data
    try:
        parsed = msgspec.json.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event.data
    if not isinstance(parsed, dict):
        return event.data
    found = _Object(parsed)
    found.raw = event.data
    return found


def from_sdk(event: Any) -> Event:
    """An event of the SDK, of 2.x (`get_attributes`) or of its 1.x API (a mapping with `data`).

    Data that is not bytes becomes JSON, or UTF-8 text where it is a string. Raises EventError.
    """
    if not hasattr(event, "get_attributes"):
        raise EventError(f"a {type(event).__name__} is no event of the cloudevents SDK")
    attributes = dict(event.get_attributes())
    data = event.get_data() if hasattr(event, "get_data") else event.data
    if attributes.pop("specversion", "1.0") != "1.0":
        raise EventError("only 1.0 is understood", attribute="specversion")
    given = {name: value for name, value in attributes.items() if value is not None}
    known: dict[str, Any] = {name: given.pop(name) for name in CONTEXT if name in given}
    if isinstance(known.get("time"), datetime):
        known["time"] = _written(known["time"])
    for name in ("id", "source", "type"):
        if name not in known:
            raise EventError("is required and missing", attribute=name)
    body, is_value = _bytes(data)
    if is_value:
        known.setdefault("datacontenttype", "application/json")
    made = Event(**known, extensions=given, data=body)
    validate(made)
    return made


def _written(time: datetime) -> str:
    if time.tzinfo is None:
        raise EventError("has no offset from UTC (RFC 3339)", attribute="time")
    text = time.isoformat()
    return text if isinstance(time, _Time) and time.text else text.replace("+00:00", "Z")


def _bytes(data: Any) -> tuple[bytes | None, bool]:
    """Data as bytes, and whether it was a value that is now JSON."""
    try:
        if data is None or isinstance(data, bytes):
            return data, False
        if isinstance(data, bytearray | memoryview):
            return bytes(data), False
        if isinstance(data, str):
            return data.encode(), False
        body = msgspec.json.encode(data)
        if isinstance(data, _Object) and data.raw:
            unchanged = body == msgspec.json.encode(msgspec.json.decode(data.raw))
            body = data.raw if unchanged else body
        return body, True
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise EventError(f"is no JSON: {error}", attribute="data") from None
