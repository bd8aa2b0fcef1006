"""The keys of a real `funcrt dev` in a pseudo-terminal, and what its lines tell of calls."""

import fcntl
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from funcrt.cli.errors import USAGE
from tests.developing import BOTTOM, CODE, MANIFEST, PATIENCE_S, Dev, make_work
from tests.serving import FUNCRT, until

FILTERED = MANIFEST.replace(
    "[output]", 'filters = [{prefix = {type = "order."}}, {exact = {source = "/s"}}]\n[output]'
)
LONG = f"""filters = [{{ not = {{ exact = {{ type = "{"x" * 80}" }} }} }}]
[output]"""
TALKS = """def handler(event):
    print("said", event.id)
    return {"id": event.id}
"""
REQUESTS = """from starlette.requests import Request
from starlette.responses import PlainTextResponse

async def handler(request: Request):
    return PlainTextResponse("made", 201)
"""
STREAMS = """def handler(event):
    for page in range(3):
        yield {"page": page}
    if event.type == "order.bad":
        raise ValueError("no more")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_work(tmp_path, TALKS, FILTERED)
    return tmp_path


@pytest.fixture
def dev(root: Path) -> Iterator[Dev]:
    one = Dev(root)
    try:
        until(lambda: BOTTOM in one.raw)
        yield one
    finally:
        one.close()


def test_the_list_of_keys_names_each_key_of_the_bottom_line(dev: Dev) -> None:
    dev.keys(b"?")
    found = dev.until(r"(  \w  .+\n){7}")[0]
    assert [line[2] for line in found.splitlines()] == list("srdlpfq")
    assert len(BOTTOM) + len("1234") + len(" offd") < 80


def test_filter_why_tells_of_the_last_event_which_conditions_hold(dev: Dev) -> None:
    other = dev.root / "functions" / "other"
    other.mkdir()
    (other / "main.py").write_text("def handler(event): pass\n")
    (other / "funcrt.toml").write_text('[[trigger]]\ntopic = "elsewhere"\n')
    dev.until(r"other in service")
    dev.keys(b"f")
    dev.until(r"  no event was published yet\n")
    dev.publish("in", "order.placed", "o-1")
    dev.until(
        r"order\.placed o-1 → work ✓"
    )  # its output, which nobody reads, is not the last event
    since = len(dev.said)
    dev.keys(b"f")
    dev.until(
        r"  order\.placed o-1 on in: 1 of 2 read the topic, 1 takes it\n"
        r"    ✓ work  mesh in\n"
        r'      ✓ topic = "in"\n'
        r'      ✓ type starts with "order\."  found "order\.placed"\n'
        r'      ✓ source = "/s"\n'
        r"    ✗ other  read elsewhere\n",
        since,
    )
    dev.publish("in", "parcel.sent", "p-1")
    since = len(dev.said)
    dev.keys(b"f")
    dev.until(
        r"  parcel\.sent p-1 on in: 1 of 2 read the topic, none takes it\n"
        r"    ✗ work  mesh in\n"
        r'      ✓ topic = "in"\n'
        r'      ✗ type starts with "order\."  found "parcel\.sent"\n'
        r'      ✓ source = "/s"\n',
        since,
    )
    dev.publish("inn", "order.placed", "o-2")
    dev.keys(b"f")
    dev.until(
        r"  order\.placed o-2 on inn: 0 of 2 read the topic, none takes it\n"
        r"    ✗ other  read elsewhere\n    ✗ work  read in\n"
    )


def test_logs_are_hidden_and_shown_again(dev: Dev) -> None:
    dev.publish("in", "order.placed", "o-1")
    dev.until(r"  work: stdout: said o-1\n")
    dev.keys(b"l")
    dev.until(r"functions' lines are not shown; funcrt logs NAME has them\n")
    until(lambda: "[l]ogs off" in dev.raw)
    dev.publish("in", "order.placed", "o-2")
    dev.until(r"order\.placed o-2 → work ✓")
    dev.keys(b"l")
    dev.until(r"functions' lines are shown; 1 were not\n")
    dev.publish("in", "order.placed", "o-3")
    dev.until(r"  work: stdout: said o-3\n")
    assert "said o-2" not in dev.said
    assert "said o-2" in dev.run("logs", "work").stdout


def test_paused_functions_take_nothing_not_even_new_versions_until_they_go_on(dev: Dev) -> None:
    dev.keys(b"p")
    dev.until(r"paused: what runs finishes, events wait, calls over HTTP get 503\n")
    until(lambda: "[p]aused" in dev.raw)
    dev.publish("in", "order.placed", "o-1")
    assert dev.call()["status"] == 503
    dev.after(r"reloaded in \d+ ms \(v2\)", TALKS.replace("said", "told"))
    new = dev.root / "functions" / "new"
    new.mkdir()
    (new / "main.py").write_text("def handler(event): return 1\n")
    dev.until(r"new in service")
    assert dev.call("new")["status"] == 503
    assert "o-1" not in dev.said
    since = len(dev.said)
    dev.keys(b"p")
    dev.until(r"going on\n", since)
    dev.until(r"  work: stdout: told o-1\n", since)
    dev.until(r"order\.placed o-1 → work ✓", since)
    assert dev.call("new") == 1
    until(lambda: dev.raw.endswith("[p]ause  [f]ilter why  [?]  [q]uit "))


def test_what_is_streamed_is_listed_and_streams_and_responses_are_replayed(dev: Dev) -> None:
    dev.after(r"reloaded", STREAMS)
    dev.after(r"reloaded", FILTERED.replace("[output]", "[output]\nstream = true"), "funcrt.toml")
    dev.publish("in", "order.placed", "o-1")
    out = r"funcrt\.work\.result [0-9a-f]{8} \(out\)"
    line = rf"order\.placed o-1 → work ✓ [\d.]+ ms → {out}, {out} and 1 more\n"
    dev.until(line)
    since = len(dev.said)
    dev.keys(b"r")
    dev.until(line, since)
    dev.publish("in", "order.bad", "o-2")
    dev.until(r"order\.bad o-2 → work ✗ attempt 1 of 5 after 3 outputs, next in")

    web = dev.root / "functions" / "web"
    web.mkdir()
    (web / "main.py").write_text(REQUESTS)
    dev.until(r"web in service")
    url = f"http://127.0.0.1:{dev.port}/functions/web"
    assert httpx.post(url, timeout=PATIENCE_S).status_code == 201
    line = r"→ web ✓ [\d.]+ ms → 201\n"
    dev.until(line)
    since = len(dev.said)
    dev.keys(b"r")
    dev.until(line, since)
    assert "instance" not in dev.said


def test_the_bottom_line_never_wraps(dev: Dev) -> None:
    size = struct.pack("HHHH", 24, 40, 0, 0)
    fcntl.ioctl(dev.fd, termios.TIOCSWINSZ, size)
    before = len(dev.raw)
    dev.keys(b"f")
    dev.until(r"no event was published yet")
    until(lambda: dev.raw[before:].endswith(BOTTOM[:39]))


def test_there_is_no_dashboard_and_dev_says_so(tmp_path: Path) -> None:
    make_work(tmp_path, CODE)
    argv = [*FUNCRT, "dev", "functions", "--ui"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "there is no dashboard: dev has no --ui" in done.stderr
    assert "http" not in done.stdout


def test_a_screen_of_80_columns_is_kept_to_and_every_sample_has_a_key(root: Path) -> None:
    work = root / "functions" / "work"
    (work / "events").mkdir()
    text = '{"specversion":"1.0","id":"1","source":"/s","type":"t.%d"}'
    for number in range(30):
        (work / "events" / f"{number:02}.json").write_text(text % number)
    (work / "funcrt.toml").write_text(MANIFEST.replace("[output]", LONG))
    one = Dev(root)
    try:
        head = one.until(r"funcrt dev.*\n  work .*\n")[0]
        assert max(map(len, head.splitlines())) == 80
        assert "… → out   sync, ready in" in head
        until(lambda: BOTTOM in one.raw)
        one.keys(b"s")
        one.until(r"  9  work: 08\n  a  work: 09\n")
        one.until(r"  and 2 more: funcrt invoke NAME --sample SAMPLE --remote\n")
        one.keys(b"?sc")
        one.until(r"t\.11 [0-9a-f]{8} → work ✓")
    finally:
        one.close()
