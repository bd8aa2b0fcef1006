"""What CloudEvents 1.0.2 allows and forbids, rule by rule, over both wire forms."""

import json
from typing import Any

import pytest

from mesh import Event, EventError
from mesh.codec import MAX_EVENT_BYTES, decode_http, encode_http

JSON = [("content-type", "application/cloudevents+json")]
BATCH = [("content-type", "application/cloudevents-batch+json")]
REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
CORE = [(f"ce-{name}", value) for name, value in REQUIRED.items()]


def structured(text: str = "", **members: Any) -> bytes:
    """An event in JSON; `text` goes in as it is, after the other members."""
    return (json.dumps({**REQUIRED, **members})[:-1] + text + "}").encode()


def refused(headers: list[tuple[str, str]], body: bytes) -> EventError:
    with pytest.raises(EventError) as error:
        decode_http(headers, body)
    return error.value


ACCEPTED = {
    "id": ["a b", "%", '"', "é", "\U0001f600", "\ue000", "\U0010fffd", "x" * 60_000],
    "source": [
        "/s", "a", "1-555-123-4567", "#f", "?q", "//h/p", "http:", "http://", "urn:uuid:6e-1",
        "mailto:a@b.c", "https://u:p@h:80/a;b?c=/?#d/?", "http://[::1]:80/", "http://[v1.a:b]/",
        "a/b:c", "./a:b", "%41", "../a", "/a%20b",
    ],
    "type": ["t", "com.example", "名"],
    "subject": ["a", "a\u00a0b", "a\u2028b"],
    "dataschema": ["https://x/y", "urn:x:1", "a:b", "https://x/y#z"],
    "datacontenttype": [
        "text/plain", "TEXT/Plain; CharSet=utf-8", "application/vnd.a+json;v=1", "a/b;c={d}",
        'multipart/mixed; boundary="a b;\\"c"', "*/*", "text/plain ; a=b",
    ],
    "time": [
        "2024-01-01T00:00:00Z", "2024-01-01t00:00:00z", "2024-02-29T23:59:59.1+23:59",
        "2000-02-29T00:00:00-00:00", "0000-02-29T00:00:00Z", "2016-12-31T23:59:60Z",
        "2016-12-31T15:59:60.5-08:00", "2017-01-01T05:29:60+05:30",
        *(f"2024-01-01T00:00:00.{'123456789012'[:digits]}Z" for digits in range(1, 13)),
    ],
    "ext": ["", "a", "true", "1.5", "\U0001f600"],
    "a": ["x"], "0": ["x"], "a2345678901234567890123": ["x"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ACCEPTED.items() for value in values]
)
def test_what_is_allowed_is_taken_in_every_mode_and_kept(name: str, value: str) -> None:
    event = Event.from_json(structured(**{name: value}))
    assert event.attribute(name) == value
    assert json.loads(event.to_json()) == {**REQUIRED, name: value}
    for mode in ("binary", "structured", "batch"):
        headers, body = encode_http(event, mode)
        assert all(text.isascii() and text.isprintable() for _, text in headers)
        (again,) = decode_http(headers, body)
        assert again.attribute(name) == value


_NONCHARACTERS = [
    0xFDD0,
    0xFDEF,
    *(plane << 16 | low for plane in range(17) for low in (65534, 65535)),
]

FORBIDDEN = {
    "id": ["", *map(chr, [0, 9, 10, 13, 0x1F, 0x7F, 0x80, 0x9F, *_NONCHARACTERS])],
    "source": [
        "", "a b", "1:2", ":a", "http://[::1", "http://[::g]", "http://[1.2.3.4]", "http://h:8a",
        "a#b#c", "a[", "%", "%z1", "%4", "é", "a\\b", 'a"b', "<a>", "a^b", "a`b", "{a}", "a|b",
        "http://a@b@c/", "a\n",
    ],
    "type": ["", "a\tb"],
    "subject": ["", "a\r\nb"],
    "dataschema": ["", "relative", "/a", "//h/p", "#a", "1:a", "https://x/ y"],
    "datacontenttype": [
        "", "text", "text/", "/plain", "text/plain;", "text/plain; a", "text/plain; a=",
        "te xt/plain", "text/plain, a/b", 'text/plain; a="é"', "text/pläin", 'a/b; c="d',
    ],
    "time": [
        "", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-1-01T00:00:00Z",
        "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z", "2024-01-32T00:00:00Z", "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z", "2024-01-01T00:00:61Z", "2024-01-01T12:00:60Z",
        "2016-12-31T23:59:60+01:00", "2024-01-15T23:59:60Z", "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00,5Z", "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+01:60",
        "2024-01-01T00:00:00+0100", "2024-01-01T00:00Z", "٢٠٢٤-01-01T00:00:00Z", "1704067200",
        "Mon, 01 Jan 2024 00:00:00 GMT",
    ],
    "ext": ["a\x00", "\ufffe"],
    "specversion": ["", "0.3", "1", "1.0.2", "1.1", " 1.0"],
    "Ext": ["x"], "a_b": ["x"], "a-b": ["x"], "a.b": ["x"], "é": ["x"], "": ["x"],
    "a" * 257: ["x"], "funcrthops": ["x"], "\u212aey": ["x"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FORBIDDEN.items() for value in values]
)
def test_what_is_forbidden_is_refused_with_its_name(name: str, value: str) -> None:
    error = refused(JSON, structured(**{name: value}))
    assert (error.attribute, error.status) == (name[:80] or '""', 400)
    assert error.reason
    if name == "datacontenttype":
        headers = [*CORE, ("content-type", value)]
    elif not name.isascii() or name != name.lower():
        return
    else:
        escaped = "".join(f"%{byte:02x}" for byte in value.encode())
        headers = [*[pair for pair in CORE if pair[0] != f"ce-{name}"], (f"ce-{name}", escaped)]
    assert refused(headers, b"").attribute == error.attribute


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("euro%20%e2%82%ac", "euro €"),
        ("%61%2525", "a%25"),
        ("a b", "a b"),
        ("  a \t", "a"),
        ('"  a  "', "  a  "),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('"a%20b"', "a b"),
        ('" quoted "unquoted', " quoted unquoted"),
        ("a\\b", "a\\b"),
        ("%22a%22", '"a"'),
        ("%20a", " a"),
        ('""', ""),
    ],
)
def test_header_values_are_unquoted_then_decoded_once(text: str, expected: str) -> None:
    (event,) = decode_http([*CORE, ("CE-Ext", text)], b"")
    assert event.extensions == {"ext": expected}


@pytest.mark.parametrize(
    "text",
    [
        "%", "a%2", "%zz", "%+1", "% 1", "%ED%A0%80%ED%B0%80", "%C0%A0", "%E2%82", "%FF",
        "%F4%90%80%80", '"a', 'a"', '"a\\"', '"', "é", "€", "\ud800", "a\tb", "a\x00b", "%0D%0A",
        '"a\\\nb"',
    ],
)  # fmt: skip
def test_header_values_that_say_nothing_certain_are_refused(text: str) -> None:
    assert refused([*CORE, ("ce-ext", text)], b"").attribute == "ext"


@pytest.mark.parametrize(
    ("headers", "attribute"),
    [
        ([*CORE, ("CE-Id", "1")], "id"),
        ([*CORE, ("ce-ext", "1"), ("Ce-Ext", "1")], "ext"),
        ([*CORE, ("content-type", "a/b"), ("Content-Type", "a/b")], "content-type"),
        ([*CORE, ("ce-datacontenttype", "a/b")], "ce-datacontenttype"),
        ([*CORE, ("ce-data", "a")], "ce-data"),
        ([*CORE, ("ce-", "a")], '""'),
        ([*CORE, ("ce-\u212aey", "a")], "\u212aey"),
        *(([pair for pair in CORE if pair[0] != f"ce-{name}"], name) for name in REQUIRED),
        ([], "specversion"),
    ],
)
def test_headers_that_make_no_event_are_refused(
    headers: list[tuple[str, str]], attribute: str
) -> None:
    assert refused(headers, b"").attribute == attribute


def test_header_names_in_any_case_and_other_headers_beside_them() -> None:
    headers = [(name.upper(), value) for name, value in CORE]
    (event,) = decode_http([*headers, ("Host", "é"), ("X-CE-ID", "9"), ("cex", "1")], b"")
    assert (event.id, event.extensions) == ("1", {})


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/cloudevents", 415),
        ("application/cloudevents+avro", 415),
        ("Application/CloudEvents+XML", 415),
        ("application/cloudevents-batch", 415),
        ("application/cloudevents-batch+avro", 415),
        ("application/cloudevents+json; charset=latin-1", 415),
        ('application/cloudevents+json; CHARSET="utf-16"', 415),
        ("application/cloudevents+json", None),
        ("APPLICATION/CLOUDEVENTS+JSON ; charset=UTF-8", None),
        ('application/cloudevents+json;a=b; charset="utf-8"', None),
    ],
)
def test_the_mode_is_the_content_types(kind: str, status: int | None) -> None:
    headers = [*CORE, ("ce-id", "%zz"), ("Content-Type", kind)]
    if status is None:
        assert decode_http(headers, structured()) == [Event("1", "/s", "t")]
    else:
        error = refused(headers, structured())
        assert (error.status, error.attribute) == (status, "content-type")


def test_an_empty_body_is_no_data_unless_it_has_a_type() -> None:
    assert decode_http(CORE, b"")[0].data is None
    assert decode_http([*CORE, ("content-type", "text/plain")], b"")[0].data == b""
    assert decode_http(CORE, b"x")[0].data == b"x"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (', "data": {"a": 1.0, "b" : [ ]} ', b'{"a": 1.0, "b" : [ ]}'),
        (', "data": null', b"null"),
        (', "data": "I\'m"', b'"I\'m"'),
        (', "data": 1e400', b"1e400"),
        (', "data": -0.0', b"-0.0"),
        (f', "data": {"9" * 5000}', b"9" * 5000),
        (', "data": false', b"false"),
        (', "data": []', b"[]"),
        (', "data": "{\\"a\\":1}"', b'"{\\"a\\":1}"'),
        (', "data": {"a": 1, "a": 2}', b'{"a": 1, "a": 2}'),
        (', "data": {"a": "\\uD83D\\uDE00"}', b'{"a": "\\uD83D\\uDE00"}'),
        (', "data": "x", "datacontenttype": "text/json"', b'"x"'),
        (', "data": "x", "datacontenttype": "image/json;a=b"', b'"x"'),
        (', "data": "x", "datacontenttype": "A/B+JSON"', b'"x"'),
        (', "data": "<a/>", "datacontenttype": "application/xml"', b"<a/>"),
        (', "data": "\\u00e9", "datacontenttype": "text/plain"', b"\xc3\xa9"),
        (', "data": "é", "datacontenttype": "text/plain; charset=iso-8859-1"', b"\xe9"),
        (', "data": "é", "datacontenttype": "text/plain; charset=\\"UTF-8\\""', b"\xc3\xa9"),
        (', "data_base64": "AAH/"', b"\x00\x01\xff"),
        (', "data_base64": "", "datacontenttype": "a/json"', b""),
        (', "data_base64": null', None),
        (', "data_base64": null, "data": 1', b"1"),
        ("", None),
    ],
)
def test_data_is_kept_as_it_was_written(text: str, data: bytes | None) -> None:
    event = Event.from_json(structured(text))
    assert event.data == data
    assert Event.from_json(event.to_json()) == event
    assert decode_http(*encode_http(event, "batch")) == [event]


@pytest.mark.parametrize(
    ("text", "attribute", "status"),
    [
        (', "data": 1, "data_base64": "AA=="', "data", 400),
        (', "data": null, "data_base64": "AA=="', "data", 400),
        (', "data": {}, "datacontenttype": "text/plain"', "data", 400),
        (', "data": null, "datacontenttype": "application/xml"', "data", 400),
        (', "data": "€", "datacontenttype": "text/plain; charset=us-ascii"', "data", 400),
        (', "data": "a", "datacontenttype": "text/plain; charset=punycode"', "data", 415),
        (', "data_base64": 1', "data_base64", 400),
        (', "data_base64": "AA"', "data_base64", 400),
        (', "data_base64": "AA=A"', "data_base64", 400),
        (', "data_base64": "A_-="', "data_base64", 400),
        (', "data_base64": "AA==\\n"', "data_base64", 400),
        (', "data_base64": "é"', "data_base64", 400),
        (', "n": 1.0', "n", 400),
        (', "n": 1e2', "n", 400),
        (', "n": 2147483648', "n", 400),
        (', "n": -2147483649', "n", 400),
        (f', "n": {"9" * 5000}', "n", 400),
        (', "n": []', "n", 400),
        (', "n": {"a": 1}', "n", 400),
        (', "subject": 5', "subject", 400),
        (', "time": 1704067200', "time", 400),
        (', "id": "1"', "id", 400),
        (', "i\\u0064": "1"', "id", 400),
        (', "id": "2", "id": "1"', "id", 400),
        (', "n": 12, "n": 1', "n", 400),
        (', "n": null, "n": 1', "n", 400),
        (', "data": 1, "data": 1', "data", 400),
        (', "data_base64": null, "data_base64": ""', "data_base64", 400),
        (', "subject": "\\ud800"', "subject", 400),
        (', "data": ["\\udc00"]', "data", 400),
        (', "data": NaN', None, 400),
        (', "data": 01', None, 400),
        (', "data": [1,]', None, 400),
        (", 'a': 1", None, 400),
        ("} {", None, 400),
    ],
)
def test_json_that_makes_no_event_is_refused(text: str, attribute: str | None, status: int) -> None:
    error = refused(JSON, structured(text))
    assert (error.attribute, error.status) == (attribute, status)
    nested = refused(BATCH, b"[" + structured() + b"," + structured(text) + b"]")
    assert nested.status == status
    assert attribute is None or nested.attribute in (attribute, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"1", b'"a"', b"[]", b"{}", b"{", b"\xff", b"[" * 100_000,
        b'{"a":' * 100_000, b"\xef\xbb\xbf" + structured(), structured().decode().encode("utf-16"),
        structured(', "data": "\xff"').decode().encode("latin-1"),
        structured(', "data": ' + "[" * 200 + "]" * 200),
    ],
)  # fmt: skip
def test_bodies_that_are_no_json_object_are_refused(body: bytes) -> None:
    assert refused(JSON, body).status == 400


def test_integers_and_booleans_keep_their_type_in_json_and_are_strings_in_headers() -> None:
    text = ', "n": -2147483648, "m": -0, "yes": true, "no": false, "gone": null'
    event = Event.from_json(structured(text))
    assert event.extensions == {"n": -(2**31), "m": 0, "yes": True, "no": False}
    assert Event.from_json(event.to_json()) == event
    (plain,) = decode_http(*encode_http(event))
    assert plain.extensions == {"n": "-2147483648", "m": "0", "yes": "true", "no": "false"}


def test_batches() -> None:
    assert decode_http(BATCH, b" [ ] ") == []
    (event,) = decode_http(BATCH, b"[" + structured(', "data": ' + "[" * 199 + "]" * 199) + b"]")
    assert decode_http(*encode_http(event, "batch")) == [event]
    for body in (b"{}", structured(), b"[1]", b"[[]]", b"[null]", b"[" + structured() + b",]", b""):
        refused(BATCH, body)
    error = refused(BATCH, b"[" + structured() + b"," + structured(subject="") + b"]")
    assert (error.attribute, error.reason[:8]) == ("subject", "event 1:")


def test_json_data_without_a_type_says_its_type_in_binary_mode() -> None:
    """JSON event format 1.0.2 §3.1.2 and the last example of §3.2."""
    event = Event.from_json(structured(', "data": "I am just a string"'))
    headers, body = encode_http(event)
    assert ("content-type", "application/json") in headers
    assert body == b'"I am just a string"'
    assert "datacontenttype" not in json.loads(event.to_json())
    assert "content-type" not in dict(encode_http(Event("1", "/s", "t", data=b"\xff"))[0])


def test_an_event_about_an_event_is_not_taken_for_it() -> None:
    inner = structured(id="inner")
    event = Event("outer", "/s", "t", datacontenttype="application/CloudEvents+json", data=inner)
    for mode in ("binary", "structured", "batch"):
        assert decode_http(*encode_http(event, mode)) == [event]


@pytest.mark.parametrize(
    ("kind", "data", "member"),
    [
        ("application/json", b'{"a":1}\n', "data_base64"),
        ("application/json", b"{", "data_base64"),
        ("application/json", b"", "data_base64"),
        ("application/json", b'"\xff"', "data_base64"),
        ("application/json", b"[" * 200 + b"]" * 200, "data_base64"),
        ("application/json", b"[" * 199 + b"]" * 199, "data"),
        ("application/json", b"1e999", "data"),
        ("text/plain", b"\x00" * 300_000, "data_base64"),
        ("text/plain", b"a\xff", "data_base64"),
        ("text/plain; charset=utf-8", b"\xef\xbb\xbfa", "data"),
        ("text/plain; charset=iso-8859-1", b"\xc3\xa9", "data"),
        ("text/plain; charset=utf-16le", b"a\x00\x00", "data_base64"),
        ("text/plain; charset=idna", b"a", "data_base64"),
        ("application/xml", b"<a/>", "data"),
        ("application/soap+xml", b"<a/>", "data"),
        ("image/png", b"abc", "data_base64"),
        (None, b"\x00", "data_base64"),
    ],
)
def test_any_bytes_go_through_the_json_format(kind: str | None, data: bytes, member: str) -> None:
    event = Event("1", "/s", "t", datacontenttype=kind, data=data)
    assert member.encode() + b'":' in event.to_json()
    for mode in ("structured", "batch"):
        assert decode_http(*encode_http(event, mode)) == [event]


def test_sizes() -> None:
    decode_http(CORE, b"x" * MAX_EVENT_BYTES)
    event = Event("1", "/s", "t", subject="\U0001f600" * 196_000, data=b"\x00" * MAX_EVENT_BYTES)
    for mode in ("binary", "structured", "batch"):
        assert decode_http(*encode_http(event, mode)) == [event]
    (event,) = decode_http([*CORE, *((f"ce-a{n}", "x") for n in range(1000))], b"")
    assert len(event.extensions) == 1000
    assert refused(CORE, b"x" * (MAX_EVENT_BYTES + 1)).status == 413
    assert refused(JSON, b" " * (3 * MAX_EVENT_BYTES + 1)).status == 413
    assert refused(BATCH, b" " * (8 * MAX_EVENT_BYTES + 1)).status == 413
    assert refused(BATCH, b"[" + structured(data="x" * MAX_EVENT_BYTES) + b"]").status == 413
    assert refused([*CORE, ("ce-subject", "x" * 196_608)], b"").status == 413
    assert refused([*CORE, *((f"ce-a{n}", "x") for n in range(1025))], b"").status == 413
