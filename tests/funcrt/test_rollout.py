"""What `funcrt serve` says of functions with mistakes: all at once, in the author's terms."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import mesh
from funcrt.errors import FunctionsRefused
from funcrt.host import Host
from funcrt.registry import load
from funcrt.rollout import find_functions, roll_out
from funcrt.sandbox.process import ProcessSandbox
from mesh.clock import SystemClock
from tests.serving import Serving

GOOD = "def handler(event):\n    return 1\n"
HTTP = '[[trigger]]\nkind = "http"\npath = "/same"\n'
MESH = '[[trigger]]\ntopic = "a"\n'

BROKEN: list[tuple[str | bytes, str | bytes | None, str]] = [
    # manifest, main.py, what is said behind `functions/NAME/`
    (MESH + "fliters = []", GOOD, 'funcrt.toml:3: trigger[0].fliters: unknown key, did you mean "'),
    ("bad = 1", GOOD, "funcrt.toml:1: bad: unknown key; known here: concurrency, dependencies,"
     " dlq, env, handler, idempotency, limits, name, output, profile, python, retry, sandbox,"
     " scale, secrets, source_builds, timeout, trigger"),
    ("attempts = 3", GOOD, "funcrt.toml:1: attempts: unknown key here; it belongs in [retry]"),
    ("[[trigger]]", GOOD, "funcrt.toml:1: trigger[0].topic: missing; add topic = ..."),
    ("[trigger]\n", GOOD, "funcrt.toml:1: trigger: expected an array of at most 100, found a table;"
     " write [[trigger]], with two brackets"),
    (MESH + 'kind = "msh"', GOOD, 'funcrt.toml:3: trigger[0].kind: expected "mesh", "http" or'
     ' "cron", found "msh", did you mean "mesh"?'),
    (HTTP + 'methods = ["get"]', GOOD, 'found "get", write "GET"'),
    ('timeout = "1d"', GOOD, 'expected a duration such as "30s" (ms, s, m, h), found "1d"'),
    ('[limits]\nmemory = "1PiB"', GOOD, 'size such as "256MiB" (KiB, MiB, GiB), found "1PiB"'),
    ('dlq = "x"', GOOD, 'dlq: expected true, false or a table ([dlq]), found "x"'),
    ("timeout = 30s", GOOD, "funcrt.toml:1: not TOML: expected one value, found 30s; strings need"),
    ("name = x", GOOD, "funcrt.toml:1: not TOML: expected a value, found x; strings need quotes"),
    ('name = "x', GOOD, "funcrt.toml:1: not TOML: unterminated string"),
    ('name = "x\n', GOOD, "funcrt.toml:1: not TOML: a string without its closing quote"),
    ('name = "a"\nname = "b"', GOOD, "funcrt.toml:2: not TOML: a key that is set already"),
    (b'name = "x"\r\nbad = 1\r\n', GOOD, "funcrt.toml:2: bad: unknown key"),
    (b"\xef\xbb\xbftimeout = -1\n", GOOD, 'funcrt.toml:1: timeout: expected "1ms" to "24h", found'),
    (b'name = "x\xe9"', GOOD, "funcrt.toml:1: expected UTF-8, found the byte 0xe9; save the file"),
    ('name = "x"'.encode("utf-16"), GOOD, "funcrt.toml:1: expected UTF-8, found UTF-16; save the"),
    ("# x\n" * 100_000, GOOD, "funcrt.toml: longer than 256 KiB"),
    (MESH + "batch = { size = 5 }", GOOD, "main.py: its trigger asks for batches, but main:"),
    ('handler = "mian:handler"', GOOD, "mian.py: is missing; found main.py"),
    ("", None, "main.py: is missing; found no Python file"),
    ("", "", "main.py: no function handler; functions found: none"),
    ("", "class handler: ...", "main.py: handler is a class, expected a function"),
    ("", "def handler(event, *, x): ...", "main.py:1: needs the keyword 'x', which no call gives"),
    ("", "def handler(event)\n  pass", "main.py:1: syntax error: expected ':'"),
    ("", "if 1:\n\tif 1:\n        x\n", "main.py:3: syntax error: inconsistent use of tabs"),
    ("", "import nonesuch\n", "main.py:1: cannot import 'nonesuch': no such module beside it, and"),
    ("", "import lib\n", "lib/__init__.py:1: fails to import: ZeroDivisionError: division by zero"),
    ("", "import sys\nsys.exit(3)", "main.py:2: fails to import: SystemExit: 3"),
    ("", "import os\nos._exit(3)", "main.py: its process ended during the import: it exited by"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder `functions` in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "functions").mkdir()
    return Path("functions")


def write(
    folder: Path, name: str, code: str | bytes | None = GOOD, manifest: str | bytes = ""
) -> Path:
    directory = folder / name
    directory.mkdir(parents=True)
    for file, text in (("main.py", code), ("funcrt.toml", manifest)):
        if text is not None:
            (directory / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return directory


def serve(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "funcrt", "serve", *words, "--port", "0", "--data", "data"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_all_mistakes_of_all_functions_are_told_at_once(folder: Path) -> None:
    for number, (manifest, code, _) in enumerate(BROKEN):
        directory = write(folder, f"f{number:02}", code, manifest)
        (directory / "lib").mkdir()
        (directory / "lib" / "__init__.py").write_text("1 / 0\n")
    outside = folder.parent / "outside.py"
    outside.write_text(GOOD)
    write(folder, "link", None)
    (folder / "link" / "main.py").symlink_to(outside.absolute())
    write(folder, "gone", None)
    (folder / "gone" / "main.py").symlink_to("/nonesuch")
    write(folder, "folder", None)
    (folder / "folder" / "main.py").mkdir()
    write(folder, "large")
    with (folder / "large" / "data.bin").open("wb") as file:
        file.truncate(65 << 20)
    write(folder, "my func")
    for name in ("twice1", "twice2"):
        write(folder, name, GOOD, 'name = "twice"')
    for name in ("path1", "path2"):
        write(folder, name, GOOD, HTTP)
    write(folder, "path3", GOOD, HTTP.replace("/same", "/u/{a}"))
    write(folder, "path4", GOOD, HTTP.replace("/same", "/u/{b}"))
    write(folder, "good")

    refused = serve("functions")
    said = refused.stderr.splitlines()
    assert refused.returncode == 2
    assert refused.stdout == ""
    for number, (_, _, wanted) in enumerate(BROKEN):
        mine = [line for line in said if line.startswith(f"✗ functions/f{number:02}/")]
        assert any(wanted in line for line in mine), (wanted, mine)
        assert len(mine) == 1, mine
    for wanted in (
        f"✗ functions/link/main.py: a symbolic link to '{outside.absolute()}'; put a copy there",
        "✗ functions/gone/main.py: a symbolic link to '/nonesuch'; put a copy there",
        "✗ functions/folder/main.py: is missing; found no Python file",
        "✗ functions/large/data.bin: with it the files come to over 64 MiB",
        "✗ functions/my func/funcrt.toml: name: 'my func' is no function name",
        "✗ functions/twice2: functions/twice1 is named 'twice' too; set name in one funcrt.toml",
        "✗ functions/path2: functions/path1 has the path /same too",
        "✗ functions/path4: the path /u/{b} can be the same as /u/{a}, which functions/path3 has",
        f"  {len(BROKEN) + 8} mistakes, all of them above; no function was started",
    ):
        assert any(line.startswith(wanted) for line in said), wanted
    text = refused.stderr
    assert "good" not in text
    assert "Traceback" not in text
    for ours in ("/funcrt/", "importlib", 'File "<'):
        assert not [line for line in said if line.lstrip().startswith("File") and ours in line]
    # The author's own frames and lines are there, under the path they know.
    assert '    File "functions/f28/main.py", line 1, in <module>\n      import nonesuch\n' in text
    assert "      def handler(event)\n                        ^\n" in text


def test_what_looks_like_a_function_and_is_none_is_said(folder: Path) -> None:
    write(folder, "near", None, "")
    (folder / "near" / "funcrt.toml").unlink()
    (folder / "near" / "handler.py").write_text(GOOD)
    write(folder / "deep", "below")
    for name in (".hidden", "__pycache__", "good"):
        write(folder, name)
    (folder / "linked").symlink_to("good")
    found, passed = find_functions([folder])
    assert found == [folder / "good", folder / "linked"]
    assert passed == [folder / "deep", folder / "near"]


def test_windows_line_ends_marks_and_tabs_are_taken(folder: Path) -> None:
    code = b"\xef\xbb\xbf# caf\xc3\xa9\r\ndef handler(event):\r\n\treturn 1\r\n"
    directory = write(folder, "f", code, b'\xef\xbb\xbf\tname\t=\t"x"\r\n')

    async def body(host: Host) -> list[str]:
        return [done.function.name for done in await roll_out(host, [directory])]

    assert run(folder, body) == ["x"]


def test_a_refusal_leaves_what_is_in_service(folder: Path) -> None:
    first = write(folder, "first", GOOD, MESH)

    async def body(host: Host) -> None:
        await roll_out(host, [first])
        version = host.deployed["first"].version
        before = await load(host.mesh)
        (first / "main.py").write_text(GOOD + "# another\n")
        broken = write(folder, "broken", "1 / 0")
        with pytest.raises(FunctionsRefused, match="ZeroDivisionError"):
            await roll_out(host, [first, broken])
        assert {name: f.version for name, f in host.deployed.items()} == {"first": version}
        assert await load(host.mesh) == before
        (broken / "main.py").write_text(GOOD)
        await roll_out(host, [first, broken])
        assert host.deployed["first"].version != version

    run(folder, body)


def test_a_folder_that_is_not_there_or_empty(folder: Path) -> None:
    refused = serve("nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("✗ nowhere does not exist, expected a directory of functions")
    process = subprocess.Popen(
        [sys.executable, "-m", "funcrt", "serve", "functions", "--port", "0", "--data", "data"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == (
            "! no function in functions; expected functions/NAME/main.py\n"
        )
    finally:
        time.sleep(0.5)
        process.terminate()
        process.communicate(timeout=30)


def run(folder: Path, body):  # type: ignore[no-untyped-def]
    async def main():  # type: ignore[no-untyped-def]
        transport = await mesh.connect("embedded://:memory:", host=True)
        sandbox = ProcessSandbox()
        await sandbox.start()
        host = Host(transport, sandbox, SystemClock(), folder.absolute().parent / "code")
        await host.start()
        try:
            return await body(host)
        finally:
            await host.drain(1)
            await sandbox.close()
            await transport.close()

    return asyncio.run(main())


def test_a_profile_that_no_function_has_is_none_that_was_meant(folder: Path) -> None:
    write(folder, "a", GOOD, "[profile.prod.scale]\nmax = 3\n")
    write(folder, "b")
    for asked, said in (("prdo", ', did you mean "prod"?'), ("x", "; there are: prod")):
        refused = serve("functions", "--profile", asked)
        assert refused.returncode == 2
        assert f"no function has the profile {asked!r}{said}" in refused.stderr


ECHO = """
import os
def handler(event): return os.environ["WHO"]
---
[env]
WHO = "nobody"
[profile.prod.env]
WHO = "prod"
"""


def test_serve_takes_a_profile(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "data", ["--profile", "prod"], echo=ECHO, plain=GOOD)
    try:
        assert httpx.post(f"{serving.url}/functions/echo").text == "prod"
        assert httpx.post(f"{serving.url}/functions/plain").text == "1"
    finally:
        serving.stop(signal.SIGKILL)
