"""Secrets: where they are found, who is told, and that nothing which is kept or shown has them."""

import os
import re
import signal
import sqlite3
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcrt.sandbox.protocol import Failure, Item, Log, Result, Started
from funcrt.sandbox.secrets import NO_SECRETS, SHORTEST, Secrets
from funcrt.secrets import MOST_BYTES, SecretsMissing, SecretStore, apart
from tests.serving import Serving, rows, tree, until

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
    import logging, os, sys, threading, time, traceback
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
    for line in ("opened with [secret KEY]", "thread [secret KEY]", "its secrets changed"):
        assert line in seen["standard error"]


def six(found: list[Any]) -> list[Any] | None:
    return found if len(found) == len(WAYS) else None
