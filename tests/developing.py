"""A real `funcrt dev`, in a pseudo-terminal or a pipe, for the tests that need one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.serving import FUNCRT, tree, until

PATIENCE_S = 60.0
BOTTOM = "[s]end  [r]eplay  [d]lq  [l]ogs  [p]ause  [f]ilter why  [?]  [q]uit"
CODE = """import time

def handler(event):
    time.sleep(event.json().get("sleep", 0))
    return {"version": 1}
"""
MANIFEST = """
[[trigger]]
topic = "in"
[output]
topic = "out"
"""


class Dev:
    """`funcrt dev` on functions below `root`; what it prints is read as it comes."""

    def __init__(self, root: Path, *options: str, terminal: bool = True) -> None:
        self.root = root
        self.raw = self.said = ""
        """All of it, and its whole lines without the one that is kept below them."""
        argv = [*FUNCRT, "dev", *options, "--port", "0"]
        env = {**os.environ, "NO_COLOR": "1", "TERM": "xterm"}
        env.pop("FUNCRT_DATA", None)
        self.fd, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            argv, cwd=root, env=env, stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=self._take_terminal if terminal else None,  # noqa: PLW1509
        )  # fmt: skip
        os.close(theirs)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.port = int(self.until(r"http://127.0.0.1:(\d+)")[1])

    @staticmethod
    def _take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self.raw += data.decode(errors="replace").replace("\r\n", "\n")
            lines = re.sub(r"[^\n]*\r\x1b\[K", "", self.raw)
            self.said = lines[: lines.rfind("\n") + 1]

    def until(self, pattern: str, since: int = 0) -> "re.Match[str]":
        """Wait until it has said this, after `since` characters."""
        end = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.said[since:])) is None:
            assert time.monotonic() < end, f"{pattern!r} did not come in\n{self.said}"
            assert self.process.poll() is None, self.said
            time.sleep(0.01)
        return found

    def after(self, pattern: str, text: str, name: str = "main.py") -> "re.Match[str]":
        """Save a file whole, and wait for what is said then."""
        since = len(self.said)
        save(self.root / "functions" / "work" / name, text)
        return self.until(pattern, since)

    def call(self, name: str = "work", **data: Any) -> Any:
        url = f"http://127.0.0.1:{self.port}/functions/{name}"
        return httpx.post(url, json=data, timeout=PATIENCE_S).json()

    def publish(self, topic: str, type: str, id: str) -> None:
        """An event over HTTP."""
        url = f"http://127.0.0.1:{self.port}/topics/{topic}/events"
        head = {"ce-id": id, "ce-type": type, "ce-source": "/s", "ce-specversion": "1.0"}
        httpx.post(url, json={"n": 1}, headers=head, timeout=PATIENCE_S).raise_for_status()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command beside it."""
        return subprocess.run(
            [*FUNCRT, *arguments], cwd=self.root, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def keys(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def ended(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        below = tree(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(PATIENCE_S)
        os.close(self.fd)
        until(lambda: not any(map(lives, below)))


def save(file: Path, text: str) -> None:
    """Whole, as editors do."""
    beside = file.with_name(f"{file.name}~")
    beside.write_text(text)
    beside.rename(file)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_work(root: Path, code: str = CODE, manifest: str = MANIFEST) -> Path:
    """A function `work` below `root/functions`; its main.py."""
    work = root / "functions" / "work"
    work.mkdir(parents=True)
    (work / "main.py").write_text(code)
    (work / "funcrt.toml").write_text(manifest)
    return work / "main.py"
