"""A real `funcrt serve`, and commands beside it, for the tests that need one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FUNCRT = [sys.executable, "-m", "funcrt"]


class Serving:
    """A host on `data`, started with the words `within`; what it says on standard error is in
    `serve.err` beside that."""

    def __init__(
        self,
        data: Path,
        options: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        files: int | None = None,
        within: Sequence[str] = (),
        **functions: str,
    ) -> None:
        self.env = {**os.environ, "FUNCRT_DATA": str(data), **(env or {})}
        root = data.parent / "functions"
        root.mkdir(exist_ok=True)
        for name, source in functions.items():
            code, _, manifest = source.partition("---")
            (root / name).mkdir(exist_ok=True)
            (root / name / "main.py").write_text(code)
            (root / name / "funcrt.toml").write_text(manifest)
        limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"] if files else []
        with (data.parent / "serve.err").open("a") as log:
            self.process = subprocess.Popen(
                [*within, *limited, *FUNCRT, "serve", str(root), "--port", "0", "--json", *options],
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        while "port" not in (line := json.loads(self.process.stdout.readline() or '{"port": 0}')):
            pass
        self.port = line["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FUNCRT, *arguments], env=self.env, input=stdin, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()  # nothing is left behind by a test that failed
            self.process.wait()
            raise
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def rows(done: "subprocess.CompletedProcess[str]") -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(row) for row in done.stdout.splitlines()]


def two(found: list[Any]) -> list[Any] | None:
    return found if len(found) == 2 else None


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def tree(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    below = [int(child) for child in text.split()]
    return below + [p for child in below for p in tree(child)]
