"""Walks through a page as its reader does: writes its files, types its commands, compares what is
printed.

The first path in backticks on the line before a block of code names the file that it is; a `text`
block is passed over. A `sh` block is typed line
by line, and the block right below it is what that prints; any other block without a language is
what the host in the other terminal says meanwhile. `funcrt dev` and `funcrt serve` are that host,
and end the one before. A `#` stands for what differs from run to run.
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.sessions import alike

__all__ = ["Walk", "curl", "free_port"]

PATIENCE_S = 30.0
HOST = re.compile(r"funcrt (dev|serve)\b")
LOOKS = re.compile(r"funcrt (logs|stats|ls|describe|dlq (ls|show)|versions)\b")
"""Commands that only look, so may be typed again until what they show has come."""
FILE = re.compile(r"`(?P<path>[\w./-]*[./][\w.-]+)`")


class Walk:
    """One reader, in an empty folder."""

    def __init__(self, folder: Path, port: int, **env: str) -> None:
        self.folder, self.port = folder, port
        self.env = {**os.environ, "NO_COLOR": "1", "PATH": f"{_shims(folder)}:{os.environ['PATH']}"}
        self.env.pop("FUNCRT_DATA", None)
        self.env.update(env)
        self.host: subprocess.Popen[bytes] | None = None
        self.said = folder / "host.said"
        self.took: list[tuple[float, str]] = []
        """(seconds since the first command, command) of each that ended."""
        self.began = 0.0

    def page(self, text: str) -> None:
        """From the first block to the last."""
        typed = ""
        for before, language, block in _blocks(text.replace(":8080", f":{self.port}")):
            printed = typed and not language and not before
            if typed:
                self._session(typed, block if printed else "")
            typed = block if language == "sh" else ""
            if not language and not printed:
                self.until_said(block)
            elif language not in ("", "sh", "text"):
                named = FILE.search(before)
                assert named, f"{before!r} names no file for\n{block}"
                self.write(named["path"], block)
        if typed:
            self._session(typed, "")

    def write(self, path: str, text: str) -> None:
        """Save a file whole, no sooner after the one before than a reader could."""
        time.sleep(0.3)
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}~")
        beside.write_text(text)
        beside.rename(file)

    def _session(self, typed: str, shown: str) -> None:
        """Type a block's commands; together they print what is shown, if something is."""
        lines = typed.replace("\\\n", " ").splitlines()
        if shown and len(lines) == 1 and LOOKS.match(lines[0]):
            self._until(lambda: alike(self.type(lines[0]), shown), lambda: self.type(lines[0]))
            return
        said = "".join(map(self.type, lines))
        if any(map(HOST.match, lines)):
            self.until_said(shown)
        else:
            assert not shown or alike(said, shown), f"{typed}printed\n{said}"

    def type(self, line: str) -> str:
        """What a command prints."""
        self.began = self.began or time.monotonic()
        said = ""
        if HOST.match(line):
            self.serve(line)
        elif line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.env[name] = value
        elif line.startswith("curl "):
            said = curl(shlex.split(line)[1:])
        else:
            done = subprocess.run(
                ["sh", "-c", line], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                timeout=PATIENCE_S,
            )  # fmt: skip
            said = done.stdout
            assert "Traceback" not in said, said
        self.took.append((time.monotonic() - self.began, line))
        return said

    def serve(self, line: str) -> None:
        """In the other terminal."""
        self.stop()
        with self.said.open("wb") as said:
            self.host = subprocess.Popen(
                ["sh", "-c", f"exec {line} --port {self.port}"], cwd=self.folder, env=self.env,
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._until(lambda: "^C stop" in self.said.read_text(), self.said.read_text)

    def until_said(self, shown: str) -> None:
        """The host says these lines, one after the other, within its patience."""
        lines = [re.escape(line).replace(re.escape("#"), ".+") for line in shown.splitlines()]
        form = re.compile("^" + "$(?:\n.*)*?\n".join(lines) + "$", re.M)
        self._until(
            lambda: form.search(self.said.read_text()),
            lambda: f"{shown}was not said:\n{self.said.read_text()}",
        )

    def _until(self, come: Callable[[], object], said: Callable[[], str]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not come():
            assert time.monotonic() < end, said()
            assert self.host is None or self.host.poll() is None, said()
            time.sleep(0.1)

    def stop(self) -> None:
        """Ctrl-C in the other terminal."""
        if self.host is not None:
            self.host.terminate()
            self.host.wait(PATIENCE_S)
        self.host = None


def free_port() -> int:
    """A port that nobody listens on, a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _shims(folder: Path) -> Path:
    """A directory with the `funcrt` and the `python` of this environment."""
    shims = folder.parent / f"{folder.name}-bin"
    shims.mkdir()
    for name, words in (("funcrt", "-m funcrt"), ("python", "")):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        shim.chmod(0o755)
    return shims


def _blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(the line before, language, text) of each block; "" before one that follows a block."""
    end = 0
    for found in re.finditer(r"^```(\w*)\n(.*?)^```\n", text, re.S | re.M):
        between = text[end : found.start()].strip().splitlines()
        yield (between[-1] if between else ""), found[1], found[2]
        end = found.end()


def curl(words: list[str]) -> str:
    """What curl would print: the machine need not have it."""
    headers: dict[str, str] = {}
    body = b""
    method = "GET"
    url = ""
    most_s = 0.0
    left = iter(words)
    for word in left:
        if word == "-H":
            name, _, text = next(left).partition(": ")
            headers[name] = text
        elif word == "-d":
            body, method = next(left).encode(), "POST"
        elif word == "--max-time":
            most_s = float(next(left))
        elif word != "-N":
            url = word
    if most_s:
        return _streamed(url, headers, most_s)
    return httpx.request(method, url, content=body, headers=headers, timeout=30).text + "\n"


def _streamed(url: str, headers: dict[str, str], most_s: float) -> str:
    """What comes within this time."""
    said = ""
    end = time.monotonic() + most_s
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream("GET", url, headers=headers, timeout=most_s) as answer,
    ):
        for text in answer.iter_text():
            said += text
            if time.monotonic() > end:
                break
    return said
