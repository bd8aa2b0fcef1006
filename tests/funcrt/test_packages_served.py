"""What functions need, as a host installs it: what fails, is given up or killed changes nothing;
what is shared cannot be changed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from funcrt.installer import PASSED, installer
from tests.developing import Dev
from tests.installs import running
from tests.serving import FUNCRT, Serving, rows, until
from tests.sessions import alike, sessions
from tests.users import CLOSED
from tests.wheels import offline, wheel

USES = """
import paint

def handler(event):
    return {"version": paint.VERSION}
"""


def write(folder: Path, needs: str, code: str = USES) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(code)
    (folder / "requirements.txt").write_text(needs)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A host without functions, that installs from `wheels`: paint 1.0 and 2.0."""
    monkeypatch.chdir(tmp_path)
    for version in ("1.0", "2.0"):
        wheel(tmp_path / "wheels", "paint", version)
    (tmp_path / "src").mkdir()
    one = Serving(tmp_path / "data", env=offline(tmp_path / "wheels", "uv"))
    yield one
    assert one.stop(signal.SIGTERM) == 0


def says(host: Serving, name: str) -> object:
    done = host.run("invoke", name, "--data", "1", "--remote", "--json")
    return json.loads(done.stdout)["outputs"][0]["event"]["data"]


@pytest.mark.parametrize(
    ("killed", "options"),
    [("host", []), ("host", ["--isolation", "process"]), ("R", ["--isolation", "process"])],
)
def test_a_host_that_is_killed_leaves_no_half(
    tmp_path: Path, killed: str, options: list[str]
) -> None:
    """Killed while the installer writes: that ends with it, and the next one begins anew."""
    if options and os.geteuid() == 0 and CLOSED:
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    wheels = tmp_path / "wheels"
    wheel(wheels, "paint", "1.0")
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "target = sys.argv[sys.argv.index('--target') + 1]\n"
        "open(target + '/half.py', 'w').close()\n"
        "time.sleep(60)\n"
    )
    fake.chmod(0o755)
    (tmp_path / "functions" / "f").mkdir(parents=True)
    (tmp_path / "functions" / "f" / "requirements.txt").write_text("paint\n")
    (tmp_path / "functions" / "f" / "main.py").write_text(
        "import paint\ndef handler(event): return {'version': paint.VERSION}\n"
    )
    env = {**os.environ, **offline(wheels, "uv"), "FUNCRT_DATA": str(tmp_path / "data")}
    slow = {**env, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    host = subprocess.Popen(
        [*FUNCRT, "serve", str(tmp_path / "functions"), "--port", "0", "--quiet", *options],
        env=slow,
        stderr=subprocess.DEVNULL,
    )
    try:
        packages = tmp_path / "data" / "packages"
        until(lambda: list(packages.glob(".install-*/site/half.py")) and running(fake))
        if killed == "R":
            own = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
            for pid in own:
                os.kill(int(pid), signal.SIGKILL)
            assert host.wait(30) in (1, 2)
            until(lambda: not running(fake))
    finally:
        host.kill()
        host.wait()
    until(lambda: not running(fake))
    if killed == "host":
        assert {each.name[:6] for each in packages.iterdir()} == {".insta", ".cache"}
    again = Serving(tmp_path / "data", env=offline(wheels, "uv"))
    try:
        called = again.run("invoke", "f", "--data", "1", "--remote", "--json")
        assert json.loads(called.stdout)["outputs"][0]["event"]["data"] == {"version": "1.0"}
        assert not list((tmp_path / "data" / "packages").glob(".install-*"))
    finally:
        assert again.stop(signal.SIGTERM) == 0


def test_what_cannot_be_installed_changes_nothing(host: Serving) -> None:
    write(Path("src/f"), "paint==1.0\n")
    (row,) = rows(host.run("deploy", "src/f", "--json"))
    assert row["packages"] == ["paint 1.0"]
    assert row["install_s"] > 0
    assert says(host, "f") == {"version": "1.0"}
    write(Path("src/f"), "# colours\npaint==3\n")
    write(Path("src/g"), "nosuch\n")
    refused = host.run("deploy", "src")
    assert refused.returncode == 2
    said = refused.stderr.splitlines()
    assert "✗ src/f/requirements.txt:2: cannot install paint: no version of it fits" in said
    assert any(
        line.startswith("✗ src/g/requirements.txt:1: cannot install nosuch") for line in said
    )
    assert said[-1] == "  nothing was deployed; still serving: f v1"
    assert says(host, "f") == {"version": "1.0"}
    write(Path("src/f"), "paint==2.0\n")
    assert "requirements.txt" in host.run("deploy", "src/f", "--plan").stdout
    assert rows(host.run("deploy", "src/f", "--json"))[0]["number"] == 2
    assert says(host, "f") == {"version": "2.0"}
    assert host.run("rollback", "f").returncode == 0
    assert says(host, "f") == {"version": "1.0"}, "two versions of a package side by side"


def test_a_host_that_cannot_write_says_so(host: Serving) -> None:
    write(Path("src/f"), "paint==1.0\n")
    for name in ("code", "packages"):  # as root may write to any directory
        there = Path("data", name)
        if there.is_dir():
            there.rename(f"{name}-before")
        there.write_text("")
        refused = host.run("deploy", "src/f")
        assert refused.returncode == 2
        assert re.search(
            rf"^✗ .*f: what .* cannot be kept below \S*data/{name}: .* deploy it again$"
            "\n  nothing was deployed$", refused.stderr, re.M,
        ), refused.stderr  # fmt: skip
        there.unlink()
    assert rows(host.run("deploy", "src/f", "--json"))[0]["packages"] == ["paint 1.0"]


def test_those_who_need_the_same_share_it_and_a_restart_needs_no_index(host: Serving) -> None:
    write(Path("src/f"), "paint<2\n")
    write(Path("src/g"), "paint<2  # the same\n")
    (Path("src/h")).mkdir()
    Path("src/h/main.py").write_text(USES)
    Path("src/h/funcrt.toml").write_text('dependencies = ["paint<2"]\n')
    found = rows(host.run("deploy", "src", "--json"))
    assert [row["packages"] for row in found] == [["paint 1.0"]] * 3
    assert len(list(Path("data/packages").glob("[!.]*"))) == 1
    assert rows(host.run("deploy", "src/g", "--json"))[0]["install_s"] is None
    for file in Path("wheels").glob("*.whl"):
        file.unlink()
    assert host.stop(signal.SIGKILL) == -signal.SIGKILL
    again = Serving(Path("data"), env={**offline(Path("wheels"), "uv"), "PATH": "/nowhere"})
    host.process = again.process
    assert [says(again, name) for name in "fgh"] == [{"version": "1.0"}] * 3
    described = json.loads(again.run("describe", "f", "--json").stdout)
    assert described["packages"] == ["paint 1.0"]


def test_another_is_deployed_while_one_installs(host: Serving, tmp_path: Path) -> None:
    """An installation keeps no other change waiting."""
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ntouch "$4/begun"\nsleep 60\n')
    fake.chmod(0o755)
    assert host.stop(signal.SIGTERM) == 0
    slow = {**offline(tmp_path / "wheels", "uv"), "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    one = Serving(tmp_path / "data", env=slow)
    host.process = one.process
    write(Path("src/f"), "paint\n")
    write(Path("src/g"), "", "def handler(event): ...\n")
    deploying = subprocess.Popen([*FUNCRT, "deploy", "src/f"], env=one.env)
    try:
        until(lambda: list(tmp_path.glob("data/packages/.install-*/site/begun")))
        assert one.run("deploy", "src/g").returncode == 0
        assert one.run("pause", "g").returncode == 0
    finally:
        deploying.kill()
        deploying.wait()


CHANGES = """
import os
from pathlib import Path

import paint

SITE = Path(paint.__file__).parents[1]
FILE = SITE / "paint" / "__init__.py"
TRIES = {
    "a file of its own": lambda: (SITE / "planted.py").write_text("x"),
    "a line more": lambda: FILE.open("a").write("raise SystemExit"),
    "compiled code": lambda: next(SITE.rglob("*.pyc")).write_bytes(b"x"),
    "a file less": FILE.unlink,
    "a link": lambda: (SITE / "planted").symlink_to("/etc"),
    "another name": lambda: SITE.rename(SITE.parent / "planted"),
    "another mode": lambda: SITE.chmod(0o777),
    "other times": lambda: os.utime(FILE, (1, 1)),
    "what is listed": lambda: (SITE.parent / "installed.json").write_text("[]"),
    "another set": lambda: (SITE.parents[1] / "planted").mkdir(),
}

def handler(event):
    found = {}
    for name, do in TRIES.items():
        try:
            do()
            found[name] = "done"
        except OSError as error:
            found[name] = type(error).__name__
    return found
"""


BESIDE = ("what is listed", "another name", "another set")


@pytest.mark.parametrize("options", [[], ["--isolation", "process"]], ids=["usual", "process"])
def test_what_two_functions_share_neither_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    if options and os.geteuid() == 0 and CLOSED:
        pytest.skip(f"other users cannot run this Python: {CLOSED} is closed to them")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    wheel(tmp_path / "wheels", "paint", "1.0")
    (tmp_path / "src").mkdir()
    write(Path("src/f"), "paint\n", CHANGES)
    write(Path("src/g"), "paint\n")
    one = Serving(tmp_path / "data", options, env=offline(tmp_path / "wheels", "uv"))
    try:
        assert one.run("deploy", "src").returncode == 0

        def seen() -> dict[str, object]:
            (site,) = Path("data/packages").glob("[!.]*")
            found = {str(each): each.lstat() for each in [site.parent, *site.rglob("*")]}
            return {name: (one.st_mode, one.st_size, one.st_mtime_ns, one.st_ino)
                    for name, one in found.items()}  # fmt: skip

        before = seen()
        found = says(one, "f")
        assert isinstance(found, dict)
        # In a /tmp of its own it can make what it likes, beside what it is shown there.
        inside = {how for name, how in found.items() if name not in BESIDE}
        assert inside <= {"PermissionError", "OSError"}
        assert len(found) == 10
        assert seen() == before
        assert says(one, "g") == {"version": "1.0"}
    finally:
        assert one.stop(signal.SIGTERM) == 0


def test_a_deploy_that_is_given_up_leaves_the_version_before(host: Serving, tmp_path: Path) -> None:
    """By its client, by the end of what installs, or of the host; nothing runs on."""
    assert host.stop(signal.SIGTERM) == 0
    offered = offline(tmp_path / "wheels", "uv")
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        'if grep -q paint==2 requirements.txt; then touch "$4/begun"; sleep 60; fi\n'
        f'exec {installer({**os.environ, **offered})[0]} "$@"\n'
    )
    fake.chmod(0o755)
    slow = {**offered, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    packages = tmp_path / "data" / "packages"

    def begun() -> "subprocess.Popen[str]":
        write(Path("src/f"), "paint==2.0\n")
        made = subprocess.Popen([*FUNCRT, "deploy", "src/f"], env=one.env, stderr=subprocess.PIPE,
                                text=True)  # fmt: skip
        until(lambda: list(packages.glob(".install-*/site/begun")) and running(fake))
        return made

    one = Serving(tmp_path / "data", env=slow)
    host.process = one.process
    write(Path("src/f"), "paint==1.0\n")
    assert one.run("deploy", "src/f").returncode == 0

    deploying = begun()
    deploying.send_signal(signal.SIGINT)
    deploying.communicate(timeout=10)
    assert deploying.returncode == 130
    until(lambda: not running(fake) and not list(packages.glob(".install-*")))
    assert says(one, "f") == {"version": "1.0"}

    deploying, second = begun(), begun()  # the same: it waits for the first
    (first,) = running(fake)
    deploying.send_signal(signal.SIGKILL)
    (program,) = until(lambda: [pid for pid in running(fake) if pid != first])
    os.kill(int(program), signal.SIGKILL)
    assert second.wait(20) == 2, "it is told that the installer failed"
    assert "cannot install paint" in second.communicate()[1]
    assert deploying.communicate()[1] == ""
    until(lambda: not running(fake) and not list(packages.glob(".install-*")))
    assert says(one, "f") == {"version": "1.0"}

    deploying = begun()
    began = time.monotonic()
    assert one.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 20
    assert deploying.wait(10) != 0
    deploying.communicate()
    assert not running(fake)
    assert not list(packages.glob(".install-*"))

    one = Serving(tmp_path / "data", env=slow)
    host.process = one.process
    assert says(one, "f") == {"version": "1.0"}
    assert [row["number"] for row in rows(one.run("versions", "f", "--json"))] == [1]


def test_the_page_goes_as_it_says(host: Serving) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dependencies.md").read_text()
    needs, code = re.search(r"\n```\n(pillow.*?)```.*?```python\n(.*?)```", page, re.S).groups()  # type: ignore[union-attr]
    wheel(Path("wheels"), "pillow", "11.3.0", files={"PIL/__init__.py": '__version__ = "11.3.0"\n'})
    write(Path("thumbs"), needs, code)
    shown = sessions(page)
    assert len(shown) == 2
    for command, wanted in shown:
        done = host.run(*command.split()[1:])
        assert done.returncode == 0, done.stderr
        assert alike(done.stdout, wanted, ".*"), done.stdout
    assert says(host, "thumbs") == {"pillow": "11.3.0"}
    for name in PASSED:
        kind, _, rest = name.partition("_")
        assert (
            f"`{rest if kind in ('PIP', 'UV') else name.upper()}`" in page
            or "PROXY" in name.upper()
        ), name


def test_dev_installs_what_a_save_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        wheel(tmp_path / "wheels", "paint", version)
    for name, value in offline(tmp_path / "wheels", "uv").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "functions").mkdir()
    write(tmp_path / "functions" / "f", "paint==1.0\n")
    old = tmp_path / ".funcrt" / "packages" / "old"
    old.mkdir(parents=True)
    os.utime(old, (1, 1))
    one = Dev(tmp_path)
    try:
        one.until(r"f  deps paint …")
        one.until(r"deps paint 1\.0 · \d")
        until(lambda: not old.exists())
        (tmp_path / "functions" / "f" / "requirements.txt").write_text("paint==2.0\n")
        one.until(r"f  deps paint …(.|\n)*f  deps paint 2\.0 · \d")
        one.until(r"reloaded")
        env = {**os.environ, "FUNCRT_DATA": str(tmp_path / ".funcrt")}
        done = subprocess.run(
            [*FUNCRT, "invoke", "f", "--data", "1", "--remote"],
            env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert '{"version":"2.0"}' in done.stdout
        (tmp_path / "functions" / "f" / "requirements.txt").write_text("paint==3\n")
        one.until(r"requirements\.txt:1: cannot install paint: no version of it fits")
    finally:
        one.close()
