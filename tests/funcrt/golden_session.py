"""A session at a terminal and in pipes, written down with what differs from run to run evened out.

A section of a golden file is a command, what it printed and its exit code:

    $ funcrt ls                    on a terminal of 80 columns; ↩ marks a line that it wraps, and
                                   what is behind │ says which words are coloured, and how
    $ funcrt ls | cat              in a pipe; lines of standard error begin with `2| `
"""

import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from funcrt.cli import COMMANDS
from tests.serving import FUNCRT
from tests.terminal import PATIENCE_S, Running, piped, rendered

__all__ = ["ROOT_LENGTH", "Session"]

ROOT_LENGTH = len("/tmp/golden-12345678")
"""Of the session's directory: a path's length decides what of a line fits."""

RULES = [(re.compile(pattern, re.M), put) for pattern, put in (
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "2026-01-01T00:00:00.000Z"),
    (r"\b20\d\d-\d\d-\d\dT07:00:00\+00:00", "2026-01-01T07:00:00+00:00"),
    (r"(?<!\d)\d\d:\d\d:\d\d\.\d{3}\b", "00:00:00.000"),
    (r"(?<![T\d])\d\d:\d\d:\d\d\b", "00:00:00"),
    (r"(?<![\d-])\d\d-\d\d (?=00:00:00)", "01-01 "),
    (r"(?<=whole rows: ).*", "..."),
    (r'"saved":\{.*?\}', '"saved":{}'),
    (r"(?<=127.0.0.1:)\d+", "8080"),
    (r'(?<="port":)\d+', "8080"),
    (r'(?<="pid":)\d+', "1"),
    (r'(?<=":)1[78]\d{8}\.\d+', "1700000000.0"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b",
     "00000000-0000-4000-8000-000000000000"),
    (r"\bfuncrt_[\w-]{43}", "funcrt_" + "x" * 43),
    (r"\b\d[\d.]* ms\b", "N ms"),
    (r"(?<=next in )[\d.]+(?= s\b)", "0.0"),
    (r'(?<=ms":)\d[\d.e-]*', "0.0"),
    (r'("(?:cpu_s|memory_bytes|peak_bytes)":)\d[\d.e-]*', r"\g<1>0"),
    (r"\b\d+\.\d (?=s of CPU\b)", "N "),
    (r"\b\d+ (?=MiB of memory\b)|(?<=at most )\d+ (?=MiB\b)", "N "),
    (r'("(?:p50|p99|seconds|per_s)":)\d[\d.e-]*', r"\g<1>0.0"),
    (r'(?<="instance":)[1-9]\d+', "1"),
    (r"(?<=\t)\d{2,}(?=\t[0-9a-f]{12}\t)", "1"),
    (r"(?<=in )\d+\.\d\ds\b", "0.00s"),
    (r"^(?:\x1b\[\d+m)?.(?:\x1b\[0m)? (python|pythons|sqlite|files|process|sandbox|container)( +).*"
     r"(\n {7,14}\S.*|\n  try: .*)*", r"? \1\2(this machine's)"),
    (r"^(?:\x1b\[\d+m)?.(?:\x1b\[0m)? lacks .*(\n {7,14}\S.*|\n  try: .*)*\n", ""),
    (r'^\{"check":"lacks".*\n', ""),
    (r'("check":"(?:pythons?|sqlite|files|process|sandbox|container)").*', r"\1 (this machine's)"),
    (r"\bprocess \d+", "process 1"),
    (r'(?<="python":")[\d.]+', "3.11.0"),
    (r"(?<=^python       )[\d.]+", "3.11.0"),
)]  # fmt: skip
DIGEST = re.compile(r"(?<![\w-])[0-9a-f]{64}\b|(?<![\w-])[0-9a-f]{12}\b|(?<=version )[0-9a-f]{7}\b")
MEASURED = re.compile(r"\b(?:LAST|OLDEST|PER_S|RUN_P\d\d|WAIT_P\d\d)\b")


class Session:
    """Commands one after the other below `root`, each put down in the file of its name."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        assert len(str(root)) == ROOT_LENGTH
        self.root = root
        self.env = {**env}
        self.files: dict[str, str] = {}
        self._digests: dict[str, int] = {}
        self._started: list[Running] = []

    def run(self, *words: str, stdin: str = "") -> None:
        """What changes nothing: on a terminal, in a pipe, and as JSON in one, all at once."""
        with ThreadPoolExecutor() as pool:
            shown = pool.submit(self._terminal, words)
            plain = pool.submit(self._pipe, words, stdin)
            json = pool.submit(self._pipe, (*words, "--json"), stdin)
            for one in (shown, plain, json):
                self._put(words, *one.result())

    def terminal(self, *words: str) -> None:
        """On a terminal."""
        self._put(words, *self._terminal(words))

    def quiet(self, *words: str) -> None:
        """In a pipe, and not put down."""
        _, _, err, code = self._pipe(words, "")
        assert code == 0, err

    def pipe(self, *words: str, stdin: str = "") -> None:
        """In a pipe."""
        self._put(words, *self._pipe(words, stdin))

    def start(self, *words: str) -> Running:
        """A command on a terminal that goes on."""
        running = Running([*FUNCRT, *words], cwd=self.root, env=self.env)
        self._started.append(running)
        return running

    def close(self) -> None:
        """End what has not ended."""
        for running in self._started:
            running.close()

    def end(self, running: Running, *words: str) -> None:
        """Wait for its end, and put down what it showed."""
        code = running.ended()
        self._put(words, shlex.join(("funcrt", *words)), running.raw, "", code)

    def until(self, pattern: str, *words: str) -> None:
        """A command in pipes that goes on, stopped when it has written this."""
        with subprocess.Popen(
            [*FUNCRT, *words], cwd=self.root, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            said = ""
            while not re.search(pattern, said):
                said += (read := process.stdout.readline())
                assert read, said
            process.send_signal(signal.SIGTERM)
            said += process.stdout.read()
            code = process.wait(PATIENCE_S)
        self._put(words, f"{shlex.join(('funcrt', *words))} 2>&1 | cat", said, "", code)

    def _terminal(self, words: Sequence[str]) -> tuple[str, str, str, int]:
        running = self.start(*words)
        code = running.ended()
        return shlex.join(("funcrt", *words)), running.raw, "", code

    def _pipe(self, words: Sequence[str], stdin: str) -> tuple[str, str, str, int]:
        code, out, err = piped([*FUNCRT, *words], cwd=self.root, env=self.env, stdin=stdin)
        return f"{shlex.join(('funcrt', *words))} | cat", out, err, code

    def _put(self, words: Sequence[str], shown: str, out: str, err: str, code: int) -> None:
        piped_ = shown.endswith(" | cat")
        text = self._even(out)
        lines = text.splitlines() if piped_ else rendered(text)
        if words[0] == "stats":
            lines = _unmeasured_in_pipe(lines) if piped_ else _unmeasured(lines)
        lines += [f"2| {each}" for each in self._even(err).splitlines()]
        several = words[0] in COMMANDS and words[0] in ("dlq", "filter") and words[1] != "--help"
        name = "-".join(words[:2]) if several else words[0]
        section = [f"$ {self._even(shown)}", *lines, f"exit {code}", "", ""]
        name = name.replace("--help", "funcrt")
        self.files[name] = self.files.get(name, "") + "\n".join(section)

    def _even(self, text: str) -> str:
        """Without what is another in each run."""
        text = text.replace("\r\n", "\n").replace(str(self.root), "/tmp/golden-00000000")
        text = DIGEST.sub(self._digest, text)
        for pattern, put in RULES:
            text = pattern.sub(put, text)
        return text

    def _digest(self, found: "re.Match[str]") -> str:
        """The first digest is 1, the second 2: which are the same, and which are not, is seen."""
        number = self._digests.setdefault(found[0][:7], len(self._digests) + 1)
        return f"{number:07}".ljust(len(found[0]), "0")


def _unmeasured(lines: Sequence[str]) -> list[str]:
    """A table without what its columns of measured values hold."""
    ends: list[tuple[int, int]] = []
    found = []
    for line in lines:
        if "RUN_P" in line:
            head = line.split("│")[0]
            ends = [each.span() for each in MEASURED.finditer(head)]
            found.append(line)
            continue
        cut = line
        for start, end in ends:
            if cut[start:end].strip() not in ("", "-"):
                cut = cut[:start] + "#".rjust(end - start) + cut[end:]
        found.append(cut)
    return found


def _unmeasured_in_pipe(lines: Sequence[str]) -> list[str]:
    found = []
    for line in lines:
        cells = line.split("\t")
        for at in {15: (4, 5, 11, 12, 13, 14), 11: (0, 1, 7, 8, 9, 10)}.get(len(cells), ()):
            cells[at] = cells[at] if cells[at] == "-" else "#"
        found.append("\t".join(cells))
    return found
