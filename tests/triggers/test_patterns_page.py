"""Every example of triggers/PATTERNS.md does what the page says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import triggers
from mesh import Event
from triggers import jsonpath, pattern

PAGE = (Path(triggers.__file__).parent / "PATTERNS.md").read_text(encoding="utf-8")
_CODE = re.compile(r"`([^`]*)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table."""
    section = PAGE.split(f"## `{heading}`")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(cell: str) -> Any:
    (text,) = _CODE.findall(cell)
    return json.loads(text)


def event(heading: str, found: dict[str, Any]) -> Event:
    if heading != "filters":
        return Event("1", "/", "t", data=json.dumps(found).encode())
    core = {name: found.pop(name) for name in ("type", "subject") if name in found}
    return Event(**{"id": "1", "source": "/", "type": "t", **core, "extensions": found})


@pytest.mark.parametrize("heading", ["filters", "pattern", "jsonpath"])
def test_examples(heading: str) -> None:
    for name, example, yes, no in rows(heading):
        form = code(example)
        spec = {"pattern": {"data": form}} if heading == "pattern" else {heading: [form]}
        parsed = triggers.parse(spec)
        assert parsed.matches(event(heading, code(yes))), name
        assert not parsed.matches(event(heading, code(no))), name


def test_every_dialect_and_operator_has_one() -> None:
    def named(heading: str) -> set[str]:
        return {word for row in rows(heading) for word in _CODE.findall(row[0])}

    assert named("filters") == {"exact", "prefix", "suffix", "all", "any", "not", "sql"}
    assert named("pattern") == {*pattern._OPERATORS, "$or"}
    assert named("jsonpath") == set(jsonpath.OPERATORS)
