"""CESQL, by cases written from the specification, and against slow obvious evaluators."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.event import Event
from triggers.cesql import CastError, Expression, ParseError, evaluate
from triggers.cesql.like import segments
from triggers.cesql.syntax import MAX_BYTES, MAX_DEPTH
from triggers.wildcard import matcher

EVENT = Event(
    "1", "/shop", "com.example.order.placed", "order-7", "2026-11-25T10:00:00.120Z",
    "application/json", None,
    {"n": 5, "zero": 0, "yes": True, "no": False, "sequence": "10", "hop": "3", "ttl": "7",
     "firstname": "Francesco", "empty": "", "word": "TRUE"},
    b"{}",
)  # fmt: skip

CASES: list[tuple[str, Any, list[str]]] = [
    # §2: literals, names, case
    ("TRUE", True, []),
    ("false", False, []),
    ("42", 42, []),
    ("+42", 42, []),
    ("-2147483648", -(2**31), []),
    ("'it\\'s \"so\"'", 'it\'s "so"', []),
    ('"it\'s \\"so\\""', 'it\'s "so"', []),
    ("'a''b'", "a'b", []),
    (r"'a\nb\\'", r"a\nb\\", []),
    ("'日本' ", "日本", []),
    ("int(hop) < int(ttl) and int(hop) < 1000", True, []),
    ("INT(hop) < INT(ttl) AND INT(hop) < 1000", True, []),
    ("((n))", 5, []),
    ("id\n=\t'1'\r\n", True, []),
    ("N", False, ["missingAttribute"]),  # names are lower-case; so this is none
    # §3.2: attributes, and those that are missing
    ("type", "com.example.order.placed", []),
    ("time", "2026-11-25T10:00:00.120Z", []),
    ("specversion", "1.0", []),
    ("yes", True, []),
    ("missing", False, ["missingAttribute"]),
    ("true AND (missing = '')", False, ["missingAttribute"]),
    ("missing * 5", 0, ["missingAttribute"]),
    ("1 / missing", 0, ["missingAttribute"]),
    ("NOT missing", False, ["missingAttribute"]),
    ("-missing", 0, ["missingAttribute"]),
    ("missing != 'a'", False, ["missingAttribute"]),
    ("missing LIKE '%'", False, ["missingAttribute"]),
    ("missing NOT LIKE 'a'", False, ["missingAttribute"]),
    ("missing NOT IN ('a')", False, ["missingAttribute"]),
    ("'b' NOT IN ('a', missing)", False, ["missingAttribute"]),
    ("UPPER(missing)", "", ["missingAttribute"]),
    ("LENGTH(missing)", 0, ["missingAttribute"]),
    ("(missing * 5) + 3", 3, ["missingAttribute"]),
    ("missing = 'a' OR n = 5", True, ["missingAttribute"]),
    ("a + b", 0, ["missingAttribute", "missingAttribute"]),
    ("data", False, ["missingAttribute"]),  # §1: the language does not reach into data
    # §3.4.1 and 3.4.2: operators, with their casts (§3.7)
    ("NOT TRUE", False, []),
    ("NOT 'false'", True, []),
    ("NOT 'abc'", True, ["cast"]),
    ("-n", -5, []),
    ("--5", 5, []),
    ("-'7'", -7, []),
    ("- -2147483648", 0, ["math"]),
    ("7 * 6 / 4 % 4", 2, []),
    ("1 + 2 * 3 - 4", 3, []),
    ("1+2", 3, []),
    ("n -2", 3, []),
    ("10 - 2 - 3", 5, []),
    ("-7 / 2", -3, []),
    ("7 / -2", -3, []),
    ("-7 % 2", -1, []),
    ("7 % -2", 1, []),
    ("1 / 0", 0, ["math"]),
    ("1 % zero", 0, ["math"]),
    ("2147483647 + 1", 0, ["math"]),
    ("-2147483648 / -1", 0, ["math"]),
    ("TRUE + TRUE", 2, []),
    ("'abc' + 1", 1, ["cast"]),
    ("'2147483648' + 0", 0, ["cast"]),
    ("'+7' + '-2'", 5, []),
    ("' 7' + 0", 0, ["cast"]),
    ("sequence = 10", True, []),
    ("10 = sequence", True, []),  # the right one's type: "10" = "10"
    ("sequence = '010'", False, []),
    ("010 = sequence", True, []),
    ("firstname = 'francesco'", False, []),
    ("firstname <> 'francesco'", True, []),
    ("'a' = 0", True, ["cast"]),
    ("yes = 'true'", True, []),
    ("yes = 1", True, []),
    ("5 = TRUE", True, []),
    ('TRUE = "true" AND FALSE = "false"', True, []),
    ('TRUE = "TRUE" OR FALSE = "FALSE"', False, []),
    ("word = TRUE", True, []),
    ("hop < ttl", True, []),
    ("'10' > '9'", True, []),
    ("3 >= 3 AND 3 <= 3 AND NOT (3 > 3)", True, []),
    # §3.6: precedence
    ("NOT n = 0", True, []),  # (NOT n) = 0
    ("-n * 2", -10, []),
    ("2 + 3 = 5", True, []),
    ("1 < 2 = TRUE", True, []),
    ("NOT 'x' LIKE 'true'", True, ["cast"]),  # (NOT 'x') LIKE 'true'
    ("2 * n LIKE '5'", 2, []),  # 2 * (n LIKE '5')
    ("'5' IN ('5') LIKE 'true'", True, []),
    # AND, OR, XOR: one precedence, to the right, and no more is evaluated than must be
    ("FALSE AND 1 / 0 = 0", False, []),
    ("TRUE OR 1 / 0 = 0", True, []),
    ("TRUE AND 1 / 0 = 0", True, ["math"]),
    ("TRUE XOR 1 / 0 = 0", False, ["math"]),
    ("FALSE AND TRUE OR TRUE", False, []),
    ("TRUE OR TRUE XOR TRUE", True, []),
    ("TRUE XOR FALSE AND FALSE", True, []),
    ("TRUE XOR TRUE XOR TRUE", True, []),
    ("(FALSE AND TRUE) OR TRUE", True, []),
    ("missing AND TRUE OR TRUE", False, ["missingAttribute"]),
    # §3.4.3: LIKE
    (r"'abc%' LIKE 'abc\%'", True, []),
    (r"'abcd' LIKE 'abc\%'", False, []),
    (r"'a_c' LIKE 'a\_c' AND NOT ('abc' LIKE 'a\_c')", True, []),
    ("'abc' LIKE '_b%' AND 'ab' LIKE '_b%' AND 'abcd1' LIKE '_b%'", True, []),
    ("'b' LIKE '_b%' OR 'acd' LIKE '_b%' OR 'aBc' LIKE '_b%'", False, []),
    ("'' LIKE '%' AND '' LIKE '' AND NOT ('' LIKE '_')", True, []),
    ("'a.c' LIKE 'a.c' AND NOT ('abc' LIKE 'a.c')", True, []),
    ("'a\nb' LIKE 'a%b'", True, []),
    (r"'a\b' LIKE 'a\b'", True, []),
    ("1234 LIKE '12%'", True, []),
    ("yes LIKE 'tr%'", True, []),
    ("type NOT LIKE '%order%'", False, []),
    ("'it''s' LIKE 'it\\'_'", True, []),
    # §3.4.4 and 3.4.5
    ("EXISTS id AND EXISTS source AND EXISTS type AND EXISTS specversion", True, []),
    ("EXISTS missing OR EXISTS dataschema", False, []),
    ("EXISTS empty AND EXISTS no", True, []),
    ("firstname IN ('Anna', 'Francesco')", True, []),
    ("n IN ('4', '5')", True, []),
    ("'5' IN (4, 5)", True, []),
    ("n IN (n)", True, []),
    ("n NOT IN (1, 2)", True, []),
    ("n IN ('x', 5)", True, ["cast"]),
    ("n IN (5, 'x')", True, []),
    ("yes IN ('true')", True, []),
    # §3.5: functions
    ("LENGTH('日本')", 2, []),
    ("LENGTH(12345)", 5, []),
    ("CONCAT()", "", []),
    ("CONCAT('a', 1, TRUE)", "a1true", []),
    ("CONCAT_WS(', ')", "", []),
    ("concat_ws(', ', 'a', 'b')", "a, b", []),
    ("LOWER('ÀB')", "àb", []),
    ("UPPER('àb')", "ÀB", []),
    ("TRIM(' \t\u2003a b\u00a0')", "a b", []),
    ("TRIM('\x1ca\x00')", "\x1ca\x00", []),
    ("LEFT('abc', 2)", "ab", []),
    ("LEFT('abc', 9)", "abc", []),
    ("LEFT('abc', -1)", "abc", ["functionEvaluation"]),
    ("RIGHT('abc', 2)", "bc", []),
    ("RIGHT('abc', 0)", "", []),
    ("RIGHT('abc', 9)", "abc", []),
    ("RIGHT('abc', -1)", "abc", ["functionEvaluation"]),
    ("SUBSTRING('hello', 2)", "ello", []),
    ("SUBSTRING('hello', '2')", "ello", []),
    ("SUBSTRING('hello', -3)", "llo", []),
    ("SUBSTRING('hello', 5)", "o", []),
    ("SUBSTRING('hello', 6)", "", ["functionEvaluation"]),
    ("SUBSTRING('hello', -5)", "hello", []),
    ("SUBSTRING('hello', -6)", "", ["functionEvaluation"]),
    ("SUBSTRING('hello', 0)", "", []),
    ("SUBSTRING('hello', 2, 3)", "ell", []),
    ("SUBSTRING('hello', -3, 2)", "ll", []),
    ("SUBSTRING('hello', 2, 99)", "ello", []),
    ("SUBSTRING('hello', 2, 0)", "", []),
    ("SUBSTRING('hello', 2, -1)", "", ["functionEvaluation"]),
    ("SUBSTRING('', 0)", "", []),
    ("ABS(-3)", 3, []),
    ("ABS(-2147483648)", 2147483647, ["math"]),
    ("INT('-7')", -7, []),
    ("INT('x')", 0, ["cast"]),
    ("BOOL('True')", True, []),
    ("BOOL('yes')", False, ["cast"]),
    ("STRING(-7)", "-7", []),
    ("IS_INT('7') AND NOT IS_INT('x')", True, []),
    ("IS_BOOL('FALSE') AND NOT IS_BOOL('x')", True, []),
    ("NOPE(1)", False, ["missingFunction"]),
    ("LENGTH('a', 'b')", False, ["missingFunction"]),
    ("UPPER()", False, ["missingFunction"]),
    ("LENGTH(NOPE())", 5, ["missingFunction"]),  # of "false"
]  # fmt: skip


@pytest.mark.parametrize(("expression", "value", "errors"), CASES)
def test_values_and_errors(expression: str, value: Any, errors: list[str]) -> None:
    found, wrong = evaluate(expression, EVENT)
    assert (type(found), found, [error.kind for error in wrong]) == (type(value), value, errors)


@pytest.mark.parametrize(
    ("expression", "at", "reason"),
    [
        ("", 1, "expected a value or an attribute's name, found the end"),
        ("type =", 7, "expected a value or an attribute's name, found the end"),
        ("(n = 5", 7, "expected ')', found the end"),
        ("n = 5)", 6, "expected an operator or the end, found ')'"),
        ("n == 5", 4, "expected a value or an attribute's name, found '='"),
        ("type = 'abc", 8, "unexpected a string that does not end"),
        ("n $ 5", 3, "unexpected '$'"),
        ("n IN ()", 7, "expected a value or an attribute's name, found ')'"),
        ("n IN 5", 6, "expected '(', found '5'"),
        ("n NOT 5", 7, "expected LIKE or IN after NOT, found '5'"),
        ("n LIKE firstname", 8, "expected a string literal after LIKE, found 'firstname'"),
        ("EXISTS 'id'", 8, "expected a value or an attribute's name, found \"'id'\""),
        ("2147483648", 1, "2147483648 is beyond 32 bits"),
        ("-2147483649", 2, "2147483649 is beyond 32 bits"),
        ("my_name = 1", 1, "expected a value or an attribute's name, found 'my_name'"),
        ("like = 1", 1, "expected a value or an attribute's name, found 'LIKE'"),
        ("LENGTH2('a')", 1, "'LENGTH2' is no function's name"),
        ("CONCAT('a',)", 12, "expected a value or an attribute's name, found ')'"),
    ],
)
def test_what_is_no_expression(expression: str, at: int, reason: str) -> None:
    value, (error,) = evaluate(expression, EVENT)
    assert value is False
    assert str(error) == f"at character {at}: {reason}"
    with pytest.raises(ParseError):
        Expression(expression)


def test_limits() -> None:
    text = f"'{'é' * (MAX_BYTES // 2 - 1)}'"
    assert evaluate(text, EVENT) == (text[1:-1], [])
    assert str(evaluate(text + " ", EVENT)[1][0]).endswith("longer than 2048 bytes")
    for opening, closing, most in ("(", ")", MAX_DEPTH - 1), ("NOT ", "", MAX_DEPTH - 1):
        assert evaluate(opening * most + "TRUE" + closing * most, EVENT)[1] == []
        more = opening * (most + 1) + "TRUE" + closing * (most + 1)
        assert str(evaluate(more, EVENT)[1][0]).endswith("nested more than 32 deep")
    assert evaluate(" OR ".join(["FALSE"] * 220), EVENT) == (False, [])


def test_an_error_has_its_value_s_text_cut_short() -> None:
    (error,) = evaluate("INT(CONCAT(type, type, type, type, type))", EVENT)[1]
    assert error == CastError(EVENT.type * 5, "Integer")
    assert len(str(error)) < 110


# As a filter


@given(st.sampled_from([case[0] for case in CASES]))
def test_a_filter_holds_where_the_value_is_true_and_nothing_went_wrong(expression: str) -> None:
    value, errors = evaluate(expression, EVENT)
    assert Expression(expression).matches(EVENT) is (value is True and not errors)


# Against obvious evaluators


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["AND", "OR", "XOR"])), max_size=9),
    st.booleans(),
)
def test_logic_groups_to_the_right(terms: list[tuple[bool, str]], last: bool) -> None:
    def obvious(rest: list[tuple[bool, str]]) -> bool:
        if not rest:
            return last
        (value, sign), right = rest[0], obvious(rest[1:])
        return {"AND": value and right, "OR": value or right, "XOR": value ^ right}[sign]

    text = "".join(f"{value} {sign} " for value, sign in terms) + str(last)
    assert evaluate(text, EVENT) == (obvious(terms), [])


PATTERNS = st.lists(
    st.sampled_from(["%", "_", "\\%", "\\_", "\\", "a", "b", "ab", ".", "*", "日"]), max_size=8
).map("".join)


@given(PATTERNS, st.text("ab%_\\.*日\n", max_size=12))
def test_like_is_a_wildcard_match(pattern: str, value: str) -> None:
    expected = re.sub(
        r"\\[%_]|[%_]|.",
        lambda found: {"%": ".*", "_": "."}.get(found[0], re.escape(found[0].lstrip("\\") or "\\")),
        pattern,
        flags=re.DOTALL,
    )
    assert matcher(segments(pattern))(value) is bool(re.fullmatch(expected, value, re.DOTALL))


class Counted(str):
    """A string that counts how often it was looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> str:
        self.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("pattern", ["%a_%a_%a_%a_%b_", "%" * 60 + "_b", "%_a_a_a_a_a_b%"])
def test_like_takes_time_in_proportion_to_the_value(pattern: str) -> None:
    def looks(length: int) -> int:
        value = Counted("a" * length)
        matcher(segments(pattern))(value)
        return value.looks

    assert looks(4000) <= 2.1 * looks(2000) + 100


WORDS = [
    "n", "type", "missing", "'a'", "''", "5", "-1", "0", "TRUE", "(", ")", ",", "+", "-", "*", "/",
    "%", "=", "<>", "<", ">=", "AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "LENGTH(",
    "SUBSTRING(", "LEFT(", "\\", "'", "é", "99999999999",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join) | st.text(max_size=40))
def test_any_text_has_a_value(text: str) -> None:
    value, errors = evaluate(text, EVENT)
    assert type(value) in {bool, int, str}
    assert all(error.kind for error in errors)
