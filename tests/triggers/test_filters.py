"""What a filter matches, and what it says of a filter that is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import triggers
from mesh import Event


def event(data: Any = None, **more: Any) -> Event:
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    base = {"id": "1", "source": "/shop/eu", "type": "order.placed", "data": body}
    return Event(**{**base, **more})


def matches(spec: dict[str, Any], one: Event) -> bool:
    return triggers.parse(spec).matches(one)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], True),
        ([{"exact": {"type": "order.placed"}}], True),
        ([{"exact": {"type": "order"}}], False),
        ([{"prefix": {"type": "order.", "source": "/shop"}}], True),
        ([{"suffix": {"source": "/us"}}], False),
        ([{"exact": {"flag": "true"}}], True),
        ([{"exact": {"flag": "True"}}], False),
        ([{"exact": {"n": "7"}}], True),
        ([{"exact": {"specversion": "1.0"}}], True),
        ([{"exact": {"gone": "x"}}], False),
        ([{"not": {"exact": {"gone": "x"}}}], True),
        ([{"any": [{"exact": {"type": "x"}}, {"prefix": {"type": "order"}}]}], True),
        ([{"all": [{"exact": {"type": "x"}}, {"prefix": {"type": "order"}}]}], False),
        ([{"prefix": {"type": "order"}}, {"exact": {"type": "x"}}], False),
        ([{"sql": "type = 'order.placed' AND n > 6"}], True),
        ([{"cesql": "n = 8"}], False),
        ([{"sql": "gone = 'x'"}], False),
        ([{"not": {"sql": "gone = 'x'"}}], True),
        ([{"sql": "n"}], False),  # no boolean
        ([{"sql": "flag"}], True),
        ([{"sql": "TRUE OR 1 / 0 = 1"}], True),
        ([{"sql": "FALSE OR 1 / 0 = 0"}], False),  # an error on the way
        ([{"sql": "NOPE(1)"}], False),
    ],
)
def test_dialects(filters: list[Any], expected: bool) -> None:
    one = event(extensions={"flag": True, "n": 7})
    assert matches({"filters": filters}, one) is expected


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        ({"a": [1]}, {"a": 1.0}, True),
        ({"a": [1]}, {"a": "1"}, False),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": [300]}, b'{"a": 3.0e2}', True),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": [{"exists": False}]}, {"a": None}, False),
        ({"a": [{"exists": True}]}, {"a": None}, True),
        ({"a": [{"exists": True}]}, {"a": {}}, False),
        ({"a": [{"exists": True}]}, {"a": []}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": 5}, True),
        ({"a": [{"prefix": "x"}]}, {"a": "xy"}, True),
        ({"a": [{"suffix": "y"}]}, {"a": "xy"}, True),
        ({"a": [{"equals-ignore-case": "XY"}]}, {"a": "xy"}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
        ({"a": [{"anything-but": "x"}]}, {}, False),
        ({"a": [{"anything-but": ["x", 1]}]}, {"a": 1}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": None}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
        ({"a": [{"numeric": ["=", 1]}]}, {"a": True}, False),
        ({"a": [{"numeric": ["=", 1]}]}, {"a": "1"}, False),
        ({"a": ["x"]}, {"a": ["w", "x"]}, True),
        ({"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1, "c": 2}]}, True),
        ({"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1}, {"c": 2}]}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": [{"b": 1}, {"c": 2}]}, False),
        ({"a.b": ["x"]}, {"a.b": "x"}, True),
        ({"a.b": ["x"]}, {"a": {"b": "x"}}, False),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 3}, False),
        ({"a": [1]}, b"not json", False),
        ({"a": [1]}, None, False),
        ({"a": [1]}, b"[" * 100_000, False),
    ],
)
def test_patterns_on_data(pattern: dict[str, Any], data: Any, expected: bool) -> None:
    assert matches({"pattern": {"data": pattern}}, event(data)) is expected


def test_a_pattern_reaches_attributes_and_both_forms_are_anded() -> None:
    spec = {"filters": [{"exact": {"type": "order.placed"}}], "pattern": {"n": [7]}}
    assert matches(spec, event(extensions={"n": 7}))
    assert not matches(spec, event(extensions={"n": "7"}))
    assert not matches(spec, event(extensions={"n": 7}, type="other"))


def test_every_mistake_is_told_with_its_path_and_mend() -> None:
    spec = {
        "filters": [
            {"exakt": {"type": "x"}},
            {"all": [{"prefix": {"invALID": "x"}}, {"any": []}]},
            {"sql": "type = "},
            {"exact": {"type": ""}},
        ],
        "pattern": {"a": "x", "b": [{"prefx": "x"}], "c": [{"numeric": [">"]}], "d": []},
        "jsonpath": [{"path": "a.b", "op": "="}],
        "fliters": [],
    }
    with pytest.raises(triggers.FilterError) as error:
        triggers.parse(spec)
    told = [str(mistake) for mistake in error.value.errors]
    assert told == [
        "fliters: unknown form of filter; there are filters, pattern and jsonpath",
        'filters[0].exakt: unknown dialect; did you mean "exact"?',
        'filters[1].all[0].prefix.invALID: an attribute name is a-z0-9; did you mean "invalid"?',
        "filters[1].all[1].any: holds no filter, expected at least one; add one, or leave any out",
        "filters[2].sql: at character 8: expected a value or an attribute's name, found the end; "
        "e.g. \"type = 'com.example' AND EXISTS subject\"",
        "filters[3].exact.type: expected a string that is not empty, found ''; "
        "to ask whether it is set, use a pattern",
        "pattern.a: expected a list of values, or a table of fields; write ['x']",
        'pattern.b[0].prefx: unknown operator; did you mean "prefix"?',
        'pattern.c[0].numeric: expected comparisons, found [\'>\']; e.g. [">", 0, "<=", 5]',
        "pattern.d: expected 1 to 200 values, found 0; "
        "to ask whether it is there, [{ exists = true }]",
        "jsonpath[0].path: expected a path that begins with $, found 'a.b'; e.g. \"$.size\"",
        "jsonpath[0].op: expected an operator, found '='; "
        "there are ==, !=, <, <=, >, >=, in, exists, contains",
    ]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(_json)
def test_no_filter_raises_anything_but_a_filter_error(value: Any) -> None:
    for spec in (
        {"filters": [value]}, {"filters": value}, {"pattern": value or 1}, {"jsonpath": value},
        {"jsonpath": [{"path": "$.a", "op": "in", "value": value}]}, {"filters": [{"sql": value}]},
    ):  # fmt: skip
        try:
            triggers.parse(spec)
        except triggers.FilterError:
            pass


@given(st.binary() | _json.map(lambda value: json.dumps(value).encode()))
def test_no_data_makes_matching_raise(data: bytes) -> None:
    spec = {"pattern": {"data": {"a": [{"anything-but": 1}], "b": {"c": [{"numeric": [">", 1]}]}}}}
    assert matches(spec, event(data)) in (True, False)
    for path in ("$..a", "$.a[?@.b > 1]", "$[*].a", "$.a[0:2]", "$[-1]"):
        assert matches({"jsonpath": [{"path": path, "op": "<", "value": 1}]}, event(data)) in (
            True,
            False,
        )


def test_what_is_hardly_meant_is_warned_of() -> None:
    def warned(spec: dict[str, Any]) -> list[str]:
        return [str(warning) for warning in triggers.parse(spec).warnings()]

    def pattern(leaf: Any) -> dict[str, Any]:
        return {"pattern": {"type": ["t"], "data": {"a": leaf}}}

    never, always = "no event meets this", "every event meets this; leave it out"
    scanned = (
        "cannot be indexed: every event of the topic is matched with it; "
        "add a condition for what is there, such as a type"
    )
    exact = {"exact": {"type": "t"}}
    assert warned({"filters": []}) == warned({"filters": [exact, {"not": exact}]}) == []
    assert warned(pattern([{"numeric": [">", 5, "<", 3]}])) == [f"pattern: {never}"]
    assert warned(pattern([{"numeric": [">", 5, "<=", 5]}])) == [f"pattern: {never}"]
    assert warned(pattern([{"numeric": [">", 5, "<", 3]}, 4])) == []
    assert warned(pattern([{"exists": True}, {"exists": False}])) == []  # there is a type, too
    both = {"pattern": {"subject": [{"exists": True}, {"exists": False}]}}
    assert warned(both) == [f"pattern: {always}", f"pattern: {scanned}"]
    assert warned({"filters": [exact, {"sql": "LENGTH(type)"}]}) == [f"filters[1].sql: {never}"]
    assert warned({"filters": [exact, {"sql": "1 = 1"}]}) == [f"filters[1].sql: {always}"]
    assert warned({"filters": [exact, {"not": {"sql": "1 / 0"}}]}) == [f"filters[1].not: {always}"]
    assert warned({"filters": [exact, {"any": [{"sql": "2"}, {"sql": "FALSE"}]}]}) == [
        f"filters[1].any: {never}"
    ]
    assert warned({"filters": [exact, {"sql": "NOPE(id)"}]})[0].startswith(
        "filters[1].sql: no function NOPE takes 1 argument; there are LENGTH, CONCAT, "
    )
    assert warned({"filters": [{"not": exact}]}) == [f"filters[0].not: {scanned}"]
    assert warned({"filters": [{"any": [exact, {"not": exact}]}]}) == [f"filters[0].any: {scanned}"]
    assert warned({"jsonpath": [{"path": "$..a", "op": "==", "value": 1}]}) == [
        f"jsonpath[0]: {scanned}"
    ]
