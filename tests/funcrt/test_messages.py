"""Every mistake that a user is likely to make, and what is then said: tests/funcrt/messages.txt.

A message says where, what was found, what was expected, and what to do next. To add a mistake, add
a row and run this file with `--update-golden`; then judge what was written.
"""

import difflib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from funcrt import cli
from funcrt.auth import new_token, token_line
from tests.serving import FUNCRT, Serving
from tests.terminal import piped

SAID = Path(__file__).with_name("messages.txt")
Words = tuple[str, ...]
Mistake = tuple[str, dict[str, str], Words]
"""What it is, the files there are, and the command."""

H = "def handler(event): pass\n"
T = '[[trigger]]\ntopic = "in"\n'
E = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
DEP = ("deploy", "f")
SERVE = ("serve", "f", "--port", "0")
INV = ("invoke", "f", "--data", "1")


def f(main: str = H, toml: str | None = None, **more: str) -> dict[str, str]:
    """A function's folder, `f`; __ in a name of `more` is a slash."""
    files = {"f/main.py": main, **{name.replace("__", "/"): text for name, text in more.items()}}
    return files if toml is None else {**files, "f/funcrt.toml": toml}


def event(**change: object) -> dict[str, str]:
    """An event's file."""
    return {"e.json": json.dumps({k: v for k, v in {**E, **change}.items() if v is not None})}


MISTAKES: list[Mistake] = [
    # manifests
    ("an unknown key", f(toml='timeot = "3s"\n'), DEP),
    ("a key of a trigger, misspelt", f(toml=T + "fliters = []\n"), DEP),
    ("a value of another type", f(toml='concurrency = "two"\n'), DEP),
    ("a number out of its bounds", f(toml="[retry]\nattempts = 0\n"), DEP),
    ("a duration without a unit", f(toml='timeout = "30"\n'), DEP),
    ("no TOML", f(toml="timeout = \n"), DEP),
    ("two mistakes", f(toml='timeot = "3s"\n[scale]\nmaximum = 3\n'), DEP),
    ("both manifests", f(toml="", **{"f__pyproject.toml": '[tool.funcrt]\nname = "f"\n'}), DEP),
    ("a name that none may have", f(toml='name = "a b"\n'), DEP),
    ("the host's own topic", f(toml='[[trigger]]\ntopic = "funcrt.x"\n'), DEP),
    ("a trigger without a topic", f(toml='[[trigger]]\nkind = "mesh"\n'), DEP),
    ("an unknown kind of trigger", f(toml='[[trigger]]\nkind = "mqtt"\ntopic = "a"\n'), DEP),
    ("two triggers of one name", f(toml=T + T), DEP),
    ("an output that loops", f(toml=T + '[output]\ntopic = "in"\n'), DEP),
    ("a dialect misspelt", f(toml=T + 'filters = [{ exakt = { type = "a" } }]\n'), DEP),
    (
        "an operator misspelt",
        f(toml=T + 'pattern = { data = { n = [{ numerc = [">", 0] }] } }\n'),
        DEP,
    ),
    (
        "a JSONPath that is none",
        f(toml=T + 'jsonpath = [{ path = "tags", op = "==", value = "cat" }]\n'),
        DEP,
    ),
    ("CESQL that is none", f(toml=T + 'filters = [{ sql = "type =" }]\n'), DEP),
    (
        "a schedule that is none",
        f(toml='[[trigger]]\nkind = "cron"\nschedule = "every day"\n'),
        DEP,
    ),
    (
        "a time zone that is none",
        f(toml='[[trigger]]\nkind = "cron"\nschedule = "0 7 * * *"\ntimezone = "Mars"\n'),
        DEP,
    ),
    ("a path without its slash", f(toml='[[trigger]]\nkind = "http"\npath = "resize"\n'), DEP),
    ("a key without order", f(toml=T + 'key = "$.customer"\n'), DEP),
    ("min over max", f(toml="[scale]\nmin = 4\nmax = 2\n"), DEP),
    ("memory without a unit", f(toml='[limits]\nmemory = "lots"\n'), DEP),
    ("no isolation", f(toml='[sandbox]\nisolation = "none"\n'), DEP),
    ("a value in the place of a secret", f(toml='[secrets]\nAPI_KEY = "sk live 17"\n'), DEP),
    ("a secret that the host has not", f(toml='[secrets]\nAPI_KEY = "stripe/key"\n'), SERVE),
    ("a variable that the host has not", f(toml='[secrets]\nAPI_KEY = "env:STRIPE"\n'), SERVE),
    ("a secret that nobody gave", f(toml='[secrets]\nAPI_KEY = "stripe/key"\n'), INV),
    (
        "a secret that is too short",
        f(toml='[secrets]\nAPI_KEY = "stripe/key"\n', **{".env": "API_KEY=abc\n"}),
        INV,
    ),
    (
        "a secret that is not declared",
        f(
            "def handler(event, ctx): ctx.secret('API_KYE')\n",
            toml='[secrets]\nAPI_KEY = "stripe/key"\n',
            **{".env": "API_KEY=abcdef\n"},
        ),
        INV,
    ),
    (
        "a profile that is not there",
        f(toml="[profile.prod.scale]\nmax = 3\n"),
        ("deploy", "f", "--profile", "prdo"),
    ),
    ("no function", {"f/readme": ""}, DEP),
    # handlers
    ("a syntax error", f("def handler(:\n"), INV),
    ("an import that fails", f("import pil_low\n" + H), INV),
    ("no handler", f("def hanlder(event): pass\n"), INV),
    ("two entry points", f("def handler(e): pass\ndef main(e): pass\n"), INV),
    ("the context first", f("def handler(context, event): pass\n"), INV),
    (
        "a topic that is not declared",
        f(
            "from funcrt import Event\n"
            "def handler(event, ctx): ctx.emit(Event.create('a', 1), topic='other')\n"
        ),
        INV,
    ),
    ("three parameters", f("def handler(a, b, c): pass\n"), INV),
    ("a keyword that no call gives", f("def handler(event, *, db): pass\n"), INV),
    (
        "a batch and a handler of one event",
        f(toml=T + 'batch = { size = 50, wait = "200ms" }\n'),
        INV,
    ),
    ("a handler that is not there", f(toml='handler = "main:go"\n'), INV),
    ("a module that is not there", f(toml='handler = "app:handler"\n'), INV),
    ("an annotation that is none", f("def handler(order: Ordr): pass\n"), INV),
    ("an error at import", f("1 / 0\n" + H), INV),
    ("a handler that is a number", f("handler = 3\n"), INV),
    (
        "data that is not the type's",
        f("def handler(n: int): pass\n"),
        ("invoke", "f", "--data", '"x"'),
    ),
    ("an output that cannot be one", f("def handler(event): return object()\n"), INV),
    (
        "a reserved attribute in an output",
        f(
            "from funcrt import Event\n"
            "def handler(event): return Event.create('a', 1, funcrtx='1')\n"
        ),
        INV,
    ),
    (
        "a handler that raises",
        f("def handler(event):\n    return event.json()['sku']\n"),
        ("invoke", "f", "--data", "{}"),
    ),
    (
        "a handler that hangs",
        f("import time\ndef handler(event): time.sleep(9)\n", toml='timeout = "50ms"\n'),
        INV,
    ),
    ("a handler that ends its process", f("import os\ndef handler(event): os._exit(3)\n"), INV),
    # the command line
    ("an unknown command", {}, ("lss",)),
    ("an unknown option", {}, ("ls", "--jsn")),
    ("a missing argument", {}, ("describe",)),
    ("a port that is no number", {}, ("serve", ".", "--port", "x")),
    ("a port that is none", {}, ("serve", ".", "--port", "99999")),
    ("a directory that is not there", {}, ("deploy", "nowhere")),
    ("a file for a directory", f(), ("serve", "f/main.py")),
    ("no host", {}, ("ls",)),
    ("no host at a URL", {}, ("ls", "--host", "http://127.0.0.1:9")),
    ("a host that is no URL", {}, ("ls", "--host", "ftp://x")),
    ("half of the bounds", {}, ("scale", "f", "--min", "1")),
    ("no mesh", {}, ("tail", "in")),
    ("a mesh URL that is none", {}, ("publish", "in", "--type", "a", "--mesh", "mqtt://x")),
    ("a topic's name", {}, ("publish", "a b", "--type", "a")),
    ("a topic of the host's own", {}, ("publish", "funcrt.x", "--type", "a")),
    ("an event without a type", {}, ("publish", "in", "--data", "1")),
    ("data that is not JSON", {}, ("publish", "in", "--type", "a", "--data", "{")),
    ("an event without its source", event(source=None), ("publish", "in", "e.json")),
    ("an event of another version", event(specversion="0.3"), ("publish", "in", "e.json")),
    ("a reserved extension", event(funcrthops="1"), ("publish", "in", "e.json")),
    ("an attribute's name", event(traceId="1"), ("publish", "in", "e.json")),
    (
        "the third line",
        {"e.jsonl": json.dumps(E) + '\n\n{"id":\n'},
        ("publish", "in", "e.jsonl", "--jsonl"),
    ),
    ("a file that is not there", {}, ("publish", "in", "none.json")),
    ("an empty file", {"e.json": ""}, ("publish", "in", "e.json")),
    ("a file and options", {"e.json": ""}, ("publish", "in", "e.json", "--type", "a")),
    ("a scope", {}, ("token", "ci", "--scope", "write")),
    ("a token's name", {}, ("token", "a b")),
    (
        "a token file",
        f(**{"t.txt": "publish abc ci\n"}),
        ("serve", "f", "--tokens", "t.txt", "--port", "0"),
    ),
    ("an open address", f(), ("serve", "f", "--host", "0.0.0.0", "--port", "0")),
    ("a template", {}, ("new", "x", "--template", "htp")),
    ("a folder that is there", f(), ("new", "f")),
    (
        "a sample that is not there",
        f(**{"f__events__large.json": json.dumps(E)}),
        ("invoke", "f", "--sample", "lrge"),
    ),
    ("no event", f(), ("invoke", "f")),
    (
        "a filter's file",
        {"x.json": '[{"exakt":{"type":"a"}}]', "e.json": ""},
        ("filter", "test", "x.json", "e.json"),
    ),
    ("two events to explain", {"e.json": json.dumps([E, E])}, ("explain", "e.json")),
    ("a level of logs", {}, ("logs", "f", "--level", "loud")),
    ("a time", {}, ("logs", "f", "--since", "yesterday")),
    ("no letters", {}, ("dlq", "drop", "f")),
    ("which events", {}, ("replay", "f")),
    ("nothing to test", f(), ("test", "f")),
    ("an environment file", f(**{".env": "A B\n"}), ("dev", "f", "--port", "0")),
]
OF_A_HOST: list[Mistake] = [
    ("a function that is not deployed", {}, ("describe", "labl")),
    ("a call of a function that is not deployed", {}, ("invoke", "labl", "--data", "1")),
    ("a call of a paused function", {}, ("invoke", "resting", "--data", "1")),
    ("a call of a function that raises", {}, ("invoke", "label", "--data", "{}")),
    ("a version that is not there", {}, ("rollback", "label", "v9")),
    ("no version before", {}, ("rollback", "label")),
    ("bounds the wrong way round", {}, ("scale", "label", "--min", "4", "--max", "2")),
    ("an event that it did not take", {}, ("replay", "label", "--id", "gone")),
    ("a trigger that it has not", {}, ("replay", "label", "--last", "1", "--trigger", "bills")),
    ("a dead letter that is not there", {}, ("dlq", "show", "label", "--id", "9")),
    ("removing what is not deployed", {}, ("rm", "labl")),
    ("a deploy of what does not import", f("import pil_low\n" + H), DEP),
    ("a deploy of a batch to a handler of one", f(toml=T + "batch = { size = 50 }\n"), DEP),
    ("no token", {}, ("ls", "--host", "URL")),
    ("a token that is none", {}, ("ls", "--host", "URL", "TOKEN=funcrt_no")),
    ("a token without the scope", {}, ("ls", "--host", "URL", "TOKEN=reader")),
    ("a second host on one file", f(), ("serve", "f", "--port", "0")),
    ("a port that is taken", f(), ("serve", "f", "--port", "PORT", "--data", "other")),
]

LABEL = """
def handler(event):
    return event.json()["total"]
---
[[trigger]]
topic = "orders"
"""
READER = new_token()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("messages")
    (root / "tokens.txt").write_text(token_line(READER, ["read"], "reader") + "\n")
    serving = Serving(
        root / "data", ["--tokens", str(root / "tokens.txt")], label=LABEL, resting=LABEL
    )
    assert serving.run("pause", "resting").returncode == 0
    yield serving
    serving.stop(signal.SIGTERM)


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def section(mistake: Mistake, code: int, err: str, root: Path) -> str:
    """What the page has of it, without what is this machine's."""
    what, _, words = mistake
    err = err.replace(f"{root}/", "/here/").replace(sys.executable, "python")
    err = re.sub(r"\bprocess \d+", "process 1", err)
    shown = " ".join(word if re.fullmatch(r"\S+", word) else f"'{word}'" for word in words)
    return f"{what}\n$ funcrt {shown}\n{err}exit {code}\n"


def pages() -> dict[str, str]:
    """What is to be said, by what the mistake is."""
    parts = SAID.read_text("utf-8").split("\n\n") if SAID.is_file() else []
    return {part.partition("\n")[0]: part.rstrip("\n") + "\n" for part in parts}


def check(section: str, update: bool) -> None:
    what = section.partition("\n")[0]
    said = pages()
    if update:
        order = [each[0] for each in (*MISTAKES, *OF_A_HOST)]
        said[what] = section
        kept = [said[each] for each in order if each in said]
        SAID.write_text("\n".join(kept), "utf-8")
    was, now = said.get(what, "").splitlines(), section.splitlines()
    changed = "\n".join(difflib.unified_diff(was, now, "kept", "said now", lineterm="", n=9))
    assert not changed, f"{what}; --update-golden where it is meant:\n{changed}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config, mistake: Mistake,
) -> None:  # fmt: skip
    _, files, words = mistake
    make(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for name in [name for name in os.environ if name.startswith("FUNCRT_")]:
        if name != "FUNCRT_ALLOW_ISOLATION":
            monkeypatch.delenv(name)
    monkeypatch.setenv("FUNCRT_USER", "root")  # else it is this process that becomes another
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    err = capsys.readouterr().err
    check(
        section(mistake, ended.value.code, err, tmp_path), pytestconfig.getoption("--update-golden")
    )


@pytest.mark.parametrize("mistake", OF_A_HOST, ids=lambda mistake: mistake[0])
def test_a_mistake_that_a_host_finds(
    host: Serving, tmp_path: Path, pytestconfig: pytest.Config, mistake: Mistake
) -> None:
    make(tmp_path, mistake[1])
    env = dict(host.env)
    words = []
    for word in mistake[2]:
        if word.startswith("TOKEN="):
            env["FUNCRT_TOKEN"] = word.removeprefix("TOKEN=").replace("reader", READER)
        else:
            words.append({"URL": host.url, "PORT": str(host.port)}.get(word, word))
    code, _, err = piped([*FUNCRT, *words], cwd=tmp_path, env=env)
    err = err.replace(host.url, "URL").replace(str(host.port), "PORT")
    err = err.replace(f"{Path(env['FUNCRT_DATA']).parent}/", "/there/")
    check(section(mistake, code, err, tmp_path), pytestconfig.getoption("--update-golden"))


def test_the_page_has_each_mistake_once_and_a_message_for_it() -> None:
    said = pages()
    every = [mistake[0] for mistake in (*MISTAKES, *OF_A_HOST)]
    assert list(said) == every
    assert len(set(every)) >= 45
    for what, text in said.items():
        assert "\n✗ " in text, what
        assert "Traceback" not in text, what
        assert re.search(r"exit [123]\n$", text), what
