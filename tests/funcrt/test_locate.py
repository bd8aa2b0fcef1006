"""The line of each TOML key, held to tomllib on generated documents."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcrt.errors import ManifestError
from funcrt.locate import MAX_BYTES, KeyPath, locate, read_toml, show

# Text that looks like keys, tables, comments and ends of strings.
DECOYS = st.sampled_from(
    ["k000 = 1", "\n[k001]\n", "\n[[k002]]\n", "#", '"', "'", '""', "\\", "\n", "]", "}", ",", "x"]
)
STRINGS = st.lists(DECOYS, max_size=5).map("".join)
TREES = st.recursive(
    st.integers(0, 99) | st.booleans() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=12,
)


class Writer:
    """Writes a tree as TOML, by a style drawn for each part of it."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.lines: list[str] = []

    def pick(self, *styles: str) -> str:
        chosen: str = self.draw(st.sampled_from(styles))
        return chosen

    def key(self, name: str) -> str:
        if name.isalnum() and name.isascii() and self.pick("bare", "quoted") == "bare":
            return name
        literal = "'" not in name and "\n" not in name
        if literal and self.pick("literal", "basic") == "literal":
            return f"'{name}'"
        return json.dumps(name)

    def string(self, text: str) -> str:
        styles = ["basic", "long"]
        if "'" not in text:
            styles += ["long literal"] + ["literal"] * ("\n" not in text)
        match self.pick(*styles):
            case "basic":
                return json.dumps(text)
            case "literal":
                return f"'{text}'"
            case "long literal":
                return f"'''\n{text}'''"
        escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
        return f'"""\n{escaped}"""'  # up to two quotes may stand before the three

    def value(self, value: Any, *, lines: bool = True) -> str:
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, dict):
            pairs = [f"{self.key(k)} = {self.value(v)}" for k, v in value.items()]
            return "{ " + ", ".join(pairs) + " }"
        if isinstance(value, list):
            items = [self.value(item) for item in value]
            gap = self.pick(" ", "\n", " # ]}\n  ")
            return "[" + "".join(f"{gap}{item}," for item in items) + gap + "]"
        return json.dumps(value)

    def table(self, header: str, table: dict[str, Any]) -> None:
        below: list[tuple[str, Any, str]] = []
        for name, value in table.items():
            key = self.key(name)
            styles = ["inline"]
            if isinstance(value, dict) and value:
                styles += ["table", "dotted"]
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                styles.append("array")
            style = self.pick(*styles)
            if style == "dotted":
                for inner, one in value.items():
                    self.lines.append(f"{key} . {self.key(inner)} = {self.value(one)} # k000 = 1")
            elif style == "inline":
                self.lines.append(f"{key} = {self.value(value)}")
            else:
                below.append((f"{header}.{key}" if header else key, value, style))
        for path, value, style in below:
            for one in value if style == "array" else [value]:
                self.lines += ["# [k000]", f"[[ {path} ]]" if style == "array" else f"[{path}]"]
                self.table(path, one)


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    pairs = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else pairs:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def renamed(value: Any, count: Iterator[int]) -> Any:
    """The tree with keys of which none holds another, so that a line says which key it is of."""
    if isinstance(value, dict):
        return {f"k{next(count):03}{key}": renamed(one, count) for key, one in value.items()}
    return [renamed(one, count) for one in value] if isinstance(value, list) else value


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_key_has_the_line_it_is_on(data: st.DataObject) -> None:
    tree = renamed(data.draw(st.dictionaries(STRINGS, TREES, max_size=4)), iter(range(1000)))
    writer = Writer(data.draw)
    writer.table("", tree)
    text = "\n".join(writer.lines)
    assert tomllib.loads(text) == tree
    lines = locate(text)
    assert set(lines) == set(paths(tree))
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1][:4] in text.split("\n")[line - 1]


EXAMPLE = """\
a = 1  # a

b.c."d e" = QQQ
[x]
b = 2
QQQ
[t.u]
v = [1 # ,]
, # 2
  { w = 3 },
    "x", ]
[[s]]
x = 1
[[s]]
[s.y]
z = 1979-05-27 07:32:00
[[s.r]]
[[s.r]]
'q' = QQQQaQQQQQ
""".replace("Q", '"')


def test_an_example() -> None:
    assert locate(EXAMPLE) == {
        ("a",): 1,
        ("b",): 3,
        ("b", "c"): 3,
        ("b", "c", "d e"): 3,
        ("t",): 7,
        ("t", "u"): 7,
        ("t", "u", "v"): 8,
        ("t", "u", "v", 0): 8,
        ("t", "u", "v", 1): 10,
        ("t", "u", "v", 1, "w"): 10,
        ("t", "u", "v", 2): 11,
        ("s",): 12,
        ("s", 0): 12,
        ("s", 0, "x"): 13,
        ("s", 1): 14,
        ("s", 1, "y"): 15,
        ("s", 1, "y", "z"): 16,
        ("s", 1, "r"): 17,
        ("s", 1, "r", 0): 17,
        ("s", 1, "r", 1): 18,
        ("s", 1, "r", 1, "q"): 19,
    }
    assert set(paths(tomllib.loads(EXAMPLE))) == set(locate(EXAMPLE))


def test_paths_as_messages_write_them() -> None:
    assert show(("trigger", 0, "filters", 1, "exact")) == "trigger[0].filters[1].exact"
    assert show(("env", "A B")) == "env.'A B'"
    assert show(()) == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a = 1\nb = \n", ":2: not TOML: expected a value (column 5)"),
        (
            b"name = resize # my",
            ":1: not TOML: expected a value, found resize # my; strings need quotes (column 8)",
        ),
        (b"a = 1\na = 2\n", ":2: not TOML: a key that is set already (column 6)"),
        (b"a = 1\n\nb = [1,", ":3: not TOML: invalid value (end of document)"),
        (b"a = 1\n\xffb = 1", ":2: expected UTF-8, found the byte 0xff; save the file as UTF-8"),
        (b"a = " + b"[" * 5000, ": nested too deeply"),
        (b"#" * (MAX_BYTES + 1), ": longer than 256 KiB"),
        (b"a = " + b"9" * 5000, ": not TOML: a number of more than 4300 digits"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, body: bytes, said: str) -> None:
    file = tmp_path / "funcrt.toml"
    file.write_bytes(body)
    with pytest.raises(ManifestError) as caught:
        read_toml(file)
    assert str(caught.value) == f"{file}{said}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_toml(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"
    assert read_toml(tmp_path / "none") == ({}, {})


def test_a_bom_and_windows_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "funcrt.toml"
    file.write_bytes(b'\xef\xbb\xbfa = 1\r\n[b]\r\nc = """\r\n"""\r\n')
    assert read_toml(file) == ({"a": 1, "b": {"c": ""}}, {("a",): 1, ("b",): 2, ("b", "c"): 3})


def test_deep_and_long_documents_are_quick() -> None:
    deep = f"a = {'[' * 150}{']' * 150}"
    assert locate(deep)[("a", *[0] * 149)] == 1
    long = "\n".join(f"k{n} = 1" for n in range(20_000))
    assert locate(long)[("k19999",)] == 20_000
