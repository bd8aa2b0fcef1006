"""`funcrt deploy` and what belongs to it, against a real host."""

import contextlib
import hashlib
import io
import json
import os
import platform
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from funcrt import cli
from funcrt.bundle import pack
from funcrt.upload import MEDIA_TYPE, Head, Upload, encode
from tests.funcrt.test_bundle import forge, member
from tests.serving import FUNCRT, Serving, rows, until

ECHO = """
def handler(event):
    return {"is": "VERSION"}
"""
TOML = """
[[trigger]]
topic = "in"
start = "earliest"
[[trigger]]
kind = "http"
path = "/echo"
[output]
topic = "out"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A host without functions; commands run beside the folder of what is deployed."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    one = Bare(tmp_path / "data")
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


class Bare(Serving):
    """A host that is given no directory."""

    def __init__(self, data: Path, *directories: str, **env: str) -> None:
        self.env = {**os.environ, "FUNCRT_DATA": str(data), **env}
        with (data.parent / "serve.err").open("a") as log:
            self.process = subprocess.Popen(
                [*FUNCRT, "serve", *directories, "--port", "0", "--json"],
                env=self.env, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.said: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if "port" in self.said[-1]:
                break
        self.port = self.said[-1].get("port", 0)
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """A command in this process, which is quicker."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            for name, value in self.env.items():
                patch.setenv(name, value)
            try:
                cli.main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def texts(self, event: str) -> list[str]:
        """What it said at its start."""
        return [each["text"] for each in self.said if each["event"] == event]


def write(name: str, version: str, manifest: str = TOML, code: str = ECHO) -> str:
    folder = Path("src") / name
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(code.replace("VERSION", version))
    (folder / "funcrt.toml").write_text(manifest)
    return str(folder)


def answer(host: Serving, path: str = "/echo") -> Any:
    return httpx.post(f"{host.url}{path}", json={}, timeout=20).json()


def on_a_terminal(host: Serving, *words: str) -> str:
    """What a command prints on a terminal of 140 columns, without colours."""
    main, side = pty.openpty()
    env = {**host.env, "COLUMNS": "140", "NO_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen([*FUNCRT, *words], env=env, stdout=side, stderr=side) as process:
        os.close(side)
        said = b""
        try:
            while part := os.read(main, 4096):
                said += part
        except OSError:  # the other side is closed
            pass
    os.close(main)
    assert process.returncode == 0, said
    return plain(said.decode().replace("\r\n", "\n"))


def plain(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s)\b", "N ms", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\b\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)


def test_a_session_on_a_terminal(host: Serving) -> None:
    path = write("echo", "one")
    assert on_a_terminal(host, "deploy", path) == (
        "✓ config     funcrt.toml · 2 triggers · output out\n"
        "✓ import     main:handler  sync (event)   N ms\n"
        "✓ rollout    v1 ready (DIGEST)  N ms\n"
        "  mesh in · http /echo · scale 0–8 · DLQ echo.dlq\n"
    )
    assert answer(host) == {"is": "one"}
    write("echo", "two", TOML.replace('"in"', '"in"\ncap = 9') + "[retry]\nattempts = 2\n")
    (Path(path) / "more.py").write_text("")
    assert on_a_terminal(host, "deploy", path, "--plan") == (
        "echo  changed  v1 → v2 (DIGEST)\n"
        "  ✓ import  main:handler  sync (event)   N ms\n"
        "  retry.attempts: 5 → 2\n"
        "  trigger.in.cap: null → 9\n"
        "  + more.py\n"
        "  ~ funcrt.toml\n"
        "  ~ main.py\n"
        "a plan: nothing was changed; 1 of 1 would be\n"
    )
    assert answer(host) == {"is": "one"}, "a plan changes nothing"
    assert len(rows(host.run("versions", "echo", "--json"))) == 1
    said = on_a_terminal(host, "deploy", path)
    assert (
        "✓ rollout    v2 ready (DIGEST) · v1 drained (0 in flight finished, 0 lost)  N ms\n" in said
    )
    assert answer(host) == {"is": "two"}
    assert "unchanged: v2 (DIGEST) is in service" in on_a_terminal(host, "deploy", path)
    said = on_a_terminal(host, "rollback", "echo")
    assert "v3 ready (DIGEST, the code of v1) · v2 drained (" in said
    assert answer(host) == {"is": "one"}
    heading, *versions = on_a_terminal(host, "versions", "echo").splitlines()
    assert heading.split() == ["VERSION", "DIGEST", "DEPLOYED", "STATE", "FROM"]
    assert [" ".join(row.split()) for row in versions] == [
        "v1 DIGEST TIME - src/echo, by admin socket",
        "v2 DIGEST TIME - src/echo, by admin socket",
        "v3 DIGEST TIME in service src/echo, rollback to v1, by admin socket",
    ]


def test_what_is_hardly_meant_is_warned_of(host: Serving) -> None:
    odd = """
[[trigger]]
topic = "in"
filters = [{ sql = "LENGTH(type)" }, { exact = { type = "a" } }]
"""
    done = host.run("deploy", write("echo", "one", odd))
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["! echo: trigger in: filters[0].sql: no event meets this"]


def test_the_same_in_a_pipe_and_as_json(host: Serving) -> None:
    path = write("echo", "one")
    done = host.run("deploy", path)
    assert plain(done.stdout) == "echo\tv1\tDIGEST\tnew\t-\n"
    write("echo", "two", "dlq = false\n" + TOML)
    done = host.run("deploy", path, "--plan")
    assert plain(done.stdout) == (
        "echo\tfunction\tchanged\tv2\tDIGEST\tv1\n"
        'echo\tkey\tdlq\t-\tnull\necho\tkey\tdlq.topic\t"echo.dlq"\t-\n'
        "echo\tfile\tchanged\tfuncrt.toml\necho\tfile\tchanged\tmain.py\n"
    )
    done = host.run("deploy", path)
    assert plain(done.stdout) == "echo\tv2\tDIGEST\tchanged\tv1\n"
    assert done.stderr == "! echo: dlq = false: what fails for good is dropped\n"
    (row,) = rows(host.run("rollback", "echo", "v1", "--json"))
    assert (row["number"], row["of"], row["before"]) == (3, 1, 2)
    versions = rows(host.run("versions", "echo", "--json"))
    assert [each["number"] for each in versions] == [1, 2, 3]
    assert [each["in_service"] for each in versions] == [False, False, True]
    assert versions[2]["digest"] == versions[0]["digest"]
    (audit,) = [
        act for act in httpx_admin(host, "/admin/audit")["acts"] if act["act"] == "rollback"
    ]
    assert (audit["function"], audit["version"], audit["of"]) == ("echo", 3, 1)


def httpx_admin(host: Serving, path: str, **more: Any) -> Any:
    socket = Path(host.env["FUNCRT_DATA"]) / "admin.sock"
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        if not more:
            return client.get(path).json()
        return client.post(path, **more)


def test_describe_says_what_there_is(host: Serving) -> None:
    host.run("deploy", write("echo", "one", "dlq = false\n" + TOML))
    assert host.run("scale", "echo", "--min", "0", "--max", "3").stdout == (
        "echo scales 0–3: until its next version, or --reset\n"
    )
    assert (
        host.run("pause", "echo").stdout == "echo is paused: what runs finishes, its queues fill\n"
    )
    event = ["--type", "t", "--source", "/t", "--data", "1"]
    assert host.run("publish", "in", *event).returncode == 0
    said = plain(host.run("describe", "echo").stdout)
    assert (
        said
        == f"""\
function     echo
version      v1 (DIGEST)
deployed     TIME from src/echo, by admin socket
state        paused: 0 instances, 0 busy
handler      main:handler  sync (event)
python       {platform.python_version()}
concurrency  3 instances × 1 = 3 calls at once at most
scale        0–3; set by `funcrt scale` until the next version
             wants 0: no event yet -> 0
calls        0 done, 0 failed, 0 dead letters
retry        5 attempts, timeout N ms
output       out
dlq          off: what fails for good is dropped
trigger      in: mesh in
             1 ready, 0 leased, 0 delayed; last fetch none yet
trigger      echo: http /echo
"""
    )
    host.run("resume", "echo")
    until(lambda: "1 done" in host.run("describe", "echo").stdout)
    said = host.run("describe", "echo").stdout
    assert "last fetch 2" in said
    used = r"\d+\.\d s of CPU, \d+ MiB of memory, "
    assert re.search(rf"^used +{used}an instance at most \d+ MiB$", said, re.M), said
    (shown,) = rows(host.run("describe", "echo", "--json"))
    (one,) = shown["instances"]
    process = f"process {one['pid']}: idle"
    assert re.search(rf"^instance +{process}, {used}at most \d+ MiB$", said, re.M), said
    assert (one["calls"], one["answered"]) == (0, 1)
    assert 0 <= one["cpu_s"] < 60  # in hundredths, without a control group
    assert 0 < one["memory_bytes"] <= one["peak_bytes"] < 1 << 30
    assert Path(f"/proc/{one['pid']}").exists()


def test_describe_says_which_event_the_filter_refused_last_and_why(host: Serving) -> None:
    filtered = '[[trigger]]\ntopic = "in"\nfilters = [{ exact = { type = "t" } }]\n'
    host.run("deploy", write("echo", "one", filtered))
    event = ["--type", "other", "--source", "/t", "--id", "e-1", "--data", "1"]
    assert host.run("publish", "in", *event).returncode == 0
    said = plain(host.run("describe", "echo").stdout)
    assert '             refused other e-1 at TIME: type = "t", found "other"\n' in said


# Mistakes

MISTAKES = [
    (
        "import nonesuch\n", TOML, 2,
        "✗ src/echo/main.py:1: cannot import 'nonesuch': no such module beside it, and it has no"
        ' requirements.txt. Make one with the line "nonesuch" and deploy again\n'
        "    File \"src/echo/main.py\", line 1, in <module>\n      import nonesuch\n"
        "  ModuleNotFoundError: No module named 'nonesuch'\n  v1 is still serving\n",
    ),
    (
        "def handler(event)\n    pass\n", TOML, 2,
        "✗ src/echo/main.py:1: syntax error: expected ':'\n      def handler(event)\n"
        "                        ^\n  v1 is still serving\n",
    ),
    (
        ECHO, TOML.replace("start", "strat"), 2,
        '✗ src/echo/funcrt.toml:4: trigger[0].strat: unknown key, did you mean "start"?\n'
        "  1 mistake; nothing was sent to the host\n",
    ),
    (
        ECHO, TOML.replace('"out"', '"in"'), 2,
        '✗ src/echo/funcrt.toml:9: output.topic: an output of type "funcrt.echo.result" would'
        " call the function again by trigger[0]; set output.allow_loop = true if that is meant\n"
        "  1 mistake; nothing was sent to the host\n",
    ),
    (
        ECHO, TOML.replace("/echo", "/other"), 2,
        "✗ echo: other has the path /other too\n  v1 is still serving\n",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "manifest", "exits", "said"), MISTAKES)
def test_a_mistake_is_told_as_its_author_knows_it(
    host: Serving, code: str, manifest: str, exits: int, said: str
) -> None:
    other = write("other", "o", TOML.replace("/echo", "/other"))
    assert host.run("deploy", write("echo", "one"), other).returncode == 0
    write("echo", "", manifest, code)
    done = host.run("deploy", "src/echo")
    assert (done.returncode, done.stdout, done.stderr) == (exits, "", said)
    assert answer(host) == {"is": "one"}
    assert len(rows(host.run("versions", "echo", "--json"))) == 1


def test_several_paths_come_together_or_not_at_all(host: Serving) -> None:
    one, two = (
        write("one", "1", TOML.replace("/echo", "/1")),
        write("two", "2", "", "import none_\n"),
    )
    done = host.run("deploy", one, two)
    assert done.returncode == 2
    assert done.stderr.endswith("\n  nothing was deployed\n")
    assert rows(host.run("ls", "--json")) == []
    write("two", "2", TOML.replace("/echo", "/2"))
    assert plain(host.run("deploy", "src").stdout) == (
        "one\tv1\tDIGEST\tnew\t-\ntwo\tv1\tDIGEST\tnew\t-\n"
    )
    # They change paths: neither alone could.
    write("one", "1", TOML.replace("/echo", "/2"))
    refused = host.run("deploy", one)
    assert refused.stderr == "✗ one: two has the path /2 too\n  v1 is still serving\n"
    write("two", "2", TOML.replace("/echo", "/1"))
    assert host.run("deploy", "src").returncode == 0
    assert (answer(host, "/2"), answer(host, "/1")) == ({"is": "1"}, {"is": "2"})


def test_what_the_mesh_refuses_leaves_all_as_it_was(host: Serving) -> None:
    """Its topic changes while events of the old one wait: found only as it is put into service."""
    first, second = write("a", "a1", TOML.replace("/echo", "/a")), write("b", "b1", "")
    host.run("deploy", first, second)
    host.run("pause", "a")
    host.run("publish", "in", "--type", "t", "--source", "/t", "--data", "1")
    named = TOML.replace("/echo", "/a").replace('"in"', '"in2"\nname = "in"')
    write("a", "a2", named), write("b", "b2", "")
    done = host.run("deploy", "src")
    assert done.stderr == (
        "✗ a: trigger in is on another topic, and 1 events of the old one wait; let them be worked"
        " off first, or give the trigger another name\n"
        "  nothing was deployed; still serving: a v1, b v1\n"
    )
    assert answer(host, "/functions/b") == {"is": "b1"}
    host.run("resume", "a")
    until(lambda: rows(host.run("ls", "--json"))[0]["done"] == 1)
    assert host.run("deploy", "src").returncode == 0
    assert answer(host, "/a") == {"is": "a2"}


def test_versions_that_are_not_there(host: Serving) -> None:
    host.run("deploy", write("echo", "one"))
    for words, said in (
        (("echo", "v7"), "✗ echo has no version 'v7'; there is v1 alone\n"),
        (("echo",), "✗ echo has no version before the one in service; there is v1 alone\n"),
        (("ecko",), "✗ no function is named 'ecko'; did you mean echo?\n  try: funcrt ls\n"),
    ):
        done = host.run("rollback", *words)
        assert (done.returncode, done.stderr) == (1, said)
    for command in ("describe", "versions", "pause", "resume", "rm"):
        done = host.run(command, "ecko")
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            1, "✗ no function is named 'ecko'; did you mean echo?",
        )  # fmt: skip
    done = host.run("scale", "echo", "--min", "3", "--max", "2")
    assert done.stderr == (
        "✗ expected 0 <= min <= max and 1 <= max <= 1000, found min 3 and max 2; to stop a"
        " function, pause it\n"
    )


# Over the network


def test_a_token_opens_it_over_tcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    tokens = {}
    for name, scope in (("ops", "admin"), ("ci", "publish")):
        made = subprocess.run(
            [*FUNCRT, "token", name, "--scope", scope, "--tokens", "tokens.txt"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        (tokens[name],) = re.findall(r"funcrt_[\w-]+", made.stdout)
    host = Bare(tmp_path / "data", "--tokens", "tokens.txt")
    try:
        path = write("echo", "one")
        far = ["deploy", path, "--host", host.url]
        refused = host.run(*far)
        assert (refused.returncode, refused.stderr.splitlines()[0]) == (
            1, "✗ this needs a token with the scope 'admin'",
        )  # fmt: skip
        host.env["FUNCRT_TOKEN"] = tokens["ci"]
        assert "this needs the scope 'admin'; the token 'ci' has publish" in host.run(*far).stderr
        host.env["FUNCRT_TOKEN"] = tokens["ops"]
        assert host.run(*far).returncode == 0
        (row,) = rows(host.run("versions", "echo", "--host", host.url, "--json"))
        assert row["by"] == "ops"
        host.stop(signal.SIGTERM)
        gone = host.run(*far)
        assert gone.returncode == 3
        assert gone.stderr.startswith(f"✗ no host answers at {host.url} (")
    finally:
        if host.process.poll() is None:
            host.stop(signal.SIGKILL)


def send(host: Serving, body: bytes, name: str = "echo", **head: Any) -> httpx.Response:
    digest = head.pop("digest", hashlib.sha256(body).hexdigest())
    one = Upload(folder=name, path=f"src/{name}", digest=digest, size=head.pop("size", len(body)))
    sent = encode(Head(functions=[one], **head), [])
    headers = {"content-type": MEDIA_TYPE}
    answer: httpx.Response = httpx_admin(
        host, "/admin/deployments", content=sent + body, headers=headers
    )
    return answer


ATTACKS: list[tuple[bytes, str]] = [
    (forge(member("../out")), "src/echo/../out: its path has an empty, . or .. part"),
    (forge(member("/etc/x")), "src/echo//etc/x: an absolute path"),
    (forge(member("a", kind=b"l")), "src/echo/a: expected a regular file, found the kind b'l'"),
    (forge(member("a"), member("a")), "src/echo/a: there twice"),
    (forge(member("A"), member("a")), "src/echo/a: differs from 'A' only in case or Unicode form"),
    (forge(member("a\nb")), "src/echo/a\\nb: its name holds a control character"),
    (b"PK\x03\x04", "src/echo/bundle: not a funcrt bundle"),
]


def test_archives_that_attack_are_refused_and_leave_nothing(host: Serving) -> None:
    """Over the API, the rules that tests/funcrt/test_bundle.py has one by one."""
    for body, said in ATTACKS:
        refused = send(host, body)
        assert (refused.status_code, refused.json()["mistakes"]) == (422, [said])
    wrong = send(host, forge(member("main.py")), digest="0" * 64)
    assert wrong.json()["mistakes"][0].startswith("src/echo/bundle: its content is not that of")
    code = Path(host.env["FUNCRT_DATA"]) / "code"
    assert not code.exists() or list(code.iterdir()) == []
    assert rows(host.run("ls", "--json")) == []


def test_uploads_that_are_none(host: Serving) -> None:
    def post(body: bytes, kind: str = MEDIA_TYPE) -> Any:
        headers = {"content-type": kind}
        return httpx_admin(host, "/admin/deployments", content=body, headers=headers)

    for body, said in (
        (b"", "the upload is cut short"),
        (b"\xff\xff\xff\xff{}", "the upload's head claims 4294967295 bytes, 2 are left"),
        (b"\0\0\0\x02{}", "the upload's head: Object missing required field `functions`"),
    ):
        assert (post(body).status_code, post(body).json()["detail"]) == (400, said)
    assert "bundles claim" in send(host, b"", size=10**12).json()["detail"]
    assert post(b"{}", "application/json").status_code == 415
    assert "over the limit of 67108864 bytes" in post(bytes((64 << 20) + 1)).json()["detail"]
    forged = send(host, pack(Path(write("x", "1"))).body, name="../../x\n")
    assert forged.status_code == 422
    assert "'../../x\\n'" in forged.json()["detail"] or "..\\/" in forged.text


def test_a_manifest_that_only_the_host_finds_wrong_has_the_senders_paths(host: Serving) -> None:
    write("echo", "one", "timeout = 1x\n")
    found = send(host, pack(Path("src/echo")).body).json()
    assert found["mistakes"] == [
        "src/echo/funcrt.toml:1: not TOML: expected one value, found 1x; strings need quotes"
        " (column 12)"
    ]
    assert found["then"] == "nothing was deployed"
    write("echo", "one", TOML.replace('"out"', '"in"'))
    loop = send(host, pack(Path("src/echo")).body).json()["mistakes"]
    assert "would call the function again by trigger[0]" in loop[0], "loops are refused here too"


# Paused


def test_a_paused_function_takes_nothing_and_its_queue_fills(host: Serving) -> None:
    slow = "import time\ndef handler(event):\n    time.sleep(1)\n    return 1\n"
    host.run("deploy", write("echo", "one", TOML, slow))
    host.run("publish", "in", "--type", "t", "--source", "/t", "--data", "1")
    until(lambda: rows(host.run("ls", "--json"))[0]["busy"] == 1)
    assert host.run("pause", "echo").returncode == 0
    until(lambda: rows(host.run("ls", "--json"))[0]["done"] == 1)  # what ran has finished
    for _ in range(5):
        host.run("publish", "in", "--type", "t", "--source", "/t", "--data", "2")
    refused = httpx.post(f"{host.url}/echo", json={})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    assert refused.json()["type"] == "urn:funcrt:problem:paused"
    assert refused.json()["detail"] == (
        "echo is paused: it answers no calls until `funcrt resume echo`; events and queued"
        " calls wait"
    )
    later = httpx.post(f"{host.url}/echo", json={}, headers={"prefer": "respond-async"})
    assert later.status_code == 202
    time.sleep(0.5)
    (row,) = rows(host.run("ls", "--json"))
    assert (row["state"], row["depth"], row["done"], row["busy"]) == ("paused", 6, 1, 0)
    again = host.run("pause", "echo")
    assert again.stdout == "echo was paused already\n"
    host.run("deploy", write("echo", "two"))
    assert rows(host.run("ls", "--json"))[0]["state"] == "paused", "a new version stays paused"
    assert host.run("resume", "echo").stdout == "echo goes on\n"
    until(lambda: rows(host.run("ls", "--json"))[0]["depth"] == 0)
    assert host.run("resume", "echo").stdout == "echo was not paused\n"


def test_fewer_instances_are_kept_than_there_are(host: Serving) -> None:
    slow = "import time\ndef handler(event):\n    time.sleep(0.3)\n"
    host.run("deploy", write("echo", "one", TOML, slow))
    host.run("scale", "echo", "--min", "4", "--max", "4")
    lines = "".join(
        f'{{"specversion":"1.0","id":"{n}","source":"/t","type":"t"}}\n' for n in range(400)
    )
    Path("events.jsonl").write_text(lines)
    assert host.run("publish", "in", "--jsonl", "events.jsonl").returncode == 0
    until(lambda: rows(host.run("ls", "--json"))[0]["busy"] == 4)
    host.run("scale", "echo", "--min", "0", "--max", "1")
    until(lambda: rows(host.run("ls", "--json"))[0]["instances"] == 1)
    time.sleep(0.5)
    (row,) = rows(host.run("ls", "--json"))
    assert (row["instances"], row["busy"], row["failed"]) == (1, 1, 0)
    assert row["depth"] > 100, "there was work for more"


# A start


def restart(host: Serving, *directories: str, kill: bool = True) -> Bare:
    host.stop(signal.SIGKILL if kill else signal.SIGTERM)
    return Bare(Path(host.env["FUNCRT_DATA"]), *directories)


def test_what_was_deployed_is_there_after_a_kill(host: Serving) -> None:
    host.run("deploy", write("echo", "one"))
    host.run("deploy", write("echo", "two"))
    host.run("deploy", write("kept", "k", TOML.replace("/echo", "/kept")))
    host.run("pause", "kept")
    host.run("scale", "kept", "--min", "2", "--max", "3")
    host.run("rollback", "echo")
    again = restart(host)
    try:
        assert [plain(text) for text in again.texts("deployed")] == [
            "  echo  mesh in, http /echo → out   v3, sync, imported in N ms",
            "  kept  mesh in, http /kept → out   v1, sync, imported in N ms · paused",
        ]
        assert answer(again) == {"is": "one"}
        kept = rows(again.run("describe", "kept", "--json"))[0]
        assert (kept["status"]["state"], kept["scale"], kept["bound"]) == ("paused", [2, 3], True)
        code = Path(again.env["FUNCRT_DATA"]) / "code"
        assert len(list(code.iterdir())) == 2, "only what is in service is unpacked"
        write("kept", "k2", TOML.replace("/echo", "/kept"))
        done = again.run("deploy", "src/kept")
        assert done.stderr == (
            "! kept is paused, and stays so: funcrt resume kept\n"
            "! kept: the bounds of `funcrt scale` ended; the manifest's 0–8 hold\n"
        )
        again.run("scale", "kept", "--reset")
        assert rows(again.run("describe", "kept", "--json"))[0]["scale"] == [0, 8]
    finally:
        again.stop(signal.SIGTERM)


def test_directories_count_at_each_start(host: Serving) -> None:
    far = write("far", "f", TOML.replace("/echo", "/far"))
    host.run("deploy", far)
    write("echo", "one")
    one = restart(host, "src/echo")
    assert sorted(row["name"] for row in rows(one.run("ls", "--json"))) == ["echo", "far"]
    one = restart(one, "src/echo")
    assert len(rows(one.run("versions", "echo", "--json"))) == 1, "nothing changed: no new version"
    write("echo", "two")
    one.run("deploy", "src/echo")
    write("echo", "one")
    one = restart(one, "src/echo")
    try:
        assert one.texts("warning") == [
            "echo v3 of src/echo takes the place of v2, which was deployed over the API"
        ]
        one.run("pause", "echo")
        one.run("publish", "in", "--type", "t", "--source", "/t", "--data", "1")
        one = restart(one)
        assert one.texts("warning") == [
            "echo v3 is out of service: src/echo is not served any more; its queue stays"
        ]
        assert [row["name"] for row in rows(one.run("ls", "--json"))] == ["far"]
        done = one.run("rm", "echo", "--purge")
        assert done.stdout == (
            "echo is out of service\n  queue in: 1 event, 0 dead letters dropped\n"
        )
        (gone,) = one.run("rm", "echo").stderr.splitlines()[:1]
        assert gone == "✗ no function is named 'echo'; deployed: far"
    finally:
        one.stop(signal.SIGTERM)


def test_one_that_cannot_be_brought_back_does_not_keep_the_others(host: Serving) -> None:
    marker = Path("shown/marker").absolute()
    marker.parent.mkdir()
    marker.touch()
    shown = f"[sandbox]\nfiles = [{str(marker.parent)!r}]\n"
    fails = f"assert __import__('os').path.exists({str(marker)!r})\n{ECHO}"
    host.run("deploy", write("echo", "one"), write("odd", "o", shown, fails))
    marker.unlink()
    again = restart(host)
    (said,) = again.texts("warning")
    assert said.startswith("odd v1 could not be brought back, and is not in service: main.py:1: ")
    assert answer(again) == {"is": "one"}
    marker.touch()
    again = restart(again)
    try:
        assert len(rows(again.run("ls", "--json"))) == 2
    finally:
        again.stop(signal.SIGTERM)


# Removal


def test_rm_keeps_what_waits_and_purge_drops_it(host: Serving) -> None:
    fails = "def handler(event):\n    raise ValueError\n"
    once = TOML + "[retry]\nattempts = 1\n"
    host.run("deploy", write("echo", "one", once, fails))
    publish: Callable[[], Any] = lambda: host.run(  # noqa: E731
        "publish", "in", "--type", "t", "--source", "/t", "--data", "1"
    )
    publish()
    until(lambda: rows(host.run("ls", "--json"))[0]["dead"] == 1)
    host.run("pause", "echo")
    publish()
    done = host.run("rm", "echo")
    assert done.stdout == "echo v1 is out of service\n  queue in: 1 event, 1 dead letter kept\n"
    assert done.stderr == "try: funcrt rm echo --purge   # drops what is left\n"
    assert httpx.post(f"{host.url}/echo", json={}).status_code == 404
    publish()
    host = restart(host)
    try:
        publish()
        host.run("deploy", write("echo", "two", once))
        until(lambda: rows(host.run("ls", "--json"))[0]["done"] == 1)
        time.sleep(0.3)
        (row,) = rows(host.run("ls", "--json"))
        assert (row["done"], row["depth"]) == (1, 0), "what came while it was removed is not for it"
        assert len(rows(host.run("dlq", "ls", "echo", "--json"))) == 1
        assert host.run("rm", "echo", "--purge").stdout == (
            "echo v2 is out of service\n  queue in: 0 events, 1 dead letter dropped\n"
        )
        assert host.run("rollback", "echo", "v2").returncode == 0
        assert rows(host.run("dlq", "ls", "echo", "--json")) == []
    finally:
        host.stop(signal.SIGTERM)


def test_a_host_of_dev_says_that_its_folders_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write("echo", "one")
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data")}
    with (tmp_path / "dev.log").open("w") as log:
        dev = subprocess.Popen(
            [*FUNCRT, "dev", path, "--port", "0"], env=env, stderr=log, stdout=log
        )
    try:
        socket = tmp_path / "data" / "admin.sock"
        until(lambda: socket.exists() and "ready" in (tmp_path / "dev.log").read_text())

        def run(*words: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*FUNCRT, *words], env=env, capture_output=True, text=True, check=False
            )

        said = (
            "✗ this host is `funcrt dev`: it serves what its folders hold, and nothing is deployed"
            " to it or removed from it; use `funcrt serve`\n"
        )
        for words in (("deploy", path), ("rollback", "echo"), ("rm", "echo")):
            assert (run(*words).returncode, run(*words).stderr) == (1, said)
        assert run("pause", "echo").returncode == 0
        assert "paused: " in run("describe", "echo").stdout
        assert run("resume", "echo").returncode == 0
    finally:
        dev.terminate()
        dev.wait(30)
