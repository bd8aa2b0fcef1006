"""The accelerator agrees with the plain matcher: on JSON and what is none, on every pattern it
takes. Skipped where it is not installed; `test_index.py` runs with it too, where it is.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import triggers
from mesh import Event
from mesh.event import MAX_JSON_DEPTH
from tests.triggers import fuzz
from tests.triggers.test_patterns import _patterns
from triggers import Index, native
from triggers.view import MAX_DATA_BYTES

pytestmark = pytest.mark.skipif(
    native.engine() is None, reason="funcrt-accelerator is not installed: make accelerator"
)

ASKED: list[dict[str, Any]] = [
    {"a": [{"exists": True}]},
    {"a": ["x", "é", "\U0001f600", "", None, True, 0, 1, 2**53 - 1]},
    {"a": [{"numeric": [">", 1, "<=", 8]}, {"prefix": "é"}, {"suffix": "\n"}]},
    {"a": [{"wildcard": "a*b*c"}, {"anything-but": ["x", 1]}], "b": [{"exists": False}]},
    {"a": {"b": [1, "y"], "c": [{"exists": False}]}},
    {"$or": [{"a": [1]}, {"b": ["x"]}]},
]
_scalars = st.sampled_from([
    '"x"', '""', '"\\u00e9"', '"é\\n"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\udc00x"', '"\\u0000"',
    '"a\\/b/c"', '"aXbYc"', "0", "-0", "0.0", "1", "1.0", "10e-1", "8", "8.000000000000002",
    "1e400", "-1e400", "1" * 400, "9007199254740991", "9007199254740993", "1e300", "true", "false",
    "null", "tru", "01", "1.", "-", "+1", ".5", "1e", "NaN", "Infinity", '"\n"', '"\\x"', '"\\u12"',
    "'x'", "",
])  # fmt: skip
_names = st.sampled_from(['"a"', '"b"', '"c"', '"\\u0061"', '"é"', '""', "a"])
_spaces = st.sampled_from(["", " ", "\t\r\n", "\f", "\xa0"])
_texts = st.recursive(
    _scalars,
    lambda inner: st.builds("[{}]".format, st.lists(inner, max_size=3).map(",".join))
    | st.builds(
        "{{{}}}".format,
        st.lists(st.builds("{}:{}{}".format, _names, _spaces, inner), max_size=3).map(",".join),
    ),
    max_leaves=6,
)  # fmt: skip


def both(index: Index[int], filters: list[triggers.Filter], body: bytes) -> None:
    event = Event("1", "/s", "t", data=body)
    wanted = {n for n, one in enumerate(filters) if one.matches(event)}
    assert index.match(event) == wanted


@pytest.fixture(scope="module")
def asked() -> tuple[Index[int], list[triggers.Filter]]:
    index: Index[int] = Index()
    filters = [triggers.parse({"pattern": {"data": one}}) for one in ASKED]
    for n, one in enumerate(filters):
        index.add(n, one)
    assert len(index._numbers) == len(ASKED)
    return index, filters


@given(st.builds("{}{}{}".format, _spaces, _texts, _spaces), st.data())
def test_it_reads_json_as_the_parser_does(
    asked: tuple[Index[int], list[triggers.Filter]], text: str, data: st.DataObject
) -> None:
    body = f'{{"a":{text}}}'.encode() if data.draw(st.booleans()) else text.encode()
    both(*asked, body)
    at = data.draw(st.integers(0, len(body)))
    both(*asked, body[:at])
    both(*asked, body[:at] + data.draw(st.binary(min_size=1, max_size=2)) + body[at + 1 :])


def test_it_looks_as_deep_and_as_far_as_the_parser(
    asked: tuple[Index[int], list[triggers.Filter]],
) -> None:
    for depth in (MAX_JSON_DEPTH - 2, MAX_JSON_DEPTH - 1, MAX_JSON_DEPTH, 100_000):
        for name in "az":  # one that is asked for, and one that is skipped
            nested = f'{{"{name}":{"[" * depth}1{"]" * depth},"a":1}}'
            both(*asked, nested.encode())
    for size in (MAX_DATA_BYTES - 20, MAX_DATA_BYTES + 20):
        both(*asked, json.dumps({"a": 1, "z": "x" * (size - 20)}).encode())


@given(st.lists(_patterns, min_size=1, max_size=12), st.integers())
def test_it_matches_as_the_plain_matcher(patterns: list[Any], seed: int) -> None:
    index: Index[int] = Index()
    filters = []
    for pattern in patterns:
        try:
            filters.append(triggers.parse({"pattern": {"data": pattern}}))
        except triggers.FilterError:
            continue
        index.add(len(filters) - 1, filters[-1])
    chance = fuzz.Chance(seed)
    for _ in range(8):
        both(index, filters, json.dumps(chance.value()).encode())


ANY_DATA: list[bytes | None] = [
    None, b"", b"{", b'{"a": 1}', b'{"a": [2, 1], "b": "x"}', b'{"a": {"b": 1}}',
]  # fmt: skip


@pytest.mark.parametrize("spec", [
    {},
    {"filters": [{"exact": {"type": "t"}}], "pattern": {"data": {"a": [1]}}},
    {"pattern": {"type": ["t"], "n": [7], "data": {"a": [1]}}},
    {"pattern": {"n": ["7", True, {"exists": False}]}},
    {"filters": [{"exact": {"n": "7", "source": "/s"}}, {"not": {"prefix": {"subject": "x"}}}]},
    {"filters": [{"any": [{"suffix": {"n": "ue"}}, {"all": [{"exact": {"specversion": "1.0"}}]}]}]},
    {"pattern": {"data": {"a": [{"exists": False}]}}},
    {"pattern": {"type": [{"anything-but": "u"}], "data": {"b": [{"exists": False}]}}},
    {"pattern": {"subject": {"a": [{"exists": False}]}, "data": {"a": [1]}}},
    {"filters": [{"exact": {"subject": "é"}}]},
    {"$or": [{"type": ["u"]}, {"data": {"a": [1]}}]},
])  # fmt: skip
def test_attributes_are_looked_at_beside_data(spec: Any) -> None:
    spec = {"pattern": spec} if "$or" in spec else spec
    index: Index[int] = Index()
    one = triggers.parse(spec)
    index.add(1, one)
    index.add(2, triggers.parse({"pattern": {"type": ["u"], "data": {"b": ["x"]}}}))
    assert len(index._numbers) == 2
    assert not index._doubtful
    for data in ANY_DATA:
        for n in (7, "7", True, 2**70, None):
            for subject in (None, "é", "x", "\ud83d"):
                more = {} if n is None else {"n": n}
                event = Event("1", "/s", "t", subject, extensions=more, data=data)
                assert index.match(event) == ({1} if one.matches(event) else set())


@pytest.mark.parametrize("more", [
    {"jsonpath": [{"path": "$.a[0]", "op": "==", "value": 1}]},
    {"filters": [{"sql": "n = 7 OR flag"}]},
    {"pattern": {"data": {"a": [2**53]}}},
    {"pattern": {"n": [{"prefix": {"equals-ignore-case": "X"}}]}},
])  # fmt: skip
def test_a_filter_that_says_more_is_found_and_then_asked(more: Any) -> None:
    spec = {**more, "filters": [{"exact": {"type": "t"}}, *more.get("filters", [])]}
    one = triggers.parse(spec)
    index: Index[int] = Index()
    index.add(1, one)
    assert len(index._numbers) == 1
    for type in "tu":
        for data in (*ANY_DATA, b'{"a": 9007199254740992}', b'{"a": 9007199254740993}'):
            for n in (7, 8, "xy", True):
                event = Event("1", "/s", type, extensions={"n": n}, data=data)
                assert index.match(event) == ({1} if one.matches(event) else set())
    index.add(1, triggers.parse({"filters": [{"exact": {"type": "t"}}]}))
    assert index.match(Event("1", "/s", "t")) == {1}
    index.add(1, one)
    index.add(1, one)
    wanted = {1} if one.matches(event) else set()
    assert index.match(event) == wanted
    index.remove(1)
    assert index.match(event) == set()
    assert not index._doubtful


def test_data_that_no_filter_need_see_is_not_read_again() -> None:
    """A filter in Python beside those of the accelerator costs a parse where its attributes match,
    and no other."""
    index: Index[str] = Index()
    condition = {"path": "$.a[0]", "op": "==", "value": 1}
    type = {"filters": [{"exact": {"type": "t"}}]}
    index.add("jsonpath", triggers.parse({**type, "jsonpath": [condition]}))
    index.add("pattern", triggers.parse({"pattern": {"type": ["t", "u"], "data": {"b": [1]}}}))
    parsed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triggers.view, "parse_json", lambda body: parsed.append(body) or {"a": [1]})
        assert index.match(Event("1", "/s", "u", data=b'{"a": [1], "b": 1}')) == {"pattern"}
        assert not parsed
        both = {"jsonpath", "pattern"}
        assert index.match(Event("1", "/s", "t", data=b'{"a": [1], "b": 1}')) == both
        assert len(parsed) == 1


@pytest.mark.parametrize("spec", [
    {"pattern": {"data": {"a": [{"equals-ignore-case": "x"}]}}},
    {"pattern": {"data": {"a": [{"cidr": "10.0.0.0/8"}]}}},
    {"pattern": {"type": ["t"], "data": {"a": [{"cidr": "10.0.0.0/8"}]}}},
    {"filters": [{"sql": "type <> 'u'"}]},
    {"pattern": {"data": {"a": ["\ud83d"]}}},
    {"pattern": {"data": {"\ud83d": ["x"]}}},
    {"jsonpath": [{"path": "$.a[0]", "op": "==", "value": 1}]},
])  # fmt: skip
def test_what_it_does_not_know_is_left_to_the_index(spec: Any) -> None:
    index: Index[int] = Index()
    index.add(1, triggers.parse(spec))
    index.add(2, triggers.parse({"pattern": {"data": {"b": [1]}}}))
    assert len(index._numbers) == 1
    body = json.dumps({"a": [1, "X", "10.1.1.1", 2**53, "\ud83d"], "\ud83d": "x"}).encode()
    assert index.match(Event("1", "/s", "t", data=body)) == {1}


def test_what_is_removed_is_gone() -> None:
    index: Index[int] = Index()
    patterns = [
        {"a": [n % 3], "b": [n % 2], "c": [{"prefix": f"p{n}"}]} for n in range(60)
    ] + [{"d": [{"numeric": [">", n]}]} for n in range(60)]  # fmt: skip
    for n, pattern in enumerate(patterns):
        index.add(n, triggers.parse({"pattern": {"data": pattern}}))
    event = Event("1", "/s", "t", data=b'{"a": 1, "b": 1, "c": "p13", "d": 9}')
    assert index.match(event) == {1, 13, *range(60, 69)}
    for n in range(0, 120, 2):
        index.remove(n)
    assert index.match(event) == {1, 13, 61, 63, 65, 67}
    for n in range(1, 120, 2):
        index.remove(n)
    assert index.match(event) == set()
    assert not index._numbers
