"""What functions need is installed once, whole or not at all, and nothing of the host is seen as it
is. By pip and by uv, from wheels made here."""

import asyncio
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

from funcrt.errors import DataUnwritable, DeployError, LoadError
from funcrt.installer import PASSED, DependencyError, environment, installer
from funcrt.packages import (
    KEPT_S,
    BuildsRefused,
    Installed,
    InstallStopped,
    Packages,
    _finish,
)
from funcrt.requirements import Needs
from funcrt.tree import Taken
from tests.developing import Dev
from tests.installs import run_in_sandbox
from tests.serving import FUNCRT, Serving, rows, until
from tests.sessions import alike, sessions
from tests.users import CLOSED
from tests.wheels import offline, sdist, wheel


@pytest.fixture(params=["pip", "uv"])
def wheels(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all that there is to install from."""
    (tmp_path / "wheels").mkdir()
    for name, value in offline(tmp_path / "wheels", request.param).items():
        monkeypatch.setenv(name, value)
    assert (Path(installer(os.environ)[0]).name == "uv") == (request.param == "uv")
    return tmp_path / "wheels"


def get(packages: Packages, *lines: str, **how: bool) -> Installed:
    places = {line.partition("=")[0]: at for at, line in enumerate(lines, 1)}
    needs = Needs(lines, "requirements.txt", places)
    found = run_in_sandbox(packages, lambda: packages.get("f", needs, **how))
    assert found is not None
    return found


def failed(packages: Packages, *lines: str) -> DependencyError:
    with pytest.raises(DependencyError) as caught:
        get(packages, *lines)
    assert list(packages.root.glob("[!.]*")) == [], "something half is left"
    assert list(packages.root.glob(".install-*")) == []
    return caught.value


def test_it_is_installed_once_and_then_there(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "colour", "1.0")
    wheel(wheels, "paint", "2.0", ["colour<2"])
    packages = Packages(tmp_path / "packages")
    left = packages.root / ".install-dead" / "site"  # by a command that nothing sweeps after
    left.mkdir(parents=True)
    told: list[object] = []
    packages.told = lambda *what: told.append(what[:2])
    first = get(packages, "paint")
    assert first.packages == ("colour 1.0", "paint 2.0")
    assert first.took_s is not None
    assert not left.parent.exists()
    assert (first.path / "paint" / "__init__.py").is_file()
    assert list(first.path.glob("paint/__pycache__/*.pyc")), "compiled, once for all instances"
    assert first.path.stat().st_mode & 0o777 == 0o755
    again = get(Packages(tmp_path / "packages"), "paint")
    assert again == Installed(first.path, first.packages, None)
    assert told == [("f", ["paint"]), ("f", ("colour 1.0", "paint 2.0"))]
    assert get(packages, "paint==2.0").path != first.path


def test_what_was_installed_is_told_by_names_that_an_installer_gives(tmp_path: Path) -> None:
    """And by nothing that a package says: that may be no text, or take a minute to read."""
    site = tmp_path / "site"
    for name in (
        *("Typing_Extensions-4.12.2.dist-info", "old-1.0-py3.11.egg-info", "a-1!2.0+x.dist-info"),
        *("\x1b[2J-1.0.dist-info", "x.dist-info", "two\nlines-1.dist-info", "y-1.0.dist-infos"),
    ):
        (site / name).mkdir(parents=True)
    (site / "old-1.0-py3.11.egg-info" / "PKG-INFO").write_bytes(b"Name: \xff\n")
    assert _finish(tmp_path) == ("a 1!2.0+x", "old 1.0", "typing-extensions 4.12.2")
    for number in range(1000):
        (site / f"p{number}-1.dist-info").mkdir()
    with pytest.raises(DeployError, match="it is 1003 packages; at most 1000"):
        _finish(tmp_path)


@pytest.mark.parametrize("listed", [None, "", '["paint 9.9"'])
def test_half_of_what_was_installed_does_not_pass_for_the_whole(
    tmp_path: Path, wheels: Path, listed: str | None
) -> None:
    wheel(wheels, "paint", "1.0")
    packages = Packages(tmp_path / "packages")
    found = get(packages, "paint")
    (found.path / "paint" / "__init__.py").unlink()
    (found.path.parent / "installed.json").unlink()
    if listed is not None:
        (found.path.parent / "installed.json").write_text(listed)
    again = get(Packages(tmp_path / "packages"), "paint")
    assert (again.path, again.packages) == (found.path, found.packages)
    assert (again.path / "paint" / "__init__.py").is_file()
    assert not list(packages.root.glob(".install-*"))


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "paint", "1.0")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataUnwritable) as caught:
        get(Packages(tmp_path / "file" / "packages"), "paint")
    assert str(caught.value) == (
        f"f: what it needs cannot be kept below {tmp_path}/file/packages: not a directory;"
        " see to that, and deploy it again"
    )


def test_who_asks_at_once_for_the_same_waits_for_one(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "paint", "2.0")
    packages = Packages(tmp_path / "packages")
    begun: list[str] = []
    packages.told = lambda name, _, took: begun.append(name) if took is None else None

    async def main() -> list[Installed | None]:
        needs = Needs(("paint",), "requirements.txt")
        return await asyncio.gather(*(packages.get(f"f{n}", needs) for n in range(4)))

    found = run_in_sandbox(packages, main)
    assert len({each and each.path for each in found}) == 1
    assert begun == ["f0"]


def test_a_failure_names_the_package_and_its_line(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "colour", "1.0")
    wheel(wheels, "colour", "2.0")
    wheel(wheels, "paint", "1.0", ["colour==1.0"])
    wheel(wheels, "brush", "1.0", ["colour==2.0"])
    wheel(wheels, "inner", "1.0", ["absent-thing>=1"])
    wheel(wheels, "other", "1.0", tag="cp311-cp311-linux_mips")
    sdist(wheels, "source", "1.0", f"open({str(tmp_path / 'ran')!r}, 'w')")
    packages = Packages(tmp_path / "packages")
    cases = {
        "nosuch": ("cannot install nosuch: no package of that name", 2),
        "colour==3": ("cannot install colour: no version of it fits", 2),
        "other": ("cannot install other: ", 2),
        "source": ("cannot install source: ", 2),
    }
    for line, (said, at) in cases.items():
        error = failed(packages, "paint", line)
        assert error.problem.message.startswith(said), line
        assert (error.problem.file, error.problem.line) == ("requirements.txt", at)
    assert "wheel for Python 3." in failed(packages, "other").problem.message
    assert (
        "source_builds = true would let it be built" in failed(packages, "source").problem.message
    )
    assert not (tmp_path / "ran").exists(), "setup.py ran"
    inner = failed(packages, "inner")
    assert inner.problem.message.startswith("cannot install absent-thing: no package of that name")
    assert inner.problem.line == 1, "the line of what needs it"
    clash = failed(packages, "paint", "brush")
    assert clash.problem.message.endswith("what is asked for contradicts itself")
    for word in ("paint", "brush", "colour"):
        assert word in clash.traceback


def test_what_is_built_from_source_must_be_allowed_twice(tmp_path: Path, wheels: Path) -> None:
    """By the manifest and by the host; the build's own tools are not there, so it fails late."""
    sdist(wheels, "source", "1.0", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BuildsRefused, match="this host builds nothing"):
        get(Packages(tmp_path / "packages", builds=False), "source", builds=True)
    with pytest.raises(DependencyError) as caught:
        get(Packages(tmp_path / "packages"), "source", builds=True)
    assert "source_builds" not in caught.value.problem.message


def test_what_funcrt_runs_on_stays_in_its_version(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "msgspec", "0.1")
    error = failed(Packages(tmp_path / "packages"), "msgspec==0.1")
    assert error.problem.message.startswith("cannot install msgspec")


def test_the_installer_sees_no_secret_of_the_host(tmp_path: Path) -> None:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text("[global]\nno-index = true\n")
    host = {
        "HOME": str(tmp_path),
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "s",
        "FUNCRT_TOKEN": "s",
        "PYTHONPATH": "/x",
        "PIP_TARGET": "/x",
        "UV_PROJECT": "/x",
        "PIP_INDEX_URL": "https://example.com/simple",
        "UV_INDEX_MINE_PASSWORD": "meant for it",
        "HTTPS_PROXY": "http://127.0.0.1:3128",
    }
    seen = environment(host, Path("/h"), Path("/c"), uv=False)
    assert seen["HOME"] == "/h"
    assert seen["PIP_CONFIG_FILE"] == str(tmp_path / ".config" / "pip" / "pip.conf")
    assert "UV_CONFIG_FILE" not in seen
    kept = {"PATH", "PIP_INDEX_URL", "HTTPS_PROXY"}
    assert {name for name in host if seen.get(name) == host[name]} == kept
    assert "s" not in seen.values()
    own = {"PIP_CONFIG_FILE": "/own", "HTTPS_PROXY": "http://p", "https_proxy": "http://q"}
    assert environment(own, Path("/h"), Path("/c"), uv=False)["PIP_CONFIG_FILE"] == "/own"
    by_uv = environment(host, Path("/h"), Path("/c"), uv=True)
    assert {name for name in host if by_uv.get(name) == host[name]} == {
        "PATH", "UV_INDEX_MINE_PASSWORD"
    }  # fmt: skip
    assert by_uv["https_proxy"] == host["HTTPS_PROXY"], "by a name that no metadata can ask for"
    assert environment(own, Path("/h"), Path("/c"), uv=True)["https_proxy"] == "http://q"


def test_a_package_is_configured_to_come_by_pip_alone(tmp_path: Path) -> None:
    none = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    assert installer(none)[1] == "pip"
    assert installer({**none, "PIP_INDEX_URL": "https://x"})[-1] == "pip"
    assert sys.executable in installer({**none, "PIP_INDEX_URL": "https://x"})
    both = {**none, "PIP_INDEX_URL": "https://x", "UV_INDEX_URL": "https://x"}
    assert installer(both)[0].endswith("uv")


def test_what_is_not_used_any_more_is_removed(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "paint", "1.0")
    packages = Packages(tmp_path / "packages")
    old, used, new = (get(packages, f"paint{how}") for how in (">=0", ">0", "==1.0"))
    left = packages.root / ".install-dead"
    left.mkdir()
    long_ago = time.time() - KEPT_S - 60
    for one in (old, used):
        os.utime(one.path.parent, (long_ago, long_ago))
    asyncio.run(packages.swept([used.path]))
    assert not old.path.exists()
    assert used.path.exists()
    assert new.path.exists()
    assert not left.exists()
    assert get(packages, "paint>=0").took_s is not None


def running(program: Path) -> list[str]:
    """The processes that have it among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(program).encode() in file.read_bytes().split(b"\0"):
                found.append(file.parent.name)
        except OSError:
            pass
    return found


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
            assert host.wait(30) == 2
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


def test_downloads_are_not_swept_while_they_are_installed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ntouch "$4/begun"\nsleep 60\n')
    fake.chmod(0o755)
    for name, value in offline(tmp_path / "wheels", "uv").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("funcrt.packages.MOST_CACHED", Taken(1, 0))
    packages = Packages(tmp_path / "packages")

    async def main() -> None:
        needs = Needs(("paint",), "requirements.txt")
        getting = asyncio.ensure_future(packages.get("f", needs))
        while not list(packages.root.glob(".install-*/site/begun")):
            assert not getting.done(), getting.exception()
            await asyncio.sleep(0.05)
        (cache,) = packages.root.glob(".cache*")
        left = packages.root / ".install-dead"
        left.mkdir()
        (left / "file").write_text("large")
        before = sorted(each.name for each in packages.root.iterdir() if each != left)
        await packages.swept([])
        assert sorted(each.name for each in packages.root.iterdir()) == before
        packages.stop()
        packages.stop()
        with pytest.raises(InstallStopped):
            await getting
        assert list(packages.root.glob(".install-*")) == []
        (cache / "file").write_text("large")
        await packages.swept([])

    run_in_sandbox(packages, main)
    assert list(packages.root.iterdir()) == []


def test_a_load_error_is_what_a_user_reads(tmp_path: Path, wheels: Path) -> None:
    error = failed(Packages(tmp_path / "packages"), "nosuch")
    assert isinstance(error, LoadError)
    assert str(error).startswith("requirements.txt:1: cannot install nosuch: no package of that")
    assert "site-packages" not in error.traceback


# With a host

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
