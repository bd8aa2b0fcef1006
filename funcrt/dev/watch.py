"""Which function folders have changed on disk. Says where to look, never what is there."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from watchfiles import Change, awatch

from funcrt.bundle import ignored
from funcrt.rollout import is_function

__all__ = ["Watcher", "folder_of", "folders"]

STEP_MS = 10
"""A burst of changes is over once this passed without another. It is all that a save waits for
before it is looked at; a save that was caught half-way is looked at again."""
AROUND_MS = 50
"""The same for folders that come and go."""
BEGUN_MS = 200
"""By then a watch that has just begun says so, be there changes or not."""
DEBOUNCE_MS = 100
"""How long a burst may keep one waiting."""


def folders(roots: Iterable[Path]) -> list[Path]:
    """What may be or become a function's folder: the roots that are, else what is below each."""
    found: list[Path] = []
    for root in roots:
        if is_function(root):
            found.append(root)
            continue
        try:
            below = sorted(root.iterdir())
        except OSError:
            continue
        found += [each for each in below if not _hidden(each.name) and each.is_dir()]
    return found


def folder_of(path: Path, among: Sequence[Path]) -> Path | None:
    """The folder that a changed path counts for; None where it is ignored, or in none of them."""
    for folder in among:
        if path == folder:
            return folder
        if folder in path.parents:
            within = path.relative_to(folder).parts
            if within == (".env",):
                return folder  # in no bundle, and read all the same
            return None if any(map(ignored, within)) else folder
    return None


def _hidden(name: str) -> bool:
    return name.startswith(".") or ignored(name)


class Watcher:
    """Watches roots, and what is below them in depth, from `run` until that is cancelled."""

    def __init__(
        self, roots: Sequence[Path], files: Sequence[Path], changed: Callable[[set[Path]], None]
    ) -> None:
        self.roots = [root.absolute() for root in roots]
        self.files = {file.absolute() for file in files}
        """Single files that are watched too, there or not."""
        self.changed = changed
        """Told the folders in which something changed, and those of `files` that did."""
        self._folders: list[Path] = []
        self._again = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._below())
            tasks.create_task(self._around())

    async def _below(self) -> None:
        """Everything in the folders, and anew whenever folders come or go."""
        while True:
            self._again.clear()
            self._folders = folders(self.roots)
            if not self._folders:
                await self._again.wait()
                continue
            begun = False
            try:
                async for changes in awatch(
                    *self._folders,
                    watch_filter=self._inside,
                    step=STEP_MS,
                    debounce=DEBOUNCE_MS,
                    stop_event=self._again,
                    ignore_permission_denied=True,
                    rust_timeout=BEGUN_MS,
                    yield_on_timeout=True,
                ):
                    if not begun:  # what changed while nothing was watched
                        begun = True
                        self.changed({*self._folders})
                        continue
                    paths = {Path(path) for _, path in changes}
                    if found := {f for p in paths if (f := folder_of(p, self._folders))}:
                        self.changed(found)
            except FileNotFoundError:  # gone since it was listed
                await asyncio.sleep(STEP_MS / 1000)

    def _inside(self, change: Change, path: str) -> bool:
        return folder_of(Path(path), self._folders) is not None

    async def _around(self) -> None:
        """The folders that hold folders and files: not in depth."""
        places = {*self.roots, *(root.parent for root in self.roots)}
        places |= {file.parent for file in self.files}
        begun = False
        async for changes in awatch(
            *(place for place in places if place.is_dir()),
            watch_filter=self._beside,
            step=AROUND_MS,
            debounce=DEBOUNCE_MS,
            recursive=False,
            ignore_permission_denied=True,
            rust_timeout=BEGUN_MS,
            yield_on_timeout=True,
        ):
            paths = {Path(path) for _, path in changes}
            if not begun:
                begun = True
                self.changed({*self.files})
                if folders(self.roots) != self._folders:
                    self._again.set()
            if found := paths & self.files:
                self.changed(found)
            if paths - self.files and folders(self.roots) != self._folders:
                self._again.set()
            elif gone := {path for path in paths if path in self._folders}:
                # Gone and back, perhaps another one: its watch is on what it was.
                self.changed(gone)
                self._again.set()

    def _beside(self, change: Change, path: str) -> bool:
        found = Path(path)
        if found in self.files:
            return True
        if found in self.roots:
            return change is not Change.modified
        return found.parent in self.roots and (
            not _hidden(found.name) and change is not Change.modified
        )
