"""`funcrt.schema.json`: current, and of one mind with what `load_manifest` takes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.funcrt.test_manifest import PROFILES
from tests.test_code import ROOT

FILE = ROOT / "funcrt" / "funcrt.schema.json"
EXAMPLES = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/manifest.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    text = json.loads(FILE.read_text())
    Draft7Validator.check_schema(text)
    return Draft7Validator(text)


def test_it_is_current() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_schema.py"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert FILE.read_text() == made.stdout, "funcrt.schema.json is out of date: make docs"


@pytest.mark.parametrize("file", sorted((ROOT / "functions").glob("*/funcrt.toml")), ids=str)
def test_the_samples_are_valid(schema: Draft7Validator, file: Path) -> None:
    assert not errors(schema, file.read_text())


@pytest.mark.parametrize("text", [*EXAMPLES, PROFILES, "", "dlq = false"])
def test_what_is_right_is_valid(schema: Draft7Validator, text: str) -> None:
    assert not errors(schema, text)


@pytest.mark.parametrize(
    "text",
    [
        "zzz = 1",
        "timeout = '1d'",
        "timeout = -1",
        "concurrency = 0",
        "name = 'funcrt.own'",
        "trigger = 3",
        "[[trigger]]",
        "[[trigger]]\ntopic = 'a'\nfliters = []",
        "[[trigger]]\nkind = 'http'",
        "[[trigger]]\nkind = 'kafka'\ntopic = 'a'",
        "[[trigger]]\ntopic = 'a'\nbatch = {}",
        "[limits]\nmemory = '1PiB'",
        "[env]\nA = 3",
        "[env]\n'a b' = 'c'",
        "[profile.prod]\nname = 'x'",
        "[profile.prod.scale]\nmix = 1",
    ],
)
def test_what_is_wrong_is_not(schema: Draft7Validator, text: str) -> None:
    assert errors(schema, text)


def test_every_key_has_its_words(schema: Draft7Validator) -> None:
    told: dict[str, Any] = schema.schema["properties"]  # type: ignore[index,assignment]
    assert all(each["description"] for each in told.values())
    assert told["timeout"]["default"] == "30s"


def errors(schema: Draft7Validator, text: str) -> list[str]:
    return [error.message for error in schema.iter_errors(tomllib.loads(text))]
