"""Events cross to the cloudevents SDK and back."""

from mesh import Event
from mesh.sdk import from_sdk, to_sdk


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
    from cloudevents.v1.http import CloudEvent

    event = Event("1", "/s", "t", time="2024-01-02T03:04:05Z", data=b"\r\n\x00")
    assert from_sdk(to_sdk(event)).data == b"\r\n\x00"
    old = CloudEvent({"type": "t", "source": "/s", "id": "9"}, {"a": 1})
    made = from_sdk(old)
    assert (made.id, made.type, made.data, made.datacontenttype) == (
        "9", "t", b'{"a":1}', "application/json",
    )  # fmt: skip
