"""What starts programs beneath what an author calls, in a sandbox where none can be started: it
would fail without a word, or wait for ever for what was never there."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["without_programs"]


def without_programs() -> None:
    """Let multiprocessing do without its resource tracker, and say what cannot be done; its modules
    now, or once they are imported."""
    for name, mend in _MENDS.items():
        if name in sys.modules:
            mend(sys.modules[name])
    if not _MENDS.keys() <= sys.modules.keys():
        sys.meta_path.insert(0, _Finder())
    os.system = _system


def _still(module: ModuleType) -> None:
    """The tracker takes the one that it writes to for alive. What a function leaves of locks and
    shared memory goes with its /tmp."""
    module._resource_tracker._fd = os.open(os.devnull, os.O_WRONLY)


def _told(module: ModuleType) -> None:
    """Who starts a process by another way than fork: it would end at once with 255, and a pool
    start others in its place."""
    for kind in (module.SpawnProcess, module.ForkServerProcess):
        kind._Popen = staticmethod(_refusing(kind._start_method))


def _refusing(way: str) -> Callable[[Any], Any]:
    def popen_by_program(_: Any) -> Any:
        told = f'multiprocessing starts a program for its way "{way}", and none for "fork"'
        raise PermissionError(errno.EPERM, told)

    return popen_by_program


def _system(command: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """As the C library's, which finds no shell; but that it is told of."""
    os.fsencode(command)  # or it is no command
    print("os.system: programs cannot be started by a function, so it returns 127 << 8",
          file=sys.stderr)  # fmt: skip
    return 127 << 8


_MENDS: dict[str, Callable[[ModuleType], None]] = {
    "multiprocessing.context": _told,
    "multiprocessing.resource_tracker": _still,
}


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mend = _MENDS.get(name)
        if mend is None:
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.loader is not None:
            run = found.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                mend(module)

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found
