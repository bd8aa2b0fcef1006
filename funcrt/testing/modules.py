"""A function's own modules in one process with other functions'.

Every function has a `main`. In its own process that is no matter; here each function's modules are
in `sys.modules` only while it is imported or runs.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

__all__ = ["OwnModules"]


class OwnModules:
    """The modules that were imported from one function's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own: dict[str, ModuleType] = {}
        self._inside = False

    @contextmanager
    def visible(self, env: Mapping[str, str]) -> Iterator[None]:
        """Its directory is the first to import from, its modules are the ones found, `env` is in
        the environment. Within itself this does nothing."""
        if self._inside:
            yield
            return
        self._inside = True
        here = self._importable()
        others = {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if name.partition(".")[0] in here and self._covers(name)
        }
        before = set(sys.modules)
        environment = {name: os.environ.get(name) for name in env}
        sys.modules.update(self.own)
        sys.path.insert(0, str(self.path))
        os.environ.update(env)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            self._inside = False
            if str(self.path) in sys.path:
                sys.path.remove(str(self.path))
            for name in set(sys.modules) - before:
                if name in self.own or self._is_own(sys.modules[name]):
                    self.own[name] = sys.modules.pop(name)
            sys.modules.update(others)
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def _importable(self) -> set[str]:
        """The names of the modules and packages in the directory itself."""
        if not self.path.is_dir():
            return set()
        with os.scandir(self.path) as found:
            return {
                each.name if each.is_dir() else each.name.removesuffix(".py")
                for each in found
                if each.is_dir() or each.name.endswith(".py")
            }

    def _covers(self, name: str) -> bool:
        """Whether a module, whose name is one here, was loaded from elsewhere."""
        return not self._is_own(sys.modules[name]) or name in self.own

    def _is_own(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return bool(file) and Path(str(file)).is_relative_to(self.path)
