"""JSONPath conditions: what a path leads to, how values compare, and what is refused."""

import json
from typing import Any

import pytest

import triggers
from mesh import Event

DATA = {
    "a": 1, "f": 1.5, "t": True, "z": None, "s": "abc", "é": 1, "a-b": 2, "b c": {"d": "x"},
    "list": [1, "two", {"n": 3}, [4]], "items": [{"sku": "p", "n": 2}, {"sku": "q", "n": 9}],
    "obj": {"k": [1, 2.0]}, "$": 5,
}  # fmt: skip


def event(data: Any) -> Event:
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    return Event("1", "/s", "t", data=body)


def spec(path: str, op: str, *value: Any) -> dict[str, Any]:
    return {"jsonpath": [{"path": path, "op": op, **({"value": value[0]} if value else {})}]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("$.a", "==", 1), True),
        (("$.a", "==", 1.0), True),
        (("$.a", "==", "1"), False),
        (("$.a", "==", True), False),
        (("$.t", "==", True), True),
        (("$.z", "==", None), True),
        (("$.gone", "==", None), False),
        (("$.a", "!=", 2), True),
        (("$.a", "!=", 1), False),
        (("$.gone", "!=", 2), False),
        (("$.f", ">", 1), True),
        (("$.f", "<=", 1.5), True),
        (("$.s", "<", "abd"), True),
        (("$.s", ">", 1), False),
        (("$.t", ">=", 1), False),
        (("$.a", "in", [3, 1]), True),
        (("$.a", "in", ["1"]), False),
        (("$.gone", "in", [None]), False),
        (("$.z", "exists"), True),
        (("$.gone", "exists"), False),
        (("$.gone", "exists", False), True),
        (("$.obj", "exists", False), False),
        (("$.s", "contains", "bc"), True),
        (("$.s", "contains", 1), False),
        (("$.list", "contains", "two"), True),
        (("$.list", "contains", {"n": 3.0}), True),
        (("$.list", "contains", 3), False),
        (("$.obj", "==", {"k": [1.0, 2]}), True),
        (("$.obj", "==", {"k": [2, 1]}), False),
        (("$", "exists"), True),
        # plain paths
        (("$['a']", "==", 1), True),
        (('$["b c"].d', "==", "x"), True),
        (("$.é", "==", 1), True),
        (("$.a-b", "==", 2), True),
        (("$['$']", "==", 5), True),
        (("$.list[1]", "==", "two"), True),
        (("$.list[-1][0]", "==", 4), True),
        (("$.list[9]", "exists"), False),
        (("$.list['1']", "exists"), False),
        (("$.obj[0]", "exists"), False),
        (("$.items.sku", "exists"), False),  # a path does not look into arrays by itself
        # the library's
        (("$.items[*].sku", "==", "q"), True),
        (("$.items[*].n", ">", 9), False),
        (("$.items[?@.n > 5].sku", "==", "q"), True),
        (("$.items[?(@.n > 5)].sku", "==", "p"), False),
        (("$..sku", "==", "p"), True),
        (("$.items[0:1].sku", "==", "q"), False),
        (("$['a','s']", "==", "abc"), True),
    ],
)
def test_conditions(condition: tuple[Any, ...], expected: bool) -> None:
    assert triggers.parse(spec(*condition)).matches(event(DATA)) is expected


def test_all_conditions_must_hold() -> None:
    both = {"jsonpath": [*spec("$.a", "==", 1)["jsonpath"], *spec("$.s", "==", "x")["jsonpath"]]}
    assert not triggers.parse(both).matches(event(DATA))


@pytest.mark.parametrize("data", [None, b"", b"{", b"[" * 1000, [], "text"])
def test_data_that_cannot_be_looked_into_has_no_values(data: Any) -> None:
    for path in ("$.a", "$..a", "$.a[?@.b]"):
        assert not triggers.parse(spec(path, "exists")).matches(event(data))
        assert triggers.parse(spec(path, "exists", False)).matches(event(data))


def test_an_explanation_has_what_was_found() -> None:
    def told(condition: dict[str, Any], data: Any = DATA) -> tuple[str, str | None]:
        why = triggers.parse(condition).explain(event(data)).refusing
        assert why is not None
        assert why.path == "jsonpath[0]"
        return why.wanted, why.found

    assert told(spec("$.a", "==", 2)) == ("$.a == 2", "1")
    assert told(spec("$.gone", "exists")) == ("$.gone exists", None)
    assert told(spec("$..n", ">", 9)) == ("$..n > 9", "[3, 2, 9]")
    assert told(spec("$.a", "==", 2), b"{") == ("$.a == 2", "the data is no JSON")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"path": "$.a", "op": "=~", "value": "x"},
         "jsonpath[0].op: expected an operator, found '=~'; "
         "there are ==, !=, <, <=, >, >=, in, exists, contains"),
        ({"path": "$.a", "op": "=="},
         'jsonpath[0]: == needs a value; e.g. { path = "$.size", op = ">", value = 10 }'),
        ({"path": "$.a", "op": "in", "value": "abc"},
         "jsonpath[0].value: expected a list, found 'abc'; e.g. [\"a\", \"b\"]"),
        ({"path": "$.a", "op": "<", "value": True},
         "jsonpath[0].value: expected a number or a string, found True; only these have an order"),
        ({"path": "$.a", "op": "exists", "value": 1},
         "jsonpath[0].value: expected true or false, found 1; or leave it out"),
        ({"path": "$.a", "op": "exists", "valu": 1},
         "jsonpath[0].'valu': unknown key; there are path, op, value"),
        ({"path": "$.a[?@.b =~ 'x+']", "op": "exists"},
         "jsonpath[0].path: not taken: regular expressions; use a plainer path"),
        ({"path": "$..a..b", "op": "exists"},
         "jsonpath[0].path: not taken: .. more than once; use a plainer path"),
        ({"path": "$.a.`len`", "op": "exists"},
         "jsonpath[0].path: not taken: functions of a library's own; use a plainer path"),
        ({"path": "$.a * $.b", "op": "exists"},
         "jsonpath[0].path: not taken: a second $; use a plainer path"),
        ({"path": "$[0,0][0,0]", "op": "exists"},
         "jsonpath[0].path: not taken: more than one union; use a plainer path"),
        ("$.a",
         "jsonpath[0]: expected a table, found '$.a'; "
         'e.g. { path = "$.size", op = ">", value = 10 }'),
    ],
)  # fmt: skip
def test_what_is_refused(condition: Any, message: str) -> None:
    with pytest.raises(triggers.FilterError) as error:
        triggers.parse({"jsonpath": [condition]})
    assert str(error.value) == message


def test_a_path_that_is_none_is_refused_where_it_stands() -> None:
    for path in ("$.", "$.a[", "$.a]", "$ a", "$.a[?@.b >]", "$x"):
        with pytest.raises(triggers.FilterError) as error:
            triggers.parse(spec(path, "exists"))
        assert [one.path for one in error.value.errors] == ["jsonpath[0].path"], path
    long = "$" + ".a" * 512
    with pytest.raises(triggers.FilterError, match="1025 characters; at most 1024"):
        triggers.parse(spec(long, "exists"))
    triggers.parse(spec(long[:-2] + "1", "exists"))
    many = {"jsonpath": spec("$.a", "exists")["jsonpath"] * 101}
    with pytest.raises(triggers.FilterError, match="101 conditions; at most 100"):
        triggers.parse(many)
    many["jsonpath"].pop()
    triggers.parse(many)
