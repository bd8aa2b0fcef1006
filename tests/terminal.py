"""Commands as a person sees them: on a terminal of 80 columns, or in pipes."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["COLUMNS", "PATIENCE_S", "Running", "piped", "rendered"]

COLUMNS = 80
ROWS = 24
PATIENCE_S = 30.0
SGR = {"1": "bold", "2": "dim", "4": "underlined", "31": "red", "32": "green", "33": "yellow",
       "34": "blue", "35": "purple", "36": "cyan", "91": "bright red", "94": "bright blue",
       "96": "bright cyan"}  # fmt: skip
RESET = {"", "0", "00"}
OFF = {"22": ("bold", "dim"), "24": ("underlined",), "39": tuple(SGR.values())}
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b])", re.S)


class Running:
    """A command with a pseudo-terminal as its standard input, output and error."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.raw = ""
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            argv, cwd=cwd, env={**env, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=self._take_terminal,  # noqa: PLW1509
        )  # fmt: skip
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def _take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:  # the last that had it open is gone
                return
            if not data:
                return
            self.raw += data.decode(errors="replace")

    def until(self, pattern: str, since: int = 0) -> "re.Match[str]":
        """Wait until it has written this, after `since` characters."""
        end = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.raw[since:])) is None:
            assert time.monotonic() < end, f"{pattern!r} did not come in\n{self.raw}"
            assert self.process.poll() is None, self.raw
            time.sleep(0.01)
        return found

    def type(self, keys: str) -> None:
        """Press keys; \x03 is Ctrl-C."""
        os.write(self.fd, keys.encode())

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.close()

    def close(self) -> None:
        """End it, if it has not ended. May be called again."""
        if self.fd >= 0:
            self.process.kill()
            self.process.wait()
            self._reader.join(PATIENCE_S)
            os.close(self.fd)
            self.fd = -1


def piped(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str = ""
) -> tuple[int, str, str]:
    """Run a command in pipes: its exit code, output and errors."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def rendered(raw: str) -> list[str]:
    """The lines that a terminal shows: wrapped at its width, which ↩ in the column after it marks,
    and behind │ what of the line is coloured, and how. Raises ValueError for a control that is not
    known here: a terminal would do something that the lines don't show."""
    return [shown for line in _lines(raw) for shown in _shown(line)]


Line = list[tuple[str, str]]
"""Of each column a character and its style."""


def _lines(raw: str) -> list[Line]:
    lines: list[Line] = [[]]
    at = 0
    style: list[str] = []
    for codes, final, text in _tokens(raw):
        line = lines[-1]
        if final == "m":
            style = _styled(style, codes)
        elif final == "K" and codes in ("", "0"):
            del line[at:]
        elif text == "\r":
            at = 0
        elif text == "\n":
            lines.append([])
            at = 0
        elif text == "\t":
            at += 8 - at % 8
            line += [(" ", "")] * (at - len(line))
        elif text and text.isprintable():
            line[at : at + 1] = [(text, " ".join(style))]
            at += 1
        else:
            raise ValueError(f"a terminal was sent {text or (codes, final)!r}")
    return lines if lines[-1] else lines[:-1]


def _tokens(raw: str) -> list[tuple[str, str, str]]:
    found = TOKEN.findall(raw)
    whole = sum(len(f"\x1b[{codes}{final}") if final else 1 for codes, final, _ in found)
    if whole != len(raw):
        raise ValueError(f"an escape that is not known here, in {raw!r}")
    return found


def _styled(style: list[str], codes: str) -> list[str]:
    for code in codes.split(";"):
        if code in RESET:
            style = []
        elif code in OFF:
            style = [each for each in style if each not in OFF[code]]
        else:
            style = [*style, SGR[code]]
    return style


def _shown(line: Line) -> list[str]:
    text = "".join(each for each, _ in line)
    rows = [text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS)] or [""]
    shown = [f"{row}↩" for row in rows[:-1]] + [rows[-1].rstrip()]
    runs: list[list[str]] = []
    for each, style in line:
        if runs and runs[-1][0] == style:
            runs[-1][1] += each
        else:
            runs.append([style, each])
    styled = [f"{style}: {text.strip()}" for style, text in runs if style and text.strip()]
    if styled:
        shown[-1] = f"{shown[-1]:<{COLUMNS}} │ {', '.join(styled)}"
    return shown
