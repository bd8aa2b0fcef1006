"""multiprocessing's resource tracker is a program, and in a sandbox none can be started: what is
written to one that did not start fails or not, as its end comes early or late."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["without_tracker"]

MODULE = "multiprocessing.resource_tracker"


def without_tracker() -> None:
    """Let locks and shared memory be made without it, now or once it is imported. What a function
    leaves of those goes with its /tmp."""
    if MODULE in sys.modules:
        _still(sys.modules[MODULE])
    else:
        sys.meta_path.insert(0, _Finder())


def _still(module: ModuleType) -> None:
    """It takes the one that it writes to for alive."""
    module._resource_tracker._fd = os.open(os.devnull, os.O_WRONLY)


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.loader is not None:
            sys.meta_path.remove(self)
            run = found.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _still(module)

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found
