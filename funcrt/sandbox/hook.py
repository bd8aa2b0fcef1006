"""What a plain `breakpoint()` calls in a function's process, where no terminal is lent to it."""

import importlib
import os
from collections.abc import Callable
from typing import Any

__all__ = ["NoTerminal", "chosen", "no_terminal"]

Hook = Callable[..., Any]


class NoTerminal(Exception):
    """A `breakpoint()` where nobody can answer."""


def no_terminal(*_: Any, **__: Any) -> None:
    """sys.breakpointhook: pdb would find the end of its input at once, and say nothing of why."""
    raise NoTerminal(
        "breakpoint() has no terminal here; it has one in a handler under `funcrt dev` on a"
        " terminal, and `funcrt dev --debug` takes an editor"
    )


def chosen(default: Hook) -> Hook:
    """The hook that PYTHONBREAKPOINT names, as PEP 553 says: Python itself does not look at it
    in an isolated process."""
    wanted = os.environ.get("PYTHONBREAKPOINT")
    if not wanted:
        return default
    if wanted == "0":
        return lambda *_, **__: None
    module, _, name = wanted.rpartition(".")

    def call(*arguments: Any, **named: Any) -> Any:
        found = importlib.import_module(module or "builtins")
        return getattr(found, name)(*arguments, **named)

    return call
