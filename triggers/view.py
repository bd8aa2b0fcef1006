"""An event as conditions look at it: its data is parsed once, and only where one asks for it."""

from collections.abc import Mapping
from typing import Any

from mesh.event import CONTEXT, Event, parse_json

__all__ = ["MAX_DATA_BYTES", "MISSING", "View"]

MAX_DATA_BYTES = 4 << 20
"""Larger data is not looked into."""
MISSING: Any = object()
"""What stands for a field that is not there."""


class View:
    """What conditions see of one event."""

    __slots__ = ("_attributes", "_body", "_whole", "event", "why")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.why = ""
        """Why there is no data to look into, once that was asked for."""
        self._attributes: dict[str, Any] | None = None
        self._body: dict[str, Any] | None = None
        self._whole: dict[str, Any] | None = None

    @property
    def body(self) -> Mapping[str, Any]:
        """`data` alone, as JSON values: nothing where there is none, or it is no JSON (whatever its
        datacontenttype says), nested too deep, or too large."""
        found = self._body
        if found is None:
            found = self._body = self._parse()
        return found

    @property
    def data(self) -> Any:
        """The same, or MISSING."""
        return self.body.get("data", MISSING)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes that are set, by name."""
        found = self._attributes
        if found is None:
            event = self.event
            found = self._attributes = {"specversion": "1.0", **event.extensions}
            for name in CONTEXT:
                value = getattr(event, name)
                if value is not None:
                    found[name] = value
        return found

    @property
    def whole(self) -> Mapping[str, Any]:
        """The attributes, and `data` where there is some to look into."""
        found = self._whole
        if found is None:
            found = self._whole = {**self.attributes, **self.body}
        return found

    def _parse(self) -> dict[str, Any]:
        body = self.event.data
        if body is None:
            self.why = "the event has no data"
        elif len(body) > MAX_DATA_BYTES:
            self.why = f"the data has {len(body)} bytes; at most {MAX_DATA_BYTES} are looked into"
        else:
            try:
                return {"data": parse_json(body)}
            except ValueError as error:
                deep = "nested" in str(error)
                self.why = f"the data is {error}" if deep else "the data is no JSON"
        return {}
