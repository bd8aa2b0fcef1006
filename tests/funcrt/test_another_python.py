"""Functions in another Python than the host's: what they do, and that they are held back too."""

import asyncio
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from funcrt.errors import LoadError
from funcrt.sandbox import Code
from funcrt.sandbox.container import ContainerSandbox
from funcrt.sandbox.interpreter import Interpreter, PythonRefused
from funcrt.sandbox.levels import Policy
from funcrt.sandbox.process import ProcessSandbox, ProcessZygote
from funcrt.sandbox.secrets import Secrets
from mesh import Event
from tests.funcrt.test_sandbox import Running
from tests.levels import needs
from tests.pythons import KINDS, another, closed, other
from tests.serving import FUNCRT, Serving, rows
from tests.users import CLOSED

LEVELS = ["none", "process", "sandbox"]
ASKS = """
import ctypes, errno, os, sys

prctl = ctypes.CDLL(None).prctl


def opened():
    found = []
    for each in range(1024):
        try:
            os.fstat(each)
        except OSError:
            continue
        found.append(each)
    return found


def executed():
    try:
        os.execv(sys.executable, [sys.executable, "-c", ""])
    except OSError as error:
        return errno.errorcode[error.errno]


def there(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


AT_IMPORT = opened()


def handler(event):
    return {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "path": sys.path,
        "environ": dict(os.environ),
        "opened": opened(),
        "at_import": AT_IMPORT,
        "executed": executed() if event.json()["execute"] else "",
        "no_new_privileges": prctl(39, 0, 0, 0, 0),
        "seccomp": prctl(21, 0, 0, 0, 0),
        "dumpable": prctl(3, 0, 0, 0, 0),
        "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
        "host": [name for name in ("uvicorn", "starlette", "typer", "pip") if there(name)],
        "exit": callable(exit),
    }
"""


def with_sandbox(level: str, body: Callable[[ProcessSandbox], Awaitable[None]], **how: Any) -> None:
    needs(level)

    async def main() -> None:
        sandbox = ProcessSandbox(policy=Policy(forced=level), **how)  # type: ignore[arg-type]
        await sandbox.start()
        try:
            await body(sandbox)
        finally:
            await sandbox.close()

    asyncio.run(main())


def code(path: Path, source: str, python: Interpreter | None, **more: Any) -> Code:
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    (path / "main.py").write_text(source)
    return Code(name="f", version="1", path=path, python=python, **more)


async def asked(zygote: ProcessZygote, data: object = None) -> Any:
    one = Running()
    one.instance = await zygote.spawn(one.on_messages, one.on_exit)
    one.send(1, Event.create("t", data))
    result = await one.result(1)
    assert result.status == "ok", result.failure
    return result.outputs[0].event.json()


def usable(python: Interpreter, level: str) -> None:
    if above := closed(python, level):
        pytest.skip(f"{above} is closed to the users of functions")


@pytest.fixture(params=KINDS, scope="module")
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    directory = tmp_path_factory.mktemp("python")
    if os.geteuid() == 0:
        base = tmp_path_factory.getbasetemp()
        for each in (*(up for up in base.parents if up.name.startswith("pytest-")), base):
            each.chmod(each.stat().st_mode | 0o55)
    directory.chmod(0o755)
    return another(request.param, directory)


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_held_back_as_one_of_the_host_s_own(
    tmp_path: Path, python: Interpreter, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the interpreter and its path there is no difference, down to the descriptors."""
    usable(python, level)
    monkeypatch.setenv("SECRET", "of the host")
    how = {"execute": level != "none"}

    async def body(sandbox: ProcessSandbox) -> None:
        there = await sandbox.load(code(tmp_path / "there", ASKS, python, env={"A": "1"}))
        assert there.info.python.startswith(python.version)
        found = await asked(there, how)
        assert found["version"] == python.version
        assert found["executable"] == python.executable
        assert found["host"] == []
        assert found["path"].count(python.library) == 1
        if os.geteuid() == 0:  # a function cannot read it
            began = Path(f"/proc/{there.pid}/environ").read_text()
            assert began == "PATH=/usr/local/bin:/usr/bin:/bin\0LANG=C.UTF-8\0"
        if CLOSED and os.geteuid() == 0 and level != "sandbox":
            return  # nobody but root runs the host's own
        own = await asked(
            await sandbox.load(code(tmp_path / "own", ASKS, None, env={"A": "1"})), how
        )
        for each in (found, own):
            each["opened"], each["at_import"] = len(each["opened"]), len(each["at_import"])
        differs = ("version", "executable", "path", "host", "environ")
        assert {n: v for n, v in found.items() if n not in differs} == {
            n: v for n, v in own.items() if n not in differs
        }
        changes = {"HOME": "", "TMPDIR": ""}  # a directory of its own each
        assert found["environ"] | changes == own["environ"] | changes
        if level != "none":
            assert (found["seccomp"], found["executed"]) == (2, "EPERM")
        assert found["no_new_privileges"] == 1

    with_sandbox(level, body)


@pytest.mark.parametrize(
    "source",
    [
        "def handler(event): return {'got': event.json()}",
        "async def handler(event): return {'got': event.json()}",
        "from funcrt import Event, Context\n"
        "def handler(event: Event, ctx: Context):\n"
        "    ctx.log.info('%s', ctx.secret('KEY')); print('printed'); yield {'got': event.json()}",
        "import threading\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, daemon=True).start()\n"
        "def handler(event): return {'got': event.json()}",
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\nasync def lifespan(ctx): yield {'got': 1}\n"
        "async def handler(event, ctx): return {'got': event.json(), 'kept': ctx.resources.got}",
    ],
)
def test_handlers_of_all_kinds_answer(tmp_path: Path, python: Interpreter, source: str) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        zygote = await sandbox.load(code(tmp_path / "f", source, python))
        one = Running()
        secrets = Secrets({"KEY": "a long secret"})
        one.instance = await zygote.spawn(one.on_messages, one.on_exit, secrets)
        for number in range(1, 51):
            one.send(number, Event.create("t", {"n": number}))
        for number in range(1, 51):
            result = await one.result(number)
            assert result.status == "ok", result.failure
            assert result.outputs[0].event.json()["got"] == {"n": number}
        if "secret" in source:
            await one.until(lambda: len(one.logs) >= 100)
            assert {log.text for log in one.logs} == {"[secret KEY]", "printed"}

    with_sandbox("sandbox", body)


def test_what_fails_is_told_with_its_lines(tmp_path: Path, python: Interpreter) -> None:
    async def body(sandbox: ProcessSandbox) -> None:
        with pytest.raises(LoadError, match=r"main.py:2: fails to import: ValueError: no"):
            await sandbox.load(code(tmp_path / "a", "\nraise ValueError('no')", python))
        with pytest.raises(LoadError, match=r"not in requirements.txt|it has no requirements.txt"):
            await sandbox.load(code(tmp_path / "b", "import no_such_thing", python))
        ended = code(tmp_path / "c", "import os; os._exit(3)", python)
        with pytest.raises(LoadError, match=r"its log says why, if .*python3"):
            await sandbox.load(ended)

    with_sandbox("sandbox", body)


@pytest.mark.parametrize("level", LEVELS)
def test_an_interpreter_that_is_not_there_is_refused(
    tmp_path: Path, python: Interpreter, level: str
) -> None:
    gone = msgspec.structs.replace(python, executable="/no/such/python3.99")

    async def body(sandbox: ProcessSandbox) -> None:
        with pytest.raises(PythonRefused, match=r"No such file or directory. It was there before"):
            await sandbox.load(code(tmp_path / "f", "def handler(event): pass", gone))
        usable(python, level)
        zygote = await sandbox.load(code(tmp_path / "f", "def handler(event): return 1", python))
        assert await asked(zygote) == 1

    with_sandbox(level, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives functions users of their own")
def test_one_that_others_may_not_enter_is_refused_at_process_and_runs_in_a_sandbox(
    tmp_path: Path, python: Interpreter
) -> None:
    """As below /root: a view of its own shows it."""
    hidden = tmp_path / "hidden"
    shutil.copytree(python.library, hidden / "library")
    hidden.chmod(0o700)
    python = msgspec.structs.replace(python, library=str(hidden / "library"))
    source = "import sys\ndef handler(event): return sys.version_info[:2]"

    async def refused(sandbox: ProcessSandbox) -> None:
        with pytest.raises(
            PythonRefused,
            match=r"cannot at isolation 'process': .*Permission denied.*isolation = .sandbox.",
        ):
            await sandbox.load(code(tmp_path / "f", source, python))

    async def runs(sandbox: ProcessSandbox) -> None:
        zygote = await sandbox.load(code(tmp_path / "f", source, python))
        assert await asked(zygote) == [int(each) for each in python.version.split(".")[:2]]

    with_sandbox("process", refused)
    with_sandbox("sandbox", runs)


def test_a_reload_is_a_fork_of_the_interpreter_that_runs(
    tmp_path: Path, python: Interpreter
) -> None:
    source = "def handler(event): return {version}"

    async def body(sandbox: ProcessSandbox) -> None:
        parents = []
        for version in (1, 2):
            path = tmp_path / str(version)
            one = code(path, source.replace("{version}", str(version)), python)
            zygote = await sandbox.load(one)
            assert await asked(zygote) == version
            stat = Path(f"/proc/{zygote.pid}/stat").read_text()
            parents.append(int(stat.rsplit(")", 1)[1].split()[1]))
        assert parents[0] == parents[1]
        assert os.readlink(f"/proc/{parents[0]}/exe") == python.executable

    with_sandbox("none", body, warm=True)


def test_syntax_of_the_other_is_no_matter_to_the_host(tmp_path: Path, python: Interpreter) -> None:
    """Its imports are looked for by the host's own Python, which may not be able to read it."""
    if python.version.startswith("3.11."):
        pytest.skip("needs syntax that the host's Python does not have")
    source = "import wave\ntype Name = str\ndef handler(event): return [f'{'a' + 'b'}']"

    async def body(sandbox: ProcessSandbox) -> None:
        assert await asked(await sandbox.load(code(tmp_path / "f", source, python))) == ["ab"]

    with_sandbox("sandbox", body, warm=True)


def test_a_container_s_python_is_its_image_s(tmp_path: Path) -> None:
    python = Interpreter("/x/python3.99", "3.99.1", "cpython-399", "linux", ())
    with pytest.raises(PythonRefused, match=r"a container has the Python of its image"):
        asyncio.run(ContainerSandbox(ProcessSandbox().users).load(code(tmp_path / "f", "", python)))


CONNECTS = """
import errno, socket


def handler(event):
    found = []
    for port in event.json():
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                found.append(sock.recv(10).decode())
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return found
"""


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_its_connections_are_made_for_it(tmp_path: Path, python: Interpreter, level: str) -> None:
    """By a process of the host's Python, which is not its own."""
    usable(python, level)

    async def body(sandbox: ProcessSandbox) -> None:
        missing = await sandbox.primitives()
        if any(name == "supervised connections" and number for name, number, _ in missing):
            pytest.skip("this kernel hands no connections over")

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        servers = [await asyncio.start_server(greet, "127.0.0.1", 0) for _ in range(2)]
        listed, other = (each.sockets[0].getsockname()[1] for each in servers)
        there = code(tmp_path / "f", CONNECTS, python, network=(f"127.0.0.1:{listed}",))
        try:
            found = await asked(await sandbox.load(there), [listed, other])
        finally:
            for each in servers:
                each.close()
        assert found == ["hello", "EACCES"]

    with_sandbox(level, body)


@pytest.mark.parametrize("level", LEVELS)
def test_its_limits_are_its_manifest_s(tmp_path: Path, python: Interpreter, level: str) -> None:
    usable(python, level)
    source = "def handler(event): return len(bytearray(event.json() << 20))"

    async def body(sandbox: ProcessSandbox) -> None:
        there = code(tmp_path / "f", source, python, memory_bytes=256 << 20)
        zygote = await sandbox.load(there)
        assert await asked(zygote, 16) == 16 << 20
        one = Running()
        one.instance = await zygote.spawn(one.on_messages, one.on_exit)
        one.send(1, Event.create("t", 600))
        await one.until(lambda: bool(one.results) or one.exit is not None)
        if one.exit is not None:
            assert one.exit.limit == "memory"
        else:
            assert one.results[1].failure is not None
            assert one.results[1].failure.limit == "memory"

    with_sandbox(level, body)


@pytest.mark.parametrize("level", LEVELS)
def test_it_ends_with_the_runtime_zygote(tmp_path: Path, python: Interpreter, level: str) -> None:
    """Its parent's end is a signal that the interpreter's start does not undo."""
    usable(python, level)

    async def body(sandbox: ProcessSandbox) -> None:
        zygote = await sandbox.load(code(tmp_path / "f", "def handler(event): return 1", python))
        assert await asked(zygote) == 1
        watch = os.pidfd_open(zygote.pid)
        assert sandbox.keeper.process is not None
        sandbox.keeper.process.kill()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(10):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)

    # Another runtime ends what it finds in the control groups of one that was killed.
    with_sandbox(level, body, grouped=False)


# A whole host


VERSION = """import sys


def handler(event):
    print("said")
    return sys.version_info[:2]
"""


@pytest.fixture(scope="module")
def minor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version that the host's is not, such as 3.12."""
    return ".".join(other(tmp_path_factory.mktemp("other")).version.split(".")[:2])


def test_a_host_serves_it_and_says_in_what_it_runs(tmp_path: Path, minor: str) -> None:
    env = {"FUNCRT_USER": "root"} if os.geteuid() == 0 else {}
    host = Serving(tmp_path / "data", env=env, hello=f"{VERSION}---python = '{minor}'", own=VERSION)
    try:
        (told,) = rows(host.run("invoke", "hello", "--remote", "--data", "1", "--json"))
        assert told["outputs"][0]["event"]["data"] == [int(part) for part in minor.split(".")]
        by_name = {each["name"]: each["python"] for each in rows(host.run("ls", "--json"))}
        assert by_name["hello"].startswith(f"{minor}.")
        assert by_name["own"] == platform.python_version()
        assert f"python       {minor}." in host.run("describe", "hello").stdout
        assert "said" in host.run("logs", "hello").stdout
        assert f"{minor}." in host.run("doctor").stdout
        folder = tmp_path / "functions/hello"
        (folder / "funcrt.toml").write_text("python = '3.99'")
        refused = host.run("deploy", str(folder))
        assert refused.returncode == 2
        assert 'hello: python = "3.99", and this machine has no such Python' in refused.stderr
        assert f"{minor}." in refused.stderr
    finally:
        host.stop(signal.SIGTERM)


def test_it_is_called_without_a_host(tmp_path: Path, minor: str) -> None:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "main.py").write_text(VERSION)
    (folder / "funcrt.toml").write_text(f"python = '{minor}'")
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data")}
    words = [*FUNCRT, "invoke", str(folder), "--local", "--data", "1", "--json"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    (told,) = rows(done)
    assert told["outputs"][0]["event"]["data"] == [int(part) for part in minor.split(".")]
