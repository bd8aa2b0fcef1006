"""`funcrt dev --debug`: an editor attaches, and stays attached over reloads."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from funcrt.dev import debugger
from funcrt.dev.debugger import Debugger, DebugpyMissing, debugged
from funcrt.manifest import load_manifest
from tests.dap import Editor
from tests.developing import MANIFEST, Dev, lives, make_work, save
from tests.pythons import other
from tests.serving import tree, until

HANDLERS = {
    "sync": "def handler(event):\n    x = event.json()['n']\n    return x + 1\n",
    "async": "import asyncio\nasync def handler(event):\n    x = event.json()['n']\n"
    "    await asyncio.sleep(0)\n    return x + 1\n",
    "batch": "from funcrt import Event\ndef handler(events: list[Event]):\n"
    "    x = events[0].json()['n']\n    return x + 1\n",
}
QUICK = MANIFEST + "\n[limits]\nmemory = '128MiB'\n"


class Calling:
    """A call on its way, as its debugger may hold it."""

    def __init__(self, dev: Dev, **data: Any) -> None:
        self.answer: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.answer.append(dev.call(**data)))
        self.thread.start()

    def ended(self) -> Any:
        self.thread.join(60)
        return self.answer[0]


@pytest.mark.parametrize("kind", [*HANDLERS, "another Python"])
def test_an_editor_stops_at_its_line_in_each_version(tmp_path: Path, kind: str) -> None:
    code, own = HANDLERS.get(kind, HANDLERS["sync"]), ""
    if kind not in HANDLERS:
        own = f"python = '{other(tmp_path).version}'\n"
    main = make_work(tmp_path, code, own + 'timeout = "100ms"\n' + QUICK)
    line = code.splitlines().index("    return x + 1") + 1
    dev = Dev(tmp_path, "--debug", "0")
    editor = None
    try:
        port = int(dev.until(r"waiting for a debugger on 127\.0\.0\.1:(\d+); nothing is called")[1])
        first = Calling(dev, n=1)
        time.sleep(0.5)
        assert first.answer == []
        editor = Editor(port, {main: [line]})
        before = editor.session()
        dev.until(r"debugger attached")
        frame = before.stopped()
        assert (frame["name"], frame["line"], frame["source"]["path"]) == (
            "handler", line, str(main),
        )  # fmt: skip
        assert before.evaluate("x * 10", frame) == "10"
        time.sleep(0.5)  # its timeout is long over
        before.go_on(frame)
        assert first.ended() == 2

        dev.after(r"reloaded in \d+ ms \(v2\)", code.replace("x + 1", "x + 100"))
        now = editor.session()
        assert before.ended.wait(60)
        second = Calling(dev, n=1)
        frame = now.stopped()
        assert frame["line"] == line
        now.go_on(frame)
        assert second.ended() == 101

        below = tree(dev.process.pid)
        dev.keys(b"q")
        assert dev.ended() == 0
        until(lambda: not any(map(lives, below)))
        until(lambda: not _listens(port))
    finally:
        if editor is not None:
            editor.close()
        dev.close()


def test_functions_run_on_when_the_editor_leaves_and_it_may_come_back(tmp_path: Path) -> None:
    main = make_work(tmp_path, HANDLERS["sync"])
    dev = Dev(tmp_path, "functions", "--debug", "0", terminal=False)
    editors = []
    try:
        port = int(dev.until(r"waiting for a debugger on 127\.0\.0\.1:(\d+)")[1])
        one = Editor(port, {})
        editors.append(one)
        one.session()
        dev.until(r"debugger attached")
        assert dev.call(n=1) == 2
        for session in one.made:
            session.ask("disconnect")
        dev.until(r"debugger gone; functions run on without it")
        assert dev.call(n=1) == 2
        dev.after(r"reloaded in \d+ ms \(v2\)", HANDLERS["sync"] + "\n")
        assert dev.call(n=1) == 2

        since = len(dev.said)
        two = Editor(port, {main: [3]})
        editors.append(two)
        session = two.session()
        dev.until(r"debugger attached", since)
        call = Calling(dev, n=1)
        session.go_on(session.stopped())
        assert call.ended() == 2

        # "Terminate" ends what an editor is attached to: the port is there again all the same.
        (anchor,) = [p for p in tree(dev.process.pid) if b"anchor" in _arguments(p)]
        os.kill(anchor, signal.SIGKILL)
        dev.until(r"listening again on 127\.0\.0\.1:" + str(port), since)
        assert dev.call(n=1) == 2
        three = Editor(port, {main: [3]})
        editors.append(three)
        save(main, HANDLERS["sync"].replace("+ 1", "+ 2"))
        session = three.session()
        call = Calling(dev, n=1)
        session.go_on(session.stopped())
        assert call.ended() == 3
    finally:
        for editor in editors:
            editor.close()
        dev.close()


def _arguments(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    make_work(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as said:
            Dev(tmp_path, "--debug", str(port)).close()
    assert f"✗ --debug: cannot listen on port {port} of the loopback: " in str(said.value)
    assert "Address already in use" in str(said.value)


def test_a_missing_debugpy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DebugpyMissing) as error:
        Debugger(0)
    assert str(error.value) == (
        "--debug needs debugpy, which is not installed; "
        f"{sys.executable} -m pip install 'funcrt[debug]'"
    )


def test_what_is_debugged_has_one_instance_and_no_limits(tmp_path: Path) -> None:
    make_work(tmp_path, manifest=QUICK + '\n[scale]\nmin = 0\nmax = 4\nidle = "1s"\n')
    manifest = debugged(load_manifest(tmp_path / "functions" / "work"))
    assert (manifest.scale.min, manifest.scale.max) == (1, 1)
    assert manifest.timeout_s == 0
    assert manifest.limits.memory_bytes is None
