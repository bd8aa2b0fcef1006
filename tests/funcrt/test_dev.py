"""`funcrt dev` for real: in a pseudo-terminal, and in a pipe."""

import asyncio
import os
import signal
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import mesh
from mesh import Event
from tests.developing import BOTTOM, CODE, MANIFEST, PATIENCE_S, Dev, lives, make_work, save
from tests.serving import tree, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_work(tmp_path)
    return tmp_path


@pytest.fixture
def dev(root: Path) -> Iterator[Dev]:
    one = Dev(root)
    try:
        yield one
    finally:
        one.close()


def test_edit_break_mend_quit_on_a_terminal(dev: Dev) -> None:
    dev.until(r"work  mesh in → out   sync, ready in \d+ ms")
    assert dev.call() == {"version": 1}
    dev.until(r"\d\d:\d\d:\d\d  \S+ \S+ → work ✓ [\d.]+ ms → funcrt.work.result [0-9a-f]{8}")

    slow: list[Any] = []
    calling = threading.Thread(target=lambda: slow.append(dev.call(sleep=3)))
    calling.start()
    time.sleep(0.5)
    two = CODE.replace('"version": 1', '"version": 2')
    dev.after(
        r"changed functions/work/main\.py → reloaded in \d+ ms \(v2; 1 in flight ends on v1\)", two
    )
    assert dev.call() == {"version": 2}
    assert slow == []
    calling.join()
    assert slow == [{"version": 1}]

    dev.after(
        r"changed functions/work/main\.py → ✗ still serving v2\n"
        r"  functions/work/main\.py:7: syntax error: invalid syntax\n"
        r" +def x\(:\n",
        two + "\ndef x(:\n",
    )
    assert dev.call() == {"version": 2}
    dev.after(
        r"→ ✗ still serving v2\n  functions/work/main\.py:7: fails to import: ZeroDivisionError:"
        r" division by zero\n  functions/work/main\.py:7 in <module>\n +1 / 0\n",
        two + "\n1 / 0\n",
    )
    dev.after(
        r"changed functions/work/funcrt\.toml → ✗ still serving v2\n"
        r'  functions/work/funcrt\.toml:2: triger: unknown key, did you mean "trigger"\?\n',
        MANIFEST.replace("trigger", "triger"),
        "funcrt.toml",
    )
    dev.after(r"changed functions/work/funcrt\.toml → ✗", MANIFEST, "funcrt.toml")
    dev.after(r"changed functions/work/main\.py → v2 as before", two)
    dev.after(r"main\.py → reloaded in \d+ ms \(v3\)", two.replace("2}", "3}"))
    assert dev.call() == {"version": 3}

    below = tree(dev.process.pid)
    dev.keys(b"\x03")
    assert dev.ended() == 0
    assert "Traceback" not in dev.said
    until(lambda: not any(map(lives, below)))


ENV = """def handler(event, ctx):
    return [ctx.env.get("ONE"), ctx.env.get("TWO")]
"""


def test_environment_files_are_read_watched_and_checked(root: Path) -> None:
    (root / "functions" / "work" / "main.py").write_text(ENV)
    save(root / ".env", "ONE=all\nTWO=2\n")
    one = Dev(root)
    try:
        assert one.call() == ["all", "2"]
        one.after(r"changed functions/work/\.env → reloaded", "# mine\nONE='own one'\n", ".env")
        assert one.call() == ["own one", "2"]
        save(root / ".env", "ONE=all\nTWO=${ONE}!\n")
        one.until(r"reloaded in \d+ ms \(v3\)")
        assert one.call() == ["own one", "all!"]
        since = len(one.said)
        save(root / ".env", "ONE=all\n\nnonsense\n")
        one.until(
            r"→ ✗ still serving v3\n  \.env:3: expected NAME=value, found 'nonsense'\n", since
        )
        save(root / ".env", "ONE=all\n")
        one.until(r"reloaded in \d+ ms \(v4\)", since)
        assert one.call() == ["own one", None]
    finally:
        one.close()


def test_keys_send_samples_repeat_and_redrive_on_a_terminal(root: Path) -> None:
    events = root / "functions" / "work" / "events"
    events.mkdir()
    for name in ("first", "second"):
        text = f'{{"specversion":"1.0","id":"1","source":"/s","type":"t.{name}","data":{{"n":1}}}}'
        (events / f"{name}.json").write_text(text)
    (events / "first.expected.json").write_text('{"outputs": []}')
    (root / "functions" / "work" / "funcrt.toml").write_text(MANIFEST + "[retry]\nattempts = 1\n")
    one = Dev(root)
    try:
        until(lambda: BOTTOM in one.raw)
        one.keys(b"s")
        one.until(r"  1  work: first\n(.*)  2  work: second")
        for _ in range(2):  # a sample is no duplicate of itself
            since = len(one.said)
            one.keys(b"s2")
            one.until(r"t\.second [0-9a-f]{8} → work ✓", since)
        since = len(one.said)
        one.keys(b"r")
        one.until(r"t\.second [0-9a-f]{8} → work ✓", since)

        one.after(r"reloaded", CODE.replace("import time", "1").replace("time.sleep", "1 / "))
        since = len(one.said)
        one.keys(b"s1")
        one.until(r"t\.first [0-9a-f]{8} → work ✗ attempt 1 of 1, now a dead letter", since)
        until(lambda: "[d]lq 1" in one.raw)
        one.keys(b"d")
        one.until(r"  work 1: t\.first \S+: ZeroDivisionError", since)
        one.after(r"reloaded", CODE)
        one.keys(b"D")
        one.until(r"  work: 1 replayed", since)
        one.until(r"t\.first [0-9a-f]{8} → work ✓", since)
        before = termios.tcgetattr(one.fd)[3] & termios.ECHO
        one.keys(b"q")
        assert one.ended() == 0
        assert not before
        assert termios.tcgetattr(one.fd)[3] & termios.ECHO
    finally:
        one.close()


def test_functions_come_and_go(dev: Dev) -> None:
    new = dev.root / "functions" / "new"
    new.mkdir()
    (new / "main.py").write_text("def handler(event): return 1\n")
    dev.until(r"found functions/new → new in service after \d+ ms")
    assert dev.call("new") == 1
    (new / "main.py").write_text("def handler(event): return 2\n")
    dev.until(r"changed functions/new/main\.py → reloaded")
    assert dev.call("new") == 2
    new.rename(dev.root / "functions" / "newer")
    dev.until(r"removed functions/new → new is out of service\n\d\d")
    dev.until(r"found functions/newer → newer in service")
    assert dev.call("newer") == 2
    assert "no function is named 'new'" in dev.call("new")["detail"]
    assert dev.call() == {"version": 1}
    assert "work/main.py" not in dev.said

    dev.keys(b"p")
    dev.until(r"paused: ")
    dev.publish("in", "t", "1")
    (dev.root / "functions" / "work").rename(dev.root / "away")
    dev.until(
        r"removed functions/work → work is out of service\n"
        r"  its queue takes events until it is back; 1 waits now\n"
    )


def test_failures_are_told_with_the_author_s_line_and_what_comes_next(dev: Dev) -> None:
    dev.after(
        r"reloaded",
        'def handler(event):\n    print("got it")\n    return event.json()["nothing"]\n',
    )
    dev.after(r"reloaded", MANIFEST + '[retry]\nattempts = 2\nbase = "10ms"\n', "funcrt.toml")
    event = {
        "ce-id": "cat-1",
        "ce-type": "image.uploaded",
        "ce-source": "/s",
        "ce-specversion": "1.0",
    }
    url = f"http://127.0.0.1:{dev.port}/topics/in/events"
    httpx.post(url, json={}, headers=event, timeout=PATIENCE_S).raise_for_status()
    dev.until(r"  work: stdout: got it\n")
    dev.until(
        r"image\.uploaded cat-1 → work ✗ attempt 1 of 2, next in 0\.0 s\n"
        r"  functions/work/main\.py:3 in handler\n"
        r'      return event\.json\(\)\["nothing"\]\n'
        r"(.*\^+\n)?"
        r"  KeyError: 'nothing'\n"
    )
    dev.until(
        r"image\.uploaded cat-1 → work ✗ attempt 2 of 2, now a dead letter\n"
        r"  KeyError: 'nothing' \(as before\)\n"
        r"  again: funcrt dlq replay work --all\n"
    )


MIXED = """import helper
from helper import VERSION

def handler(event):
    import importlib, time
    time.sleep(0.005)
    importlib.reload(helper)
    return {"number": event.json()["number"], "same": helper.VERSION == VERSION}
"""


def test_no_event_is_lost_or_runs_on_mixed_code_over_many_edits(dev: Dev) -> None:
    dev.after(r"reloaded|✗", "VERSION = 0\n", "helper.py")
    dev.after(r"reloaded", MIXED)
    dev.after(r"reloaded", MANIFEST + "[retry]\nattempts = 1\n", "funcrt.toml")
    edits, a_round = 15, 40
    url = f"embedded://{dev.root}/.funcrt/mesh.db"

    async def main() -> dict[int, list[bool]]:
        found: dict[int, list[bool]] = {}
        client = await mesh.connect(url)
        try:
            for number in range(edits):
                events = [
                    Event.create(
                        "n", {"number": number * a_round + n}, source="/t", id=f"{number}-{n}"
                    )
                    for n in range(a_round)
                ]
                await client.publish("in", events[: a_round // 2])
                pattern = rf"helper\.py → reloaded in \d+ ms \(v{number + 5}"
                saved = asyncio.to_thread(
                    dev.after, pattern, f"VERSION = {number + 1}\n", "helper.py"
                )
                await asyncio.gather(saved, client.publish("in", events[a_round // 2 :]))
            async with asyncio.timeout(PATIENCE_S):
                async for item in client.tail("out", "earliest"):
                    said = item.event.json()
                    found.setdefault(said["number"], []).append(said["same"])
                    if len(found) == edits * a_round:
                        return found
        finally:
            await client.close()
        return found

    found = asyncio.run(main())
    assert found == {number: [True] for number in range(edits * a_round)}
    code = dev.root / ".funcrt" / "dev-code"
    end = time.monotonic() + PATIENCE_S
    while len(os.listdir(code)) > 1:  # old versions leave nothing behind
        assert time.monotonic() < end, os.listdir(code)
        time.sleep(0.05)


def test_in_a_pipe_lines_are_plain_and_without_reload_changes_are_left_alone(root: Path) -> None:
    one = Dev(root, "functions/work", "--no-reload", terminal=False)
    try:
        (root / "functions" / "work" / "main.py").write_text("def x(:\n")
        assert one.call() == {"version": 1}
        one.until(r"→ work ✓")
        time.sleep(0.3)
        assert "changed" not in one.said
        assert "\x1b" not in one.raw
        assert "\r" not in one.raw
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == 0
    finally:
        one.close()


def test_a_function_that_is_broken_at_the_start_comes_into_service_once_it_is_mended(
    root: Path,
) -> None:
    (root / "functions" / "work" / "main.py").write_text("import nothere\n")
    one = Dev(root)
    try:
        one.until(
            r"functions/work → ✗ not in service\n"
            r"  functions/work/main\.py:1: cannot import 'nothere'"
        )
        assert one.said.count("cannot import") == 1
        one.after(r"found functions/work → work in service", CODE)
        assert one.call() == {"version": 1}
    finally:
        one.close()
