"""logs, stats, explain, filter test, replay and dlq drop beside a real host."""

import io
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from funcrt import cli
from tests.serving import FUNCRT, Serving, rows, until

LABEL = """
import logging

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
print("as it is imported")


def handler(event, ctx):
    total = event.json()["total"]
    ctx.log.info("total is %s", total)
    print("printed")
    logging.warning("logged")
    if total > 100:
        raise ValueError("too much")
    return {"total": total}
---
[[trigger]]
topic = "orders"
filters = [{ prefix = { type = "order." } }]
pattern = { data = { total = [{ numeric = [">", 0] }] } }

[output]
topic = "labels"

[retry]
attempts = 2
base = "10ms"
"""
COUNT = """
def handler(event):
    print(event.id)
---
[[trigger]]
topic = "orders"

[[trigger]]
topic = "labels"
"""
TEXT = re.compile(r"^\S+Z\t(\w+)\t(\d+)\t([0-9a-f]{12})\t(\S*)\t(.*)$")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("observe")
    one = Serving(root / "data", label=LABEL, count=COUNT)
    for key, type_, total in (
        ("small", "order.placed", 7), ("large", "order.placed", 101), ("none", "order.placed", 0),
        ("other", "bill", 5),
    ):  # fmt: skip
        publish(one, key, type_, total)
    until(lambda: stats(one)["dead"] == 1 and stats(one)["done"] == 1)
    yield one
    if one.process.poll() is None:
        assert one.stop(signal.SIGTERM) == 0


def publish(host: Serving, key: str, type_: str = "order.placed", total: int = 1) -> None:
    data = json.dumps({"total": total})
    rows(host.run("publish", "orders", "--type", type_, "--id", key, "--source", "/t", "--data",
                  data, "--json"))  # fmt: skip


def stats(host: Serving, name: str = "label") -> Any:
    (found,) = rows(host.run("stats", name, "--json"))
    return found


# logs


def test_logs_have_what_was_written_with_its_event_and_how_calls_failed(host: Serving) -> None:
    done = host.run("logs", "label", "--id", "large")
    assert (done.returncode, done.stderr) == (0, "")
    told = [TEXT.match(each) for each in done.stdout.splitlines()]
    assert all(told)
    assert [(m[1], m[4], m[5]) for m in told if m][:8] == [
        ("info", "large", "total is 101"),
        ("stdout", "large", "printed"),
        ("stderr", "large", "WARNING logged"),
        ("error", "large", "✗ label failed (attempt 1 of 2, next in 0.0 s)"),
        ("error", "large", "  main.py:14 in handler"),
        ("error", "large", '      raise ValueError("too much")'),
        ("error", "large", "  ValueError: too much"),
        ("info", "large", "total is 101"),
    ]
    assert "✗ label failed (attempt 2 of 2, now a dead letter)" in done.stdout
    every = rows(host.run("logs", "label", "--json"))
    assert {"stdout": "as it is imported"} in [{row["level"]: row["text"]} for row in every]
    assert {tuple(row["events"]) for row in every} == {(), ("small",), ("large",)}
    assert all(row["instance"] for row in every if row["level"] == "info")
    failed = rows(host.run("logs", "label", "--level", "error", "-n", "1", "--json"))
    assert [row["failed"] for row in failed] == [True]
    nothing = host.run("logs", "label", "--since", "0s")
    assert (nothing.stdout, nothing.stderr) == ("", "label has said nothing of that\n")


def test_logs_are_followed_until_the_host_stops(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", label=LABEL)
    with subprocess.Popen(
        [*FUNCRT, "logs", "label", "-f", "--level", "info", "--json"],
        env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "as it is imported"
        publish(host, "followed")
        assert json.loads(process.stdout.readline())["events"] == ["followed"]
        assert host.stop(signal.SIGTERM) == 0
        assert process.wait(10) == 0
        assert process.stderr.read() == "the host has stopped; label says no more\n"


# stats


def test_stats_tell_the_last_minutes(host: Serving) -> None:
    found = stats(host)
    assert {key: found[key] for key in ("name", "done", "failed", "dead", "outputs", "depth")} == {
        "name": "label", "done": 1, "failed": 2, "dead": 1, "outputs": 1, "depth": 0,
    }  # fmt: skip
    minute, five = found["windows"]
    assert minute == five
    assert (minute["done"], minute["failed"], minute["error_pct"]) == (1, 2, 66.67)
    assert 0 < minute["run_ms"]["p50"] <= minute["run_ms"]["p99"] < 5000
    assert 0 < minute["wait_ms"]["p50"] <= minute["wait_ms"]["p99"] < 30_000
    table = host.run("stats").stdout.splitlines()
    assert [row.split("\t")[0] for row in table] == ["count", "label"]
    assert table[1].split("\t")[6:9] == ["1", "2", "66.67"]
    assert "since the host started: 1 done, 2 failed, 1 dead, 1 outputs" in (
        host.run("stats", "label").stdout
    )


# explain and filter test


@pytest.fixture
def events(host: Serving, tmp_path: Path) -> Path:
    """The four events that were published, a line each."""
    found = rows(host.run("tail", "orders", "--from", "earliest", "--limit", "4", "--json"))
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(each["event"]) + "\n" for each in found))
    return path


def line(events: Path, number: int) -> Path:
    path = events.with_name(f"{number}.json")
    path.write_text(events.read_text().splitlines()[number])
    return path


@pytest.mark.parametrize("local", [False, True])
def test_explain_says_which_condition_refuses(host: Serving, events: Path, local: bool) -> None:
    more = ["--local", str(Path(host.env["FUNCRT_DATA"]).parent / "functions")] if local else []
    done = host.run("explain", str(line(events, 2)), "label", *more)
    assert (done.returncode, done.stdout.splitlines()) == (1, [
        "✗ label  mesh orders",
        '  ✓ type starts with "order."  found "order.placed"',
        "  ✗ data.total > 0  found 0",
    ])  # fmt: skip
    done = host.run("explain", str(line(events, 0)), "--topic", "labels", *more)
    assert (done.returncode, done.stdout.splitlines()) == (0, [
        "✗ count  mesh orders",
        '  ✗ topic = "orders"  found "labels"',
        "✓ count  mesh labels",
        '  ✓ topic = "labels"',
        "✗ label  mesh orders",
        '  ✗ topic = "orders"  found "labels"',
        '  ✓ type starts with "order."  found "order.placed"',
        "  ✓ data.total > 0  found 7",
    ])  # fmt: skip
    found = rows(
        host.run("explain", "-", "count", "--json", *more, stdin=line(events, 3).read_text())
    )
    assert [(t["trigger"], t["holds"]) for t in found[0]["triggers"]] == [
        ("orders", True), ("labels", True),
    ]  # fmt: skip


@pytest.mark.parametrize("local", [False, True])
def test_explain_says_how_a_filter_is_found(host: Serving, events: Path, local: bool) -> None:
    more = ["--local", str(Path(host.env["FUNCRT_DATA"]).parent / "functions")] if local else []
    done = host.run("explain", "--plan", *more)
    every, few = "tried with every event, as", "among more than 4"
    assert (done.returncode, done.stdout.splitlines()) == (0, [
        "count  mesh orders",
        f"  {every} one of 2 filters; {few}, with every event",
        "count  mesh labels",
        f"  {every} the only filter; {few}, with every event",
        "label  mesh orders",
        f"  {every} one of 2 filters; {few}, by type (prefix)",
    ])  # fmt: skip
    done = host.run("explain", str(line(events, 2)), "label", "--plan", *more)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1, f"  {every} one of 2 filters; {few}, by type (prefix)",
    )  # fmt: skip
    (found,) = rows(host.run("explain", str(line(events, 0)), "label", "--plan", "--json", *more))
    plan = {"found": ["by type (prefix)"], "filters": 2, "indexed": False}
    assert found["triggers"][0]["plan"] == plan


def test_explain_says_that_there_is_no_event(host: Serving) -> None:
    done = host.run("explain")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "✗ no event to explain")


def test_ls_names_the_last_event_that_a_trigger_refused(host: Serving) -> None:
    found = {each["name"]: each["triggers"] for each in rows(host.run("ls", "--json"))}
    refusal = found["label"][0]["refusal"]
    assert (refusal["id"], refusal["clause"]) == (
        "other", 'type starts with "order.", found "bill"',
    )  # fmt: skip
    assert found["count"][0]["refusal"] is None


def test_filter_test_counts_what_refuses(host: Serving, events: Path, tmp_path: Path) -> None:
    where = str(Path(host.env["FUNCRT_DATA"]).parent / "functions" / "label")
    done = host.run("filter", "test", where, str(events))
    assert (done.returncode, done.stdout.splitlines()) == (0, [
        "orders\tmatched\t2\t\t",
        "orders\trefused\t1\tpattern.data.total: data.total > 0\tnone",
        'orders\trefused\t1\tfilters[0].prefix.type: type starts with "order."\tother',
    ])  # fmt: skip
    mine = tmp_path / "filter.toml"
    mine.write_text('filters = [{ not = { any = [{ exact = { type = "bill" } },'
                    ' { prefix = { type = "order." } }] } }]')  # fmt: skip
    (found,) = [
        json.loads(each)
        for each in host.run("filter", "test", str(mine), str(events), "--json").stdout.splitlines()
    ]
    wanted = 'not (any of (type = "bill" | type starts with "order."))'
    assert found["matched"] == 0
    assert found["refused"] == [
        {"path": "filters[0].not", "wanted": wanted, "count": 4, "example": "small"}
    ]
    none = host.run("filter", "test", str(mine), "-", stdin=events.read_text())
    assert (none.returncode, none.stderr) == (1, "none of 4 events is taken\n")


# replay


def test_what_is_replayed_runs_again_for_that_function_alone(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", label=LABEL, count=COUNT)
    try:
        for key in ("a", "b", "c"):
            publish(host, key)
        publish(host, "x", "bill")
        until(lambda: stats(host)["done"] == 3 and stats(host, "count")["done"] == 7)
        (done,) = rows(host.run("replay", "label", "--last", "2", "--json"))
        assert done["replayed"] == 2
        until(lambda: stats(host)["done"] == 5)
        assert host.run("replay", "label", "--id", "a").stdout.startswith("label: 1 replayed as ")
        until(lambda: stats(host)["done"] == 6)
        ranged = host.run("replay", "label", "--from", "earliest", "--to", "@2", "--trigger",
                          "orders")  # fmt: skip
        assert ranged.stdout.startswith("label: 2 replayed as ")
        until(lambda: stats(host)["done"] == 8)
        made = rows(host.run("tail", "labels", "--from", "earliest", "--limit", "8", "--json"))
        causes = [each["event"]["causationid"] for each in made]
        assert causes == ["a", "b", "c", "b", "c", "a", "a", "b"]
        assert len({each["event"]["id"] for each in made}) == 8
        # It took its own seven, and the outputs that the replays made; no order twice.
        until(lambda: stats(host, "count")["done"] == 12)
        lines = [row["text"] for row in rows(host.run("logs", "count", "--json"))]
        assert [lines.count(key) for key in ("a", "b", "c", "x")] == [1, 1, 1, 1]
    finally:
        assert host.stop(signal.SIGTERM) == 0


def test_a_replay_here_publishes_nothing(host: Serving) -> None:
    folder = Path(host.env["FUNCRT_DATA"]).parent / "functions" / "label"
    before = stats(host)
    found = [
        json.loads(each)
        for each in host.run("replay", str(folder), "--last", "5", "--local", "--json")
        .stdout.splitlines()
    ]  # fmt: skip
    assert [(each["status"], each["failure"] and each["failure"]["error"]) for each in found] == [
        ("ok", None), ("error", "ValueError"),
    ]  # fmt: skip
    dead = host.run("replay", str(folder), "--from", "dlq", "--local")
    assert dead.returncode == 1
    assert "→ order.placed  id=large  filter: match (mesh orders)" in dead.stdout
    after = stats(host)
    assert [after[key] for key in ("done", "failed")] == [before["done"], before["failed"]]


# dlq


def test_dead_letters_are_grouped_dropped_and_audited(tmp_path: Path) -> None:
    host = Serving(tmp_path / "data", label=LABEL)
    try:
        for key in ("a", "b", "c"):
            publish(host, key, total=500)
        until(lambda: stats(host)["dead"] == 3)
        (group,) = rows(host.run("dlq", "ls", "label", "--group", "--json"))
        assert (group["count"], group["error"], group["where"]) == (
            3, "ValueError", "main.py:14 in handler",
        )  # fmt: skip
        first, *_ = group["ids"]
        assert host.run("dlq", "drop", "label", str(first), "--yes").stdout == "label: 1 dropped\n"
        gone = host.run("dlq", "drop", "label", str(first), "--yes")
        assert (gone.returncode, gone.stderr.splitlines()[0]) == (
            1, "✗ 1 of them are no dead letters of label",
        )  # fmt: skip
        assert asked(host, "n\n") == (1, "nothing was dropped")
        assert asked(host, "y\n") == (0, "label: 2 dropped")
        assert host.run("dlq", "ls", "--group").stderr == "no dead letters\n"
        replayed = host.run("replay", "label", "--from", "dlq")
        assert replayed.stdout == "label: 0 replayed\n"
        until(lambda: stats(host)["depth"] == 0)
    finally:
        assert host.stop(signal.SIGTERM) == 0
    err = (tmp_path / "serve.err").read_text()
    assert f'"act":"dlq.drop","by":"admin socket","function":"label","ids":[{first}]' in err
    assert '"act":"dlq.drop","by":"admin socket","function":"label","ids":"all","dropped":2' in err


def asked(host: Serving, answer: str) -> tuple[int, str]:
    """The exit code and the last line of a drop that asks on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*FUNCRT, "dlq", "drop", "label", "--all"], env=host.env, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, answer.encode())
        said, _ = process.communicate(timeout=30)
    os.close(ours)
    question = "Drop all dead letters of label, for good? [y/N] "
    assert said.startswith(question)
    return process.returncode, said.removeprefix(question).strip()


# Mistakes


MISTAKES: list[tuple[list[str], int, str]] = [
    (["logs", "labl"], 1, "✗ no function is named 'labl'; did you mean label?\n  try: funcrt ls\n"),
    (["logs", "label", "--level", "loud"], 2,
     "✗ --level loud: expected one of debug, info, stdout, warning, stderr, error\n"
     "  try: funcrt logs label\n"),
    (["logs", "label", "--since", "yesterday"], 2,
     "✗ --since yesterday: expected how long ago, such as 10m (ms, s, m, h, d), or a time such as"
     " 2026-11-25T08:00:00Z\n  try: --since 10m\n"),
    (["replay", "label"], 2,
     "✗ say which events: either --last, --id or --from\n  try: funcrt replay label --last 1\n"),
    (["replay", "label", "--last", "1", "--id", "a"], 2,
     "✗ --last and --id are two ways to say it: either --last, --id or --from\n"
     "  try: funcrt replay label --last 1\n"),
    (["replay", "label", "--id", "a", "--to", "now-ish"], 2,
     "✗ --to goes with --from and a start\n"),
    (["replay", "label", "--from", "@x"], 2, "✗ --from @x: a position is @ and a number\n"),
    (["replay", "label", "--from", "dlq", "--trigger", "orders"], 2,
     "✗ --trigger does not go with --from dlq\n"),
    (["replay", "label", "--last", "1", "--trigger", "bills"], 1,
     "✗ label has no trigger 'bills' that reads a topic; it has: orders\n"),
    (["replay", "label", "--id", "gone"], 1,
     "✗ no event 'gone' that label took: there is none in its topics (orders)\n"),
    (["replay", "label", "--id", "none"], 1,
     "✗ no event 'none' that label took: orders refuses it: data.total > 0, found 0\n"),
    (["replay", "count", "--from", "@0"], 1,
     "✗ a position is one topic's, and count reads 2; name one of its triggers: orders, labels\n"),
    (["replay", "count", "--last", "1", "--local"], 2,
     "✗ no function's directory is named count, here or in ./functions\n"
     "  try: funcrt replay ./functions/NAME --local ...\n"),
    (["dlq", "drop", "label"], 2,
     "✗ say which dead letters: either their IDs or --all\n  try: funcrt dlq ls label\n"),
    (["dlq", "drop", "label", "3", "4"], 2,
     "✗ 2 dead letters of label would be dropped for good, and nobody is here to ask\n"
     "  try: funcrt dlq drop label 3 4 --yes\n"),
    (["explain", "MANY"], 2,
     "✗ MANY holds 4 events, expected one\n"
     "  try: funcrt filter test NAME MANY   # counts over many\n"),
    (["filter", "test", "nowhere", "MANY"], 2,
     "✗ nowhere: no such file or directory, and no function of that name in ./functions\n"
     "  try: funcrt filter test functions/NAME EVENTS\n"
     "  try: funcrt explain EVENT NAME   # asks the host\n"),
    (["filter", "test", "WRONG", "MANY"], 2,
     '✗ WRONG: filters[0].exakt: unknown dialect; did you mean "exact"?\n'),
    (["filter", "test", "FUNCTION", "MANY", "--trigger", "bills"], 2,
     "✗ FUNCTION has no trigger 'bills' that reads a topic; it has: orders\n"),
    (["filter", "test", "FUNCTION", "EMPTY"], 1, "✗ EMPTY: is empty, expected an event as JSON\n"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: " ".join(mistake[0]))
def test_a_mistake_is_told_with_what_to_type_next(
    host: Serving, events: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], mistake: tuple[list[str], int, str],
) -> None:  # fmt: skip
    words, code, said = mistake
    tmp_path = events.parent
    wrong, empty = tmp_path / "wrong.json", tmp_path / "empty.json"
    wrong.write_text('[{"exakt": {"type": "a"}}]')
    empty.write_text("")
    functions = Path(host.env["FUNCRT_DATA"]).parent / "functions"
    places = {"MANY": events, "WRONG": wrong, "EMPTY": empty, "FUNCTION": functions / "label"}
    monkeypatch.setenv("FUNCRT_DATA", host.env["FUNCRT_DATA"])
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        cli.main([str(places.get(word, word)) for word in words])
    for name, path in places.items():
        said = said.replace(name, str(path)) if name in words else said
    told = capsys.readouterr()
    assert (ended.value.code, told.err, told.out) == (code, said, "")


def test_where_no_host_runs_that_is_said(tmp_path: Path) -> None:
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path)}
    for words in (["logs", "f"], ["logs", "f", "-f"], ["stats"], ["replay", "f", "--last", "1"]):
        done = subprocess.run(
            [*FUNCRT, *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 3
        assert done.stderr.startswith(f"✗ no host answers at {tmp_path}/admin.sock (")
