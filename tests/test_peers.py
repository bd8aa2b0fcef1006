"""docs/peers.md: each complaint about other runtimes has tests; here are those of no other file."""

import ast
import re
from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from funcrt.testing import App
from tests.developing import Dev, make_work
from tests.funcrt.test_testing import write
from tests.serving import Serving, rows, until

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "peers.md").read_text("utf-8")


def test_each_complaint_names_tests_that_there_are() -> None:
    lines = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.M)
    assert [int(number) for number, _ in lines] == list(range(1, 25))
    for number, line in lines:
        *_, here, shown = line.split(" | ")
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown)
        assert named, number
        assert re.sub(r"`[^`]+`[, ]*", "", shown).strip() == "", "it names tests, and nothing else"
        assert len(here) > 10, number
        for file, name in named:
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file} has no {name}"
            )


BATCH = '[[trigger]]\ntopic = "in"\nbatch = { size = 10, wait = "10ms" }\n'
KINDS = {
    "sync": ("def handler(event):\n    return {'version': 1}\n", ""),
    "async": ("async def handler(event):\n    return {'version': 1}\n", ""),
    "batch": ("def handler(events: list[dict]):\n    return {'version': 1}\n", BATCH),
    "request": (
        "from starlette.requests import Request\nfrom starlette.responses import JSONResponse\n"
        "async def handler(request: Request):\n    return JSONResponse({'version': 1})\n",
        "",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_save_is_in_service_whatever_the_handler_is(tmp_path: Path, kind: str) -> None:
    code, manifest = KINDS[kind]
    make_work(tmp_path, code, manifest)
    dev = Dev(tmp_path, terminal=False)
    try:
        for version in (2, 3):
            assert dev.call() == {"version": version - 1}
            changed = code.replace("'version': 1", f"'version': {version}")
            dev.after(
                rf"changed functions/work/main\.py → reloaded in \d+ ms \(v{version}", changed
            )
            assert dev.call() == {"version": version}
    finally:
        dev.close()


def test_a_call_longer_than_the_idle_time_is_not_ended(tmp_path: Path) -> None:
    code = "import time\ndef handler(event):\n    time.sleep(event.json())\n    return 'done'\n"
    host = Serving(tmp_path / "data", slow=f'{code}---[scale]\nidle = "200ms"\n')
    try:
        url = f"{host.url}/functions/slow"
        for seconds in (0, 3, 0):
            answer = httpx.post(url, json=seconds, timeout=30)
            assert (answer.status_code, answer.text) == (200, "done")
        until(lambda: rows(host.run("ls", "--json"))[0]["instances"] == 0)
        (row,) = rows(host.run("ls", "--json"))
        assert (row["done"], row["failed"]) == (3, 0)
    finally:
        host.stop(15)


def test_what_waits_for_its_turn_does_not_time_out(tmp_path: Path) -> None:
    """Twenty at once, four seconds of work for the one instance, and a timeout of one."""
    code = "import time\ndef handler(event):\n    time.sleep(0.2)\n"
    host = Serving(tmp_path / "data", slow=f'{code}---timeout = "1s"\n[scale]\nmax = 1\n')
    try:
        with httpx.Client(headers={"prefer": "respond-async"}) as client:
            for at in range(20):
                answer = client.post(f"{host.url}/functions/slow", json=at)
                assert answer.status_code == 202
        row = until(
            lambda: next((r for r in rows(host.run("ls", "--json")) if not r["depth"]), None)
        )
        assert (row["done"], row["failed"], row["instances"]) == (20, 0, 1)
    finally:
        host.stop(15)


def test_any_value_that_is_returned_is_a_success(tmp_path: Path) -> None:
    code = """
        VALUES = [
            None, "error", b"\\0\\xff", "", b"", 0, 500, False, 1.5, [], {}, [1], {"error": 1}
        ]

        def handler(event, ctx):
            ctx.log.info("attempt %d", ctx.attempt)
            return VALUES[event.json()]
    """
    write(tmp_path / "f", dedent(code), '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"\n')
    with App(tmp_path) as app:
        for at in range(13):
            app.publish("in", at, "t")
        app.run()
        assert app.dead == []
        assert [text for *_, text in app.logs] == ["attempt 1"] * 13
        assert len(app.outputs("out")) == 12


def test_an_error_of_any_bytes_is_kept_whole(tmp_path: Path) -> None:
    what = "'\\0\\r\\nx-evil: 1\\r\\n\\r\\n' + 'ü' * 500"
    code = f"def handler(event):\n    raise ValueError({what})\n"
    manifest = '[[trigger]]\ntopic = "in"\n[retry]\nattempts = 2\nbase = "10ms"\n'
    host = Serving(tmp_path / "data", bad=f"{code}---{manifest}")
    try:
        event = ("--type", "t", "--source", "/t", "--id", "1", "--data", "1")
        assert host.run("publish", "in", *event).returncode == 0
        (letter,) = until(lambda: rows(host.run("dlq", "ls", "bad", "--json")))
        assert (letter["attempts"], letter["reason"][:18]) == (2, "ValueError: \0\r\nx-e")
        (shown,) = rows(host.run("dlq", "show", "bad", "--id", str(letter["id"]), "--json"))
        assert "ü" * 500 in shown["reason"]
        answer = httpx.post(f"{host.url}/functions/bad", json=1)
        assert (answer.status_code, "x-evil" in answer.headers) == (500, False)
        assert answer.json()["message"].startswith("\0\r\nx-evil: 1")
    finally:
        host.stop(15)
