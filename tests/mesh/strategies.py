"""What Hypothesis draws: every valid event."""

from datetime import UTC

import msgspec
from hypothesis import strategies as st

from mesh import Event
from mesh.event import CONTEXT

__all__ = ["events"]

_bad = [*range(32), *range(0x7F, 0xA0), *range(0xFDD0, 0xFDF0)]
_letters = st.characters(codec="utf-8", exclude_characters="".join(map(chr, _bad))).filter(
    lambda letter: ord(letter) & 0xFFFE != 0xFFFE
)
_text = st.text(_letters, min_size=1, max_size=20)
_names = st.from_regex(r"[a-eg-z0-9][a-z0-9]{0,20}", fullmatch=True).filter(
    lambda name: name not in (*CONTEXT, "specversion", "data")
)
events = st.builds(
    Event,
    id=_text,
    source=st.sampled_from(["/s", "urn:x:1", "https://a/b?c#d", "//h", "%20"]),
    type=_text,
    subject=st.none() | _text,
    time=st.none()
    | st.datetimes(timezones=st.just(UTC)).map(lambda at: f"{at:%Y}".zfill(4) + f"{at:-%m-%dT%TZ}")
    | st.just("2016-12-31T23:59:60.123456789012z"),
    datacontenttype=st.none()
    | st.sampled_from([
        "application/json", "text/plain", "a/b+json; c=d", "text/xml; charset=iso-8859-1",
        "application/octet-stream", "application/cloudevents+json", "text/a; charset=utf-16le",
    ]),
    dataschema=st.none() | st.just("https://schema"),
    extensions=st.dictionaries(
        _names, st.text(_letters, max_size=9) | st.booleans() | st.integers(-(2**31), 2**31 - 1)
    ),
    data=st.none() | st.binary() | st.text().map(str.encode)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(msgspec.json.encode),
)  # fmt: skip
