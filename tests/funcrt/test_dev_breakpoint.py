"""A plain `breakpoint()`: pdb on the terminal of `funcrt dev`, and an error elsewhere."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.developing import MANIFEST, Dev, make_work
from tests.funcrt.test_dev_debug import Calling
from tests.serving import Serving, tree, until

SHORT = 'timeout = "200ms"\n' + MANIFEST
HANDLERS = {
    "sync": "def handler(event):\n    x = event.json()['n']\n    breakpoint()\n"
    "    y = x + 1\n    return y\n",
    "async": "import asyncio\nasync def handler(event):\n    x = event.json()['n']\n"
    "    breakpoint()\n    y = x + 1\n    await asyncio.sleep(0)\n    return y\n",
    "threads": "def handler(event):\n    x = event.json()['n']\n    breakpoint()\n"
    "    y = x + 1\n    return y\n",
}


def prompt(dev: Dev, count: int) -> None:
    """Wait for pdb's prompt, the so-manieth."""
    until(lambda: dev.raw.count("(Pdb) ") >= count)


@pytest.mark.parametrize("kind", HANDLERS)
def test_pdb_has_the_terminal_and_gives_it_back(tmp_path: Path, kind: str) -> None:
    more = "concurrency = 2\n" if kind == "threads" else ""
    main = make_work(tmp_path, HANDLERS[kind], more + SHORT)
    dev = Dev(tmp_path)
    try:
        call = Calling(dev, n=1)
        dev.until(r"breakpoint\(\) in work: c goes on, q ends the call")
        prompt(dev, 1)
        until(lambda: re.search(r"> main\.py\(\d\)handler\(\)\n-> y = x \+ 1\n", dev.raw))
        time.sleep(3)  # beyond its timeout, and what it is given to end
        dev.keys(b"p x * 41\n")
        prompt(dev, 2)
        assert "\n41\n" in dev.raw
        dev.keys(b"x = 10\n")
        prompt(dev, 3)
        dev.keys(b"n\n")  # keys of dev's own are for pdb meanwhile
        prompt(dev, 4)
        dev.keys(b"c\n")
        assert call.ended() == 11
        dev.until(r"→ work ✓")
        since = len(dev.raw)
        dev.keys(b"d")
        dev.until(r"no dead letter")

        # q ends the call for good, and not the host; Ctrl-C likewise
        for number, keys in enumerate((b"q\n", b"\x03"), 5):
            call = Calling(dev, n=1)
            prompt(dev, number)
            dev.keys(keys)
            answer = call.ended()
            if keys == b"q\n":
                assert answer["type"] == "urn:funcrt:problem:reject", answer
                dev.until(r"work ✗ reject, told to its caller\n(.*\n)*?  BdbQuit: ")
            elif kind != "threads":
                assert answer["type"] == "urn:funcrt:problem:reject", answer
            else:
                assert answer["type"] == "urn:funcrt:problem:crash", answer
        assert dev.raw.find("[q]uit", since) > 0
        dev.after(r"reloaded in \d+ ms", "def handler(event):\n    return 2\n")
        assert dev.call(n=1) == 2
        dev.keys(b"q")
        assert dev.ended() == 0
        assert main.exists()
    finally:
        dev.close()


def test_edit_break_mend_and_debug_in_one_session(tmp_path: Path) -> None:
    code = "def handler(event):\n    x = event.json()['n']\n    return x + 1\n"
    make_work(tmp_path, code)
    dev = Dev(tmp_path)
    try:
        assert dev.call(n=1) == 2
        dev.after(r"reloaded in \d+ ms \(v2\)", code.replace("+ 1", "+ 2"))
        assert dev.call(n=1) == 3
        dev.after(r"main\.py:4: syntax error: .*\n", code + "def x(:\n")
        assert dev.call(n=1) == 3
        dev.after(r"reloaded in \d+ ms \(v3\)", code.replace("+ 1", "+ 3"))
        assert dev.call(n=1) == 4
        dev.after(r"reloaded in \d+ ms \(v4\)", code.replace("return", "breakpoint()\n    return"))
        call = Calling(dev, n=1)
        prompt(dev, 1)
        dev.keys(b"x * 41\n")
        prompt(dev, 2)
        assert "\n41\n" in dev.raw
        dev.keys(b"c\n")
        assert call.ended() == 2
        dev.after(r"reloaded in \d+ ms \(v5\)", code)
        assert dev.call(n=1) == 2
        dev.keys(b"q")
        assert dev.ended() == 0
    finally:
        dev.close()


STEPS = "def handler(event):\n    breakpoint()\n    return event.json()['n']\n"


def test_calls_wait_for_the_terminal_and_stepping_ends_with_the_call(tmp_path: Path) -> None:
    make_work(tmp_path, STEPS)
    dev = Dev(tmp_path)
    try:
        one, two = Calling(dev, n=1), Calling(dev, n=2)
        prompt(dev, 1)
        time.sleep(1)
        assert dev.raw.count("(Pdb) ") == 1
        dev.keys(b"n\n")
        prompt(dev, 2)  # --Return--
        dev.keys(b"n\n")  # out of the handler: not into what calls it
        prompt(dev, 3)
        dev.keys(b"c\n")
        assert {one.ended(), two.ended()} == {1, 2}
        assert "worker.py" not in dev.raw
    finally:
        dev.close()


def test_a_killed_instance_gives_the_terminal_back(tmp_path: Path) -> None:
    make_work(tmp_path, "def handler(event):\n    breakpoint()\n")
    dev = Dev(tmp_path)
    try:
        call = Calling(dev, n=1)
        prompt(dev, 1)
        (*_, instance) = tree(dev.process.pid)
        os.kill(instance, signal.SIGKILL)
        assert call.ended()["type"] == "urn:funcrt:problem:crash"
        dev.keys(b"d")
        dev.until(r"no dead letter")
    finally:
        dev.close()


REFUSED = (
    "breakpoint() has no terminal here; it has one in a handler under `funcrt dev` on a terminal,"
    " and `funcrt dev --debug` takes an editor"
)


def test_without_a_terminal_it_fails_the_call(tmp_path: Path) -> None:
    make_work(tmp_path, STEPS)
    dev = Dev(tmp_path, terminal=False)
    try:
        answer = dev.call(n=1)
        assert (answer["error"], answer["message"]) == ("NoTerminal", REFUSED)
        dev.until(r"  functions/work/main\.py:2 in handler\n      breakpoint\(\)\n")
        dev.after(
            r"main\.py:1: fails to import: NoTerminal: breakpoint\(\) has no terminal here",
            "breakpoint()\n",
        )
        dev.after(
            r"reloaded", "import pdb\ndef handler(event):\n    pdb.set_trace()\n    return 1\n"
        )
        answer = dev.call(n=1)
        assert answer["type"] == "urn:funcrt:problem:reject", answer
        assert "pdb found no terminal" in answer["detail"]
        dev.after(r"\.env → reloaded", "PYTHONBREAKPOINT=0\n", ".env")
        dev.after(r"main\.py → reloaded", STEPS)
        assert dev.call(n=1) == 1
    finally:
        dev.close()


def test_a_served_function_does_not_hang(tmp_path: Path) -> None:
    one = Serving(tmp_path / "data", f=STEPS + "---")
    try:
        done = one.run("invoke", "f", "--data", '{"n": 1}', "--remote")
        assert done.returncode == 1
        assert REFUSED in done.stdout + done.stderr
    finally:
        assert one.stop(signal.SIGTERM) == 0
