"""Patterns against a slow matcher, and the cases where a quick one would go wrong."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import triggers
from mesh import Event
from tests.triggers import oracle


def event(data: Any = None, **more: Any) -> Event:
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    return Event(**{"id": "1", "source": "/s", "type": "t", "data": body, **more})


def matches(pattern: dict[str, Any], data: Any) -> bool:
    return triggers.parse({"pattern": {"data": pattern}}).matches(event(data))


_keys = st.sampled_from(["a", "b", "c"])
_scalars = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        1.0,
        -1,
        2,
        2.5,
        300,
        3e2,
        "",
        "a",
        "ab",
        "b",
        "1",
        "é",
        2**53,
        1e400,
        "A",
        "aBab",
        "a*b",
    ]
)
_data = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner),
    max_leaves=12,
)
_words = st.sampled_from(["a", "b", "ab", "1"])
_values = st.sampled_from([None, True, False, 0, 1, 2, 2.5, 300, "", "a", "b", "1", 2**53])
_numeric = st.builds(
    lambda op, to: [op, to], st.sampled_from(["<", "<=", "=", ">=", ">"]), st.integers(0, 2)
)
_like = st.builds(lambda op, word: {op: word}, st.sampled_from(["prefix", "suffix"]), _words)
_folded = _words.map(lambda word: {"equals-ignore-case": word})
_wild = st.lists(st.sampled_from(["a", "b", "*", "\\*"]), min_size=1, max_size=5).map(
    lambda parts: {
        "wildcard": "".join(
            part for n, part in enumerate(parts) if part != "*" or n == 0 or parts[n - 1] != "*"
        )
    }
)
_but = st.lists(_values, min_size=1, max_size=3) | _values | _like | _folded | _wild
_tests = (
    _values
    | _like
    | st.booleans().map(lambda wanted: {"exists": wanted})
    | st.just({"exists": False})
    | _folded
    | _wild
    | st.builds(lambda op, inner: {op: inner}, st.sampled_from(["prefix", "suffix"]), _folded)
    | _but.map(lambda but: {"anything-but": but})
    | _numeric.map(lambda numeric: {"numeric": numeric})
)
_leaf = st.lists(_tests, min_size=1, max_size=2)


def _table(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    plain = st.dictionaries(_keys, inner, min_size=1, max_size=3)
    ors = st.lists(plain, min_size=2, max_size=2)
    return plain | st.builds(lambda ors, more: {"$or": ors, **more}, ors, plain)


_patterns = _table(st.recursive(_leaf, _table, max_leaves=4))


@settings(max_examples=400)
@given(_patterns, st.dictionaries(_keys, _data) | _data)
@example({"a": {"b": [{"exists": False}, "x"]}}, {"a": [{"b": "y"}, {}]})
@example({"a": {"$or": [{"b": [{"exists": False}]}, {"c": [1]}]}}, {"a": [{"b": 1}, {}]})
@example({"$or": [{"a": {"b": [1]}}, {"c": [9]}], "a": {"c": [2]}}, {"a": [{"b": 1}, {"c": 2}]})
def test_the_matcher_agrees_with_the_slow_one(pattern: dict[str, Any], data: Any) -> None:
    try:
        parsed = triggers.parse({"pattern": {"data": pattern}})
    except triggers.FilterError as error:
        assert "multiplies out" in str(error)  # noqa: PT017
        return
    attributes = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0"}
    expected = oracle.matches({"data": pattern}, {**attributes, "data": data})
    text = json.dumps(data).replace("Infinity", "1e400").encode()
    assert parsed.matches(event(text)) is expected


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        # What "the same element" and "every element" mean
        ({"a": {"b": [{"exists": False}, "x"]}}, {"a": [{"b": "y"}, {}]}, False),
        ({"a": {"b": [{"exists": False}, "x"]}}, {"a": [{}, {"c": 1}]}, True),
        ({"a": {"b": [1], "c": [{"exists": False}]}}, {"a": [{"b": 1, "c": 1}, {"b": 1}]}, True),
        ({"a": {"b": [1], "c": [{"exists": False}]}}, {"a": [{"b": 1, "c": 1}, {"b": 2}]}, False),
        ({"a": {"b": {"c": [{"exists": False}]}}}, {"a": [{"b": [{}, {"c": 1}]}]}, False),
        ({"a": {"b": [1]}, "$or": [{"a": {"c": [2]}}, {"d": [1]}]},
         {"a": [{"b": 1}, {"c": 2}]}, False),
        ({"a": {"b": [1]}, "$or": [{"a": {"c": [2]}}, {"d": [1]}]},
         {"a": [{"b": 1, "c": 2}]}, True),
        ({"a": {"b": [1], "c": [2]}}, {"a": [[{"b": 1}], [{"b": 1, "c": 2}]]}, True),
        ({"a": {"b": {"c": [1], "d": [2]}}}, {"a": [{"b": [{"c": 1}]}, {"b": [{"d": 2}]}]}, False),
        ({"a": [1], "b": [2]}, [{"a": 1}, {"b": 2}], False),
        ({"a": [1], "b": [2]}, [{"a": 1, "b": 2}], True),
        ({"a": [1]}, {"a": [[[1]]]}, True),
        ({"a": [{"exists": True}]}, {"a": [[], {}]}, False),
        ({"a": [{"exists": False}]}, {"a": [[], {}]}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": ["x", "y"]}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": ["x", "x"]}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": []}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": {}}, False),
        # Values
        ({"a": [""]}, {"a": ""}, True),
        ({"a": [None]}, {"a": [None]}, True),
        ({"a": ["null"]}, {"a": None}, False),
        ({"a": [0]}, {"a": False}, False),
        ({"a": [False]}, {"a": 0}, False),
        ({"a": [{"anything-but": 1}]}, {"a": True}, True),
        ({"a": [{"anything-but": [True]}]}, {"a": 1}, True),
        ({"a": [{"anything-but": 300}]}, b'{"a": 3.0e2}', False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": 1}, True),
        ({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}, {"a": "ay"}, False),
        ({"a": [{"anything-but": {"equals-ignore-case": ["X", "Y"]}}]}, {"a": "y"}, False),
        ({"a": ["é"]}, {"a": "e\u0301"}, False),
        ({"a": ["😀"]}, b'{"a": "\\ud83d\\ude00"}', True),
        ({"a": [{"prefix": "é"}]}, {"a": "éa"}, True),
        ({"a": [{"suffix": "abc"}]}, {"a": "bc"}, False),
        # Numbers
        ({"a": [2**53]}, {"a": 2**53 + 1}, False),
        ({"a": [2**70]}, {"a": 2**70}, True),
        ({"a": [10**23]}, b'{"a": 1e23}', True),
        ({"a": [10**400]}, b'{"a": 1e400}', True),
        ({"a": [0]}, b'{"a": -0.0}', True),
        ({"a": [0.1]}, b'{"a": 1e-1}', True),
        ({"a": [{"numeric": [">=", 5, "<=", 5]}]}, {"a": 5.0}, True),
        ({"a": [{"numeric": [">", 10**400]}]}, {"a": 1}, False),
        ({"a": [{"numeric": ["<", 10**400]}]}, {"a": 1.5}, True),
        ({"a": [{"numeric": [">", 1]}]}, b'{"a": 1e999}', True),
        ({"a": [{"numeric": [">", 1]}]}, b'{"a": ' + b"9" * 5000 + b"}", True),
        ({"a": [1]}, b'{"a": 1, "huge": 1e999}', True),
        ({"a": [1]}, b'{"a": 1, "b": "\\ud800"}', True),
        ({"a": [1]}, b'{"a": NaN, "a": 1}', False),
        # Names
        ({"": [1]}, {"": 1}, True),
        ({"a.b": {"c": [1]}}, {"a.b": {"c": 1}}, True),
        ({"a.b": {"c": [1]}}, {"a": {"b": {"c": 1}}}, False),
        ({"$or": [{"$or": [{"a": [1]}, {"a": [2]}]}, {"b": [1]}]}, {"a": 2}, True),
        # Data that cannot be looked into
        ({"a": [{"anything-but": 1}]}, b"", False),
        ({"a": [{"anything-but": 1}]}, b"\xff", False),
        ({"a": [{"anything-but": 1}]}, b"\xef\xbb\xbf{}", False),
        ({"a": [1]}, '{"a": 1}'.encode("utf-16"), False),
        ({"a": [1]}, b'{"a": 1, "b": ' + b"[" * 499 + b"]" * 499 + b"}", True),
        ({"a": [1]}, b'{"a": 1, "b": ' + b"[" * 500 + b"]" * 500 + b"}", False),
        ({"a": [1]}, b'{"a": 1, "b": "' + b"x" * (4 << 20) + b'"}', False),
        ({"a": [{"exists": False}]}, b"{", True),
    ],
)  # fmt: skip
def test_edges(pattern: dict[str, Any], data: Any, expected: bool) -> None:
    assert matches(pattern, data) is expected


@pytest.mark.parametrize(
    ("data", "pattern", "expected"),
    [
        (b"5", [5], True),
        (b"null", [None], True),
        (b'"x"', [{"prefix": "x"}], True),
        (b"[1, 2]", [2], True),
        (None, [{"exists": True}], False),
        (None, [{"exists": False}], True),
        (b"{}", [{"exists": True}], False),
    ],
)
def test_data_that_is_one_value(data: bytes | None, pattern: Any, expected: bool) -> None:
    assert triggers.parse({"pattern": {"data": pattern}}).matches(event(data)) is expected


def test_attributes_keep_their_type() -> None:
    one = event(extensions={"n": 1, "yes": True, "word": "1"}, time="2024-01-01T00:00:00Z")
    for pattern, expected in (
        ({"n": [1]}, True), ({"n": [True]}, False), ({"n": ["1"]}, False), ({"n": [1.0]}, True),
        ({"yes": [True]}, True), ({"yes": [1]}, False), ({"yes": ["true"]}, False),
        ({"word": ["1"]}, True), ({"word": [1]}, False), ({"n": [{"numeric": ["<", 2]}]}, True),
        ({"yes": [{"numeric": ["=", 1]}]}, False), ({"subject": [{"exists": False}]}, True),
        ({"subject": [{"anything-but": "x"}]}, False), ({"specversion": ["1.0"]}, True),
        ({"time": [{"prefix": "2024-"}]}, True), ({"type": {"a": [1]}}, False),
    ):  # fmt: skip
        assert triggers.parse({"pattern": pattern}).matches(one) is expected, pattern


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ({"a": [float("nan")]}, "a[0]"),
        ({"a": [float("inf")]}, "a[0]"),
        ({"a": [{"anything-but": [float("nan")]}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": []}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": {}}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": [[1]]}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": {"prefix": []}}]}, "a[0].anything-but.prefix"),
        ({"a": [{"anything-but": {"prefix": ["x", ""]}}]}, "a[0].anything-but.prefix[1]"),
        ({"a": [{"anything-but": {"exists": True}}]}, "a[0].anything-but"),
        ({"a": [{"numeric": ["<", float("nan")]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["<", True]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["<", "1"]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["!=", 1]}]}, "a[0].numeric"),
        ({"a": [{"numeric": []}]}, "a[0].numeric"),
        ({"a": [{"numeric": [">", 1, "<"]}]}, "a[0].numeric"),
        ({"a": [{"wildcard": ""}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": 5}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": "a**b"}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": "a*b*c*d*e*f*"}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": "a\\b"}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": "a\\"}]}, "a[0].wildcard"),
        ({"a": [{"cidr": "10.0.0.0/33"}]}, "a[0].cidr"),
        ({"a": [{"cidr": "10.0.0/8"}]}, "a[0].cidr"),
        ({"a": [{"cidr": "10.0.0.0/255.0.0.0"}]}, "a[0].cidr"),
        ({"a": [{"cidr": "10.0.0.0/"}]}, "a[0].cidr"),
        ({"a": [{"cidr": "fe80::1%eth0"}]}, "a[0].cidr"),
        ({"a": [{"cidr": 10}]}, "a[0].cidr"),
        ({"a": [{"prefix": {"equals-ignore-case": ""}}]}, "a[0].prefix.equals-ignore-case"),
        ({"a": [{"suffix": {"wildcard": "x"}}]}, "a[0].suffix"),
        ({"a": [{"anything-but": {"numeric": ["=", 1]}}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": {"wildcard": ["a", "**"]}}]}, "a[0].anything-but.wildcard[1]"),
        ({"a": [{"numeric": [">", 1, ">", 2]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["=", 1, "=", 2]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["<", 5, ">", 1]}]}, "a[0].numeric"),
        ({"a": [{"exists": 1}]}, "a[0].exists"),
        ({"a": [{"exists": "true"}]}, "a[0].exists"),
        ({"a": [{"prefix": 1}]}, "a[0].prefix"),
        ({"a": [{"prefix": ["x"]}]}, "a[0].prefix"),
        ({"a": [{"suffix": ""}]}, "a[0].suffix"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "a[0]"),
        ({"a": [[1]]}, "a[0]"),
        ({"a": [{}]}, "a[0]"),
        ({"a": []}, "a"),
        ({"a": {}}, "a"),
        ({"a": "x"}, "a"),
        ({"a": None}, "a"),
        ({1: ["x"]}, "1"),
        ({"$or": {}}, "$or"),
        ({"$or": [{"a": [1]}]}, "$or"),
        ({"$or": [{"a": [1]}, {}]}, "$or[1]"),
        ({"$or": [{"a": [1]}, 5]}, "$or[1]"),
        ({"$or": [{"prefix": "x"}, {"a": [1]}]}, "$or[0].prefix"),
        ({"a": list(range(201))}, "a"),
    ],
)
def test_a_wrong_pattern_is_refused_at_its_place(pattern: Any, path: str) -> None:
    with pytest.raises(triggers.FilterError) as error:
        triggers.parse({"pattern": {"data": pattern}})
    assert [mistake.path for mistake in error.value.errors] == [f"pattern.data.{path}"]
    assert error.value.errors[0].reason
    assert error.value.errors[0].mend


def test_values_beyond_words_are_refused_in_words() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    huge = 10**5000
    for wrong in (
        {"prefix": deep}, {"numeric": [">", huge, "<", huge]}, {"prefix": huge}, {huge: 1}, deep,
        {"anything-but": deep}, {"exists": huge}, {"x" * 100_000: 1},
    ):  # fmt: skip
        for spec in (
            {"pattern": {"a": [wrong]}}, {"pattern": {huge: [wrong]}},
            {"filters": [{"exact": wrong}]}, {"filters": [{"exact": {"a": wrong}}]},
            {"filters": [wrong]}, {"filters": [{huge: wrong}]},
        ):  # fmt: skip
            with pytest.raises(triggers.FilterError) as error:
                triggers.parse(spec)
            assert all(len(one.reason + one.mend) < 500 for one in error.value.errors)


@pytest.mark.parametrize(
    ("test", "yes", "no"),
    [
        ({"wildcard": "a*c"}, ["ac", "abc", "a\nc"], ["ab", "bac", "acb", 1, None]),
        ({"wildcard": "*"}, ["", "x"], [1, True, None]),
        ({"wildcard": "*.png"}, [".png", "a.b.png"], ["a.pngx", "apng"]),
        ({"wildcard": "a*b*a"}, ["aba", "abba", "a b a"], ["aa", "ab", "ba"]),
        ({"wildcard": "a\\*\\\\b"}, ["a*\\b"], ["ax\\b", "a*b"]),
        ({"wildcard": "plain"}, ["plain"], ["plains"]),
        ({"wildcard": "*a*b*c*d*e"}, ["abcde", "xaxbxcxdxe"], ["abcd", "edcba"]),
        (
            {"cidr": "10.1.0.0/16"},
            ["10.1.0.0", "10.1.255.255"],
            ["10.2.0.0", "x", "", 10, "010.1.0.1"],
        ),
        ({"cidr": "10.1.2.3/16"}, ["10.1.0.0"], ["10.2.0.0"]),
        ({"cidr": "10.1.2.3/32"}, ["10.1.2.3"], ["10.1.2.4"]),
        ({"cidr": "10.1.2.3"}, ["10.1.2.3"], ["10.1.2.4"]),
        ({"cidr": "0.0.0.0/0"}, ["1.2.3.4"], ["::1", "::ffff:1.2.3.4"]),
        ({"cidr": "2001:db8::/32"}, ["2001:db8::1", "2001:DB8:0::2"], ["2001:db9::1", "1.2.3.4"]),
        ({"cidr": "::1/128"}, ["::1", "0:0:0:0:0:0:0:1"], ["::2", "::1%lo"]),
        ({"cidr": "::1"}, ["::1"], ["::2"]),
        ({"cidr": "::/0"}, ["::1"], ["1.2.3.4"]),
        ({"equals-ignore-case": "Gold"}, ["gold", "GOLD"], ["golden", 1]),
        ({"equals-ignore-case": ""}, [""], ["x"]),
        ({"prefix": {"equals-ignore-case": "Ab"}}, ["ab", "ABc"], ["a", "xab", 1]),
        ({"suffix": {"equals-ignore-case": "Ab"}}, ["ab", "cAB"], ["b", "abx", None]),
        ({"anything-but": {"wildcard": "a*"}}, ["b", 1, None], ["a", "ab"]),
        ({"anything-but": {"wildcard": ["a*", "*b"]}}, ["c"], ["a", "xb"]),
        ({"anything-but": {"equals-ignore-case": ["a", "B"]}}, ["c"], ["A", "b"]),
        ({"anything-but": {"suffix": ["x", "y"]}}, ["z", 5], ["ax", "ay"]),
        ({"numeric": [">", 5, "<", 3]}, [], [4, 5, 3]),  # with a warning
    ],
)
def test_operators(test: Any, yes: list[Any], no: list[Any]) -> None:
    pattern = {"a": [test]}
    assert [value for value in yes if not matches(pattern, {"a": value})] == []
    assert [value for value in no if matches(pattern, {"a": value})] == []
    assert not matches(pattern, {})


class Counted(str):
    """A string that counts how often something is looked for in it."""

    finds = 0

    def find(self, *args: Any) -> int:
        self.finds += 1
        return super().find(*args)


def test_a_wildcard_looks_for_each_of_its_texts_once() -> None:
    parsed = triggers.parse({"pattern": {"subject": [{"wildcard": "*a*a*ab*a*"}]}})
    for length in (1000, 2000):
        one = event(subject=(text := Counted("a" * length)))
        assert not parsed.matches(one)
        assert text.finds == 3


def test_limits_on_each_side() -> None:
    def refused(pattern: Any) -> str:
        try:
            triggers.parse({"pattern": pattern})
        except triggers.FilterError as error:
            return str(error)
        return ""

    def nested(depth: int) -> Any:
        return {"a": nested(depth - 1)} if depth > 1 else {"a": [1]}

    assert refused(nested(10)) == ""
    assert refused(nested(11)).endswith("nested more than 10 deep; match fewer levels")
    assert refused({"a": list(range(200))}) == ""
    assert refused({"a": list(range(201))}).startswith("pattern.a: expected 1 to 200 values")
    assert refused({"a": [{"anything-but": list(range(200))}]}) == ""
    assert "expected 1 to 200 values" in refused({"a": [{"anything-but": list(range(201))}]})
    assert refused({"a": [{"wildcard": "*a*a*a*a*"}]}) == ""
    assert "6 stars; at most 5" in refused({"a": [{"wildcard": "*a*a*a*a*a*"}]})
    full = {"a": ["é" * 1000, "x" * (4096 - 2000 - len('{"a":["",""]}'))]}
    assert refused(full) == ""
    full["a"].append("")
    assert (
        refused(full)
        == "pattern: 4099 bytes as JSON; at most 4096; match less, or use several triggers"
    )

    def inside(depth: int) -> Any:
        return {"not": inside(depth - 1)} if depth > 1 else {"exact": {"type": "t"}}

    triggers.parse({"filters": [inside(10)]})
    with pytest.raises(triggers.FilterError, match="nested more than 10 deep"):
        triggers.parse({"filters": [inside(11)]})


def test_ors_that_multiply_beyond_bounds_are_refused() -> None:
    ors = [{"$or": [{f"k{n}": [1]}, {f"l{n}": [1]}]} for n in range(9)]
    pattern: dict[str, Any] = {f"t{n}": one for n, one in enumerate(ors)}
    with pytest.raises(triggers.FilterError, match="pattern: multiplies out to more than 256"):
        triggers.parse({"pattern": pattern})
    del pattern["t0"]
    triggers.parse({"pattern": pattern})


def test_wide_and_deep_arrays_are_looked_through_in_no_time() -> None:
    data = b'{"a": [' + b"1," * 100_000 + b"[" * 400 + b"2" + b"]" * 400 + b"]}"
    assert matches({"a": [2]}, data)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"filters": None}, "filters"),
        ({"filters": {}}, "filters"),
        ({"filters": [[]]}, "filters[0]"),
        ({"filters": [{}]}, "filters[0]"),
        ({"filters": [{"exact": {"type": "a"}, "prefix": {"type": "a"}}]}, "filters[0]"),
        ({"filters": [{"exact": {}}]}, "filters[0].exact"),
        ({"filters": [{"exact": []}]}, "filters[0].exact"),
        ({"filters": [{"exact": {"": "x"}}]}, "filters[0].exact."),
        ({"filters": [{"exact": {"data": "x"}}]}, "filters[0].exact.data"),
        ({"filters": [{"exact": {"n": 7}}]}, "filters[0].exact.n"),
        ({"filters": [{"prefix": {"n": True}}]}, "filters[0].prefix.n"),
        ({"filters": [{"suffix": {"n": ""}}]}, "filters[0].suffix.n"),
        ({"filters": [{"suffix": {"n": ["x"]}}]}, "filters[0].suffix.n"),
        ({"filters": [{"not": []}]}, "filters[0].not"),
        ({"filters": [{"not": {}}]}, "filters[0].not"),
        ({"filters": [{"all": []}]}, "filters[0].all"),
        ({"filters": [{"all": {"exact": {"n": "x"}}}]}, "filters[0].all"),
        ({"filters": [{"any": [{"not": {"exakt": {}}}]}]}, "filters[0].any[0].not.exakt"),
        ({"filters": [{"Exact": {"type": "x"}}]}, "filters[0].Exact"),
        ({"filters": [{"$or": []}]}, "filters[0].$or"),
        ({"pattern": {}}, "pattern"),
        ({"pattern": []}, "pattern"),
        ([], ""),
        (None, ""),
    ],
)
def test_a_wrong_filter_is_refused_at_its_place(spec: Any, path: str) -> None:
    with pytest.raises(triggers.FilterError) as error:
        triggers.parse(spec)
    assert [mistake.path for mistake in error.value.errors] == [path]
    assert error.value.errors[0].mend


def test_dialects_compare_canonical_strings_to_the_letter() -> None:
    one = event(extensions={"yes": True, "n": -7, "e": "", "u": "Straße"}, subject="abc")
    for filter_, expected in (
        ({"exact": {"yes": "true"}}, True), ({"exact": {"yes": "True"}}, False),
        ({"exact": {"yes": "1"}}, False), ({"exact": {"n": "-7"}}, True),
        ({"prefix": {"n": "-"}}, True), ({"suffix": {"n": "7"}}, True),
        ({"prefix": {"e": "x"}}, False), ({"not": {"prefix": {"e": "x"}}}, True),
        ({"exact": {"u": "strasse"}}, False), ({"exact": {"u": "STRASSE"}}, False),
        ({"exact": {"subject": "abc", "gone": "x"}}, False), ({"suffix": {"gone": "x"}}, False),
        ({"not": {"not": {"exact": {"subject": "abc"}}}}, True),
        ({"not": {"any": [{"exact": {"gone": "x"}}, {"suffix": {"gone": "x"}}]}}, True),
        ({"prefix": {"subject": "abcd"}}, False), ({"suffix": {"subject": "abc"}}, True),
    ):  # fmt: skip
        assert triggers.parse({"filters": [filter_]}).matches(one) is expected, filter_
