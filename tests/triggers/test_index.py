"""An index finds what its filters match, each by itself; whatever was added and removed."""

import json
import math
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import triggers
from mesh import Event
from tests.triggers import fuzz
from tests.triggers.test_explain import _filters
from tests.triggers.test_patterns import _data, _keys, _patterns, _values
from triggers import Index, native
from triggers.access import MAX_WAYS
from triggers.field import CROWDED
from triggers.index import MAX_SHAPES


@pytest.fixture(scope="module", params=["python", "native"], autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Without the accelerator, and with it where it is installed."""
    if request.param == "native" and native.engine() is None:
        pytest.skip("funcrt-accelerator is not installed: make accelerator")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(native, "engine", lambda: None)
        yield request.param


@pytest.fixture
def in_python(engine: str) -> None:
    """Of tests that look into the index itself."""
    if engine != "python":
        pytest.skip("it has nothing to look into")


_sql = st.lists(
    st.sampled_from([
        "type = 't'", "n = '7'", "n = 7", "flag = TRUE", "subject LIKE 'a%b'", "type LIKE '_'",
        "EXISTS subject", "type IN ('t', 'u')", "n IN (7, 8)", "NOT flag", "gone = 'x'",
    ]),
    min_size=1,
    max_size=3,
)  # fmt: skip
_sql_filters = st.builds(
    lambda parts, sign: {"sql": f" {sign} ".join(parts)},
    _sql,
    st.sampled_from(["AND", "OR", "XOR"]),
)
_paths = st.sampled_from(["$.a", "$.b.c", "$['a']", "$.a[0]", "$..b", "$.a[*].b", "$"])
_conditions = (
    st.builds(
        lambda path, op, value: {"path": path, "op": op, "value": value},
        _paths, st.sampled_from(["==", "!=", "contains"]), _values,
    )
    | st.builds(
        lambda path, op, value: {"path": path, "op": op, "value": value},
        _paths, st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from([0, 1, 2.5, "a", "b"]),
    )
    | st.builds(
        lambda path, values: {"path": path, "op": "in", "value": values},
        _paths, st.lists(_values, max_size=3),
    )
    | st.builds(
        lambda path, value: {"path": path, "op": "exists", "value": value}, _paths, st.booleans()
    )
)  # fmt: skip


def _some(*tests: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(tests), min_size=1, max_size=2)


_attributes = st.fixed_dictionaries(
    {},
    optional={
        "type": _some("t", "u", {"prefix": "t"}, {"anything-but": ["u"]}),
        "n": _some(7, "7", {"numeric": [">", 6, "<", 8]}, {"exists": False}, {"anything-but": 7}),
        "flag": _some(True, "true", {"exists": True}),
        "subject": _some({"wildcard": "a*b"}, {"suffix": "xb"}, {"equals-ignore-case": "B"})
        | st.just({"a": ["x"]}),
        "specversion": _some("1.0", {"exists": False}),
    },
)
_whole = st.builds(
    lambda attributes, data: {**attributes, **data},
    _attributes,
    st.just({}) | st.builds(lambda data: {"data": data}, _patterns),
).filter(bool)  # fmt: skip
_ors = st.builds(
    lambda one, other, more: {**more, "$or": [one, other]}, _whole, _whole, _attributes
)
_specs = st.fixed_dictionaries(
    {"filters": st.lists(_filters | _sql_filters, max_size=2)},
    optional={"pattern": _whole | _ors, "jsonpath": st.lists(_conditions, max_size=2)},
)
_bodies = (st.dictionaries(_keys, _data) | _data).map(
    lambda data: json.dumps(data).replace("Infinity", "1e400").encode()
)
_events = st.builds(
    lambda data, more: Event(
        "1", "/s", more.pop("type", "t"), more.pop("subject", None), extensions=more, data=data
    ),
    _bodies | st.sampled_from([None, b"", b'{"a": 1', b'{"a": "\\ud83d"}']),
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["t", "u", "tx", "7"]),
            "subject": st.sampled_from(["ab", "axb", "b", "é", "\ud83d"]),
            "n": st.sampled_from([7, "7", 8, True, "t"]),
            "flag": st.booleans() | st.just("true"),
            "gone": st.just("x"),
        },
    ),
)  # fmt: skip


def parsed(spec: dict[str, Any]) -> triggers.Filter | None:
    try:
        return triggers.parse(spec)
    except triggers.FilterError as error:
        assert "multiplies out" in str(error)  # noqa: PT017
        return None


@settings(max_examples=300)
@given(st.data())
def test_it_finds_what_the_filters_match(data: st.DataObject) -> None:
    index: Index[int] = Index()
    there: dict[int, triggers.Filter] = {}
    for number in range(data.draw(st.integers(1, 14))):
        if there and data.draw(st.integers(0, 3)) == 0:
            gone = data.draw(st.sampled_from(sorted(there)))
            index.remove(gone)
            del there[gone]
        filter = parsed(data.draw(_specs))
        if filter is not None:
            key = data.draw(st.sampled_from([number, *there]))  # a new one, or another in its place
            index.add(key, filter)
            there[key] = filter
        event = data.draw(_events)
        assert index.match(event) == {key for key, one in there.items() if one.matches(event)}
        assert len(index) == len(there)
    for key in there:
        index.remove(key)
    assert index.match(data.draw(_events)) == set()


_numbers = st.sampled_from([
    -1e300, -8, -1, -0.5, -0.0, 0, 1e-300, 0.5, 1, 1.5, 2, 4, 7, 8, 1e300,
    2**53 - 1, 2**53, 2**53 + 1, 2.0**53, -(2**53) - 1, 5e-324, math.nextafter(8, 9),
])  # fmt: skip
_ranges = st.builds(
    lambda low, least, high, most: {"numeric": [low, least, high, most]},
    st.sampled_from([">", ">="]), _numbers, st.sampled_from(["<", "<="]), _numbers,
) | st.builds(
    lambda sign, bound: {"numeric": [sign, bound]},
    st.sampled_from(["<", "<=", "=", ">=", ">"]), _numbers,
)  # fmt: skip


@given(st.lists(_ranges, min_size=1, max_size=20))
def test_a_number_is_found_in_every_range_that_holds_it(ranges: list[Any]) -> None:
    index: Index[int] = Index()
    filters = [triggers.parse({"pattern": {"data": {"a": [one]}}}) for one in ranges]
    for n, one in enumerate(filters):
        index.add(n, one)
    bounds = {bound for one in ranges for bound in one["numeric"][1::2]}
    near = {math.nextafter(bound, end) for bound in bounds for end in (-math.inf, math.inf)}
    for value in [0, 3, *bounds, *near, *(bound + 1 for bound in bounds if isinstance(bound, int))]:
        one = event({"a": value})
        assert index.match(one) == {n for n, each in enumerate(filters) if each.matches(one)}


def event(data: Any, **more: Any) -> Event:
    return Event("1", "/s", "t", data=json.dumps(data).encode(), **more)


def crowd(index: Index[Any], count: int, leaf: Any) -> None:
    """Many filters of several fields, of which each has few values."""
    for n in range(count):
        pattern = {"type": ["t"], "data": {"a": [leaf(n % 10)], "b": [leaf(n // 10 % 10)]}}
        index.add(n, triggers.parse({"pattern": pattern}))


@pytest.mark.usefixtures("in_python")
def test_filters_that_share_every_value_are_found_by_several_together() -> None:
    index: Index[int] = Index()
    crowd(index, 1000, lambda n: n)
    assert index.match(event({"a": 3, "b": 7})) == {n for n in range(1000) if n % 100 == 73}
    pair = [n for n in range(1000) if n % 100 in (73, 63)]
    assert index.match(event({"a": [3, 4], "b": [7, 6]})) >= set(pair)
    looked_at = sum(map(len, index._found(triggers.View(event({"a": 3, "b": 7})))[0]))
    assert looked_at <= 10 + CROWDED
    for n in range(0, 1000, 2):
        index.remove(n)
    assert index.match(event({"a": 3, "b": 7})) == {n for n in range(1000) if n % 100 == 73}
    assert index.match(event({"a": 4, "b": 7})) == set()


_few = st.builds(
    lambda a, b, c: {"pattern": {"type": ["t"], "data": {"a": [a], "b": b, **c}}},
    st.integers(0, 2),
    st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True),
    st.sampled_from(
        [{}, {"c": ["x"]}, {"c": [{"anything-but": "x"}]}, {"c": {"d": ["x"], "e": ["x"]}}]
    ),
)
_fields = st.fixed_dictionaries(
    {
        "a": st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=3),
        "b": st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=3),
        "c": st.sampled_from(
            [
                "x",
                "y",
                None,
                {"d": "x"},
                {"d": "x", "e": "x"},
                [{"d": "x"}, "y"],
                [{"d": "x"}, {"e": "x"}],
                [{"d": "y"}, {"d": "x", "e": "x"}],
            ]
        ),
    }
)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.none() | _few), min_size=40, max_size=80),
    st.lists(_fields, min_size=1, max_size=4),
)
def test_filters_are_filed_anew_as_others_come_and_go(
    changes: list[tuple[int, Any]], seen: list[Any]
) -> None:
    index: Index[int] = Index()
    there: dict[int, triggers.Filter] = {}
    for key, spec in changes:
        if spec is not None:
            there[key] = triggers.parse(spec)
            index.add(key, there[key])
        elif key in there:
            index.remove(key)
            del there[key]
        one = event(seen[key % len(seen)])
        assert index.match(one) == {key for key, each in there.items() if each.matches(one)}
    for key in there:
        index.remove(key)
    assert not index._numbers
    fields = index._fields.values()
    assert not any(field.values or field.shared for field in fields)
    assert not any(index._shapes.values())


def test_fields_found_together_must_meet_in_one_element() -> None:
    index: Index[int] = Index()
    filter = triggers.parse({"pattern": {"data": {"a": [1], "c": {"d": ["x"], "e": ["x"]}}}})
    for n in range(40):
        index.add(n, filter)
    assert len(index.match(event({"a": 1, "c": [{"d": "x", "e": "x"}, {"d": "y"}]}))) == 40
    assert index.match(event({"a": 1, "c": [{"d": "x"}, {"e": "x"}]})) == set()


@pytest.mark.usefixtures("in_python")
def test_one_that_makes_a_crowd_may_replace_itself() -> None:
    index: Index[int] = Index()
    filter = triggers.parse({"pattern": {"data": {"a": [1], "b": [1]}}})
    for n in [*range(2 * CROWDED), 0, 0]:
        index.add(n, filter)
    assert index.match(event({"a": 1, "b": 1})) == {*range(2 * CROWDED)}
    assert any(index._shapes.values())


def test_sets_of_fields_beyond_the_most_are_found_all_the_same() -> None:
    index: Index[int] = Index()
    for n in range(MAX_SHAPES + 8):
        for copy in range(2 * CROWDED):
            pattern = {"data": {"x": ["v"], f"f{n}": ["v"], "y": [copy]}}
            index.add(n * 100 + copy, triggers.parse({"pattern": pattern}))
    n = MAX_SHAPES + 7
    assert index.match(event({"x": "v", f"f{n}": "v", "y": 3})) == {n * 100 + 3}


def test_alternatives_beyond_the_most_are_found_all_the_same() -> None:
    many = [{"exact": {f"e{n}": "x"}} for n in range(MAX_WAYS)]
    spec = {"filters": [{"any": many}, {"any": [{"exact": {"type": t}} for t in "tu"]}]}
    index: Index[int] = Index()
    index.add(1, triggers.parse(spec))
    assert index.match(event({}, extensions={"e63": "x"})) == {1}
    assert index.match(event({}, extensions={"f": "x"})) == set()


@pytest.mark.usefixtures("in_python")
def test_what_no_filter_asks_for_costs_no_match() -> None:
    """A filter is looked at only where an event has what finds it."""
    index: Index[str] = Index()
    for name, test in {
        "value": 5, "number": {"numeric": ["=", 6]}, "prefix": {"prefix": "ab"},
        "suffix": {"suffix": "yz"}, "wildcard": {"wildcard": "*needle*"},
        "range": {"numeric": [">", 10, "<", 20]}, "above": {"numeric": [">", 100]},
        "below": {"numeric": ["<", -100]}, "cidr": {"cidr": "10.0.0.0/8"},
        "fold": {"equals-ignore-case": "Gold"},
    }.items():  # fmt: skip
        index.add(name, triggers.parse({"pattern": {"data": {"f": [test]}}}))

    def looked_at(value: Any) -> set[str]:
        found, _ = index._found(triggers.View(event({"f": value})))
        return {entry.key for bucket in found for entry in bucket}

    assert looked_at({"f": 5}) == looked_at(None) == looked_at("x") == looked_at("ne edle") == set()
    for value, name in (
        (5, "value"), (6.0, "number"), ("abc", "prefix"), ("xyz", "suffix"),
        ("1.needle", "wildcard"),
        (15, "range"), (1e9, "above"), (-1e9, "below"), ("10.9.8.7", "cidr"), ("GOLD", "fold"),
    ):  # fmt: skip
        assert looked_at(value) == {name}
    assert looked_at([1, "abc", [15, "gold"]]) == {"prefix", "range", "fold"}


def test_it_says_how_it_finds_a_filter() -> None:
    index: Index[int] = Index()
    crowd(index, 200, str)

    def plan(**spec: Any) -> list[str]:
        return index.plan(triggers.parse(spec))

    assert plan(filters=[{"exact": {"type": "u"}}]) == ["by type (value)"]
    assert plan(pattern={"type": ["t"], "data": {"a": ["1"], "b": ["1"]}}) == [
        "by type and data.a and data.b"
    ]
    assert plan(filters=[{"any": [{"prefix": {"source": "x"}}, {"sql": "n LIKE '%abc%'"}]}]) == [
        "by source (prefix)", "by n (text of a wildcard)",
    ]  # fmt: skip
    assert plan(pattern={"data": {"x": [{"anything-but": 1}]}}) == [
        "with every event that has data.x"
    ]
    assert plan(filters=[{"not": {"exact": {"type": "t"}}}]) == ["with every event"]
    data_first = {"data": {"new": ["x"]}, "subject": ["y"]}
    assert plan(pattern=data_first) == ["by subject (value)"]


def test_it_may_be_read_while_it_changes() -> None:
    index: Index[int] = Index()
    steady = triggers.parse({"pattern": {"data": {"a": [1], "s": [{"prefix": "x"}]}}})
    index.add(-1, steady)
    wrong: list[Any] = []
    done = threading.Event()

    def read() -> None:
        one = event({"a": [1, 2.5], "b": 3, "s": "xyz", "c": {"d": "10.0.0.1"}})
        while not done.is_set():
            try:
                if -1 not in index.match(one):
                    wrong.append("missed")
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    tests: list[Any] = [
        3, {"prefix": "xy"}, {"suffix": "z"}, {"numeric": [">", 2, "<", 3]}, {"wildcard": "*yz*"},
        {"cidr": "10.0.0.0/8"}, {"numeric": [">", 1]},
    ]  # fmt: skip
    for round in range(300):
        for n, test in enumerate(tests):
            where = {"a": [test]} if n % 2 else {f"k{round % 20}": [1], "b": [test], "s": ["xyz"]}
            index.add(n, triggers.parse({"pattern": {"data": where}}))
        index.remove(round % len(tests))
    done.set()
    reader.join()
    assert wrong == []


def test_an_accelerator_of_another_version_is_told_and_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = types.SimpleNamespace(Engine=lambda depth: None)
    monkeypatch.setitem(sys.modules, "funcrt_accelerator", old)
    with pytest.warns(RuntimeWarning, match="its format is 1, expected 2. Install that of this"):
        assert native._installed()(1, 1) is None


def test_removing_what_is_not_there_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Index[int]().remove(1)


def test_a_short_run_of_the_random_inputs() -> None:
    for seed in range(100_000, 100_005):
        fuzz.check(fuzz.Chance(seed))
