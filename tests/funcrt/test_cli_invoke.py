"""`funcrt invoke`: here in the real sandbox, and in a running host."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from funcrt.scaffold import make
from tests.funcrt.test_cli_author import run
from tests.funcrt.test_testing import write
from tests.serving import Serving

MANIFEST = '[[trigger]]\ntopic = "in"\nfilters = [{exact = {type = "a"}}]\n'


def plain(text: str) -> str:
    """Without times and derived ids."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", re.sub(r"[\d.]+ ms", "N ms", text))


def test_a_sample_runs_here(tmp_path: Path) -> None:
    make("hello", "event", tmp_path)
    shown = dedent(
        """\
        → order.placed  id=1  filter: match (mesh orders)
          INFO    order a-1
        ← order.sized  id=ID  {"id":"a-1","size":"large"}  → sizes
          N ms · fork N ms · import N ms
        """
    )
    for words in (("--sample", "large"), ("--sample", "1"), ("@hello/events/large.json",)):
        code, out, err = run("invoke", "hello", *words, cwd=tmp_path)
        assert (code, plain(out), err) == (0, shown, "")
    code, out, _ = run("invoke", "hello", "--sample", "other", "--json", cwd=tmp_path)
    assert (code, json.loads(out)["filter"], json.loads(out)["status"]) == (1, [], "error")
    code, out, _ = run("invoke", "hello", "--data", '{"id": "x", "total": 1}', cwd=tmp_path)
    assert out.startswith("→ order.placed  id=")
    assert '{"id":"x","size":"small"}' in out
    code, out, _ = run("invoke", "hello", "--sample", "large", "--repeat", "3", cwd=tmp_path)
    assert plain(out) == shown + "3 calls: 3 ok, 0 failed · N ms median · N ms p99\n"


def test_the_ids_are_those_a_redelivery_would_make(tmp_path: Path) -> None:
    make("hello", "event", tmp_path)
    rows = [
        json.loads(run("invoke", "hello", "--sample", "large", "--json", cwd=tmp_path)[1])
        for _ in range(2)
    ]
    first, second = (row["outputs"][0]["event"]["id"] for row in rows)
    assert first == second
    assert rows[0]["outputs"][0]["topic"] == "sizes"
    assert rows[0]["logs"] == [["info", "order a-1"]]


def test_a_failure_is_cut_to_the_authors_frames(tmp_path: Path) -> None:
    code = "import helper\ndef handler(event):\n    print('in')\n    helper.look(event.json())\n"
    write(tmp_path / "f", code, MANIFEST)
    (tmp_path / "f" / "helper.py").write_text("def look(order):\n    return order['sku']\n")
    code, out, err = run("invoke", "f", "--data", "{}", cwd=tmp_path)
    assert code == 1
    assert "STDOUT  in" in out
    assert err == dedent(
        """\
        ✗ f failed: a host tries again within 1 s, 5 times in all
          f/main.py:4 in handler
              helper.look(event.json())
          f/helper.py:2 in look
              return order['sku']
                     ~~~~~^^^^^^^
          KeyError: 'sku'
        """
    )
    write(tmp_path / "g", "from funcrt import Reject\ndef handler(e): raise Reject('no')", MANIFEST)
    code, _, err = run("invoke", "g", "--data", "1", cwd=tmp_path)
    assert (code, err.splitlines()[0]) == (
        1,
        "✗ g failed: a dead letter, no further attempt",
    )


def test_what_hangs_and_what_dies(tmp_path: Path) -> None:
    write(tmp_path / "f", "import time\ndef handler(e): time.sleep(60)", 'timeout = "100ms"')
    code, _, err = run("invoke", "f", "--data", "1", cwd=tmp_path)
    assert code == 1
    assert "TimeoutError: took longer than 0.1 s" in err
    write(tmp_path / "g", "import os\ndef handler(e): os._exit(3)")
    code, out, err = run("invoke", "g", "--data", "1", "--repeat", "2", cwd=tmp_path)
    assert code == 1
    assert "InstanceDied: exited 3" in err
    assert "2 calls: 0 ok, 2 failed" in out


def test_a_batch_and_an_http_function(tmp_path: Path) -> None:
    make("b", "batch", tmp_path)
    make("h", "http", tmp_path)
    code, out, _ = run("invoke", "b", cwd=tmp_path)  # its only sample
    assert (code, out.count("→ reading")) == (0, 3)
    assert '{"count":3.0,"mean":3.0}' in out or '{"count":3,"mean":3.0}' in out
    code, out, _ = run("invoke", "h", "--sample", "get", cwd=tmp_path)
    assert "filter: match (http /h/{who})" in out
    assert '{"greeting":"Hello you!"}' in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("hello",), 2, "no event is given; its samples: large, other"),
        (("hello", "--sample", "lrge"), 2, "no sample is named 'lrge'; did you mean large?"),
        (("hello", "--sample", "large", "--type", "a"), 2, "--sample and --data or --type are two"),
        (("hello", "@none.json"), 2, "none.json: No such file or directory"),
        (("hello", "--data", "{x"), 2, "--data begins as JSON does, and is not JSON"),
        (("hello", "--async", "--local", "--sample", "1"), 2, "--async queues a call in a host"),
        (("./nowhere", "--data", "1"), 2, "./nowhere is no function's directory"),
        (("nowhere", "--local", "--data", "1"), 2, "no function's directory is named nowhere"),
        (("nowhere", "--data", "1"), 3, "no host answers at"),
        (("hello", "--remote", "--sample", "1"), 3, "no host answers at"),
        (("broken", "--data", "1"), 2, "broken/main.py:1: syntax error"),
        (("mistaken", "--data", "1"), 2, "mistaken/funcrt.toml:1: nme: unknown key"),
    ],
)
def test_what_invoke_refuses(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    make("hello", "event", tmp_path)
    write(tmp_path / "broken", "def handler(:")
    write(tmp_path / "mistaken", "def handler(e): pass", "nme = 1\ntimeot = 2")
    found, out, err = run("invoke", *words, cwd=tmp_path, env={"FUNCRT_DATA": "data"})
    assert (found, out) == (code, "")
    assert err.startswith(f"✗ {message}"), err
    assert ("\n✗ mistaken/funcrt.toml:2: timeot: unknown" in err) is (words[0] == "mistaken")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(
        tmp_path_factory.mktemp("host") / "data",
        double="def handler(n: int): return n * 2",
        fails="def handler(event):\n    return 1 // 0",
        nothing="def handler(event): pass",
    )
    yield serving
    serving.stop(signal.SIGTERM)


def test_a_call_in_a_host(host: Serving, tmp_path: Path) -> None:
    def invoke(*words: str) -> tuple[int, str, str]:
        return run("invoke", *words, cwd=tmp_path, env=host.env)

    code, out, err = invoke("double", "--data", "21", "--type", "a")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"→ a  id=ID\n← funcrt.double.result  id=ID  42\n  N ms\n", plain(out)), out
    code, out, _ = invoke("double", "--data", "21", "--json", "--repeat", "2")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["outputs"][0]["event"]["data"] for row in rows] == [42, 42]
    assert "← nothing" in invoke("nothing", "--data", "1")[1]
    code, _, err = invoke("fails", "--data", "1")
    assert code == 1
    assert err == dedent(
        """\
        ✗ fails failed
          fails/main.py:2 in handler
              return 1 // 0
                     ~~^^~~
          ZeroDivisionError: integer division or modulo by zero
        """
    )
    code, out, _ = invoke("double", "--data", "1", "--async")
    assert (code, "queued @" in out) == (0, True), out
    code, _, err = invoke("duble", "--data", "1")
    assert code == 1
    assert err.startswith("✗ no function is named 'duble'; did you mean double?\n  try: funcrt ls")


def test_a_request_s_response_is_shown(tmp_path: Path) -> None:
    make("hello", "http", tmp_path)
    code, out, err = run("invoke", "hello", "--sample", "get", cwd=tmp_path)
    assert (code, plain(out), err) == (
        0,
        "→ funcrt.http.request  id=1  filter: match (http /hello/{who})\n"
        '← 200  application/json  {"greeting":"Hello you!"}\n'
        "  N ms · fork N ms · import N ms\n",
        "",
    )
    code, out, _ = run("invoke", "hello", "--data", '{"who": "me"}', "--json", cwd=tmp_path)
    found = json.loads(out)["response"]
    assert (code, found["status"], found["body"]) == (0, 200, '{"greeting":"Hello me!"}')
    serving = Serving(tmp_path / "data", hello=(tmp_path / "hello" / "main.py").read_text() + "---")
    try:
        done = serving.run("invoke", "hello", "--data", '{"who": "me"}', "--remote")
        shown = '← 200  application/json  {"greeting":"Hello me!"}\n'
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert shown in done.stdout
        done = serving.run("invoke", "hello", "--data", "{}", "--remote", "--json")
        assert json.loads(done.stdout)["response"]["status"] == 422
    finally:
        serving.stop(signal.SIGTERM)


METHODS = """from starlette.requests import Request
from starlette.responses import JSONResponse
async def handler(request: Request):
    return JSONResponse([request.method, request.url.path, str(request.query_params),
                         (await request.body()).decode(), request.headers.get("content-type")])
---
[[trigger]]
kind = "http"
path = "/items/{name}"
"""


def test_a_sample_of_a_request_is_sent_as_that_request(tmp_path: Path) -> None:
    head = {"specversion": "1.0", "id": "1", "type": "funcrt.http.request"}
    serving = Serving(tmp_path / "data", items=METHODS)

    def answer(**more: str) -> list[str]:
        (tmp_path / "event.json").write_text(json.dumps({**head, **more}))
        file = f"@{tmp_path / 'event.json'}"
        done = serving.run("invoke", "items", file, "--remote", "--json")
        return json.loads(json.loads(done.stdout)["response"]["body"])

    try:
        get = answer(source="/http/items/a%20b", httpmethod="GET", httpquery="n=1&m=2")
        assert get == ["GET", "/items/a b", "n=1&m=2", "", None]
        kind = "text/plain"
        put = answer(source="/http/items/x", httpmethod="PUT", datacontenttype=kind, data="hi")
        assert put == ["PUT", "/items/x", "", "hi", kind]
        # At another function's path, or none: the function that is named is called all the same.
        assert answer(source="/http/healthz", httpmethod="GET")[:2] == ["POST", "/functions/items"]
        assert answer(source="/elsewhere", httpmethod="GET")[:2] == ["POST", "/functions/items"]
    finally:
        serving.stop(signal.SIGTERM)
