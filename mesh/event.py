"""The event: CloudEvents 1.0 attributes and the data as bytes, immutable."""

from typing import Any

import msgspec

from mesh.errors import EventError

__all__ = ["CONTEXT", "AttributeValue", "Event", "canonical"]

AttributeValue = str | int | bool
"""What an extension may hold (CloudEvents 1.0 §3.1): Integer is 32 bits; Binary, URI and
Timestamp values are kept as their canonical string, which is all that any wire format carries."""

CONTEXT = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
"""The context attributes that have a field of their own; `specversion` is always "1.0"."""


def canonical(value: AttributeValue) -> str:
    """The canonical string of an attribute's value (core, Type System): `true`, never `True`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One CloudEvents 1.0 event.

    `data` is the payload as bytes, exactly as it came, or None where there is none; nothing
    parses it unless asked. `time` is kept as its text, to the digit. An empty `id` or `source`
    marks an event that a handler made and the host has yet to name; the codec refuses both.

    The constructor does not check (it is on the hot path): `codec` does at the edge.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, AttributeValue] = {}
    data: bytes | None = None

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
            return msgspec.json.decode(self.data)
        except (msgspec.DecodeError, RecursionError) as error:
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
