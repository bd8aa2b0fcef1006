"""What a function's `lifespan` opens is there for its calls, and closed as its instance ends."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from funcrt.errors import LoadError
from funcrt.sandbox.lifespan import TEARDOWN_S
from funcrt.testing import App, load
from tests.funcrt.test_sandbox import Running, event, run
from tests.serving import Serving, rows, until

pytestmark = pytest.mark.usefixtures("unconfined")

ASYNC = """
import asyncio
from contextlib import asynccontextmanager
def note(ctx, word):
    with open(ctx.env["WHERE"], "a") as file: file.write(word + "\\n")
@asynccontextmanager
async def lifespan(ctx):
    note(ctx, "open")
    beats = []
    async def beat():
        while True:
            beats.append(1)
            await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as group:  # which one task must enter and leave
        task = group.create_task(beat())
        yield {"beats": beats, "loop": asyncio.get_running_loop()}
        task.cancel()
    note(ctx, "close")
"""
SYNC = """
from contextlib import contextmanager
import sqlite3
def note(ctx, word):
    with open(ctx.env["WHERE"], "a") as file: file.write(word + "\\n")
@contextmanager
def lifespan(ctx):
    note(ctx, "open")
    db = sqlite3.connect(":memory:")  # which only its own thread may use
    yield {"db": db, "beats": [1]}
    db.execute("select 1")
    db.close()
    note(ctx, "close")
"""
HANDLERS = {
    "async": "async def handler(event, ctx): return {'beats': len(ctx.resources.beats)}",
    "sync": "def handler(event, ctx): return {'beats': len(ctx.resources.beats)}",
    "request": (
        "from starlette.requests import Request\n"
        "async def handler(request: Request):\n"
        "    return {'beats': len(request.state.beats)}"
    ),
    "sync request": (
        "from starlette.requests import Request\n"
        "from funcrt import Context\n"
        "def handler(request: Request, ctx: Context):\n"
        "    return {'beats': len(ctx.resources.beats)}"
    ),
}
USES_DB = "    ctx.resources.db.execute('select 1')\n"


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("lifespan", [ASYNC, SYNC], ids=["async", "sync"])
def test_each_kind_of_handler_with_each_kind_of_lifespan(
    tmp_path: Path, handler: str, lifespan: str
) -> None:
    where = tmp_path / "where"
    code = HANDLERS[handler]
    if lifespan is SYNC and "ctx" in code:
        line = "ctx: Context):" if "Context" in code else "ctx):"
        code = code.replace(line, f"{line}\n{USES_DB}   ")

    async def body(running: Running) -> None:
        assert text(where) == "open\n"  # before any call
        running.send(1, event())
        result = await running.result(1)
        assert result.status == "ok", result.failure
        before = int(bytes(result.outputs[0].event.data or b"").split(b":")[1][:-1])
        if lifespan is ASYNC:  # what it started goes on between calls
            await asyncio.sleep(0.2)
            running.send(2, event())
            after = (await running.result(2)).outputs[0].event.json()["beats"]
            assert after > before
        running.instance.finish()
        await running.until(lambda: running.exit is not None)
        assert running.exit is not None
        assert running.exit.code == 0
        assert text(where) == "open\nclose\n"

    run(tmp_path, lifespan + code, body, env={"WHERE": str(where)})


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("lifespan", [ASYNC, SYNC], ids=["async", "sync"])
def test_in_memory_too(tmp_path: Path, handler: str, lifespan: str) -> None:
    where = tmp_path / "where"
    (tmp_path / "main.py").write_text(lifespan + HANDLERS[handler])
    function = load(tmp_path, env={"WHERE": str(where)})
    for _ in range(2):
        assert function.call({}).data["beats"] >= 1
    assert text(where) == "open\n"
    function.close()
    function.close()
    assert text(where) == "open\nclose\n"


def test_an_app_leaves_them(tmp_path: Path) -> None:
    where = tmp_path / "where"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "main.py").write_text(ASYNC + HANDLERS["async"])
    (tmp_path / "f" / "funcrt.toml").write_text(f"[env]\nWHERE = '{where}'\n")
    with App(tmp_path / "f") as app:
        assert app.call("f", {}).outputs[0].json()["beats"] >= 1
        assert text(where) == "open\n"
    assert text(where) == "open\nclose\n"


def test_what_fails_in_it_is_told_by_the_authors_line(tmp_path: Path) -> None:
    source = ASYNC.replace("    beats = []", "    raise ConnectionError('no db')")
    (tmp_path / "main.py").write_text(source + HANDLERS["async"])
    with pytest.raises(LoadError) as caught:
        load(tmp_path, env={"WHERE": str(tmp_path / "where")}).call({})
    assert "main.py:9 in lifespan: lifespan failed: ConnectionError: no db" in str(caught.value)


@pytest.mark.parametrize(
    ("lifespan", "message"),
    [
        ("async def lifespan(ctx): yield", "is a bare async generator; put @contextlib.async"),
        ("def lifespan(ctx): yield", "is a bare generator; put @contextlib.contextmanager"),
        ("async def lifespan(ctx): pass", "is a coroutine function; yield once in it"),
        ("lifespan = 3", "is of type int, expected a context manager's function"),
        (
            "import contextlib\n@contextlib.contextmanager\ndef lifespan(): yield",
            r"takes \(\), expected one parameter, the context",
        ),
    ],
)
def test_what_cannot_be_one_is_refused_at_deploy(
    tmp_path: Path, lifespan: str, message: str
) -> None:
    (tmp_path / "main.py").write_text(f"{lifespan}\ndef handler(event): pass\n")
    with pytest.raises(LoadError, match=message):
        load(tmp_path)


FLAKY = """
import os
from contextlib import contextmanager
@contextmanager
def lifespan(ctx):
    if not os.path.exists(ctx.env["GATE"]): raise ConnectionError("no db yet")
    yield
    open(ctx.env["GATE"] + ".closed", "a").write("closed\\n")
def handler(data: dict): return data
---
[[trigger]]
topic = "in"
[retry]
attempts = 1
[output]
topic = "out"
[env]
GATE = "GATE_PATH"
"""
SLOW = """
import time
from contextlib import contextmanager
@contextmanager
def lifespan(ctx):
    yield
    time.sleep(600)
def handler(data: dict): return data
"""


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    flaky = FLAKY.replace("GATE_PATH", str(tmp_path / "gate"))
    one = Serving(tmp_path / "data", flaky=flaky, slow=SLOW)
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def test_events_wait_while_it_fails_and_none_is_charged(serving: Serving, tmp_path: Path) -> None:
    args = ("--type", "t", "--source", "/s", "--data", '{"n": 1}')
    assert serving.run("publish", "in", *args).returncode == 0

    def failing() -> bool:
        return any(row["state"] == "failing" for row in rows(serving.run("ls", "--json")))

    until(failing)
    time.sleep(1)
    log = (tmp_path / "serve.err").read_text()
    assert "main.py:6: lifespan failed: ConnectionError: no db yet" in log
    (tmp_path / "gate").touch()
    out = rows(serving.run("tail", "out", "--from", "earliest", "--limit", "1", "--json"))
    assert [row["event"]["data"] for row in out] == [{"n": 1}]
    assert rows(serving.run("dlq", "ls", "flaky", "--json")) == []
    assert serving.stop(signal.SIGTERM) == 0
    assert (tmp_path / "gate.closed").read_text() == "closed\n"


def test_one_that_does_not_end_holds_a_stop_up_for_so_long_only(serving: Serving) -> None:
    url = f"{serving.url}/functions/slow"
    assert httpx.post(url, json={"n": 1}).status_code == 200
    started = time.monotonic()
    assert serving.stop(signal.SIGTERM) == 0
    assert time.monotonic() - started < TEARDOWN_S + 10
