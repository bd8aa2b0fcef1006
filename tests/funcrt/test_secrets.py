"""Secrets: where they are found, who is told, and that nothing which is kept or shown has them."""

import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcrt.errors import DeployError, SecretUnknown
from funcrt.manifest import ScaleSpec
from funcrt.member import Pending
from funcrt.pool import Pool
from funcrt.sandbox import Code
from funcrt.sandbox.protocol import Call, Failure, Item, Log, Result, Started
from funcrt.sandbox.secrets import NO_SECRETS, SHORTEST, Secrets
from funcrt.secrets import MOST_BYTES, SecretsMissing, SecretStore, apart
from funcrt.testing import App, load
from funcrt.trial import trial
from funcrt.zygotes import Zygotes
from mesh import Event
from tests.developing import Dev
from tests.serving import FUNCRT, Serving, rows, tree, until
from tests.sim.loop import VirtualClock, run
from tests.sim.sandbox import Manner, SimSandbox, SimZygote

KEY = "sk_live_51Hc'q\"/é+z"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END KEY-----"
NEW = "sk_live_second_one"

# Taking them out

VALUE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=6, max_size=40)


@settings(deadline=None)
@given(VALUE, st.lists(st.text(max_size=20)), st.integers(0, 40), st.integers(0, 40))
def test_no_text_has_a_value_or_the_part_of_one_that_was_cut(
    value: str, around: list[str], start: int, end: int
) -> None:
    hidden = Secrets({"KEY": value})
    said = hidden.text(value.join([*around, ""]))
    assert value not in said.replace("[secret KEY]", "\0")
    # The text was cut in the middle of the value, at either end.
    head, tail = value[: start % len(value)], value[end % len(value) + 1 :]
    for cut, part in ((f"- {head}", head), (f"{tail} -", tail), (f"- {head}\ufffd", head)):
        left = hidden.text(cut).replace("[secret KEY]", "")
        assert len(part) < SHORTEST or part not in left


@settings(deadline=None)
@given(st.lists(VALUE, min_size=1, max_size=4, unique=True), st.randoms())
def test_values_that_overlap_or_hold_each_other_leave_nothing_of_themselves(
    values: list[str], chance: Any
) -> None:
    values.append(values[0] + values[-1])
    mixed = [chance.choice(values) for _ in range(5)]
    said = Secrets({f"S{n}": value for n, value in enumerate(values)}).text("".join(mixed))
    assert re.fullmatch(r"(\[secret S\d\])+", said)


@pytest.mark.parametrize(
    "said",
    [
        PEM, PEM.split("\n")[2], repr(PEM), f"{{'pem': {PEM!r}}}", KEY, repr(KEY), ascii(KEY),
        '{"k": "sk_live_51Hc\'q\\"/\\u00e9+z"}', "https://x/?k=sk_live_51Hc%27q%22%2F%C3%A9%2Bz&n=1",
    ],
)  # fmt: skip
def test_a_value_is_found_as_json_python_and_urls_write_it(said: str) -> None:
    found = Secrets({"KEY": KEY, "PEM": PEM}).text(said)
    assert not leaked(found)
    assert "[secret " in found


def test_what_an_instance_says_is_cleaned_and_what_it_returns_is_not() -> None:
    hidden = Secrets({"KEY": NEW})
    why = Failure(f"E{NEW}", f"bad {NEW}", f"main.py:1 in {NEW}", f"raise E({NEW!r})")
    said = hidden.clean(
        [
            Log(1, "info", NEW),
            Result(1, "error", [], why),
            Result(2, "ok", [], None, 5, None, [Item("error", [], why), Item("ok")]),
            Started(why),
            Started(),
        ]
    )
    assert NEW not in repr(said)
    assert repr(said).count("[secret KEY]") == 1 + 3 * 4
    assert [type(each) for each in said] == [Log, Result, Result, Started, Started]
    result = [Result(1, "ok")]
    assert NO_SECRETS.clean(result) is result
    assert NEW not in repr(hidden)


# Finding them


def store(root: Path, **values: str) -> SecretStore:
    (root / "stripe").mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (root / "stripe" / name).write_text(value)
    return SecretStore(root, {"HOST_KEY": "of the host"})


def read(found: SecretStore, source: str) -> str:
    return found.read("f", {"A": source}).values["A"]


def refused(found: SecretStore, source: str) -> str:
    with pytest.raises(SecretsMissing) as error:
        found.read("f", {"A": source})
    assert str(error.value).startswith("f: secrets.A: ")
    return str(error.value).removeprefix("f: secrets.A: ")


def test_a_value_is_a_file_s_without_the_newline_at_its_end_or_a_variable_s(tmp_path: Path) -> None:
    found = store(tmp_path, a="value-a\n", b="value-b\r\n", c="value c\n\n", d=PEM)
    assert read(found, "stripe/a") == "value-a"
    assert read(found, "stripe/b") == "value-b"
    assert read(found, "stripe/c") == "value c\n"
    assert read(found, "stripe/d") == PEM
    assert read(found, "env:HOST_KEY") == "of the host"


def test_links_within_the_directory_are_followed_and_none_that_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "vault"
    found = store(root, a="value-a")
    (root / "..data").symlink_to("stripe")  # as Kubernetes mounts secrets
    (root / "b").symlink_to("..data/a")
    assert read(found, "b") == "value-a"
    (tmp_path / "outside").write_text("not a secret of this host")
    (root / "c").symlink_to("../outside")
    (root / "d").symlink_to(tmp_path)
    outside = (tmp_path / "outside").resolve()
    for source in ("c", "d/outside", "../outside", "stripe/../../outside"):
        said = refused(found, source)
        assert f"leads out of the secrets directory, to {outside}" in said
    (root / "e").symlink_to("e")
    assert "cannot be read" in refused(found, "e")


def test_what_is_no_value_is_refused_with_where_it_was_looked_for(tmp_path: Path) -> None:
    found = store(tmp_path, short="12345\n", empty="", nul="abc\0defg")
    (tmp_path / "binary").write_bytes(b"\xff" * 9)
    (tmp_path / "large").write_text("x" * (MOST_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    assert refused(found, "stripe/gone") == (
        f"no file {tmp_path}/stripe/gone; write the value there, for the host's user alone"
        " (chmod 600)"
    )
    assert "has 5 characters, and at least 6 are needed" in refused(found, "stripe/short")
    assert "has 0 characters" in refused(found, "stripe/empty")
    assert "holds a NUL" in refused(found, "stripe/nul")
    assert "not UTF-8 text; store it as base64" in refused(found, "binary")
    assert f"more than {MOST_BYTES} bytes" in refused(found, "large")
    assert "is not a file" in refused(found, "pipe")
    assert "is not a file" in refused(found, "stripe")
    assert refused(found, "env:GONE") == (
        "the host's environment has no GONE: start it with GONE=... set"
    )
    assert "none is given: --secrets DIR" in refused(SecretStore(), "stripe/a")
    with pytest.raises(SecretsMissing) as both:
        found.read("f", {"A": "stripe/gone", "B": "env:GONE", "C": "env:HOST_KEY"})
    assert len(both.value.problems) == 2


def test_it_is_the_same_object_until_a_value_changes(tmp_path: Path) -> None:
    found = store(tmp_path, a="value-a")
    first = found.read("f", {"A": "stripe/a"})
    assert found.read("f", {"A": "stripe/a"}) is first
    (tmp_path / "stripe" / "a").write_text("value-b")
    assert found.read("f", {"A": "stripe/a"}) is not first
    assert found.read("g", {}) is NO_SECRETS


def test_a_file_that_others_can_come_to_and_read_is_told_once(tmp_path: Path) -> None:
    root = tmp_path / "vault"
    found = store(root, a="value-a")
    sources = {"A": "stripe/a", "B": "env:HOST_KEY", "C": "stripe/gone"}
    root.chmod(0o700)
    (root / "stripe").chmod(0o755)
    (root / "stripe" / "a").chmod(0o644)
    assert list(found.cautions(sources)) == []
    root.chmod(0o711)
    path = root / "stripe" / "a"
    assert list(found.cautions(sources)) == [
        f"other users can read the secret in {path}; chmod 600 {path}"
    ]
    assert list(found.cautions(sources)) == []


def test_what_an_author_has_beats_what_the_host_finds(tmp_path: Path) -> None:
    root = store(tmp_path, a="of the file").directory
    found = SecretStore(root, {"A": "of its name", "HOST_KEY": "of the host"}, local=True)
    assert read(found, "stripe/a") == "of the file"
    assert read(found, "stripe/gone") == "of its name"
    found.give("f", {"HOST_KEY": "of .env's variable"})
    assert read(found, "env:HOST_KEY") == "of .env's variable"
    found.give("f", {"A": "of .env"})
    assert found.rounds == {"f": 2}
    found.give("f", {"A": "of .env"})
    assert found.rounds == {"f": 2}
    assert read(found, "stripe/a") == "of .env"
    assert "or put A=... into .env" in refused(SecretStore(local=True), "stripe/a")


def test_an_author_s_secrets_stay_out_of_the_environment() -> None:
    env = {"A": "1", "HOST_KEY": "2", "key": "3", "LEVEL": "4"}
    kept, secret = apart(env, {"A": "key", "B": "env:HOST_KEY"})
    assert kept == {"key": "3", "LEVEL": "4"}
    assert secret == {"A": "1", "HOST_KEY": "2"}


# A host: nothing that is kept or shown has them

LEAKS = dedent(
    """
    import ctypes, logging, os, resource, sys, threading, time, traceback
    from contextlib import contextmanager
    from funcrt import Context, Event, Reject

    HELD = {}

    @contextmanager
    def lifespan(ctx):
        print("opened with", ctx.secret("KEY"))
        HELD["key"] = ctx.secret("KEY")
        yield {"pem": ctx.secret("PEM")}

    def handler(event, ctx: Context):
        key, pem, how = ctx.secret("KEY"), ctx.resources.pem, event.json()["how"]
        if how == "end":
            return {"ends": key[-3:]}
        if how == "core":
            dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
            return {"dumpable": dumpable, "core": resource.getrlimit(resource.RLIMIT_CORE)}
        if how == "environment":
            return [dict(os.environ), dict(ctx.env), sys.argv]
        print("key:", key, "pem:", pem)
        print(key[:5], end="")
        print(key[5:])
        sys.stderr.write(key[:9])
        sys.stderr.write(key[9:] + "\\n")
        for part in (key[:7], key[7:], "\\n", "x" * 8186, key, "\\n", "y" * 65532, key, "\\n"):
            os.write(2, part.encode())
        threading.Thread(target=lambda: print("thread", key)).start()
        logging.getLogger("lib").warning("connecting to https://u:%s@host", key)
        for level in ("debug", "info", "warning", "error"):
            getattr(ctx.log, level)("%s and %r", key, {"pem": pem})
        ctx.log.info("z" * 8180 + key)
        try:
            raise RuntimeError("m" * 4085 + key)
        except RuntimeError:
            traceback.print_exc()
        time.sleep(0.05)
        if how == "exit":
            sys.stderr.buffer.raw.write(key.encode())
            os._exit(3)
        if how == "attribute":
            return Event.create("t", 1, subject="a\\n" + key)
        if how == "topic":
            ctx.emit(Event.create("t", 1), topic=key)
            return
        if how == "reject":
            raise Reject(f"no use of {pem}")
        if how == "class":
            raise type("E" + key, (Exception,), {})()
        raise ValueError("m" * 4085 + key + pem)
    """
)
MANIFEST = dedent(
    """
    [[trigger]]
    topic = "in"
    [[trigger]]
    kind = "http"
    path = "/pay"
    [retry]
    attempts = 1
    [secrets]
    KEY = "stripe/key"
    PEM = "env:HOST_PEM"
    """
)
WAYS = ("raise", "exit", "attribute", "topic", "reject", "class")
FINGERPRINTS = ("sk_liv", "51Hc", 'q"/', "MIIEvQ", "9w0BA", "live_second", "ond_one")
"""What no text has that was not made of a value."""


def leaked(text: str) -> list[str]:
    return [part for part in FINGERPRINTS if part in text]


def processes(pid: int) -> str:
    """What the machine shows of the host's processes, but for the host itself."""
    said = ""
    for child in tree(pid):
        for file in ("environ", "cmdline"):
            try:
                said += Path(f"/proc/{child}/{file}").read_bytes().decode(errors="replace")
            except OSError:  # it has ended, or nobody may look
                continue
    return said


def stored(data: Path) -> str:
    """All text in the host's files."""
    with sqlite3.connect(data / "mesh.db") as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in data.rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode(errors="replace") for path in files)


def call(host: Serving, how: str) -> httpx.Response:
    return httpx.post(f"{host.url}/pay", json={"how": how}, timeout=30)


def test_no_log_letter_answer_file_or_process_has_a_value(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    store(vault, key=KEY + "\n")
    host = Serving(
        tmp_path / "data", ("--secrets", str(vault), "--logs"), env={"HOST_PEM": PEM},
        pay=f"{LEAKS}---{MANIFEST}",
    )  # fmt: skip
    seen: dict[str, str] = {}
    try:
        for how in WAYS:
            seen[f"answer to {how}"] = call(host, how).text
            if how != "exit":  # one after another: each has its line
                assert call(host, how).status_code >= 400
        for how in WAYS:
            host.run("publish", "in", "--data", f'{{"how": "{how}"}}', "--type", "t")
        letters = until(lambda: six(rows(host.run("dlq", "ls", "pay", "--json"))))
        ids = [str(each["id"]) for each in letters]
        for number in ids:
            seen[f"letter {number}"] = host.run(
                "dlq", "show", "pay", "--id", number, "--json"
            ).stdout
        seen["environment"] = call(host, "environment").text
        assert "OMP_NUM_THREADS" in seen["environment"]
        for command in ("describe pay", "ls", "stats pay", "versions pay", "dlq ls pay"):
            seen[command] = host.run(*command.split(), "--json").stdout
        seen["describe"] = host.run("describe", "pay").stdout
        seen["logs"] = host.run("logs", "pay", "-n", "2000").stdout
        seen["processes"] = processes(host.process.pid)
        assert call(host, "core").json() == {"dumpable": 0, "core": [0, 0]}
        limits = Path(f"/proc/{host.process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits)
        (tmp_path / "vault" / "stripe" / "key").write_text(NEW)
        until(lambda: call(host, "end").json() == {"ends": "one"})
        seen["answer after rotation"] = call(host, "raise").text
        seen["logs after rotation"] = host.run("logs", "pay", "-n", "2000").stdout
    finally:
        assert host.stop(signal.SIGTERM) == 0
    seen["standard error"] = (tmp_path / "serve.err").read_text()
    seen["files"] = stored(tmp_path / "data")
    found = {where: parts for where, text in seen.items() if (parts := leaked(text))}
    assert not found
    assert seen["logs"].count("[secret KEY]") > 50
    assert "thread [secret KEY]" in seen["logs"]
    assert "thread [secret KEY]" in seen["standard error"]
    assert "opened with [secret KEY]" in seen["standard error"]
    assert re.search(
        r"\tinfo\t.*\tsecrets changed: instances to replace: \d", seen["logs after rotation"]
    )


THIEF = dedent(
    """
    import os
    from pathlib import Path

    def look(path):
        try:
            return path.read_bytes().decode(errors="replace")
        except OSError:
            return ""

    def memfds(process):
        try:
            return [fd for fd in (process / "fd").iterdir() if "/memfd" in os.readlink(fd)]
        except OSError:
            return []

    def handler(event, ctx):
        try:
            return ctx.secret("KEY")
        except Exception as error:
            said = str(error)
        for pid in event.json():
            process = Path(f"/proc/{pid}")
            places = [process / "environ", process / "cmdline", *memfds(process)]
            said += "".join(map(look, places))
        return said
    """
)


def test_another_function_is_told_none_and_finds_none_at_its_neighbours(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    store(vault, key=KEY)
    quiet = "def handler(event, ctx): return len(ctx.secret('KEY'))"
    toml = '[scale]\nmin = 2\n[secrets]\nKEY = "stripe/key"\n'
    host = Serving(
        tmp_path / "data", ("--secrets", str(vault)), owner=f"{quiet}---{toml}", thief=f"{THIEF}---"
    )
    try:
        url = f"{host.url}/functions"
        assert httpx.post(f"{url}/owner", json=1, timeout=30).json() == len(KEY)
        # This host's processes alone: others on the machine are nobody's to look into.
        there = tree(host.process.pid)
        assert len(there) >= 4
        said = httpx.post(f"{url}/thief", json=there, timeout=30).text
        assert "no secret is named 'KEY'" in said
        assert not leaked(said)
    finally:
        assert host.stop(signal.SIGTERM) == 0


def six(found: list[Any]) -> list[Any] | None:
    return found if len(found) == len(WAYS) else None


# Rotation


def test_instances_with_old_values_end_once_they_have_no_calls_and_others_start() -> None:
    clock = VirtualClock()

    async def main() -> None:
        sandbox = SimSandbox(random.Random(3), {"f": Manner(hang=1.0)}, set(), lambda *told: None)
        code = Code(name="f", version="1", path=Path("/"), concurrency=1)
        pool = Pool(
            code, SimZygote(sandbox, code).info, Zygotes(sandbox), ScaleSpec(min=2, max=2), clock,
            failed=lambda error: None,
        )  # fmt: skip
        old, new = Secrets({"KEY": KEY}), Secrets({"KEY": NEW})
        pool.secrets = lambda: old
        pool.rescale()
        await asyncio.sleep(5)
        assert [member.secrets for member in pool.members.values()] == [old, old]
        assert pool.renew() == 0
        call = Call(1, "t", [Event("1", "/s", "t", data=b"x")], 1, 3, 30.0)
        pool.submit([Pending(call, (), lambda p, r: None, lambda p: None)])
        pool.secrets = lambda: new
        assert pool.renew() == 2
        assert pool.hide(f"{KEY} {NEW}") == "[secret KEY] " + NEW
        await asyncio.sleep(5)
        kept = [member.secrets for member in pool.members.values()]
        assert kept.count(old) == 1
        assert kept.count(new) == 2
        assert pool.hide(f"{KEY} {NEW}") == "[secret KEY] [secret KEY]"
        assert pool.renew() == 0

        def gone() -> Secrets:
            raise SecretsMissing(["f: secrets.KEY: no file"])

        pool.secrets = gone
        for member in [each for each in pool.members.values() if not each.calls]:
            member.instance._end(0, "exited 0")
        await asyncio.sleep(5)
        assert pool.trouble == "f: secrets.KEY: no file"
        pool.secrets = lambda: new
        await asyncio.sleep(5)
        assert pool.trouble == ""
        await pool.drain(0.0)

    run(clock, main())


KINDS = {
    "sync": "def handler(event, ctx): return ctx.secret('KEY')[-4:]",
    "async": "async def handler(event, ctx): return ctx.secret('KEY')[-4:]",
    "generator": "def handler(event, ctx):\n    yield ctx.secret('KEY')[-4:]",
    "async generator": "async def handler(event, ctx):\n    yield ctx.secret('KEY')[-4:]",
    "in threads": "# concurrency\ndef handler(event, ctx): return ctx.secret('KEY')[-4:]",
    "imported late": """
        import threading
        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        def handler(event, ctx): return ctx.secret('KEY')[-4:]
        """,
    "a request": """
        from funcrt import Context
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        async def handler(request: Request, ctx: Context):
            return PlainTextResponse(ctx.secret('KEY')[-4:])
        """,
    "an asynchronous lifespan": """
        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def lifespan(ctx):
            yield {"end": ctx.secret('KEY')[-4:]}
        async def handler(event, ctx): return ctx.resources.end
        """,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_is_told(tmp_path: Path, kind: str) -> None:
    source = dedent(KINDS[kind])
    (tmp_path / "main.py").write_text(source)
    toml = '[secrets]\nKEY = "stripe/key"\n'
    toml = ("concurrency = 3\n" if "concurrency" in source else "") + toml
    (tmp_path / "funcrt.toml").write_text(toml)
    (tmp_path / ".env").write_text(f"KEY={'long' * 15_000}-end\n")  # no socket takes it at once

    async def main() -> str:
        async with trial(tmp_path) as function:
            tried = await function.call("t", [Event("1", "/s", "t", data=b"1")])
        if tried.response is not None:
            return tried.response.text
        assert tried.result.status == "ok", tried.result.failure
        return (tried.result.outputs[0].event.data or b"").decode()

    assert asyncio.run(main()) == "-end"


# Where an author works


ASKS = """
def handler(event, ctx):
    ctx.log.info("asked with %s", ctx.secret("KEY"))
    if event.json() == 7:
        raise ValueError(ctx.secret("KEY"))
    return [ctx.secret("KEY")[-4:], ctx.env.get("KEY"), ctx.env.get("HOST_KEY"), ctx.env.get("A")]
"""
ASKED = '[[trigger]]\ntopic = "in"\n[retry]\nattempts = 1\n[secrets]\nKEY = "env:HOST_KEY"\n'


def folder(root: Path) -> Path:
    path = root / "asks"
    (path / "tests").mkdir(parents=True)
    (path / "main.py").write_text(ASKS)
    (path / "funcrt.toml").write_text(ASKED)
    return path


def test_a_test_gives_secrets_and_its_failures_have_none(tmp_path: Path) -> None:
    path = folder(tmp_path)
    function = load(path)
    said = "no test gave the secret KEY: function.secrets['KEY'] = ..., load(..., secrets={'KEY'"
    assert said in (function.call(1).error or "")
    function.secrets["KEY"] = "from the test"
    assert function.call(1).data == ["test", None, None, None]
    assert load(path, secrets={"KEY": "by argument"}).call(1).data[0] == "ment"
    with pytest.raises(SecretUnknown, match="'KEI'; did you mean KEY"):
        load(path, secrets={"KEI": "x"})
    (path / "tests" / "secrets.env").write_text(f"KEY={NEW}\nA=1\n")
    assert load(path).call(1).data[0] == NEW[-4:]
    with App(path) as app:
        app.publish("in", 7)
        app.run()
        (dead,) = app.dead
        assert dead.reason == "ValueError: [secret KEY]"
        assert app.logs == [("asks", "info", "asked with [secret KEY]")]


def test_invoke_takes_the_env_file_then_the_source_then_a_variable(tmp_path: Path) -> None:
    path = folder(tmp_path)

    def ends(**env: str) -> Any:
        words = [*FUNCRT, "invoke", str(path), "--local", "--data", "1", "--json"]
        done = subprocess.run(
            words, env={**os.environ, **env}, cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            return done.stderr
        (row,) = rows(done)
        assert row["logs"] == [["info", "asked with [secret KEY]"]]
        return row["outputs"][0]["event"]["data"]

    assert "the host's environment has no HOST_KEY" in ends()
    assert ends(KEY="variable-name") == ["name", None, None, None]
    assert ends(KEY="variable-name", HOST_KEY="variable-host") == ["host", None, None, None]
    (tmp_path / ".env").write_text("HOST_KEY=env-file\nA=1\n")
    assert ends(HOST_KEY="variable-host")[0] == "file"
    (path / ".env").write_text("KEY=own-env-folder\n")
    assert ends(HOST_KEY="variable-host")[0] == "lder"


def test_invoke_shows_none_in_what_is_wrong_with_an_output(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / ".env").write_text(f"KEY={NEW}\n")
    source = """
        from funcrt import Event
        def handler(event, ctx): ctx.emit(Event.create("t", 1), topic=ctx.secret("KEY"))
        """
    (path / "main.py").write_text(dedent(source))
    words = [*FUNCRT, "invoke", str(path), "--local", "--data", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "may not publish to '[secret KEY]'" in done.stderr
    assert not leaked(done.stdout + done.stderr)


def test_dev_takes_up_a_secret_of_the_env_file_and_keeps_it_out_of_the_environment(
    tmp_path: Path,
) -> None:
    path = folder(tmp_path / "functions")
    (path / ".env").write_text("A=1\nKEY=first-one\n")
    dev = Dev(tmp_path, terminal=False)
    try:

        def call() -> Any:
            return httpx.post(f"http://127.0.0.1:{dev.port}/functions/asks", json="x").json()

        assert call() == ["-one", None, None, "1"]
        (path / ".env").write_text("A=1\nKEY=second-two\n")
        dev.until(r"\.env → reloaded in \d+ ms \(v2\)")
        assert call() == ["-two", None, None, "1"]
        (path / ".env").write_text("A=1\n")
        dev.until(r"still serving v2\n +asks: secrets\.KEY: the host's environment has no HOST_KEY")
        assert "first-one" not in dev.raw
        assert "second-two" not in dev.raw
    finally:
        dev.close()


# What an operator sees


def doctor(vault: Path) -> str:
    words = [*FUNCRT, "doctor", "--secrets", str(vault), "--json", "--data", str(vault / "..")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}["secrets"]
    return f"{found['status']} {found['found']} {found['hint']}".strip()


def test_doctor_looks_at_the_directory(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    assert doctor(vault) == f"fail {vault}: No such file or directory mkdir -m 700 {vault}"
    store(vault, key=KEY)
    vault.chmod(0o755)
    (vault / "stripe").chmod(0o755)
    file = vault / "stripe" / "key"
    file.chmod(0o644)
    assert doctor(vault) == (
        f"warn {vault}, mode 0755: other users can read {file} chmod 700 {vault}"
    )
    file.chmod(0o600)
    assert doctor(vault) == f"warn {vault}, mode 0755: not its owner's alone chmod 700 {vault}"
    vault.chmod(0o700)
    assert doctor(vault) == f"ok {vault}, mode 0700: its owner's alone"


def test_a_directory_that_a_function_could_see_is_refused(tmp_path: Path) -> None:
    vault = tmp_path / "etc" / "vault"
    found = store(vault, key=KEY)
    (tmp_path / "link").symlink_to("etc")
    found.check_apart("f", tmp_path / "functions" / "f", [str(tmp_path / "etc" / "other")])
    SecretStore().check_apart("f", tmp_path, [str(tmp_path)])
    for path in (vault, tmp_path / "etc", vault / "stripe", tmp_path / "link"):
        with pytest.raises(DeployError, match=f"sandbox.files: {path} would show it the host's"):
            found.check_apart("f", tmp_path / "functions", [str(path)])
    for path in (vault, tmp_path / "etc"):
        with pytest.raises(DeployError, match=r"is in its folder and would be packed with its"):
            found.check_apart("f", path, [])
    path = folder(tmp_path)
    (path / "vault").mkdir()
    words = [*FUNCRT, "serve", str(path), "--secrets", str(path / "vault"), "--port", "0"]
    env = {**os.environ, "HOST_KEY": KEY, "FUNCRT_DATA": str(tmp_path / "data")}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "✗ asks: the secrets directory," in done.stderr


def test_deploy_is_refused_without_them_and_describe_says_where_they_come_from(
    tmp_path: Path,
) -> None:
    vault = tmp_path / "vault"
    store(vault, key=KEY)
    host = Serving(tmp_path / "data", ("--secrets", str(vault)))
    path = folder(tmp_path)
    try:
        done = host.run("deploy", str(path))
        assert done.returncode == 2
        assert "✗ asks: secrets.KEY: the host's environment has no HOST_KEY" in done.stderr
        toml = ASKED.replace("env:HOST_KEY", "stripe/key")
        (path / "funcrt.toml").write_text(toml)
        assert host.run("deploy", str(path)).returncode == 0
        assert "\nsecrets      KEY from stripe/key\n" in host.run("describe", "asks").stdout
        (vault / "stripe" / "key").unlink()
        call = {"url": f"{host.url}/functions/asks", "json": "x", "timeout": 2}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(**call)
        said = host.run("describe", "asks").stdout
        assert f"asks: secrets.KEY: no file {vault}/stripe/key; write the value there" in said
        (vault / "stripe" / "key").write_text(NEW)
        assert until(lambda: httpx.post(**{**call, "timeout": 20}).json())[0] == NEW[-4:]
    finally:
        host.stop(signal.SIGTERM)
