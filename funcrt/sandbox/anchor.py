"""The process that editors attach to in `funcrt dev --debug`, over all versions."""

import contextlib
import ctypes
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

__all__ = ["anchor"]

LOOK_S = 0.2
_PR_SET_CHILD_SUBREAPER = 36


def anchor(port: int) -> None:
    """A process that does nothing, for an editor to be attached to from the first version to the
    last: debugpy's adapter, which listens on `port` of the loopback for as long as this process
    lives, tells that editor of each instance. Ends when standard input does. Says on standard
    output, a line of JSON each: where it listens, or its error; then `attached`, true or false."""
    # The adapter makes itself a daemon; it is to be found, and ended, all the same.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    out = os.fdopen(os.dup(1), "w")  # the adapter is not to keep it open
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)

    def say(**told: Any) -> None:
        print(json.dumps(told), file=out, flush=True)

    import debugpy

    debugpy.configure(subProcess=False)
    try:
        _, port = debugpy.listen(("127.0.0.1", port))
    except Exception as error:  # whatever it is, the host is to say it
        say(error=str(error))
        return
    import pydevd  # debugpy brings it along, and finds it only now

    setup: Any = pydevd.SetupHolder.setup
    server, token = [setup["client"], setup["port"]], setup["access-token"]
    say(port=port, server=server, token=token, adapter=_children()[0])
    before = False
    while not select.select([0], [], [], LOOK_S)[0]:
        if before != (now := debugpy.is_client_connected()):
            if now:
                debugpy.wait_for_client()
            say(attached=now)
            before = now
    for child in _children():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # the port is free for the next
    os._exit(0)


def _children() -> list[int]:
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # debugpy's come and go
            found += [int(pid) for pid in (thread / "children").read_text().split()]
    return found
