"""Idempotency keys: an event whose key a call has succeeded for is not called for again."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mesh
from funcrt import idempotency
from funcrt.cautions import cautions
from funcrt.errors import DeployError
from funcrt.host import Host
from funcrt.idempotency import InFlight, key_reader
from funcrt.manifest import load_manifest
from funcrt.testing import App
from mesh.clock import SystemClock
from mesh.event import Event

HANDLER = """
CALLS = []
def handler(event, ctx):
    CALLS.append((event.id, ctx.attempt))
    plan = (event.json() or {}).get("plan", "")
    if plan == "fail" or plan == "once" and ctx.attempt == 1:
        raise ValueError(event.id)
    return {"of": event.id}
"""
BATCH = """
CALLS = []
from funcrt import Event, Failed
def handler(events: list[Event]):
    CALLS.append([event.id for event in events])
    return [Failed("no") if event.json().get("plan") == "fail" else {"of": event.id}
            for event in events]
"""
MANIFEST = """
[[trigger]]
topic = "in"
{trigger}
[output]
topic = "out"
[retry]
attempts = 2
backoff = "constant"
base = "{base}"
max = "24h"
[idempotency]
key = "{key}"
ttl = "{ttl}"
"""


def write(
    folder: Path, key: str, *, code: str = HANDLER, trigger: str = "", ttl: str = "1h",
    base: str = "10s",
) -> Path:  # fmt: skip
    (folder / "f").mkdir()
    (folder / "f" / "main.py").write_text(code)
    (folder / "f" / "funcrt.toml").write_text(
        MANIFEST.format(key=key, ttl=ttl, trigger=trigger, base=base)
    )
    return folder


def at_once(app: App, *events: tuple[str, dict[str, Any]]) -> None:
    """Publish (id, data) in one commit, so that all are pulled before one is called for."""
    made = [
        Event(name, "/s", "t", data=msgspec.json.encode(data), subject="s") for name, data in events
    ]
    receipts = app._do(app._mesh.publish("in", made))
    assert [receipt.status for receipt in receipts] == ["stored"] * len(events)


def calls(app: App) -> list[Any]:
    found: list[Any] = app.functions["f"].module.CALLS
    return found


def of(app: App) -> list[str]:
    return [event.json()["of"] for event in app.outputs("out")]


def deduplicated(app: App) -> int:
    return app._host.function("f").meter.deduplicated


def said(app: App) -> list[tuple[str, str]]:
    lines, _ = app._host.logbook.read("f", last=100)
    return [(line.level, f"{' '.join(line.events)}: {line.text}") for line in lines]


# Which key


@pytest.mark.parametrize(
    ("key", "same", "other"),
    [
        ("id", [{}], [{"id": "x2"}, {"source": "/y"}]),
        ("subject", [{"id": "2"}, {"source": "/y"}], [{"subject": "t"}]),
        ("orderid", [{"id": "2"}],
         [{"extensions": {"orderid": "o2"}}, {"extensions": {"orderid": 7}}]),
        ("$.order.id", [{"id": "2", "data": b'{"order":{"id":17},"z":1}'}],
         [{"data": b'{"order":{"id":"17"}}'}, {"data": b'{"order":{"id":18}}'}]),
        ("$.a['b c'][0]", [{"id": "2"}], [{"data": b'{"a":{"b c":[2]}}'}]),
        ("$.order", [{"data": b'{"order": {"id": 17}}'}], [{"data": b'{"order":{"id":17,"n":1}}'}]),
        ("$.items[*].n", [{"id": "2"}], [{"data": b'{"items":[{"n":1}]}'}]),
    ],
)  # fmt: skip
def test_what_a_key_is(key: str, same: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    read = key_reader(key)
    event = Event(
        "x", "/s", "t", "s", extensions={"orderid": "o1"},
        data=b'{"order":{"id":17},"a":{"b c":[1]},"items":[{"n":1},{"n":2}]}',
    )  # fmt: skip
    found = read(event)
    assert found is not None
    for changed in same:
        assert read(msgspec.structs.replace(event, **changed)) == found
    for changed in other:
        assert read(msgspec.structs.replace(event, **changed)) not in (found, None), changed


@pytest.mark.parametrize("key", ["subject", "orderid", "$.id", "$.items[*].n"])
@pytest.mark.parametrize("data", [None, b"", b"no json", b"{}", b'{"id": null}', b"[1]", b"\xff"])
def test_an_event_without_its_key(key: str, data: bytes | None) -> None:
    assert key_reader(key)(Event("x", "/s", "t", data=data)) is None


# What it keeps from running


def test_a_key_that_a_call_succeeded_for_runs_no_more_for_its_time(tmp_path: Path) -> None:
    with App(write(tmp_path, "$.key", ttl="1h")) as app:
        at_once(app, *((f"a{n}", {"key": "a"}) for n in range(3)), ("b", {"key": "b"}))
        app.run()
        app.publish("in", {"key": "a"}, id="a3")
        app.run()
        assert calls(app) == [("a0", 1), ("b", 1)]
        assert of(app) == ["a0", "b"]
        assert deduplicated(app) == 3
        text = "deduplicated: a call with its idempotency key ($.key) succeeded within 1h"
        assert said(app) == [("info", f"a{n}: {text}") for n in (1, 2, 3)]
        app.advance(3500)
        app.publish("in", {"key": "a"}, id="a4")
        app.run()
        assert deduplicated(app) == 4
        app.advance(200)
        app.publish("in", {"key": "a"}, id="a5")
        app.run()
        assert (of(app), app.dead) == (["a0", "b", "a5"], [])


def test_a_call_that_failed_does_not_count(tmp_path: Path) -> None:
    """While its retry waits another of its key may run; the retry is then one too many."""
    with App(write(tmp_path, "$.key", base="1h", ttl="24h")) as app:
        at_once(
            app,
            ("a0", {"key": "a", "plan": "once"}),
            ("a1", {"key": "a"}),
            ("d0", {"key": "dies", "plan": "fail"}),
        )
        app.run()
        assert calls(app) == [("a0", 1), ("d0", 1), ("a1", 1), ("d0", 2)]
        assert (of(app), deduplicated(app)) == (["a1"], 1)
        assert [(dead.event.id, dead.attempts) for dead in app.dead] == [("d0", 2)]
        app.publish("in", {"key": "dies"}, id="d1")
        app.run()
        assert of(app) == ["a1", "d1"]


def test_one_that_waits_for_a_call_that_fails_is_not_charged(tmp_path: Path) -> None:
    with App(write(tmp_path, "subject", base="1h")) as app:
        at_once(app, *((f"{n}", {"plan": "fail"}) for n in range(4)))
        app.run()
        assert Counter(calls(app)) == {(f"{n}", k): 1 for n in range(4) for k in (1, 2)}
        assert [dead.attempts for dead in app.dead] == [2, 2, 2, 2]
        assert app._host.in_flight["f/in"]._waiting == {}


def test_a_replay_runs_again_and_leaves_its_key(tmp_path: Path) -> None:
    with App(write(tmp_path, "$.key")) as app:
        app.publish("in", {"key": "a"}, id="a0")
        app.run()
        app._do(app._host.observation.replay("f", last=1))
        app.run()
        assert calls(app) == [("a0", 1), ("a0", 1)]
        assert of(app) == ["a0", "a0"]
        app.publish("in", {"key": "b", "plan": "fail"}, id="b0")
        app.run()
        app.functions["f"].module.handler.__globals__["CALLS"].clear()
        app.redrive("f")
        app.run()
        assert calls(app) == [("b0", 1), ("b0", 2)], "a dead letter runs again"
        app.publish("in", {"key": "c", "plan": "once"}, id="c0")
        app.run()
        app._do(app._host.observation.replay("f", event="c0"))
        app.run()
        app.publish("in", {"key": "c"}, id="c1")
        app.run()
        assert "c1" not in of(app)


def test_an_event_without_a_key_runs_and_is_told_of_now_and_then(tmp_path: Path) -> None:
    with App(write(tmp_path, "$.key")) as app:
        for n in range(5):
            app.publish("in", {}, id=f"{n}")
        app.run()
        app.advance(100)
        app.publish("in", {"key": None}, id="5")
        app.run()
        assert of(app) == [f"{n}" for n in range(6)]
        lacks = "lacks its idempotency key ($.key)"
        all_the_same = "it is called for all the same"
        assert said(app) == [
            ("warning", f"0: {lacks}: {all_the_same}"),
            ("warning", f"5: {lacks}, as did 4 more since this was said last: {all_the_same}"),
        ]


def test_of_a_batch_each_item_has_its_own(tmp_path: Path) -> None:
    batch = 'batch = {size = 10, wait = "1s"}'
    with App(write(tmp_path, "$.key", code=BATCH, trigger=batch, base="1h")) as app:
        for n, (key, plan) in enumerate([("a", ""), ("a", ""), ("b", "fail"), ("c", "")]):
            app.publish("in", {"key": key, "plan": plan}, id=f"{n}")
        app.advance(10)
        assert calls(app) == [["0", "2", "3"]]
        assert deduplicated(app) == 1
        app.publish("in", {"key": "b"}, id="4")
        app.publish("in", {"key": "c"}, id="5")
        app.advance(10)
        assert calls(app)[1:] == [["4"]]
        app.run()
        assert (of(app), deduplicated(app), app.dead) == (["0", "3", "4"], 3, [])


def test_of_a_batch_that_fails_whole_the_halves_keep_theirs(tmp_path: Path) -> None:
    code = BATCH.replace("    return", "    assert len(events) == 1\n    return")
    batch = 'batch = {size = 4, wait = "1s"}'
    with App(write(tmp_path, "$.key", code=code, trigger=batch)) as app:
        for n in range(8):
            app.publish("in", {"key": n % 4}, id=f"{n}")
        app.run()
        assert (sorted(of(app)), deduplicated(app)) == (["0", "1", "2", "3"], 4)


def test_a_call_by_http_runs_each_time(tmp_path: Path) -> None:
    with App(write(tmp_path, "$.key")) as app:
        app.publish("in", {"key": "a"}, id="0")
        app.run()
        replies = [app.call("f", {"key": "a"}, id=f"h{n}") for n in range(2)]
        assert [reply.status for reply in replies] == ["ok", "ok"]
        assert of(app) == ["0", "h0", "h1"]


def test_a_queued_call_does_not(tmp_path: Path) -> None:
    with App(write(tmp_path, "$.key")) as app:
        for n in range(3):
            event = Event(f"{n}", "/s", "t", data=b'{"key": 1}')
            app._do(app._host.call_async("f", event))
        app.run()
        assert (calls(app), deduplicated(app)) == ([("0", 1)], 2)


def test_what_more_waits_for_a_key_than_there_is_room_for_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "HELD", 2)
    with App(write(tmp_path, "$.key")) as app:
        at_once(app, *((f"{n}", {"key": "a"}) for n in range(12)))
        app.run()
        assert (calls(app), deduplicated(app)) == ([("0", 1)], 11)
        assert app.clock.monotonic() > idempotency.BACK_S


def test_who_waits_for_a_key_is_told_when_it_is_free() -> None:
    running = InFlight()
    woken: list[int] = []
    assert running.take(b"a")
    assert not running.take(b"a")
    running.wait(b"a", lambda: woken.append(1))
    assert b"a" in running
    running.free(b"a")
    assert woken == [1]
    assert b"a" not in running


# Any order of events


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_events(tmp_path: Path, seed: int) -> None:
    """By the calls that were made: none with a key within its time after one that succeeded; each
    event ends with a call, as a dead letter, or because another's call had succeeded."""
    chance = random.Random(seed)
    ttl = 100.0
    code = HANDLER.replace(
        "CALLS.append((event.id, ctx.attempt))",
        "CALLS.append((CLOCK.time(), event.id, ctx.attempt))",
    )
    batch = 'batch = {size = 3, wait = "1s"}' if seed % 4 == 3 else ""
    if batch:
        code = BATCH.replace(
            "CALLS.append([event.id for event in events])",
            "CALLS.extend((CLOCK.time(), event.id, 0) for event in events)",
        )
    events: dict[str, tuple[str, str]] = {}
    write(tmp_path, "$.key", code=code, trigger=batch, ttl="100s", base="30s")
    with App(tmp_path, seed=seed) as app:
        app.functions["f"].module.CLOCK = app.clock
        for n in range(80):
            some = []
            for _ in range(chance.choice([1, 1, 6])):
                key = chance.choice("abc")
                plan = chance.choice(["", "", "once", "fail"])
                name = f"{n}-{len(events)}"
                events[name] = key, plan
                some.append((name, {"key": key, "plan": plan}))
            at_once(app, *some)
            app.advance(chance.choice([0.0, 0.1, 20.0, 70.0, 130.0]))
        app.run()
        dead = {each.event.id for each in app.dead}
        ok = of(app)
        assert len(ok) == len(set(ok))
        ends: dict[str, float] = {}
        done: dict[str, list[float]] = {"a": [], "b": [], "c": []}
        for at, name, _ in calls(app):
            key = events[name][0]
            assert not any(0 < at - then < ttl - 1 for then in done[key]), (at, name, done[key])
            if name in ok:
                ends[name] = at
            last = [each[0] for each in calls(app) if each[1] == name][-1]
            if name in ok and at == last:
                done[key].append(at)
        assert not dead & set(ok)
        assert deduplicated(app) == len(events) - len(dead) - len(ok)
        assert deduplicated(app) > 10 < len(ok)
        assert app._host.in_flight["f/in"]._waiting == {}


# Deploying


def test_a_mesh_that_cannot_is_named(tmp_path: Path) -> None:
    class Stub:
        async def get(self, code: Any) -> Any:
            raise AssertionError("it was not refused")

    async def main() -> None:
        t: Any = await mesh.connect("embedded::memory:", host=True)
        t.features = msgspec.structs.replace(t.features, name="plain", idempotency=False)
        host = Host(t, Stub(), SystemClock(), tmp_path / "code")  # type: ignore[arg-type]
        manifest = load_manifest(write(tmp_path, "id") / "f")
        with pytest.raises(DeployError) as refused:
            await host.prepare(manifest, tmp_path / "f")
        await t.close()
        assert str(refused.value) == (
            "f: [idempotency] needs a mesh that remembers keys, and the plain transport does not"
            " (features.idempotency): remove it, or use another mesh"
        )

    asyncio.run(main())


def test_a_function_of_http_calls_alone_is_warned_of(tmp_path: Path) -> None:
    http = 'kind = "http"\npath = "/f"\n'
    (tmp_path / "funcrt.toml").write_text(f"name = 'f'\n[[trigger]]\n{http}[idempotency]\n")
    assert list(cautions(load_manifest(tmp_path))) == [
        "f: [idempotency] is for what comes over the mesh and for queued calls; a call over HTTP"
        " that is waited for runs each time"
    ]
