"""Events cross to the cloudevents SDK and back, each as it was."""

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as OldEvent
from hypothesis import given

from mesh import Event, EventError
from mesh.codec import decode_http
from mesh.sdk import from_sdk, to_sdk
from tests.mesh.strategies import events


def test_an_event_crosses_both_ways() -> None:
    event = Event(
        "1", "/s", "t", "sub", "2024-01-02T03:04:05.000006Z", "application/json", "https://schema",
        {"n": 5, "flag": True, "word": "x"}, b'{"a":1}',
    )  # fmt: skip
    sdk = to_sdk(event)
    assert sdk.get_data() == {"a": 1}
    assert sdk.get_extension("n") == 5
    assert from_sdk(sdk) == event


def test_bytes_stay_bytes_and_the_older_api_is_taken() -> None:
    event = Event("1", "/s", "t", time="2024-01-02T03:04:05Z", data=b"\r\n\x00")
    assert from_sdk(to_sdk(event)).data == b"\r\n\x00"
    old = OldEvent({"type": "t", "source": "/s", "id": "9"}, {"a": 1})
    made = from_sdk(old)
    assert (made.id, made.type, made.data, made.datacontenttype) == (
        "9", "t", b'{"a":1}', "application/json",
    )  # fmt: skip


@given(events)
def test_every_valid_event_comes_back_the_same(event: Event) -> None:
    sdk = to_sdk(event)
    assert from_sdk(sdk) == event
    for other in (copy.deepcopy(sdk), pickle.loads(pickle.dumps(sdk))):
        assert from_sdk(other) == event


@pytest.mark.parametrize(
    "time",
    [
        "2024-01-01T00:00:00.123456789012Z",
        "2024-01-01t00:00:00z",
        "2024-01-01T00:00:00+00:00",
        "2016-12-31T23:59:60Z",
        "0000-02-29T00:00:00-23:59",
        "9999-12-31T23:59:59.9999999-23:59",
        "2024-01-01T00:00:00.10-08:00",
    ],
)
def test_time_is_kept_to_the_digit_also_where_the_sdk_writes_it(time: str) -> None:
    event = Event("1", "/s", "t", time=time)
    sdk = to_sdk(event)
    assert isinstance(sdk.get_time(), datetime)
    assert from_sdk(sdk).time == time
    message = to_binary_event(sdk)
    (sent,) = decode_http(list(message.headers.items()), message.body)
    assert sent.time is not None
    assert sent.time.replace("+00:00", "Z") == time.replace("+00:00", "Z")


def test_a_time_the_author_computes_is_the_authors() -> None:
    sdk = to_sdk(Event("1", "/s", "t", time="2024-01-01T00:00:00.123456789Z"))
    sdk.get_attributes()["time"] = sdk.get_time() + timedelta(seconds=1)
    assert from_sdk(sdk).time == "2024-01-01T00:00:01.123456Z"


def test_an_event_without_a_time_gets_none() -> None:
    assert to_sdk(Event("1", "/s", "t")).get_time() is None


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "text/b.c+json"]
)
def test_an_object_keeps_its_bytes_until_it_is_changed(kind: str) -> None:
    event = Event("1", "/s", "t", datacontenttype=kind, data=b' {"a": 1.0, "b":[1]}\n')
    sdk = to_sdk(event)
    assert sdk.get_data() == {"a": 1.0, "b": [1]}
    assert from_sdk(sdk) == event
    sent = to_structured_event(sdk)
    assert decode_http(list(sent.headers.items()), sent.body)[0].json() == {"a": 1.0, "b": [1]}
    sdk.get_data()["b"].append(2)
    assert from_sdk(sdk).data == b'{"a":1.0,"b":[1,2]}'
    sdk.get_data()["a"] = True
    assert from_sdk(sdk).data == b'{"a":true,"b":[1,2]}'


def test_what_the_sdk_would_write_as_python_text_stays_bytes() -> None:
    for kind in ("a/b+json", "application/x_y+json", "text/plain", None):
        event = Event("1", "/s", "t", datacontenttype=kind, data=b'{"a":1}')
        assert to_sdk(event).get_data() == b'{"a":1}'


NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("more", "data", "attribute"),
    [
        ({"ratio": 1.5}, None, "ratio"),
        ({"when": NOW}, None, "when"),
        ({"n": 2**31}, None, "n"),
        ({"time": NOW.replace(tzinfo=None)}, None, "time"),
        ({"source": "a b"}, None, "source"),
        ({"id": ""}, None, "id"),
        ({"type": 5}, None, "type"),
        ({"specversion": "0.3"}, None, "specversion"),
        ({"funcrthops": "1"}, None, "funcrthops"),
        ({}, {"a": object()}, "data"),
        ({}, "\ud800", "data"),
        ({}, object(), "data"),
    ],
)
def test_what_the_sdk_lets_through_is_refused_by_name(
    more: dict[str, Any], data: Any, attribute: str
) -> None:
    sdk = CloudEvent({"id": "1", "source": "/s", "type": "t"}, data)
    sdk.get_attributes().update(more)
    with pytest.raises(EventError) as error:
        from_sdk(sdk)
    assert error.value.attribute == attribute


def test_other_bytes_and_nulls() -> None:
    for data in (bytearray(b"x"), memoryview(b"x")):
        assert from_sdk(CloudEvent({"source": "/s", "type": "t"}, data)).data == b"x"  # type: ignore[arg-type]
    old = OldEvent({"id": "1", "source": "/s", "type": "t", "time": None, "gone": None}, None)
    assert from_sdk(old) == Event("1", "/s", "t")
    with pytest.raises(EventError):
        from_sdk({"id": "1"})
