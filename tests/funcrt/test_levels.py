"""Levels of isolation that a machine does not give: what is said of them, and where."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from funcrt.cautions import lowered
from funcrt.manifest import load_manifest
from funcrt.sandbox import HandlerInfo
from funcrt.sandbox.levels import IsolationMissing, Level, mend
from tests.serving import FUNCRT
from tests.terminal import Running

ROOT = Path(__file__).parents[2]
USERNS = "a user namespace: Operation not permitted"
PROC = "/proc: mount proc on /proc: Operation not permitted"


def info(level: Level, lacking: str = "") -> HandlerInfo:
    return HandlerInfo(
        handler="main:handler", kind="sync", batch=False, signature="", concurrency=1,
        import_ms=1.0, isolation=level, lacking=lacking,
    )  # fmt: skip


def function(where: Path, name: str, manifest: str = "") -> Path:
    made = where / name
    made.mkdir(parents=True)
    (made / "main.py").write_text("def handler(event): pass\n")
    (made / "funcrt.toml").write_text(manifest)
    return made


def test_those_that_run_at_a_lower_level_are_named_with_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCRT_CONTAINED", "1")
    asked = '[sandbox]\nisolation = "process"\n'
    served = [
        (load_manifest(function(tmp_path, "a")), info("process", USERNS)),
        (load_manifest(function(tmp_path, "b")), info("process", USERNS)),
        (load_manifest(function(tmp_path, "c")), info("none")),
        (load_manifest(function(tmp_path, "d", asked)), info("process")),
        (load_manifest(function(tmp_path, "e", asked)), info("sandbox")),
        (load_manifest(function(tmp_path, "f")), info("sandbox")),
    ]
    (first, hint), (second, none) = lowered(served)
    assert first.startswith(
        f"isolation 'process' instead of 'sandbox' for a, b: this container does not give it"
        f" ({USERNS}); Landlock and seccomp alone"
    )
    assert "--security-opt seccomp=" in hint
    assert second.startswith("isolation 'none' instead of 'sandbox' for c: --isolation says so; no")
    assert none == ""


@pytest.mark.parametrize("why", [USERNS, PROC, "pivot_root: pivot_root: Permission denied"])
def test_in_a_container_the_options_that_give_it_are_named(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNCRT_CONTAINED", "1")
    assert mend(why).startswith("Start this container with --security-opt seccomp=seccomp.json ")
    assert mend(why) in str(IsolationMissing("f", "sandbox", why))
    monkeypatch.delenv("FUNCRT_CONTAINED")
    assert "this container" not in mend(why)
    assert "docs/image.md" in mend(why)


@pytest.mark.parametrize("contained", ["", "1"])
def test_a_kernel_that_is_too_old_is_not_taken_for_a_container(
    monkeypatch: pytest.MonkeyPatch, contained: str
) -> None:
    """As Linux 5.10 says."""
    monkeypatch.setenv("FUNCRT_CONTAINED", contained)
    assert "kernel of at least 5.13" in mend("bind mounts: mount_setattr: Function not implemented")
    assert "5.13" in mend("landlock: this kernel has none: Operation not supported")


def test_a_host_says_it_in_red_on_a_terminal_and_as_json_in_a_pipe(tmp_path: Path) -> None:
    function(tmp_path / "functions", "f")
    serve = ["serve", "functions", "--port", "0", "--quiet", "--isolation", "process"]
    env = {**os.environ, "FUNCRT_DATA": str(tmp_path / "data")}
    running = Running([*FUNCRT, *serve], cwd=tmp_path, env=env)
    try:
        said = running.until(r"\x1b\[31m(! isolation [^\x1b]*)\x1b\[0m")[1]
        running.type("\x03")
        assert running.ended() == 0
    finally:
        running.close()
    assert " ".join(said.split()).startswith("! isolation 'process' instead of 'sandbox' for f: ")
    assert max(map(len, said.split("\r\n"))) <= 80
    host = subprocess.Popen(
        [*FUNCRT, *serve, "--json"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert host.stdout is not None
        told = json.loads(host.stdout.readline())
    finally:
        host.terminate()
        host.communicate(timeout=30)
    assert (told["event"], told["hint"]) == ("isolation", "")
    assert told["text"].startswith("isolation 'process' instead of 'sandbox' for f: --isolation")


def test_dev_says_it_in_red_too(tmp_path: Path) -> None:
    function(tmp_path / "functions", "f")
    dev = [*FUNCRT, "dev", "functions", "--port", "0", "--isolation", "process"]
    running = Running(dev, cwd=tmp_path, env=dict(os.environ))
    try:
        running.until(
            r"\x1b\[31m! isolation 'process' instead of 'sandbox' for f: --isolation says"
        )
        running.type("\x03")
        assert running.ended() == 0
    finally:
        running.close()


def test_the_profile_of_the_host_is_that_of_functions_and_what_makes_namespaces() -> None:
    own = json.loads((ROOT / "funcrt/sandbox/seccomp.json").read_text())
    profile = json.loads((ROOT / "docs/seccomp.json").read_text())
    assert {**profile, "syscalls": []} == {**own, "syscalls": []}
    count = len(own["syscalls"])
    assert profile["syscalls"][:count] == own["syscalls"]
    users, walls, network = (set(each["names"]) for each in profile["syscalls"][count:])
    assert walls == {"mount", "mount_setattr", "pivot_root", "sethostname", "umount2", "unshare"}
    assert network == {"pidfd_getfd", "process_vm_readv"}
    assert {name for name in users if not name.startswith("set")} == {"execveat", "sync", "syncfs"}
    assert not users & {"setns", "setdomainname", "settimeofday"}


# Another system. What Linux alone has is taken out of Python's modules before ours are imported.

ELSEWHERE = """
import os, platform, signal, sys
platform.system = lambda: "Darwin"
for module, names in (
    (os, "pidfd_open memfd_create eventfd fdatasync sched_getaffinity setns unshare O_PATH"),
    (signal, "pidfd_send_signal"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
from funcrt.cli import main
main(sys.argv[1:])
"""


def elsewhere(where: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *words], cwd=where, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_on_macos_the_doctor_says_what_it_is_and_what_to_do(tmp_path: Path) -> None:
    done = elsewhere(tmp_path, "doctor")
    assert done.returncode == 1
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert re.match(r"✗ isolation\s+functions run on Linux alone, .* this is macOS\. Run ", last)
    assert "docs/image.md" in last


@pytest.mark.parametrize(
    "words",
    [["serve", "functions"], ["dev", "functions"], ["invoke", "functions/f", "--data", "1"]],
)
def test_on_macos_what_runs_functions_says_so(tmp_path: Path, words: list[str]) -> None:
    function(tmp_path / "functions", "f")
    done = elsewhere(tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("✗ functions run on Linux alone, ")
    assert "this is macOS. Run the host on Linux, or in a " in done.stderr
    assert len(done.stderr.splitlines()) == 1
