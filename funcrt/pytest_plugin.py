"""The pytest plugin that comes with funcrt: fixtures for tests in a function's `tests` directory.

pytest loads it wherever funcrt is installed, so it imports nothing before a fixture is used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from funcrt.testing import App, Function

__all__ = ["function", "function_app"]


def _directory(test: Path) -> Path:
    """The function's directory that a test file is in: the nearest above it with a main.py or a
    funcrt.toml."""
    for directory in test.parents:
        if (directory / "main.py").is_file() or (directory / "funcrt.toml").is_file():
            return directory
    raise LookupError(f"{test} is in no function's directory: none above it has a main.py")


@pytest.fixture
def function(request: pytest.FixtureRequest) -> "Iterator[Function]":
    """The function whose directory the test is in: `function.call(...)`."""
    from funcrt.testing import load

    loaded = load(_directory(request.path))
    yield loaded
    loaded.close()


@pytest.fixture
def function_app(request: pytest.FixtureRequest) -> "Iterator[App]":
    """An App of the function whose directory the test is in; for a test in a `tests` directory
    beside functions, of all of those."""
    from funcrt.rollout import find_functions
    from funcrt.testing import App

    folder = request.path.parent.parent
    if not find_functions([folder])[0]:
        folder = _directory(request.path)
    with App(folder) as app:
        yield app
