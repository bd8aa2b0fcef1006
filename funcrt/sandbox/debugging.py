"""What `funcrt dev --debug` needs of an instance: that it is known to the debugger's adapter, and
that its code names the files which its author edits."""

import os
import sys
import threading
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Debug", "attach", "name_sources"]

ATTACH_S = 8.0
"""An editor that was told of a process and does not attach to it is waited for this long."""


class Debug(msgspec.Struct, frozen=True):
    """Where an instance finds debugpy's adapter."""

    host: str
    port: int
    anchor: int
    """The process whose session the editor holds."""
    token: str
    """What the adapter names itself with."""


def attach(debug: Debug) -> None:
    """Make this instance known to the adapter, and wait for the editor: for its breakpoints, and
    its word to go on. Where none is attached, the adapter gives that word."""
    import debugpy
    import debugpy.server.api
    import pydevd

    # debugpy.connect gives no token; this is the rest of what it does.
    try:
        pydevd.settrace(
            host=debug.host, port=debug.port, access_token=debug.token, ppid=debug.anchor,
            suspend=False, notify_stdin=False,
            dont_trace_start_patterns=(str(Path(debugpy.__file__).parent),),
        )  # fmt: skip
    except (Exception, SystemExit) as error:
        print(f"no debugger here: {error}", file=sys.stderr)
        return
    waiting = threading.Timer(ATTACH_S, _give_up)
    waiting.daemon = True
    waiting.start()
    debugpy.wait_for_client()
    waiting.cancel()
    sys.breakpointhook = debugpy.breakpoint


def _give_up() -> None:
    import debugpy

    print(
        f"the debugger was told of process {os.getpid()} and did not attach to it within"
        f" {ATTACH_S:g} s; it goes on without",
        file=sys.stderr,
    )
    debugpy.wait_for_client.cancel()


# Names of files


def name_sources(path: str, source: str) -> None:
    """From here on, code imported from below `path` says that it is from below `source`, of which
    that is a copy: breakpoints are set there."""

    class Loader(SourceFileLoader):
        def source_to_code(self, data: Any, place: Any) -> Any:  # type: ignore[override]
            return super().source_to_code(data, source + os.fspath(place).removeprefix(path))

    def hook(entry: str) -> FileFinder:
        if entry != path and not entry.startswith(f"{path}/"):
            raise ImportError
        loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES)
        return FileFinder(entry, *loaders)

    sys.path_hooks.insert(0, hook)
