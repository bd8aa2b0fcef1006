"""What functions need is installed once, whole or not at all, and nothing of the host is seen as it
is. By pip and by uv, from wheels made here."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from funcrt.errors import DataUnwritable, DeployError, LoadError
from funcrt.installer import DependencyError, environment, installer
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
from tests.installs import run_in_sandbox
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
        (cache / "file").write_text("large")
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
        await packages.swept([])

    run_in_sandbox(packages, main)
    assert list(packages.root.iterdir()) == []


def test_downloads_are_counted_once_something_was_installed(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a while where there are many, and each deployment sweeps."""
    wheel(wheels, "paint", "1.0")
    counted: list[Path] = []
    sweeps = 0
    """That counted."""

    def counts(directory: Path, most: Taken) -> Taken:
        counted.append(directory)
        return Taken(0, 0)

    monkeypatch.setattr("funcrt.packages.size", counts)
    packages = Packages(tmp_path / "packages")
    for line, times in (("paint", 1), ("paint", 1), ("paint>0", 2)):
        get(packages, line)
        for _ in range(2):
            counted.clear()
            asyncio.run(packages.swept([]))
            sweeps += bool(counted)
        assert sweeps == times


def test_a_load_error_is_what_a_user_reads(tmp_path: Path, wheels: Path) -> None:
    error = failed(Packages(tmp_path / "packages"), "nosuch")
    assert isinstance(error, LoadError)
    assert str(error).startswith("requirements.txt:1: cannot install nosuch: no package of that")
    assert "site-packages" not in error.traceback
