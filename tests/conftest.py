"""For all tests."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.levels import MISSING
from tests.users import CLOSED

# A shell without job control starts what it puts in the background with SIGINT ignored, and what
# that starts would inherit it: the tests of Ctrl-C need it as at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A command believes these, where they are set, and not the terminal that a test gives it; and that
# it is in a container, where the tests run in one.
for name in ("COLUMNS", "LINES", "FUNCRT_CONTAINED"):
    os.environ.pop(name, None)

# A host that root starts becomes another user, or warns that this one cannot run its Python: said
# once, for all tests but of that.
if CLOSED and os.geteuid() == 0:
    os.environ["FUNCRT_USER"] = "root"

if "sandbox" in MISSING and "process" not in MISSING:
    os.environ["FUNCRT_ALLOW_ISOLATION"] = "process"

# Bytecode is kept, as it is for who uses it: else each of the processes that tests start, some
# thousand, compiles all of funcrt anew, which is a third of a host's start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true",
                     help="write tests/golden/ anew from what the commands print")  # fmt: skip


@pytest.fixture
def tmp_path(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's own, which a function may enter that runs as another user."""
    if os.geteuid() == 0:
        base = tmp_path_factory.getbasetemp()
        above = [each for each in base.parents if each.name.startswith("pytest-")]
        for directory in (*above, base, tmp_path):
            directory.chmod(directory.stat().st_mode | 0o55)
    return tmp_path


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command in this process logs to the standard error that it has, and that ends with the
    test."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if type(each) is not logging.StreamHandler]


@pytest.fixture(scope="module")
def unconfined() -> Iterator[None]:
    """For functions that tell the test what they do by its files, which isolation would hide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUNCRT_ISOLATION", "none")
        if os.geteuid() == 0:
            patch.setenv("FUNCRT_USER", "root")
        yield
