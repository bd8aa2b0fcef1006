"""Reading a manifest's tables: every mistake at once, each with its line."""

import tomllib

from funcrt.locate import locate, show
from funcrt.manifest_check import Document, Duration, Int, Key, Later, Name, Table, read_table

TEXT = '''# a comment with = and [brackets]
name = "x"        # not "name = 2"
about = """
fake = 1
[fake]
"""

[retry]
base = "5 parsecs"
"odd.key" = 1
max.deep = { a = 1, "b" = [1,
  { c = 2 }] }

[[trigger]]
topic = "a"

[[trigger]]
topc = "b"
'''


def test_every_key_has_its_line() -> None:
    lines = {show(path): line for path, line in locate(TEXT).items()}
    assert lines["name"] == 2
    assert lines["about"] == 3
    assert lines["retry"] == 8
    assert lines["retry.'odd.key'"] == 10
    assert lines["retry.max.deep.a"] == 11
    assert lines["retry.max.deep.b[1].c"] == 12
    assert lines["trigger[0].topic"] == 15
    assert lines["trigger[1].topc"] == 18
    assert "fake" not in lines
    assert locate(TEXT.replace("\n", "\r\n")) == locate(TEXT)


def test_all_mistakes_are_told_in_the_order_of_the_file() -> None:
    text = '[retry]\nbase = "5 parsecs"\nmaxx = 3\nattempts = true\ncron = 1\n'
    retry = {
        "base": Key(Duration(0, 3600), "base_s"),
        "max": Key(Duration(0, 3600)),
        "attempts": Key(Int(1, 100)),
        "cron": Later("cron is"),
    }
    section = {"name": Key(Name("function")), "retry": Key(Table(retry, dict))}
    doc = Document("funcrt.toml", locate(text))
    read_table(doc, (), tomllib.loads(text), section)
    told = [str(problem) for problem in doc.in_order()]
    assert [line.split(": ")[:2] for line in told] == [
        ["funcrt.toml:2", "retry.base"],
        ["funcrt.toml:3", "retry.maxx"],
        ["funcrt.toml:4", "retry.attempts"],
        ["funcrt.toml:5", "retry.cron"],
    ]
    assert 'did you mean "max"?' in told[1]
    assert "not built yet" in told[3]
    assert "5 parsecs" in told[0]


def test_what_is_right_is_kept_under_its_field() -> None:
    doc = Document("funcrt.toml")
    kept = read_table(doc, (), {"base": "200ms"}, {"base": Key(Duration(0, 60), "base_s")})
    assert kept == {"base_s": 0.2}
    assert doc.problems == []
