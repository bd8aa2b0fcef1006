"""For all tests."""

import signal

import pytest

# A shell without job control starts what it puts in the background with SIGINT ignored, and what
# that starts would inherit it: the tests of Ctrl-C need it as at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true",
                     help="write tests/golden/ anew from what the commands print")  # fmt: skip
