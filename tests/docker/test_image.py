"""The host in its image: built from a base made here, and run as docs/image.md says."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from funcrt.sandbox.kernel import landlock_abi
from tests.docker.conftest import CACHE, IMAGE, PATH, TIMEOUT_S
from tests.docker.test_container import OTHERWISE
from tests.isolation.attacks import BOMBS
from tests.isolation.test_isolation import table
from tests.serving import until
from tests.terminal import Running

pytestmark = pytest.mark.timeout(TIMEOUT_S)
ROOT = Path(__file__).parents[2]
PYTHON = "3.11"
"""Of the base."""
GLIBCS = (5, 12, 17, 24, 26, 27, 28, 31, 34)
"""Of the wheels that it takes."""


def wheels() -> Path:
    """All that the image and the demo are made of, fetched once a machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [*project["project"]["dependencies"], *project["build-system"]["requires"], "httpx"]
    lock = ROOT / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes() + str(names).encode()).hexdigest()[:12]
    made = CACHE / f"wheels-{PYTHON}-{digest}"
    if made.exists():
        return made
    fetched = CACHE / f".wheels-{os.getpid()}"
    machine = os.uname().machine
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBCS]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
         f"--python-version={PYTHON}", *platforms, f"--platform=manylinux2014_{machine}",
         f"--constraint={lock}", f"--dest={fetched}", *names],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(fetched, ignore_errors=True)
        pytest.skip(f"packages cannot be fetched here: {done.stderr.strip()[-300:]}")
    with contextlib.suppress(OSError):  # another was quicker
        fetched.rename(made)
    shutil.rmtree(fetched, ignore_errors=True)
    return made


@contextlib.contextmanager
def index(directory: Path) -> Iterator[str]:
    """An index of these files, on the loopback."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


class Docker:
    """What a person types."""

    def __init__(self, url: str) -> None:
        self.env = {**os.environ, "DOCKER_HOST": url, "PATH": PATH}

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            ["docker", *words], env=self.env, cwd=ROOT, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def host(self, name: str, *options: str) -> None:
        """A container of the image, which runs by itself."""
        self.run("run", "--detach", f"--name={name}", *options, "funcrt")
        until(lambda: "funcrt serve" in self.run("logs", name).stderr)

    def rows(self, name: str, *words: str) -> list[Any]:
        """What `funcrt` in a container prints as JSON, whatever its exit code."""
        done = self.run("exec", name, "funcrt", *words, "--json", check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def doctor(self, name: str) -> dict[str, Any]:
        return {row["check"]: row for row in self.rows(name, "doctor")}


@pytest.fixture(scope="module")
def docker(dockerd: str) -> Docker:
    if shutil.which("docker", path=PATH) is None:
        pytest.skip("needs the command docker: apt-get install docker.io, or docker-cli beside it")
    made = Docker(dockerd)
    with index(wheels()) as url:
        arguments = [f"BASE_IMAGE={IMAGE}", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={url}"]
        options = [word for each in arguments for word in ("--build-arg", each)]
        made.run("build", "--network=host", *options, "--target=demo", "--tag=funcrt-demo", ".")
        # It ends once nothing was to do for 15 s: meanwhile the tests go on.
        made.run("run", "--detach", "--name=demo", "--env=DEMO_ROUNDS=2", "funcrt-demo")
        made.run("build", "--network=host", *options, "--tag=funcrt", ".")
    kept = made.run("history", "--no-trunc", "funcrt").stdout + made.run("inspect", "funcrt").stdout
    assert url not in kept
    return made


@pytest.fixture
def name(docker: Docker) -> Iterator[str]:
    """Of a container, which ends with the test, and of its volume."""
    made = f"host-{os.getpid()}-{time.monotonic_ns()}"
    yield made
    docker.run("rm", "--force", "--volumes", made, check=False)
    docker.run("volume", "rm", "--force", made, check=False)


def functions(where: Path, **sources: str) -> str:
    """Their directory, as an option of `docker run`."""
    for name, source in sources.items():
        (where / name).mkdir()
        code, _, manifest = source.partition("---")
        (where / name / "main.py").write_text(code)
        (where / name / "funcrt.toml").write_text(manifest)
    return f"--volume={where}:/functions:ro"


def security() -> list[str]:
    """The options of the page that let level `sandbox` be had."""
    page = (ROOT / "docs/image.md").read_text()
    found = re.findall(r"--security-opt (\S+)", page.split("\n## Isolation\n")[1])
    assert found == ["seccomp=seccomp.json", "systempaths=unconfined", "apparmor=unconfined"]
    return [f"--security-opt={each.replace('seccomp.json', 'docs/seccomp.json')}" for each in found]


OF_VICTIMS = ["mq_open", "mq_unlink", "shmat", "shmctl", "shmget"]
"""Calls by which what is attacked is made: a host itself has no need of them."""
WHO = """import os
def handler(event):
    return [os.getuid(), os.uname().nodename]
"""
SLOW = """import time
def handler(event):
    time.sleep(event.json())
    return event.json()
---[[trigger]]
topic = "in"
[output]
topic = "out"
[scale]
max = 1
"""
ASKED = "instead of 'sandbox' for who: this container does not give it"


def called(docker: Docker, name: str) -> Any:
    """What the function `who` returned to a call over the gateway's socket."""
    (row,) = docker.rows(name, "invoke", "who", "--data", "1")
    return row["outputs"][0]["event"]["data"]


def test_what_the_page_types_works(docker: Docker, tmp_path: Path) -> None:
    """A function of the samples in the place of all, which need packages."""
    page = (ROOT / "docs/image.md").read_text()
    (tmp_path / "functions").mkdir()
    shutil.copytree(ROOT / "functions/label", tmp_path / "functions/label")
    running, opened = re.findall(r"```sh\n(.*?)```", page, re.S)[1:3]
    said = []
    try:
        for line in (*running.splitlines(), *opened.splitlines()[:1]):
            done = subprocess.run(
                ["sh", "-c", line], env=docker.env, cwd=tmp_path, capture_output=True, text=True,
                timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)
            said.append(done.stdout + done.stderr)
            if " -d " in line:
                until(lambda: "funcrt serve" in docker.run("logs", "funcrt").stderr)
    finally:
        docker.run("rm", "--force", "--volumes", "funcrt", check=False)
        docker.run("volume", "rm", "--force", "funcrt", check=False)
    _, publish, tail, logs, token = said
    assert publish.startswith("stored\t")
    assert tail.endswith('{"label":"large"}\n')
    assert "  label  mesh orders" in logs
    assert token.startswith("funcrt_")


def test_a_directory_that_is_not_its_users_is_told_whose_it_is(
    docker: Docker, name: str, tmp_path: Path
) -> None:
    data = f"--volume={tmp_path}:/data"
    done = docker.run("run", "--rm", data, "funcrt", check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-2:]
    assert last[0].startswith("✗ /data/mesh.db.lock: Permission denied")
    assert last[1].startswith("  try: this runs as user 10001, and /data is user 0's: chown it")
    os.chown(tmp_path, 1234, 1234)
    docker.host(name, data, "--user=1234:1234")
    assert docker.doctor(name)["host"]["status"] == "ok"


def test_without_options_functions_run_at_process_which_is_said_in_red(
    docker: Docker, name: str, tmp_path: Path
) -> None:
    where = functions(tmp_path, who=WHO)
    words = ["docker", "run", "-it", f"--name={name}", where, "funcrt"]
    host = Running(words, cwd=ROOT, env=docker.env)
    try:
        said = host.until(r"\x1b\[31m(! isolation [^\x1b]*)\x1b\[0m")[1]
        host.until(r"nobody outside this")
        found = docker.doctor(name)
        who = called(docker, name)
        (row,) = docker.rows(name, "ls")
        host.type("\x03")
        assert host.ended() == 0
    finally:
        host.close()
    told = " ".join(said.split())
    assert told.startswith(f"! isolation 'process' {ASKED} (a user namespace: Operation not perm")
    assert [each for each in security() if each.partition("=")[2].split("/")[-1] not in told] == []
    assert [found[check]["status"] for check in ("host", "process", "sandbox")] == [
        "ok", "ok", "warn",
    ]  # fmt: skip
    assert "run at 'process', as FUNCRT_ALLOW_ISOLATION says" in found["sandbox"]["found"]
    assert "seccomp=seccomp.json" in found["sandbox"]["hint"]
    assert who == [10001, who[1]]
    assert who[1] != "function"
    assert row["isolation"] == "process"


def test_with_the_options_of_the_page_functions_run_at_sandbox(
    docker: Docker, name: str, tmp_path: Path
) -> None:
    where = functions(tmp_path, who=WHO, net=WHO + '---[sandbox]\nnetwork = ["127.0.0.1:8080"]\n')
    docker.host(name, *security(), where)
    assert "! isolation" not in docker.run("logs", name).stderr
    found = docker.doctor(name)
    assert [found[level]["status"] for level in ("process", "sandbox")] == ["ok", "ok"]
    assert {row["name"]: row["isolation"] for row in docker.rows(name, "ls")} == {
        "who": "sandbox", "net": "sandbox",
    }  # fmt: skip
    assert called(docker, name) == [10001, "function"]


def test_started_as_root_it_makes_each_function_a_user_and_becomes_one(
    docker: Docker, name: str, tmp_path: Path
) -> None:
    docker.host(name, "--user=0", functions(tmp_path, who=WHO))
    assert f"! isolation 'process' {ASKED} (mount, pid, net, " in docker.run("logs", name).stderr
    assert 61184 <= called(docker, name)[0] <= 65183
    first, *_ = docker.run("top", name, "-o", "user,pid").stdout.splitlines()[1:]
    assert first.split()[0] == "10001"


def test_a_container_that_is_stopped_gives_back_what_runs_and_its_volume_goes_on(
    docker: Docker, name: str, tmp_path: Path
) -> None:
    where = functions(tmp_path, slow=SLOW)
    options = ["--read-only", "--tmpfs=/tmp", "--env=FUNCRT_DRAIN=1", "--stop-timeout=10"]
    options += ["--health-interval=1s", f"--volume={name}:/data", where]
    docker.host(name, *options)
    for seconds in ("0", "600"):
        docker.run(
            "exec", name, "funcrt", "publish", "in", "--type=t", "--source=/s", f"--data={seconds}"
        )
    until(lambda: docker.rows(name, "ls")[0]["busy"] and docker.rows(name, "ls")[0]["done"] == 1)
    status = "--format={{.State.Health.Status}} {{.State.ExitCode}}"
    until(lambda: docker.run("inspect", status, name).stdout == "healthy 0\n")
    began = time.monotonic()
    docker.run("stop", name)
    assert time.monotonic() - began < 8
    assert docker.run("inspect", status, name).stdout.split()[1] == "0"
    assert docker.run("diff", name).stdout == ""
    docker.run("rm", name)

    docker.host(name, *options)
    assert docker.rows(name, "tail", "out", "--from=earliest", "--limit=1")[0]["event"]["data"] == 0
    until(lambda: docker.rows(name, "ls")[0]["busy"])  # what was given back
    (row,) = docker.rows(name, "ls")
    assert (row["depth"], row["done"], row["dead"]) == (1, 0, 0)
    processes = docker.run("top", name, "-o", "pid,stat,user,args").stdout
    assert " Z" not in processes


@pytest.mark.parametrize("level", ["process", "sandbox"])
def test_in_the_image_a_level_stops_what_it_stops_elsewhere(
    docker: Docker, tmp_path: Path, level: str
) -> None:
    """All but the bombs, which would take a while."""
    options = []
    if level == "sandbox":
        profile = json.loads((ROOT / "docs/seccomp.json").read_text())
        profile["syscalls"].append({"names": OF_VICTIMS, "action": "SCMP_ACT_ALLOW"})
        (tmp_path / "seccomp.json").write_text(json.dumps(profile))
        options = [each.replace("docs", str(tmp_path)) for each in security()]
    # Numbers of processes that a function's own namespace has not, too.
    later = "for each in $(seq 50); do /bin/true; done"
    run = f"python -m tests.isolation.run {level}@{landlock_abi()} /data/f"
    script = f"mkdir f && cd /x && {later} && {run}; exit $?"
    tests = f"--volume={ROOT}/tests:/x/tests:ro"
    done = docker.run("run", "--rm", *options, tests, "--entrypoint=sh", "funcrt", "-c", script)
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert found.pop("the neighbour") == "alive"
    row = ["process", "sandbox"].index(level)
    expected = {attack: each[row] for attack, each in table().items() if attack not in BOMBS}
    if level == "sandbox":
        expected |= OTHERWISE
    verdicts = {attack: text.partition(":")[0] for attack, text in found.items()}
    assert verdicts == expected


def test_the_demo_runs_in_the_image(docker: Docker) -> None:
    assert docker.run("wait", "demo").stdout == "0\n"
    said = docker.run("logs", "demo").stdout
    assert "93 events in" in said
    assert "every function is back at zero instances" in said
    assert "! isolation 'process' instead of 'sandbox' for badge, digest, label" in said
    assert docker.run("inspect", "--format={{.Config.User}}", "demo").stdout == "10001:10001\n"
