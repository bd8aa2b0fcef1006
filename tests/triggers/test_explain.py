"""An explanation says what the matcher says, and the reason that is the author's."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import triggers
from mesh import Event
from tests.triggers.test_patterns import _data, _keys, _patterns
from triggers import Explained


def event(data: Any = None, **more: Any) -> Event:
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    return Event(**{"id": "1", "source": "/s", "type": "t", "data": body, **more})


_plain = st.builds(
    lambda dialect, names: {dialect: names},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(
        st.sampled_from(["type", "source", "subject", "n", "gone"]),
        st.sampled_from(["t", "/s", "7", "x"]),
        min_size=1,
        max_size=2,
    ),
)
_filters = st.recursive(
    _plain,
    lambda inner: (
        inner.map(lambda one: {"not": one})
        | st.builds(
            lambda how, some: {how: some},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        )
    ),
    max_leaves=5,
)


def consistent(node: Explained) -> None:
    """A tree's verdict follows from its parts'."""
    for child in node.children:
        consistent(child)
    verdicts = [child.holds for child in node.children]
    if node.wanted == "not":
        assert node.holds is not verdicts[0]
    elif node.wanted == "any of":
        assert node.holds is any(verdicts)
    elif node.children:
        assert node.holds is all(verdicts)
    assert (node.refusing is None) is node.holds


@settings(max_examples=400)
@given(
    st.lists(_filters, max_size=2),
    st.none() | _patterns,
    st.dictionaries(_keys, _data) | _data | st.binary(max_size=4),
)
@example([], {"a": {"b": [{"exists": False}]}}, {"a": [{"b": 1}, {}]})
@example([], {"a": {"b": [{"exists": False}, "x"]}}, {"a": [{}, {"c": 1}]})
@example([], {"a": {"b": [1], "c": [{"exists": False}]}}, {"a": [{"c": 1}, {}]})
def test_it_says_what_the_matcher_says(filters: Any, pattern: Any, data: Any) -> None:
    spec = {"filters": filters, "pattern": pattern and {"data": pattern}}
    try:
        parsed = triggers.parse(spec)
    except triggers.FilterError as error:
        assert "multiplies out" in str(error)  # noqa: PT017
        return
    body = (
        data if isinstance(data, bytes) else json.dumps(data).replace("Infinity", "1e400").encode()
    )
    one = event(body, extensions={"n": 7})
    told = parsed.explain(one)
    assert told.holds is parsed.matches(one)
    consistent(told)


@pytest.mark.parametrize(
    ("spec", "data", "path", "wanted", "found"),
    [
        ({"filters": [{"exact": {"type": "u"}}]}, None,
         "filters[0].exact.type", 'type = "u"', '"t"'),
        ({"filters": [{"prefix": {"subject": "u"}}]}, None,
         "filters[0].prefix.subject", 'subject starts with "u"', None),
        ({"filters": [{"not": {"exact": {"type": "t"}}}]}, None, "filters[0].not", "not", None),
        ({"filters": [{"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}]}, None,
         "filters[0].any[0].exact.type", 'type = "a"', '"t"'),
        ({"pattern": {"data": {"size": [{"numeric": [">", 0, "<=", 5]}, "big"]}}}, {"size": 9},
         "pattern.data.size", 'data.size > 0 and <= 5 or = "big"', "9"),
        ({"pattern": {"data": {"a": [{"anything-but": ["x", 1]}]}}}, {"a": 1},
         "pattern.data.a", 'data.a anything but = "x" or = 1', "1"),
        ({"pattern": {"data": {"a.b": [{"exists": False}]}}}, {"a.b": None},
         "pattern.data.a.b", 'data."a.b" missing', "null"),
        ({"pattern": {"data": {"a": {"b": [1], "c": [2]}}}}, {"a": [{"c": 2}, {"b": 1, "c": 3}]},
         "pattern.data.a.b", "data.a.b = 1", None),
        ({"pattern": {"data": {"a": [True]}}}, b"no json", "pattern.data.a", "data.a = true", None),
    ],
)  # fmt: skip
def test_it_names_what_refuses(
    spec: Any, data: Any, path: str, wanted: str, found: str | None
) -> None:
    why = triggers.parse(spec).explain(event(data)).refusing
    assert why is not None
    assert (why.path, why.wanted, why.found) == (path, wanted, found)


def test_it_says_why_there_is_no_data_to_look_at() -> None:
    spec = {"pattern": {"data": {"a": [1]}}}
    told = [
        triggers.parse(spec).explain(event(data)) for data in (None, b"{", [{"a": 2}, {"a": 3}])
    ]
    assert [one.children[0].found for one in told] == [
        "the event has no data", "the data is no JSON", None,
    ]  # fmt: skip
    assert told[2].children[0].children[0].found == "element 1 of 2"
