"""What every command prints, on a terminal and in a pipe, kept in tests/golden/.

`pytest tests/funcrt/test_golden.py --update-golden` writes them anew; `git diff` says what that
changed. tests/funcrt/golden_session.py says how to read them, and what is evened out.
"""

import difflib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.event import Event
from tests.developing import save
from tests.funcrt.golden_session import Session
from tests.funcrt.test_cli import commands
from tests.levels import sandboxed
from tests.serving import Serving, until
from tests.users import CLOSED

GOLDEN = Path(__file__).parent.parent / "golden"

pytestmark = [pytest.mark.timeout(300), sandboxed]  # what is shown names the level
"""The first test has the whole session: some 30 s, and 96 were seen on a machine that was busy."""

LABEL = """
import logging
from dataclasses import dataclass

from funcrt import Context

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")


@dataclass
class Order:
    total: int


def handler(order: Order, ctx: Context) -> dict[str, str]:
    ctx.log.info("total is %s", order.total)
    if order.total > 100:
        logging.warning("that is much")
        raise ValueError(f"too much: {order.total}")
    return {"label": "small" if order.total < 10 else "large"}
---
[[trigger]]
topic = "orders"
filters = [{ prefix = { type = "order." } }]
pattern = { data = { total = [{ numeric = [">", 0] }] } }

[scale]
max = 1
idle = "10m"

[output]
topic = "labels"
type = "order.labelled"

[retry]
attempts = 2
base = "10ms"
"""
QUOTE = """
async def handler(data: dict) -> dict:
    return {"quote": data["total"] * 2}
---
[[trigger]]
kind = "http"
path = "/quote"
[scale]
max = 1
idle = "10m"
"""
NIGHTLY = """
def handler(event):
    pass
---
dlq = false
[[trigger]]
kind = "cron"
schedule = "0 7 * * *"
"""
RESIZE = """
def handler(event):
    return {"variants": 3}
---
[[trigger]]
topic = "images"
filters = [{ exact = { type = "image.uploaded" } }]

[[trigger]]
kind = "http"
path = "/resize"

[output]
topic = "thumbs"
type = "image.resized"

[scale]
max = 8
"""


def write(directory: Path, source: str) -> None:
    code, _, manifest = source.partition("---")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "main.py").write_text(code.lstrip())
    (directory / "funcrt.toml").write_text(manifest.lstrip())


def event(key: str, total: int, type_: str = "order.placed") -> str:
    made = Event.create(type_, {"total": total}, source="/shop", id=key)
    return made.to_json().decode()


@pytest.fixture(scope="module")
def shown(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """Golden file -> what is to be in it, of one session."""
    root = Path(tempfile.mkdtemp(prefix="golden-", dir="/tmp")).resolve()
    root.chmod(0o755)  # a host that root starts works in it as another user
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("FUNCRT_", "PYTEST_"))
           and key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI")}  # fmt: skip
    if CLOSED:
        env["FUNCRT_USER"] = "root"
    session = Session(root, {**env, "TZ": "UTC"})
    try:
        play(session)
        files = {name: f"{text.rstrip()}\n" for name, text in session.files.items()}
        if pytestconfig.getoption("--update-golden"):
            for name, text in files.items():
                (GOLDEN / f"{name}.txt").write_text(text, "utf-8")
        yield files
    finally:
        session.close()
        shutil.rmtree(root)


def play(session: Session) -> None:
    helps(session)
    begin(session)
    serve(session)
    develop(session)
    host = Serving(session.root / ".funcrt", env=session.env)
    try:
        events(session, host)
        look(session)
        call(session)
        deploys(session)
        letters(session)
        operate(session)
    finally:
        host.stop(signal.SIGTERM)
    check = ("doctor", "--check")  # one at a time: each takes the file for itself
    session.terminal(*check)
    session.pipe(*check)
    session.pipe(*check, "--json")


def helps(session: Session) -> None:
    for words in (("--help",), ("dlq", "--help"), ("filter", "--help")):
        session.terminal(*words)


def begin(session: Session) -> None:
    """What an author begins with, and no host runs."""
    session.terminal("new", "hello", "--template", "event")
    session.pipe("new", "shop", "--template", "chain")
    session.pipe("new", "typed", "--template", "typed", "--json")
    session.run("test", "hello")
    main = session.root / "hello" / "main.py"
    main.write_text(main.read_text().replace('"large"', '"big"'))
    session.run("test", "hello")
    main.write_text(main.read_text().replace('"big"', '"large"'))
    session.run("invoke", "hello", "--sample", "large")
    (session.root / "bad.json").write_text(event("a-2", 7).replace('"total"', '"totl"'))
    session.run("invoke", "hello", "@bad.json")
    session.run("invoke", "hello", "--sample", "large", "--repeat", "3")
    session.run("doctor")
    session.terminal("ls")
    session.pipe("ls")
    session.terminal("token", "ops", "--scope", "admin")
    session.pipe("token", "ci", "--tokens", "tokens.txt")
    session.pipe("token", "cd", "--tokens", "tokens.txt", "--json")


def serve(session: Session) -> None:
    """A host's own words, from its start to its end."""
    for name, source in (("label", LABEL), ("quote", QUOTE), ("nightly", NIGHTLY)):
        write(session.root / "functions" / name, source)
    words = ("serve", "functions", "--port", "0", "--data", "other")
    running = session.start(*words)
    running.until("no tokens are configured")
    running.type("\x03")
    session.end(running, *words)
    session.until("no tokens are configured", *words)
    session.until(r'"event":"open"', *words, "--json")


def develop(session: Session) -> None:
    """`funcrt dev`, and what it says of calls and changes."""
    work = session.root / "work"
    # A filter that fits: how much of a longer one does depends on how long an import took.
    write(work, LABEL.replace('pattern = { data = { total = [{ numeric = [">", 0] }] } }\n', ""))
    words = ("dev", "work", "--port", "0", "--data", "dev")
    running = session.start(*words)
    running.until(r"\[q\]uit")
    for key, total in (("small", 7), ("large", 101)):
        (session.root / f"{key}.json").write_text(event(key, total))
        session.quiet("publish", "orders", f"{key}.json", "--data-dir", "dev")
        running.until(rf"{key}.*(✓.*labels|now a dead letter)")
    main = (work / "main.py").read_text()
    save(work / "main.py", main.replace("total < 10", "total < 20"))
    running.until("v2")
    save(work / "main.py", main.replace("total < 10", "total <"))
    running.until("SyntaxError|syntax error")
    running.type("q")
    session.end(running, *words)


def events(session: Session, host: Serving) -> None:
    """Some events published, one of which becomes a dead letter."""
    root = session.root
    (root / "events.jsonl").write_text(
        "\n".join([event("small", 7), event("none", 0), event("bill", 5, "bill.sent")]) + "\n"
    )
    session.terminal("publish", "orders", "events.jsonl")
    session.pipe("publish", "orders", "large.json")
    session.pipe("publish", "orders", "--id", "small", "--source", "/shop", "--type",
                 "order.placed", "--data", '{"total": 7}', "--json")  # fmt: skip
    until(lambda: json.loads(host.run("stats", "label", "--json").stdout)["dead"] == 1)
    session.run("tail", "orders", "--from", "earliest", "--limit", "3")
    session.run("tail", "labels", "--from", "earliest", "--limit", "1")


def look(session: Session) -> None:
    """What a host answers who only looks."""
    session.run("doctor")
    session.run("ls")
    for name in ("label", "quote", "nightly"):
        session.run("describe", name)
    session.run("stats")
    session.run("stats", "label")
    session.run("logs", "label")
    session.run("logs", "nightly")
    session.run("explain", "large.json", "--topic", "orders")
    session.run("explain", "--plan")
    session.run("explain", "events.jsonl")
    session.run("filter", "test", "label", "events.jsonl")
    session.run("versions", "label")


def call(session: Session) -> None:
    """Calls of the host's functions, which wait for an answer or are queued."""
    session.run("invoke", "label", "@large.json", "--remote")
    session.run("invoke", "quote", "@small.json", "--remote")
    session.terminal("invoke", "quote", "@small.json", "--async")
    session.pipe("invoke", "quote", "@large.json", "--async", "--json")


def deploys(session: Session) -> None:
    resize = session.root / "more" / "resize"
    write(resize, RESIZE)
    session.terminal("deploy", "more/resize", "--plan")
    session.terminal("deploy", "more/resize")
    write(resize, RESIZE.replace("3}", "4}").replace("max = 8", "max = 9"))
    session.run("deploy", "more", "--plan")
    session.pipe("deploy", "more")
    session.pipe("deploy", "more", "--json")
    session.terminal("deploy", "more")
    session.terminal("rollback", "resize")
    session.pipe("rollback", "resize")
    session.pipe("rollback", "resize", "v2", "--json")
    session.run("versions", "resize")


def letters(session: Session) -> None:
    session.run("dlq", "ls")
    session.run("dlq", "ls", "--group")
    session.run("dlq", "ls", "quote")
    session.run("dlq", "show", "label", "--id", "1")
    for command in (("dlq", "replay", "label", "--all"), ("replay", "label", "--id", "small"),
                    ("dlq", "drop", "label", "--all", "--yes")):  # fmt: skip
        session.terminal(*command)
        session.pipe(*command)
        session.pipe(*command, "--json")


def operate(session: Session) -> None:
    for command in ("pause", "resume"):
        session.terminal(command, "label")
        session.pipe(command, "label")
        session.pipe(command, "quote", "--json")
    session.run("scale", "resize", "--min", "0", "--max", "4")
    session.terminal("scale", "resize", "--reset")
    session.terminal("rm", "resize")
    session.pipe("rm", "resize", "--purge")
    session.pipe("rm", "quote", "--json")


def wanted() -> list[str]:
    """A golden file for each command, and one for `funcrt --help` and the groups' own."""
    return ["funcrt", *map("-".join, commands())]


@pytest.mark.parametrize("name", wanted())
def test_what_a_command_prints(shown: dict[str, str], name: str) -> None:
    file = GOLDEN / f"{name}.txt"
    assert name in shown, f"play() runs no `funcrt {name}`"
    assert file.is_file(), f"no {file}: pytest {__file__} --update-golden"
    was, now = file.read_text("utf-8").splitlines(), shown[name].splitlines()
    changed = "\n".join(difflib.unified_diff(was, now, "kept", "printed now", lineterm="", n=1))
    assert not changed, f"{file.name}; --update-golden where it is meant:\n{changed}"


def test_no_file_is_left_of_a_command_that_is_gone(shown: dict[str, str]) -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(wanted()) == set(shown)
