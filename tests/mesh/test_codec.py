"""The codec: CloudEvents over HTTP and in JSON, strict both ways."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import Event, EventError
from mesh.codec import decode_http, encode_http, validate
from mesh.event import canonical
from tests.mesh.strategies import events

REQUIRED = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")]
JSON = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def structured(**members: object) -> bytes:
    base = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    return json.dumps({**base, **members}).encode()


def test_binary_mode_keeps_bytes_extensions_and_time_to_the_digit() -> None:
    body = b"line\r\nline\x00\xff"
    headers = [
        *REQUIRED,
        ("Content-Type", "application/octet-stream"),
        ("CE-Time", "2017-01-01T05:29:60.123456789+05:30"),
        ("ce-partitionkey", "caf%C3%A9 %25"),
    ]
    (event,) = decode_http(headers, body)
    assert event.data == body
    assert event.time == "2017-01-01T05:29:60.123456789+05:30"
    assert event.extensions == {"partitionkey": "café %"}
    assert decode_http(*encode_http(event)) == [event]


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"ce-id": None}, "id"),
        ({"ce-id": ""}, "id"),
        ({"ce-source": "a b"}, "source"),
        ({"ce-specversion": "0.3"}, "specversion"),
        ({"ce-specversion": None}, "specversion"),
        ({"ce-time": "2023-02-29T00:00:00Z"}, "time"),
        ({"ce-time": "yesterday"}, "time"),
        ({"ce-dataschema": "relative"}, "dataschema"),
        ({"ce-subject": "%zz"}, "subject"),
        ({"ce-subject": "%ff"}, "subject"),
        ({"ce-subject": "a%0D%0Ab"}, "subject"),
        ({"ce-funcrtattempt": "1"}, "funcrtattempt"),
        ({"ce-under_score": "1"}, "under_score"),
        ({"ce-data": "x"}, "ce-data"),
        ({"content-type": "nonsense"}, "datacontenttype"),
    ],
)
def test_a_bad_header_is_named(change: dict[str, str | None], attribute: str) -> None:
    headers = {**dict(REQUIRED), **change}
    given_headers = [(name, value) for name, value in headers.items() if value is not None]
    with pytest.raises(EventError) as error:
        decode_http(given_headers, b"")
    assert error.value.attribute == attribute
    assert error.value.status == 400


def test_a_header_given_twice_is_refused() -> None:
    with pytest.raises(EventError, match="id: given twice"):
        decode_http([*REQUIRED, ("CE-ID", "2")], b"")


@pytest.mark.parametrize(
    ("body", "attribute"),
    [
        (structured(id=None), "id"),
        (structured(id=1), "id"),
        (structured(ratio=1.5), "ratio"),
        (structured(nested={}), "nested"),
        (structured(big=2**31), "big"),
        (structured(data=1, data_base64="AA=="), "data"),
        (structured(data_base64="?"), "data_base64"),
        (structured(Upper="x"), "Upper"),
        (structured()[:-1] + b', "id": "2"}', "id"),
        (structured()[:-1] + b', "\\u0069d": "2"}', "id"),
        (b'"text"', None),
        (b"\xef\xbb\xbf" + structured(), None),
        (b'{"data":' + b"[" * 100_000, None),
        (structured(subject="\ud800"), None),
    ],
)
def test_a_bad_structured_event_is_refused(body: bytes, attribute: str | None) -> None:
    with pytest.raises(EventError) as error:
        decode_http([("Content-Type", JSON)], body)
    if attribute is not None:
        assert error.value.attribute == attribute


def test_structured_mode_keeps_types_and_the_data_as_it_was_written() -> None:
    body = structured(n=7, ok=True, gone=None)[:-1] + b', "data": {"a": 1.0, "a2":  [ ]}}'
    (event,) = decode_http([("content-type", JSON + "; charset=utf-8")], body)
    assert event.extensions == {"n": 7, "ok": True}
    assert event.data == b'{"a": 1.0, "a2":  [ ]}'
    assert event.datacontenttype is None
    assert Event.from_json(event.to_json()) == event


def test_names_twice_inside_data_are_the_authors_affair() -> None:
    body = structured()[:-1] + b', "data": {"id": 1, "id": 2}}'
    assert Event.from_json(body).data == b'{"id": 1, "id": 2}'


def test_text_data_is_text_and_binary_data_is_base64() -> None:
    text = Event.from_json(structured(datacontenttype="text/plain", data="a\r\nb"))
    assert text.data == b"a\r\nb"
    assert json.loads(text.to_json())["data"] == "a\r\nb"
    raw = Event("1", "/s", "t", datacontenttype="text/plain", data=b"\xff")
    assert json.loads(raw.to_json())["data_base64"] == "/w=="


def test_a_batch_names_the_event_that_is_wrong() -> None:
    good = structured()
    headers = [("content-type", "application/cloudevents-batch+json")]
    assert len(decode_http(headers, b"[" + good + b"," + good + b"]")) == 2
    assert decode_http(headers, b"[]") == []
    with pytest.raises(EventError, match="event 1: is required"):
        decode_http(headers, b"[" + good + b", {}]")


def test_unknown_structured_formats_are_415_and_too_much_is_413() -> None:
    with pytest.raises(EventError) as error:
        decode_http([("content-type", "application/cloudevents+xml")], b"<e/>")
    assert error.value.status == 415
    decode_http(REQUIRED, b"x" * (1 << 20))
    with pytest.raises(EventError) as error:
        decode_http(REQUIRED, b"x" * ((1 << 20) + 1))
    assert error.value.status == 413


@given(st.binary())
def test_no_bytes_raise_anything_but_an_event_error(body: bytes) -> None:
    for kind in (JSON, "application/cloudevents-batch+json", "text/plain"):
        try:
            decode_http([("content-type", kind)], body)
        except EventError:
            pass


@given(st.lists(st.tuples(st.text(), st.text())), st.binary(max_size=20))
def test_no_headers_raise_anything_but_an_event_error(
    headers: list[tuple[str, str]], body: bytes
) -> None:
    for extra in ([], REQUIRED):
        prefixed = [("ce-" + name, value) for name, value in headers]
        try:
            decode_http([*extra, *prefixed], body)
        except EventError:
            pass


@given(events)
def test_what_is_encoded_decodes_to_the_same(event: Event) -> None:
    validate(event)
    assert Event.from_json(event.to_json()) == event
    for mode in ("structured", "batch"):
        assert decode_http(*encode_http(event, mode)) == [event]
    headers, body = encode_http(event)
    changes: dict[str, Any] = {}
    if ("content-type", JSON) not in headers:
        # What binary mode cannot tell, by the docstring of the codec.
        changes["extensions"] = {k: canonical(v) for k, v in event.extensions.items()}
        if event.data is None and event.datacontenttype is not None:
            changes["data"] = b""
        if event.data == b"" and event.datacontenttype is None:
            changes["data"] = None
        if event.datacontenttype is None:
            changes["datacontenttype"] = dict(headers).get("content-type")
            assert changes["datacontenttype"] in (None, "application/json")
    assert decode_http(headers, body) == [msgspec.structs.replace(event, **changes)]


@given(events, st.data())
def test_a_damaged_event_is_refused_or_is_one(event: Event, data: st.DataObject) -> None:
    body = bytearray(event.to_json())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for kind, text in ((JSON, bytes(body)), (BATCH, b"[%b]" % body)):
        try:
            (found,) = decode_http([("content-type", kind)], text)
        except EventError:
            continue
        validate(found)
        assert Event.from_json(found.to_json()) == found
