"""Events to and from those of the cloudevents SDK, for authors who use its types.

The SDK holds `time` as a datetime, to the microsecond, and gives an event without one the present
time; both are the SDK's own limits. Everything else crosses unchanged.
"""

from datetime import datetime
from typing import Any

import msgspec

from mesh.errors import EventError
from mesh.event import CONTEXT, Event

__all__ = ["from_sdk", "to_sdk"]


def to_sdk(event: Event) -> Any:
    """The event as `cloudevents.core.v1.event.CloudEvent`. JSON objects become a dict."""
    from cloudevents.core.v1.event import CloudEvent

    attributes: dict[str, Any] = {"specversion": "1.0", **event.extensions}
    for name in CONTEXT:
        value = getattr(event, name)
        if value is not None:
            attributes[name] = value
    if event.time is not None:
        attributes["time"] = datetime.fromisoformat(event.time.upper().replace("Z", "+00:00"))
    data: Any = event.data
    if event.datacontenttype == "application/json" and data is not None:
        try:
            parsed = event.json()
        except EventError:
            parsed = None
        data = parsed if isinstance(parsed, dict) else data
    return CloudEvent(attributes, data)


def from_sdk(event: Any) -> Event:
    """An event of the SDK, of 2.x (`get_attributes`) or of its 1.x API (a mapping with `data`).

    Data that is not bytes becomes JSON, or UTF-8 text where it is a string. Raises EventError.
    """
    if hasattr(event, "get_data"):
        attributes, data = dict(event.get_attributes()), event.get_data()
    elif hasattr(event, "get_attributes"):
        attributes, data = dict(event.get_attributes()), event.data
    else:
        raise EventError(f"a {type(event).__name__} is no event of the cloudevents SDK")
    if attributes.pop("specversion", "1.0") != "1.0":
        raise EventError("only 1.0 is understood", attribute="specversion")
    known = {name: attributes.pop(name) for name in CONTEXT if attributes.get(name) is not None}
    time = known.get("time")
    if isinstance(time, datetime):
        known["time"] = time.isoformat().replace("+00:00", "Z")
    if data is not None and not isinstance(data, bytes):
        if isinstance(data, str):
            data = data.encode()
        else:
            data = msgspec.json.encode(data)
            known.setdefault("datacontenttype", "application/json")
    extensions = {name: value for name, value in attributes.items() if value is not None}
    return Event(**known, extensions=extensions, data=data)
