"""The event: immutable, comparable, copied and pickled, printed within bounds."""

import copy
import pickle
from typing import Any

import msgspec
import pytest

from mesh import Event, EventError
from mesh.codec import validate

FULL = Event(
    "1", "/s", "t", "sub", "2024-01-01T00:00:00Z", "application/json", "https://x",
    {"n": 1, "yes": True, "word": "x"}, b'{"a":1}',
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda e: setattr(e, "id", "2"),
        lambda e: delattr(e, "id"),
        lambda e: e.extensions.__setitem__("a", 1),
        lambda e: e.extensions.__delitem__("n"),
        lambda e: e.extensions.update(a=1),
        lambda e: e.extensions.setdefault("a", 1),
        lambda e: e.extensions.pop("n"),
        lambda e: e.extensions.popitem(),
        lambda e: e.extensions.clear(),
        lambda e: e.extensions.__ior__({"a": 1}),
    ],
)
@pytest.mark.parametrize("made", ["new", "empty", "decoded", "copied"])
def test_nothing_changes_an_event(change: Any, made: str) -> None:
    event = {
        "new": FULL,
        "empty": Event("1", "/s", "t"),
        "decoded": msgspec.msgpack.decode(msgspec.msgpack.encode(FULL), type=Event),
        "copied": copy.deepcopy(FULL),
    }[made]
    before = event.to_json()
    with pytest.raises((AttributeError, TypeError)):
        change(event)
    assert event.to_json() == before


def test_an_event_keeps_none_of_the_dict_it_was_made_of() -> None:
    given: dict[str, Any] = {"a": "x"}
    event = Event("1", "/s", "t", extensions=given)
    given["b"] = "y"
    assert event.extensions == {"a": "x"}


def test_copies_are_equal_and_hash_alike() -> None:
    for other in (
        copy.copy(FULL),
        copy.deepcopy(FULL),
        pickle.loads(pickle.dumps(FULL)),
        msgspec.msgpack.decode(msgspec.msgpack.encode(FULL), type=Event),
        msgspec.structs.replace(FULL, extensions=dict(FULL.extensions)),
    ):
        assert other == FULL
        assert len({other, FULL}) == 1


def test_one_and_true_are_two_values() -> None:
    one, true = (Event("1", "/s", "t", extensions={"a": value}) for value in (1, True))
    assert one != true
    assert one.extensions != {"a": True}
    assert one.extensions == {"a": 1}
    assert msgspec.structs.replace(FULL, data=b'{"a": 1}') != FULL


def test_the_repr_of_a_large_event_is_short() -> None:
    event = Event("1", "/s" * 9999, "t", extensions={"a": "x" * 9999}, data=b"x" * (1 << 20))
    assert len(repr(event)) < 1500
    assert "+1048376" in repr(event)
    assert repr(Event("1", "/s", "t")) == "Event(id='1', source='/s', type='t')"


def test_json() -> None:
    assert FULL.json() == {"a": 1}
    assert Event("1", "/s", "t", data=b"[1e400]").json() == [float("inf")]
    for data in (None, b"", b"{", b"\xff", b"NaN", b'"a', b"[" * 501 + b"]" * 501, b"[" * 10**6):
        with pytest.raises(EventError) as error:
            Event("1", "/s", "t", data=data).json()
        assert error.value.attribute == "data"


def test_attribute() -> None:
    values = {"specversion": "1.0", "id": "1", "dataschema": "https://x", "n": 1, "yes": True}
    assert {name: FULL.attribute(name) for name in values} == values
    assert FULL.attribute("data") is None
    assert FULL.attribute("extensions") is None
    assert Event("1", "/s", "t").attribute("time") is None


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"id": 1}, "id"),
        ({"source": None}, "source"),
        ({"type": b"t"}, "type"),
        ({"subject": 1}, "subject"),
        ({"time": 0}, "time"),
        ({"datacontenttype": 1}, "datacontenttype"),
        ({"extensions": {"a": 1.5}}, "a"),
        ({"extensions": {"a": None}}, "a"),
        ({"extensions": {"a": []}}, "a"),
        ({"extensions": {1: "x"}}, "1"),
        ({"extensions": {"id": "x"}}, "id"),
        ({"extensions": {"data": "x"}}, "data"),
        ({"extensions": {"a": 2**31}}, "a"),
        ({"data": "text"}, "data"),
        ({"data": {"a": 1}}, "data"),
        ({"data": bytearray(b"x")}, "data"),
    ],
)
def test_values_of_the_wrong_type_are_named(change: Any, attribute: str) -> None:
    with pytest.raises(EventError) as error:
        validate(msgspec.structs.replace(FULL, **change))
    assert error.value.attribute == attribute
