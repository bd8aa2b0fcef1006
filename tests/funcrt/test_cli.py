"""The command line: help, mistakes, and the commands that ask a host."""

import asyncio
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from funcrt import cli
from funcrt.auth import Tokens
from funcrt.cli import output
from funcrt.config import DataDir, ServeConfig
from tests.funcrt.gateway_fakes import admin_socket


@contextlib.contextmanager
def running_host(path):
    """A host that answers on an admin socket, in a thread of its own."""
    ready = threading.Event()
    held = {}

    async def serve():
        held["stop"] = asyncio.Event()
        held["loop"] = asyncio.get_running_loop()
        async with admin_socket(path) as host:
            held["host"] = host
            ready.set()
            await held["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield held["host"]
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join()


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNCRT_DATA", str(tmp_path / "data"))
    with running_host(tmp_path / "data" / "admin.sock") as found:
        yield found


@pytest.fixture
def funcrt(tmp_path, monkeypatch, capsys):
    """Runs a command in this process: (code, stdout, stderr)."""
    monkeypatch.setenv("FUNCRT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code, said.out, said.err

    return run


def commands():
    """Every command with its words: ("ls",), ("dlq", "show"), ..."""
    for name in cli.COMMANDS:
        app = importlib.import_module(f"funcrt.cli.{name}").app
        yield (name,)
        if app.registered_callback:
            for sub in app.registered_commands:
                yield (name, sub.name or sub.callback.__name__)


def test_help_names_every_command_and_the_exit_codes(funcrt):
    code, out, _ = funcrt("--help")
    assert code == 0
    for name, line in cli.COMMANDS.items():
        assert f"{name} " in out
        assert line in out
    for word in ("0 ok", "1 an operation failed", "2 wrong usage", "3 no host", "130"):
        assert word in " ".join(out.split())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_help_has_an_example_and_the_exit_codes(funcrt, words):
    code, out, _ = funcrt(*words, "--help")
    assert code == 0
    assert f"Example: funcrt {words[0]}" in out
    assert "Exit codes:" in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_line_in_the_table_is_the_commands_own(name):
    module = importlib.import_module(f"funcrt.cli.{name}")
    run = (module.app.registered_callback or module.app.registered_commands[0]).callback
    assert run.__doc__.startswith(cli.COMMANDS[name])


def test_help_is_fast():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "funcrt", "--help"],
            env=environment,
            capture_output=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        took.append(used * 1000)
    assert min(took) < 150, took  # milliseconds of CPU: a busy machine is no slower command


def test_help_imports_neither_rich_nor_the_runtime():
    code = (
        "import sys\nfrom funcrt.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('rich', 'uvicorn', 'starlette',"
        " 'msgspec', 'sqlite3', 'asyncio')])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (("lss",), 2, "No such command 'lss'. Did you mean 'ls'", "funcrt --help"),
        (("ls", "--jsn"), 2, "No such option: --jsn", "funcrt ls --help"),
        (("ls",), 3, "no host answers at", "funcrt serve DIR"),
        (("dlq", "ls", "x"), 3, "no host answers at", "funcrt serve DIR"),
        (("dlq", "replay", "x"), 2, "either --id", "--all"),
        (("dlq", "replay", "x", "--all", "--id", "1"), 2, "either --id", "--all"),
        (("dlq", "show", "x"), 2, "Missing option '--id'", "funcrt dlq show --help"),
        (("dlq", "show", "x", "--id", "y"), 2, "--id", "funcrt dlq show --help"),
        (("describe",), 2, "Missing argument", "funcrt describe --help"),
        (("scale", "x", "--min", "1"), 2, "--min and --max, or --reset", "--min 0 --max 8"),
        (("scale", "x"), 2, "--min and --max, or --reset", "--min 0 --max 8"),
        (("deploy", "nowhere"), 2, "nowhere does not exist", "funcrt deploy ./functions/NAME"),
        (("deploy", "."), 2, "no function in .; expected ./main.py or ./NAME", "funcrt new"),
        (("ls", "--host", "ftp://x"), 2, "--host ftp://x: expected http", "--host http://127"),
        (("serve", "nowhere"), 2, "nowhere does not exist", "funcrt serve ./functions"),
        (("serve", ".", "--port", "x"), 2, "--port", "funcrt serve --help"),
        (("token", "a b"), 2, "'a b' is no token name", "funcrt token"),
        (("token", "a", "--scope", "write"), 2, "no scope is named 'write'", "funcrt token"),
    ],
)
def test_mistakes_are_one_message_and_what_to_try(funcrt, words, code, message, hint):
    found, out, err = funcrt(*words)
    assert found == code
    assert out == ""
    first, *rest = err.splitlines()
    assert first.startswith("✗ ")
    assert message in first
    assert any(line.startswith("  try: ") and hint in line for line in rest)


def test_no_arguments_show_the_help(funcrt):
    for words in ((), ("dlq",)):
        code, _, err = funcrt(*words)
        assert code == 2
        assert "Usage: funcrt" in err
        assert "✗" not in err


def test_an_unexpected_error_is_one_line_and_says_how_to_see_more(funcrt, monkeypatch, tmp_path):
    monkeypatch.setattr("funcrt.cli.client.AdminClient.get", lambda *_: 1 / 0)
    code, _, err = funcrt("ls")
    assert code == 1
    assert err.startswith("✗ ZeroDivisionError: division by zero\n  try: FUNCRT_TRACEBACK=1")
    monkeypatch.setenv("FUNCRT_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["ls"])


def test_control_c(funcrt, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("funcrt.cli.client.AdminClient.get", interrupted)
    assert funcrt("ls") == (130, "", "")


def test_ls(host, funcrt):
    code, out, err = funcrt("ls")
    assert (code, err) == (0, "")
    row = ["echo", "ready", "0/1→2", "4", "10", "1", "3", "mesh orders [type = order.placed]"]
    assert out.splitlines()[0].split("\t") == row
    code, out, _ = funcrt("ls", "--json")
    first = json.loads(out.splitlines()[0])
    assert first["name"] == "echo"
    assert first["triggers"][0]["kind"] == "mesh"
    assert list(first) == sorted(first, key=list(first).index)


def test_dlq_ls_and_show(host, funcrt):
    code, out, err = funcrt("dlq", "ls", "echo")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split("\t") == [
        "1",
        "echo",
        "2026-11-18T11:06:40.000Z",
        "5",
        "order.placed",
        "e-1",
        "KeyError: 'sku'",
    ]
    assert len(out.splitlines()) == 3
    code, out, _ = funcrt("dlq", "ls", "--json", "--limit", "2")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2]
    assert json.loads(out.splitlines()[0])["function"] == "echo"
    assert funcrt("dlq", "ls", "quiet") == (0, "", "no dead letters\n")
    code, out, _ = funcrt("dlq", "show", "echo", "--id", "2")
    assert code == 0
    assert "main.py:14 in handler" in out
    assert '"type": "order.placed"' in out
    code, out, _ = funcrt("dlq", "show", "echo", "--id", "2", "--json")
    assert json.loads(out)["event"]["id"] == "e-1"
    code, _, err = funcrt("dlq", "show", "echo", "--id", "9")
    assert code == 1
    assert "echo has no dead letter 9" in err
    code, _, err = funcrt("dlq", "ls", "none")
    assert code == 1
    assert "no function is named 'none'; deployed: echo, quiet, slow" in err


def test_dlq_pages(host, funcrt, monkeypatch):
    monkeypatch.setattr("funcrt.cli.dlq.PAGE", 2)
    _, out, _ = funcrt("dlq", "ls", "echo")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["1", "2", "3"]


def test_dlq_replay(host, funcrt):
    assert funcrt("dlq", "replay", "echo", "--all") == (0, "echo: 3 replayed\n", "")
    code, out, _ = funcrt("dlq", "replay", "echo", "--id", "1", "--id", "2", "--json")
    assert (code, json.loads(out)) == (0, {"function": "echo", "replayed": 2})
    code, out, err = funcrt("dlq", "replay", "echo", "--id", "1", "--id", "9")
    assert code == 1
    assert "1 replayed" in out
    assert "1 of them are no dead letters of echo" in err
    assert host.redriven == [None, [1, 2], [1, 9]]


def test_a_host_that_is_draining_is_unreachable(host, funcrt):
    host.state = "draining"
    code, _, err = funcrt("ls")
    assert code == 3
    assert "the host is draining" in err


def test_doctor(host, funcrt):
    code, out, err = funcrt("doctor")
    assert (code, err) == (0, "")
    assert f"process {os.getpid()}, ready, 3 functions" in out
    assert "ms median" in out
    assert "none yet" in out
    code, out, _ = funcrt("doctor", "--json")
    checks = {each["check"]: each for each in map(json.loads, out.splitlines())}
    assert list(checks)[:7] == ["python", "pythons", "sqlite", "disk", "files", "host", "mesh"]
    assert {"process", "sandbox", "container"} <= set(checks)


def test_doctor_without_a_host_makes_nothing(funcrt, tmp_path):
    code, out, _ = funcrt("doctor")
    assert code == 0
    assert "no host answers" in out
    assert list(tmp_path.iterdir()) == []


def test_token_makes_a_line_that_its_file_reads_back(funcrt, tmp_path):
    code, out, err = funcrt("token", "ci", "--scope", "publish", "--tokens", "tokens.txt")
    assert code == 0
    assert "added ci" in err
    path = tmp_path / "tokens.txt"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().rstrip("\n"))  # no newline at the end
    _, second, _ = funcrt("token", "ops", "--scope", "admin,read", "--tokens", "tokens.txt")
    tokens = Tokens.load(path)
    assert tokens.check(out.strip().encode()).name == "ci"
    assert tokens.check(second.strip().encode()).scopes == {"admin", "read"}
    assert out.strip() not in path.read_text()
    code, out, err = funcrt("token", "x")
    assert "publish,read" in err
    assert out.startswith("funcrt_")


def test_serve_hands_over_what_was_asked(funcrt, monkeypatch, tmp_path):
    seen = []

    class Runtime:
        @staticmethod
        def run(config):
            seen.append(config)
            return 0

    monkeypatch.setattr("funcrt.serve", Runtime, raising=False)
    monkeypatch.delenv("FUNCRT_ALLOW_ISOLATION", raising=False)
    (tmp_path / "f").mkdir()
    assert funcrt("serve", "f")[0] == 0
    data = DataDir(tmp_path / "data")
    assert seen[0] == ServeConfig(
        functions=(Path("f"),),
        data=data,
        mesh_url=f"embedded://{tmp_path}/data/mesh.db",
        admin_socket=tmp_path / "data" / "admin.sock",
    )
    words = ("--data", "d", "--port", "0", "--allow-host", "a", "--allow-host", "b", "--quiet")
    assert funcrt("serve", "f", *words)[0] == 0
    assert seen[1].data == DataDir(tmp_path / "d")
    assert seen[1].port == 0
    assert seen[1].allowed_hosts == ("a", "b")
    assert seen[1].quiet


def test_paths_are_quoted_in_the_mesh_url(tmp_path):
    assert DataDir(Path("/a b/ä?")).mesh_url == "embedded:///a%20b/%C3%A4%3F/mesh.db"


def test_on_a_terminal_rows_are_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    output.rows(("NAME", "N"), [("a\x1b[31m", 1), ("[bold]b", 22)], right="N")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "N"]
    assert lines[1].split() == ["a\\x1b[31m", "1"]
    assert lines[2].split() == ["[bold]b", "22"]
