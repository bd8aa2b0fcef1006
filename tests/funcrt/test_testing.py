"""funcrt.testing: a function called in memory does what its instance does, and an App what a host
does, in fake time."""

import asyncio
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import msgspec
import pytest

from funcrt import Event
from funcrt.errors import FunctionsRefused, LoadError
from funcrt.manifest import load_manifest
from funcrt.outcome import origin_of, settle
from funcrt.testing import App, FakeClock, NotQuiet, call, load
from funcrt.testing.outcome import outcome_of
from mesh.transport import Delivery
from tests.calling import call as call_process

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"

HANDLERS = {
    "plain": "def handler(event): return {'n': event.json()['n'] + 1}",
    "no output": "def handler(event): pass",
    "text": "def handler(event, ctx): return ctx.trigger",
    "bytes": "async def handler(event): return b'x' * 3",
    "generator": "def handler(event):\n    yield 1\n    yield {'n': 2}",
    "async generator": "async def handler(event):\n    for n in range(3): yield n",
    "typed": """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class Order:
            n: int
        def handler(order: Order) -> int: return order.n * 2
        """,
    "unfit": """
        from typing import TypedDict
        class Order(TypedDict):
            total: int
        def handler(order: Order): return 1
        """,
    "raises": "def handler(event): return 1 // 0",
    "retry": "from funcrt import Retry\ndef handler(event): raise Retry('later', after=30)",
    "reject": "from funcrt import Reject\nasync def handler(event): raise Reject('no')",
    "emit": """
        from funcrt import Context, Event
        def handler(event: Event, ctx: Context):
            ctx.log.info('n is %d', 1)
            ctx.emit(Event.create('seen', {'k': ctx.idempotency_key}, subject='s'))
            return {'attempt': ctx.attempt}
        """,
    "late import": "def handler(event):\n    import helper\n    return helper.NAME",
    "environment": "import os\ndef handler(e, ctx): return [os.environ['A'], ctx.env['A']]",
    "cannot be written": "def handler(event): return object()",
    "too large": "def handler(event): return 'x' * 3000000",
    "timeout": "import asyncio\nasync def handler(event): await asyncio.sleep(60)",
    "batch": """
        from funcrt import Failed
        def handler(events: list[dict]):
            return [{'n': e['n']} if e['n'] != 2 else Failed('two') for e in events]
        """,
    "batch of another length": """
        from funcrt import Event
        async def handler(events: list[Event]): return [1, 2]
        """,
}


def write(folder: Path, code: str, manifest: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(dedent(code).strip() + "\n")
    (folder / "funcrt.toml").write_text(dedent(manifest))
    return folder


@pytest.mark.parametrize("name", HANDLERS)
def test_a_call_in_memory_ends_as_in_a_process(tmp_path: Path, name: str) -> None:
    timeout = "200ms" if name == "timeout" else "20s"
    manifest = f'timeout = "{timeout}"\n[output]\ntopic = "out"\n[env]\nA = "b"\n'
    directory = write(tmp_path / "f", HANDLERS[name], manifest)
    (directory / "helper.py").write_text("NAME = 'helped'\n")
    function = load(directory)
    count = 3 if function.bound.batch else 1
    events = [function.event({"n": at, "total": "x"}, id=str(at)) for at in range(1, count + 1)]
    here = function.call(events if function.bound.batch else events[0], trigger="t")
    there = process(directory, events)
    assert here.logs == ([("info", "n is 1")] if name == "emit" else [])
    assert msgspec.structs.replace(here, logs=[]) == there


def process(directory: Path, events: list[Event]):
    """The outcome of the same call in a real instance."""
    manifest = load_manifest(directory)
    origin = origin_of(manifest, "test", "t")
    (result,) = asyncio.run(call_process(directory, events, manifest=manifest, scope=origin.scope))
    now = FakeClock().time()
    deliveries = [
        Delivery(e, "f/t", "", "", now, 1, at, reply_to="caller") for at, e in enumerate(events)
    ]
    settlement = settle(manifest, origin, deliveries, result, now=now, jitter=1.0)
    return outcome_of(result, settlement, [])


# One function


def test_functions_have_modules_of_their_own(tmp_path: Path) -> None:
    code = "import helper\ndef handler(event):\n    import later\n    return helper.N + later.N"
    found = []
    for number in (1, 10):
        directory = write(tmp_path / str(number), code)
        (directory / "helper.py").write_text(f"N = {number}")
        (directory / "later.py").write_text(f"N = {number}")
        found.append(load(directory))
    before = set(sys.modules)
    assert [function.call().data for function in found] == [2, 20]
    assert [function.call().data for function in reversed(found)] == [20, 2]
    assert not {"main", "helper", "later"} & set(sys.modules)
    assert set(sys.modules) == before
    assert str(tmp_path / "1") not in sys.path


def test_modules_of_the_same_names_from_elsewhere_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {name: ModuleType(name) for name in ("main", "helper", "parts", "parts.one")}
    for name, module in elsewhere.items():
        monkeypatch.setitem(sys.modules, name, module)
    code = """
        import helper
        from parts import one
        def handler(event): return helper.N + one.N
        """
    directory = write(tmp_path / "f", code)
    (directory / "helper.py").write_text("N = 1")
    (directory / "parts").mkdir()
    (directory / "parts" / "one.py").write_text("N = 2")
    assert load(directory).call().data == 3
    assert {name: sys.modules[name] for name in elsewhere} == elsewhere


def test_what_a_handler_uses_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import os
        from dataclasses import dataclass
        def lookup(): return "real"
        def handler(event): return [lookup(), os.environ.get("MODE"), os.environ.get("HERE")]
        """
    function = load(write(tmp_path / "f", code, '[env]\nMODE = "a"'), env={"HERE": "b"})
    monkeypatch.setattr(function.module, "lookup", lambda: "fake")
    monkeypatch.setenv("MODE", "the shell's")
    assert function.call().data == ["fake", "a", "b"]
    assert call(tmp_path / "f").data == ["real", "a", None]


def test_a_module_that_is_imported_already(tmp_path: Path) -> None:
    function = load(write(tmp_path / "f", "def handler(event): return 1"))
    assert call(function.module).data == 1
    assert load(function.module).module is function.module


def test_an_outcome_says_what_the_host_would_do(tmp_path: Path) -> None:
    code = "from funcrt import Retry, Reject\ndef handler(n: int):\n    if n: raise KeyError('n')\n"
    manifest = '[retry]\nattempts = 3\nbase = "2s"\n[output]\ntopic = "out"'
    function = load(write(tmp_path / "f", code, manifest))
    assert function.call(0).outputs == []
    first, last = function.call(1), function.call(1, attempt=3)
    assert (first.status, first.retry_after_s, first.dead) == ("error", 2.0, False)
    assert function.call(1, attempt=2).retry_after_s == 4.0
    assert (last.retry_after_s, last.dead) == (None, True)
    assert first.error == "KeyError: 'n'"
    assert first.failure is not None
    assert first.failure.where == "main.py:3 in handler"
    with pytest.raises(AssertionError, match=r'(?s)the handler failed:.*main.py", line 3, in'):
        _ = first.data
    with pytest.raises(AssertionError, match="expected one output, found 0"):
        _ = function.call(0).data
    unfit = function.call("text")
    assert (unfit.status, unfit.dead) == ("reject", True)


def test_where_an_output_would_go(tmp_path: Path) -> None:
    code = """
        from funcrt import Event
        def handler(event, ctx):
            ctx.emit(Event.create("b"), topic=event.type)
            return 1
        """
    function = load(write(tmp_path / "f", code, '[output]\ntopic = "out"\ntopics = ["side"]'))
    outcome = function.call(type_event("side"))
    assert [len(outcome.to(topic)) for topic in ("out", "side", "else")] == [1, 1, 0]
    outcome = function.call(type_event("other"))
    assert outcome.error == (
        "EventError: an output is refused: may not publish to 'other': add it to [output] topics"
    )
    assert outcome.outputs == []


def type_event(type: str) -> Event:
    return Event.create(type, id="1", source="/t")


def test_the_handlers_clock_is_the_tests(tmp_path: Path) -> None:
    code = "CLOCK = None\ndef handler(e, ctx):\n    CLOCK.advance(4)\n    return ctx.remaining()"
    function = load(write(tmp_path / "f", code, 'timeout = "10s"'))
    clock = FakeClock()
    function.module.CLOCK = clock
    assert function.call(clock=clock).data == 6.0
    function.module.CLOCK = FakeClock()
    assert function.call(clock=clock).data == 10.0
    slow = load(write(tmp_path / "s", code, 'timeout = "3s"'))
    slow.module.CLOCK = clock
    outcome = slow.call(clock=clock)
    assert (outcome.status, outcome.error) == ("timeout", "TimeoutError: took longer than 3 s")
    with pytest.raises(ValueError, match="time does not go back"):
        clock.advance(-1)


def test_which_triggers_an_event_reaches() -> None:
    label, badge = load(FUNCTIONS / "label"), load(FUNCTIONS / "badge")
    assert label.matches(type_event("order.placed")) == ["orders"]
    assert label.matches(type_event("order.placed"), "orders") == ["orders"]
    assert label.matches(type_event("order.placed"), "labels") == []
    assert label.matches(type_event("invoice.sent")) == []
    assert badge.matches(Event.create("x", id="1", source="/", httpmethod="POST")) == ["badge"]
    assert badge.matches(Event.create("x", id="1", source="/", httpmethod="PUT")) == []


def test_what_load_refuses(tmp_path: Path) -> None:
    one = write(
        tmp_path / "f", "def handler(event): pass", '[[trigger]]\ntopic = "a"\nbatch = {size = 2}'
    )
    with pytest.raises(LoadError, match=r"main:handler takes one event; annotate it list\[Event\]"):
        load(one)
    with pytest.raises(LoadError, match=rf"{tmp_path}/main.py: is missing"):
        load(tmp_path)
    with pytest.raises(LoadError, match='did you mean "handlr"'):
        load(write(tmp_path / "g", "def handlr(event): pass"))
    stream = write(tmp_path / "h", "def handler(event): pass", "[output]\nstream = true")
    with pytest.raises(LoadError, match=r"output\.stream = true, but main:handler is no generator"):
        load(stream)
    takes = "from starlette.requests import Request\ndef handler(request: Request): "
    with pytest.raises(LoadError, match="takes a Request, and a trigger that is not of kind http"):
        load(write(tmp_path / "i", takes + "pass", '[[trigger]]\ntopic = "a"'))
    with pytest.raises(LoadError, match="takes a Request and yields; return a StreamingResponse"):
        load(write(tmp_path / "j", takes + "yield 1"))


ASKED = (
    """
        from starlette.requests import Request
        from starlette.responses import JSONResponse, StreamingResponse
        from funcrt import Context, Event
        async def handler(request: Request, ctx: Context):
            if request.method == "DELETE": raise KeyError("no")
            if request.url.path == "/many":
                async def pieces():
                    for n in range(3000): yield b"x" * 1000
                return StreamingResponse(pieces())
            ctx.emit(Event.create("asked", {"by": request.headers["x-who"]}))
            body = await request.json() if request.method == "POST" else None
            return JSONResponse([ctx.trigger, ctx.path_params, request.url.query, body], 201)
    """,
    """
        [[trigger]]
        kind = "http"
        path = "/order/{n:int}"
        [[trigger]]
        kind = "http"
        path = "/many"
        [output]
        topic = "asked"
    """,
)


def test_a_request_is_answered_in_memory(tmp_path: Path) -> None:
    function = load(write(tmp_path / "f", *ASKED))
    outcome = function.request("POST", "/order/7?a=1", json={"x": 1}, headers={"X-Who": "me"})
    assert outcome.status == "ok", outcome.error
    assert outcome.response is not None
    assert outcome.response.status == 201
    assert outcome.response.header("Content-Type") == "application/json"
    wanted = ["order-n-int", {"n": 7}, "a=1", {"x": 1}]
    assert outcome.response.json() == wanted == outcome.response.json()
    assert [event.json() for event in outcome.to("asked")] == [{"by": "me"}]
    assert function.request("DELETE", "/order/1").error == "KeyError: 'no'"
    large = function.request("GET", "/many").response
    assert large is not None
    assert large.whole
    assert large.body == b"x" * 3_000_000
    assert function.matches(Event.create("x", id="1", source="/", httpmethod="MKCOL"))


def test_and_in_an_app(tmp_path: Path) -> None:
    write(tmp_path / "f", *ASKED)
    with App(tmp_path / "f") as app:
        answer = app.request("GET", "/order/8", headers={"x-who": "you"})
        assert (answer.status, answer.json()) == (201, ["order-n-int", {"n": 8}, "", None])
        assert [event.json() for event in app.outputs("asked")] == [{"by": "you"}]
        assert len(app.request("GET", "/many").body) == 3_000_000
        with pytest.raises(RuntimeError, match="KeyError"):
            app.request("DELETE", "/many")
        with pytest.raises(LookupError, match="no handler of Requests is at /order/x"):
            app.request("GET", "/order/x")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_stream_in_memory(tmp_path: Path, kind: str) -> None:
    code = f"""
        {kind} handler(data: dict, ctx):
            for n in range(data["n"]):
                if n == 2 and ctx.attempt == 1: raise ValueError("half way")
                yield {{"n": n, "pad": "x" * 1000}}
    """
    manifest = '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"\nstream = true'
    folder = write(tmp_path / "f", code, manifest)
    outcome = load(folder).call({"n": 600}, attempt=2)
    assert [event.json()["n"] for event in outcome.outputs] == [*range(600)]
    with App(folder) as app:
        app.publish("in", {"n": 600})
        app.run()
        assert [event.json()["n"] for event in app.outputs("out")] == [*range(600)]
        assert [event.json()["n"] for event in app.call("f", {"n": 2}).outputs] == [0, 1]
        assert app.dead == []


# Functions together

FIRST = (
    "def handler(order: dict): return {'n': order['n'] + 1}",
    '[[trigger]]\ntopic = "in"\nfilters = [{exact = {type = "a"}}]\n'
    '[output]\ntopic = "mid"\ntype = "b"',
)
SECOND = (
    "async def handler(found: dict, ctx): return {'n': found['n'] * 10, 'try': ctx.attempt}",
    '[[trigger]]\ntopic = "mid"\npattern = {data = {n = [{numeric = [">", 1]}]}}\n'
    '[output]\ntopic = "out"',
)


def test_events_go_through_a_chain(tmp_path: Path) -> None:
    write(tmp_path / "first", *FIRST)
    write(tmp_path / "second", *SECOND)
    with App(tmp_path) as app:
        given = [app.publish("in", {"n": n}, "a") for n in range(4)]
        app.publish("in", {"n": 7}, "other")
        app.run()
        assert [e.json()["n"] for e in app.outputs("mid")] == [1, 2, 3, 4]
        out = app.outputs("out")
        assert [e.json() for e in out] == [{"n": n, "try": 1} for n in (20, 30, 40)]
        assert {e.source for e in out} == {"/funcrt/second"}
        assert [e.extensions["correlationid"] for e in out] == [e.id for e in given[1:]]
        assert app.outputs("in") == []
        assert app.dead == []


def test_retries_wait_in_fake_time(tmp_path: Path) -> None:
    code = """
        from funcrt import Retry
        def handler(event, ctx):
            ctx.log.info("attempt %d", ctx.attempt)
            if ctx.attempt < 3: raise Retry(after=3600)
            return ctx.attempt
        """
    write(tmp_path / "f", code, '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"')
    with App(tmp_path) as app:
        app.publish("in")
        app.advance(3599)
        assert app.logs == [("f", "info", "attempt 1")]
        app.advance(2)
        assert app.logs[1:] == [("f", "info", "attempt 2")]
        app.run()
        assert [e.json() for e in app.outputs("out")] == [3]
        assert 7200 <= app.clock.monotonic() < 7210


def test_what_fails_for_good_is_dead_and_can_be_run_again(tmp_path: Path) -> None:
    code = "FIT = False\ndef handler(n: int):\n    if not FIT: raise ValueError(n)\n    return n"
    write(
        tmp_path / "f",
        code,
        '[[trigger]]\ntopic = "in"\n[retry]\nattempts = 2\n[output]\ntopic = "out"',
    )
    with App(tmp_path) as app:
        bad = app.publish("in", 1)
        unfit = app.publish("in", "text")
        app.run()
        first, second = app.dead
        assert (first.event, first.reason.split(":")[0], first.attempts) == (unfit, "NotAnEvent", 1)
        assert (second.event, second.reason, second.attempts) == (bad, "ValueError: 1", 2)
        assert (second.function, second.trigger) == ("f", "in")
        assert len(app.outputs("f.dlq")) == 2
        app.functions["f"].module.FIT = True
        assert app.redrive("f") == 2
        app.run()
        assert [e.json() for e in app.outputs("out")] == [1]
        assert [dead.event for dead in app.dead] == [unfit]


def test_a_batch_is_gathered_and_halved_around_what_fails(tmp_path: Path) -> None:
    code = "def handler(ns: list[int]):\n    if 3 in ns: raise ValueError\n    return {'ns': ns}"
    manifest = '[[trigger]]\ntopic = "in"\nbatch = {size = 4}\n[output]\ntopic = "out"'
    write(tmp_path / "f", code, manifest)
    with App(tmp_path) as app:
        for n in range(1, 6):
            app.publish("in", n)
        app.run()
        assert sorted(e.json()["ns"] for e in app.outputs("out")) == [[1, 2], [4], [5]]
        assert [dead.event.json() for dead in app.dead] == [3]


def test_a_loop_ends_and_one_that_does_not_is_told(tmp_path: Path) -> None:
    loop = '[[trigger]]\ntopic = "a"\n[output]\ntopic = "a"\nallow_loop = true'
    write(tmp_path / "f", "def handler(n: int): return n + 1", loop)
    slow = '[[trigger]]\ntopic = "b"\n[retry]\nattempts = 1000'
    write(tmp_path / "g", "def handler(event): return 1 // 0", slow)
    with App(tmp_path) as app:
        app.publish("a", 0)
        app.run()
        assert [e.json() for e in app.outputs("a")] == list(range(1, 17))
        assert app.dead[0].reason == "Loop: the event has come through 16 functions"
        app.publish("b")
        with pytest.raises(NotQuiet, match="not quiet after 600 s of the app's time: 1 in g/b"):
            app.run(most_s=600)


def test_cron_ticks_as_time_passes(tmp_path: Path) -> None:
    manifest = '[[trigger]]\nkind = "cron"\nschedule = "0 * * * *"\n[output]\ntopic = "out"'
    write(tmp_path / "f", "def handler(event): return event.json()['scheduled']", manifest)
    with App(tmp_path) as app:
        app.run()
        assert app.outputs("out") == []
        app.advance(7200)
        ticks = [e.data for e in app.outputs("out")]
        assert ticks == [b"2023-11-14T23:00:00+00:00", b"2023-11-15T00:00:00+00:00"]
        tick = Event.create("funcrt.cron.tick", id="1", source="/", subject="cron")
        assert app.functions["f"].matches(tick) == ["cron"]
        assert app.functions["f"].matches(type_event("a")) == []


def test_a_call_is_answered(tmp_path: Path) -> None:
    code = """
        import asyncio
        async def one(): return 1
        def handler(n: int): return n + asyncio.run(one())
        """
    write(tmp_path / "f", code, '[[trigger]]\nkind = "http"\npath = "/f"\n[output]\ntopic = "out"')
    with App(tmp_path) as app:
        reply = app.call("f", 1)
        assert (reply.status, [e.json() for e in reply.outputs]) == ("ok", [2])
        assert [e.json() for e in app.outputs("out")] == [2]
        failed = app.call("f", "text")
        assert failed.status == "reject"
        assert failed.failure is not None
        assert failed.failure.error == "NotAnEvent"


def test_the_samples_of_this_repository_run_together() -> None:
    with App(FUNCTIONS) as app:
        issue = {"number": 1, "title": "It crashes", "html_url": "http://x", "state": "open"}
        app.publish("github", {"issue": issue, "action": "opened"}, "com.github.issues.opened")
        app.run()
        assert [e.type for e in app.outputs("labels")] == ["issue.labelled"]
        assert [e.data for e in app.outputs("notifications")] == [b"bug: It crashes (http://x)"]
        assert app.outputs("digests")[0].json()["types"] == {"issues.opened": 1}


def test_two_apps_do_the_same(tmp_path: Path) -> None:
    write(tmp_path / "f", "def handler(event): return 1 // 0", '[[trigger]]\ntopic = "in"')
    seen = []
    for _ in range(2):
        with App(tmp_path, seed=3) as app:
            app.publish("in")
            app.run()
            seen.append((app.clock.monotonic(), app.outputs("f.dlq")))
    assert seen[0] == seen[1]


def test_what_an_app_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no function in .*; expected NAME/main.py"):
        App(tmp_path)
    write(tmp_path / "a", "def handlr(event): pass")
    write(tmp_path / "b", "def handler(event): pass", "nme = 1")
    with pytest.raises(FunctionsRefused) as refused:
        App(tmp_path)
    assert len(refused.value.errors) == 2

    async def within() -> None:
        with pytest.raises(RuntimeError, match="use it in a plain `def test_`"):
            App(FUNCTIONS)

    asyncio.run(within())


def test_a_call_works_in_a_test_that_is_async(tmp_path: Path) -> None:
    function = load(write(tmp_path / "f", HANDLERS["async generator"]))

    async def test() -> int:
        return len(function.call().outputs)

    assert asyncio.run(test()) == 3


# The plugin

TESTS = """
    def test_one(function):
        assert function.call(1).data == 2

    def test_app(function_app):
        function_app.publish("in", 1, "a")
        function_app.run()
        assert [e.json() for e in function_app.outputs("out")] == [2]
    """


def test_the_fixtures_find_the_function(tmp_path: Path) -> None:
    manifest = '[[trigger]]\ntopic = "in"\n[output]\ntopic = "out"'
    for name in ("f", "g"):
        write(tmp_path / name, "def handler(n: int): return n + 1", manifest)
        (tmp_path / name / "tests").mkdir()
        (tmp_path / name / "tests" / "test_main.py").write_text(dedent(TESTS))
    (tmp_path / "tests").mkdir()
    together = "def test_both(function_app): assert set(function_app.functions) == {'f', 'g'}"
    (tmp_path / "tests" / "test_chain.py").write_text(together)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-W", "error"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "5 passed" in done.stdout, done.stdout


def test_the_plugin_is_cheap_where_it_is_not_used() -> None:
    code = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport funcrt.pytest_plugin\n"
        "print([n for n in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) == {"funcrt", "funcrt.pytest_plugin"}
