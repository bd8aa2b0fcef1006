"""Prints funcrt/funcrt.schema.json: the manifest as a JSON schema (draft 7), for editors.

Types come from the sections of funcrt/manifest.py, words and defaults from docs/manifest.md.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from funcrt import manifest
from funcrt.manifest_check import ListOf, MapOf, OrFlag, Section, Table
from funcrt.manifest_kinds import (
    MOST_DESTINATIONS,
    MOST_SOURCE,
    OWN_NAMES,
    PYTHON,
    SECRET,
    Anything,
    Choice,
    Duration,
    Flag,
    Int,
    Name,
    Number,
    Size,
    Text,
    env_value,
    http_path,
    network,
    python_version,
    schedule,
    secret_source,
    start,
    timezone,
)
from funcrt.requirements import requirement

PAGE = Path(__file__).with_name("manifest.md")
HEADINGS = {
    id(manifest.TOP): "Top",
    id(manifest.MESH): "`[[trigger]]` of kind `mesh`",
    id(manifest.BATCH): "`batch`",
    id(manifest.HTTP): "`[[trigger]]` of kind `http`",
    id(manifest.CRON): "`[[trigger]]` of kind `cron`",
    id(manifest.OUTPUT): "`[output]`",
    id(manifest.RETRY): "`[retry]`",
    id(manifest.IDEMPOTENCY): "`[idempotency]`",
    id(manifest.SCALE): "`[scale]`",
    id(manifest.LIMITS): "`[limits]`",
    id(manifest.SANDBOX): "`[sandbox]`",
    id(manifest.PROFILE): "Top",
}
NAME = f"^(?!{re.escape(OWN_NAMES)})[A-Za-z0-9][A-Za-z0-9._-]{{0,199}}$"
WORDS: dict[Callable[..., Any], dict[str, Any]] = {
    start: {"type": "string"},
    http_path: {"type": "string", "pattern": "^/"},
    schedule: {"type": "string"},
    requirement: {"type": "string"},
    timezone: {"type": "string"},
    python_version: {"type": "string", "pattern": f"^({PYTHON})$"},
    network: {
        "anyOf": [
            {"enum": ["none", "outbound"]},
            {
                "type": "array",
                "items": {"type": "string", "pattern": "^(outbound|.+:[1-9][0-9]{0,4})$"},
                "minItems": 1,
                "maxItems": MOST_DESTINATIONS,
            },
        ]
    },
    env_value: {"type": "string"},
    secret_source: {"type": "string", "maxLength": MOST_SOURCE, "pattern": f"^({SECRET})$"},
}
TRIGGERS = {"mesh": manifest.MESH, "http": manifest.HTTP, "cron": manifest.CRON}
NEEDS = {"mesh": ["topic"], "http": ["kind", "path"], "cron": ["kind", "schedule"]}


def schema() -> dict[str, Any]:
    """Of the whole file."""
    whole = table(manifest.TOP)
    kinds = []
    for kind, section in TRIGGERS.items():
        one = table(section)
        one["properties"]["kind"] = {"const": kind}
        kinds.append({**one, "required": NEEDS[kind], "title": kind})
    triggers = whole["properties"]["trigger"]
    triggers["items"] = {"oneOf": kinds}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "funcrt.toml",
        "description": "The manifest of a function.",
        **whole,
    }


def table(section: Section, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table of which each key is known."""
    told = rows(HEADINGS[id(section)]) if id(section) in HEADINGS else {}
    properties = {name: value(key.kind) | told.get(name, {}) for name, key in section.items()}
    made = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "required": list(needs)} if needs else made


def value(kind: Any) -> dict[str, Any]:
    """What a key takes."""
    match kind:
        case Table():
            return table(kind.section, kind.needs)
        case OrFlag():
            return {"anyOf": [{"type": "boolean"}, value(kind.table)]}
        case ListOf():
            sizes = {"minItems": kind.least, "maxItems": kind.most}
            return {"type": "array", "items": value(kind.item), **sizes}
        case MapOf():
            named = {f"^({kind.pattern})$": value(kind.item)}
            return {"type": "object", "patternProperties": named, "additionalProperties": False}
        case Name():
            return {"type": "string", "pattern": NAME}
        case Choice():
            return {"enum": list(kind.values)}
        case Flag():
            return {"type": "boolean"}
        case Int():
            return {"type": "integer", "minimum": kind.least, "maximum": kind.most}
        case Number():
            return {"type": "number", "minimum": kind.least, "maximum": kind.most}
        case Duration():
            return amount("ms|s|m|h", kind.least_s, kind.most_s, "number")
        case Size():
            return amount("|".join(Size.UNITS), kind.least, kind.most, "integer")
        case Anything():
            return {"type": "object"}
        case Text():
            return {"type": "string"} | ({"pattern": f"^({kind.pattern})$"} if kind.pattern else {})
    return dict(WORDS[kind])


def amount(units: str, least: float, most: float, number: str) -> dict[str, Any]:
    """A number of the base unit, or a string with a unit."""
    text = {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)? *({units})$"}
    return {"anyOf": [text, {"type": number, "minimum": least, "maximum": most}]}


def rows(heading: str) -> dict[str, dict[str, Any]]:
    """Key -> description and default, of a table of the page."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, dict[str, Any]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            takes, default, words = cells[1:]
            text = ". ".join(part for part in (f"Takes {takes}", words) if part)
            row: dict[str, Any] = {"description": text.replace("`", "")}
            literal = re.fullmatch(r"`([^`]+)`", default)
            if literal is not None and literal[1][0] in '"[{0123456789tf':
                row["default"] = json.loads(literal[1])
            found[cells[0].strip("`")] = row
    return found


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
