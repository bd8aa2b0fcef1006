"""Finding the Pythons of a machine, what is said where one is missing, and what is installed for
one. By interpreters that are scripts, which say what a Python would."""

import asyncio
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

import funcrt.wheels
from funcrt.errors import LoadError, ManifestError
from funcrt.installer import RUNTIME, run_installer
from funcrt.manifest import Manifest, load_manifest
from funcrt.manifest_kinds import OLDEST_PYTHON
from funcrt.packages import DEBUGGER, KEPT_S, Packages, PythonUnusable
from funcrt.pythons import PythonMissing, find, is_own, look, python_of
from funcrt.requirements import Needs
from funcrt.sandbox.interpreter import Interpreter
from funcrt.sandbox.workshop import Job, Place, Workshop
from funcrt.testing import load
from funcrt.trial import trial
from funcrt.wheels import versions
from tests.installs import run_in_sandbox
from tests.pythons import same
from tests.wheels import offline, wheel

ROOT = Path(__file__).parents[2]
OWN = "{}.{}.{}".format(*sys.version_info[:3])


def fake(directory: Path, number: str, **more: object) -> str:
    """`pythonX.Y` in a directory; where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"python{'.'.join(number.split('.')[:2])}"
    abi = f"cpython-{''.join(number.split('.')[:2])}"
    python = {
        "executable": str(file), "version": number, "abi": abi, "platform": "linux", "pip": False,
        "paths": [str(file), "/lib/x"],
    }  # fmt: skip
    told = {"final": True, "implementation": "cpython", "free_threaded": False, **more}
    told["python"] = python | {name: told.pop(name) for name in python if name in told}
    file.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    file.chmod(0o755)
    return str(file)


def only(environ: dict[str, str], root: Path) -> list[str]:
    """What is found below a directory: this machine has its own besides."""
    found = [each.executable for each in look(environ).found]
    return [each for each in found if each.startswith(str(root))]


def test_pythons_are_found_where_people_have_them(tmp_path: Path) -> None:
    path = fake(tmp_path / "bin", "3.12.9")
    pyenv = fake(tmp_path / "pyenv/versions/3.12.1/bin", "3.12.1")
    uv = fake(tmp_path / "uv/cpython-3.14.0-linux-x86_64-gnu/bin", "3.14.0")
    fake(tmp_path / "bin", "3.10.4")
    environ = {
        "PATH": str(tmp_path / "bin"),
        "PYENV_ROOT": str(tmp_path / "pyenv"),
        "UV_PYTHON_INSTALL_DIR": str(tmp_path / "uv"),
    }
    assert only(environ, tmp_path) == [uv, path, pyenv], "the newest first, and none below 3.11"
    home = tmp_path / "home"
    of_pyenv = fake(home / ".pyenv/versions/3.13.2/bin", "3.13.2")
    of_uv = fake(home / ".local/share/uv/python/cpython-3.13.1/bin", "3.13.1")
    assert only({"PATH": "", "HOME": str(home)}, tmp_path) == [of_pyenv, of_uv]


def test_a_script_that_chooses_is_no_python_where_it_chooses_none(tmp_path: Path) -> None:
    real = fake(tmp_path / "opt", "3.98.1")
    shims = tmp_path / "shims"
    fake(shims, "3.98.1", executable=real)
    (shims / "python3.97").write_text("#!/bin/sh\nexit 127\n")
    (shims / "python3.97").chmod(0o755)
    looked = look({"PATH": str(shims)})
    assert real in [each.executable for each in looked.found]
    assert str(shims / "python3.97") not in str(looked.passed)


def test_a_link_leads_to_the_python_it_is_of(tmp_path: Path) -> None:
    real = fake(tmp_path / "opt", "3.12.9")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python3.12").symlink_to(real)
    found = find("f", "3.12.9", {"PATH": f"{tmp_path}/a:{tmp_path}/b"})
    assert found.executable == real
    assert found.paths == (real, "/lib/x")


def test_the_newest_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    new, old = fake(tmp_path / "new", "3.98.10"), fake(tmp_path / "old", "3.98.9")
    fake(tmp_path / "beta", "3.98.11", final=False)
    environ = {"PATH": f"{tmp_path}/old:{tmp_path}/beta:{tmp_path}/new"}
    assert find("f", "3.98", environ).executable == new
    assert find("f", "3.98.9", environ).executable == old
    with pytest.raises(PythonMissing):
        find("f", "3.98.1", environ)


def test_what_is_missing_is_said_with_what_is_there(tmp_path: Path) -> None:
    there = fake(tmp_path / "bin", "3.98.1")
    fake(tmp_path / "pypy", "3.99.0", implementation="pypy")
    fake(tmp_path / "free", "3.99.1", free_threaded=True)
    broken = tmp_path / "broken/python3.99"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    broken.chmod(0o755)
    path = ":".join(str(tmp_path / name) for name in ("bin", "pypy", "free", "broken"))
    with pytest.raises(PythonMissing) as caught:
        find("label", "3.99", {"PATH": path})
    said = str(caught.value)
    assert said.startswith('label: python = "3.99", and this machine has no such Python; it has ')
    assert f"3.98.1 ({there})" in said
    assert "uv python install 3.99" in said
    assert "the directory of its python3.99 on the PATH" in said
    assert f"{tmp_path}/pypy/python3.99 is pypy; functions need CPython" in said
    assert f"{tmp_path}/free/python3.99 is a free-threaded build" in said
    assert f"{broken} does not start: no such library" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_what_is_closed_to_the_host_is_named(tmp_path: Path) -> None:
    fake(tmp_path / "pyenv/versions/3.99.1/bin", "3.99.1")
    (tmp_path / "pyenv/versions").chmod(0)
    with pytest.raises(PythonMissing, match=rf"may not look into {tmp_path}/pyenv/versions"):
        find("label", "3.99", {"PATH": "", "PYENV_ROOT": str(tmp_path / "pyenv")})


def test_one_that_was_replaced_is_asked_again(tmp_path: Path) -> None:
    path = fake(tmp_path / "bin", "3.98.1")
    assert find("f", "3.98", {"PATH": str(tmp_path / "bin")}).version == "3.98.1"
    fake(tmp_path / "bin", "3.98.2")
    os.utime(path, ns=(1, 1))
    assert find("f", "3.98", {"PATH": str(tmp_path / "bin")}).version == "3.98.2"


def test_the_host_s_own_needs_no_looking_for(tmp_path: Path) -> None:
    minor = f"3.{sys.version_info[1]}"
    assert is_own(minor)
    assert is_own(OWN)
    assert not is_own(f"{OWN}9")
    assert not is_own("3.1")
    for asked in ("", minor, OWN):
        manifest = Manifest(name="f", python=asked)
        assert asyncio.run(python_of(manifest, Needs(), Packages(tmp_path))) is None


def test_a_python_that_its_project_excludes_is_refused_with_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever would run it: what uv and pip refuse is not tried."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f/main.py").write_text("def handler(event): pass\n")
    project = tmp_path / "f/pyproject.toml"

    async def tried() -> None:
        async with trial(tmp_path / "f"):
            pass

    project.write_text('[project]\nname = "f"\nrequires-python = ">=3.98"\n')
    with pytest.raises(LoadError) as caught:
        asyncio.run(tried())
    assert str(caught.value) == (
        f'{project}:3: project.requires-python: ">=3.98", and the function runs in Python {OWN};'
        " install one that fits, and ask for it by python in its manifest"
    )
    fake(tmp_path / "bin", "3.98.1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(LoadError, match=r'; python = "3.98" in its manifest runs it in 3.98.1, w'):
        asyncio.run(tried())
    project.write_text('[project]\nname = "f"\nrequires-python = ">=3.11"\n')
    asyncio.run(tried())


# The manifest


def manifest(folder: Path, text: str) -> Manifest:
    (folder / "funcrt.toml").write_text(text)
    return load_manifest(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python = 3.12", 'expected a version in quotes, found 3.12; write python = "3.12"'),
        ('python = "3.9"', 'functions run in Python 3.11 or newer, found "3.9"'),
        ('python = "2.7.18"', 'functions run in Python 3.11 or newer, found "2.7.18"'),
        ('python = ">=3.12"', 'a version of Python such as "3.12" or "3.12.1", found ">=3.12"'),
        ('python = "/usr/bin/python3.12"', 'a version of Python such as "3.12" or "3.12.1", found'),
        ('python = "3.12"\n[sandbox]\nisolation = "container"', "has the Python of its image"),
    ],
)
def test_what_a_manifest_may_not_say(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=r"funcrt.toml:1: python: ") as caught:
        manifest(tmp_path, text)
    assert said in str(caught.value)


def test_what_a_manifest_may_say(tmp_path: Path) -> None:
    for asked in ("3.11", "3.12.1", "3.100"):
        assert manifest(tmp_path, f'python = "{asked}"').python == asked


def test_a_test_says_that_it_runs_in_another_python(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(event): pass\n")
    (tmp_path / "funcrt.toml").write_text('python = "3.99"')
    with pytest.raises(LoadError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/funcrt.toml: python: it runs in Python 3.99, and a test")
    assert OWN in said
    assert "funcrt invoke --local" in said
    (tmp_path / "funcrt.toml").write_text(f'python = "{OWN}"')
    assert load(tmp_path).call({}).status == "ok"


# What is installed for one


@pytest.fixture(params=["pip", "uv"])
def wheels(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all that there is to install from."""
    (tmp_path / "wheels").mkdir()
    for name, value in offline(tmp_path / "wheels", request.param).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wheels"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets wheels pass for those that funcrt knows."""
    file = tmp_path / "wheels.sha256"
    monkeypatch.setattr("funcrt.wheels.FILE", file)
    monkeypatch.setattr("funcrt.wheels._known", funcrt.wheels._known.__wrapped__)

    def know(*made: Path) -> None:
        lines = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in made]
        file.write_text("".join(lines))

    return know


def test_what_a_process_runs_on_is_installed_once_a_python(
    tmp_path: Path, wheels: Path, known: Callable[..., None]
) -> None:
    known(wheel(wheels, "msgspec", "7.1"))
    wheel(wheels, "msgspec", version("msgspec"))
    (tmp_path / "there").mkdir()
    python = same(tmp_path / "there")
    packages = Packages(tmp_path / "packages")
    told: list[object] = []
    packages.told = lambda *what: told.append(what[:2])
    old = os.umask(0o077)
    try:
        made = run_in_sandbox(packages, lambda: packages.library("f", python))
    finally:
        os.umask(old)
    library = Path(made.library)
    for name in ("msgspec/__init__.py", "funcrt/sandbox/zygote.py", "mesh/event.py"):
        assert (library / name).is_file()
        for each in (library / name, *(library / name).parents):
            assert each.stat().st_mode & 0o044 == 0o044, each
            if each == packages.root / library.parent.name:
                break
    assert list(library.glob("funcrt/sandbox/__pycache__/zygote.*.pyc")), "compiled, once for all"
    assert not (library / "funcrt/cli").exists(), "no function's process runs it"
    assert told == [
        ("f", [f"msgspec (Python {OWN})"]), ("f", ("msgspec 7.1",)),
    ]  # fmt: skip
    assert asyncio.run(Packages(packages.root, install=False).library("g", python)) == made
    assert len(told) == 2
    asyncio.run(packages.swept([library]))
    os.utime(library.parent, (0, 0))
    asyncio.run(packages.swept([library]))
    assert library.is_dir(), "in use"
    os.utime(library.parent, (0, KEPT_S))
    asyncio.run(packages.swept([]))
    assert not library.exists()


def test_the_debugger_comes_along_where_a_host_has_one(
    tmp_path: Path, wheels: Path, known: Callable[..., None]
) -> None:
    known(*(wheel(wheels, name, version(name)) for name in ("msgspec", "debugpy")))
    (tmp_path / "there").mkdir()
    python, packages = same(tmp_path / "there"), Packages(tmp_path / "packages")
    plain = run_in_sandbox(packages, lambda: packages.library("f", python))
    packages.debugging = True
    made = run_in_sandbox(packages, lambda: packages.library("f", python))
    assert made.library != plain.library
    assert not Path(plain.library, "debugpy").exists()
    assert Path(made.library, "debugpy/__init__.py").is_file()


@pytest.mark.parametrize("with_debugger", [False, True])
def test_a_wheel_that_an_index_has_swapped_is_refused_in_words(
    tmp_path: Path, wheels: Path, known: Callable[..., None], with_debugger: bool
) -> None:
    made = [wheel(wheels, name, "7.1") for name in ("msgspec", "debugpy")]
    known(*made)
    swapped = "debugpy" if with_debugger else "msgspec"
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    wheel(wheels, swapped, "7.1", files={f"{swapped}/__init__.py": evil})
    (tmp_path / "there").mkdir()
    python, packages = same(tmp_path / "there"), Packages(tmp_path / "packages")
    packages.debugging = with_debugger
    with pytest.raises(PythonUnusable) as caught:
        run_in_sandbox(packages, lambda: packages.library("label", python))
    first, *rest = str(caught.value).splitlines()
    assert first == (
        f"label: Python {OWN} ({python.executable}): cannot install {swapped}: what was downloaded"
        " does not have its hash, which funcrt has with it: somebody else's file was handed out, or"
        " one that was built anew; let it be had from an index that has the one of PyPI"
    )
    assert hashlib.sha256(made[not with_debugger].read_bytes()).hexdigest() not in str(rest)
    assert "sha256" in str(rest)
    assert list(packages.root.glob("[!.]*")) == []
    assert not (tmp_path / "ran").exists()


def test_what_a_function_needs_there_is_held_to_the_same_version(
    tmp_path: Path, wheels: Path, known: Callable[..., None]
) -> None:
    known(wheel(wheels, "msgspec", "7.1"))
    wheel(wheels, "msgspec", "7.2")
    (tmp_path / "there").mkdir()
    python, packages = same(tmp_path / "there"), Packages(tmp_path / "packages")
    needs = Needs(("msgspec>=7",), "requirements.txt")
    found = run_in_sandbox(packages, lambda: packages.get("f", needs, python=python))
    assert found is not None
    assert found.packages == ("msgspec 7.1",)


def test_the_hashes_are_of_what_the_lock_has_and_of_each_machine() -> None:
    files = [line.split("  ") for line in funcrt.wheels.FILE.read_text().splitlines()]
    assert [name for digest, name in files if not re.fullmatch(r"[0-9a-f]{64}", digest)] == []
    locked = (ROOT / "requirements.lock").read_text().split()
    asked = versions([*RUNTIME, DEBUGGER])
    assert set(asked) <= set(locked), "make wheels"
    assert {"==".join(name.split("-")[:2]) for _, name in files} == set(asked)
    newest = max(sys.version_info[1], 14)
    for minor in range(OLDEST_PYTHON[1], newest + 1):
        for libc in ("manylinux", "musllinux"):
            for machine in ("x86_64", "aarch64"):
                of = rf"msgspec-[0-9.]+-cp3{minor}-cp3{minor}-\S*{libc}\S*_{machine}\.whl"
                assert any(re.fullmatch(of, name) for _, name in files), of


def test_a_python_without_a_wheel_is_refused_in_words(
    tmp_path: Path, wheels: Path, known: Callable[..., None]
) -> None:
    known(wheel(wheels, "msgspec", "7.1", tag="cp399-cp399-linux_mips"))
    (tmp_path / "there").mkdir()
    python = same(tmp_path / "there")
    packages = Packages(tmp_path / "packages")
    with pytest.raises(PythonUnusable) as caught:
        run_in_sandbox(packages, lambda: packages.library("label", python))
    assert str(caught.value).startswith(
        f"label: Python {OWN} ({python.executable}): cannot install msgspec: "
    )
    assert list((tmp_path / "packages").glob("[!.]*")) == []


def test_a_host_that_installs_nothing_says_so(tmp_path: Path) -> None:
    python = Interpreter("/x/python3.99", "3.99.1", "cpython-399", "linux", ())
    with pytest.raises(PythonUnusable, match=r"this host installs nothing: start it once without"):
        asyncio.run(Packages(tmp_path, install=False).library("label", python))


def test_pip_is_that_of_the_python_it_installs_for(tmp_path: Path, wheels: Path) -> None:
    """One that is older than a Python does not run in it. uv is one for all."""
    ran: list[Sequence[str]] = []

    class Recorder(Workshop):
        def __init__(self) -> None: ...

        async def run(self, job: Job, place: Place) -> tuple[int, str]:
            ran.append(job.command)
            return 0, ""

    other = Interpreter("/x/python3.99", "3.99.1", "cpython-399", "linux", ())
    needs = Needs(("paint",), "requirements.txt")
    for python in (other, msgspec.structs.replace(other, pip=True)):
        (tmp_path / python.abi / str(python.pip)).mkdir(parents=True)
        work, place = tmp_path / python.abi / str(python.pip), Place("f", False, "none")
        asyncio.run(run_installer(work, needs, tmp_path, Recorder(), place, python=python))
    lent, own = ran
    if lent[1] == "pip":  # of uv
        assert lent[lent.index("--python") + 1] == own[own.index("--python") + 1] == "/x/python3.99"
    else:
        assert lent[:2] == ["/x/python3.99", "-I"]
        assert lent[2].endswith("/pip/__pip-runner__.py")
        assert own[:5] == ["/x/python3.99", "-I", "-m", "pip", "install"]


def test_packages_for_another_python_lie_apart(tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "paint", "2.0")
    (tmp_path / "there").mkdir()
    packages, needs = Packages(tmp_path / "packages"), Needs(("paint",), "requirements.txt")
    own = run_in_sandbox(packages, lambda: packages.get("f", needs))
    python = same(tmp_path / "there")
    again = run_in_sandbox(packages, lambda: packages.get("f", needs, python=python))
    assert own is not None
    assert again is not None
    assert again.path == own.path, "it is the same ABI"
    assert sysconfig.get_config_var("SOABI") == python.abi
    other = Interpreter(python.executable, python.version, "cpython-x", python.platform, ())
    apart = run_in_sandbox(packages, lambda: packages.get("f", needs, python=other))
    assert apart is not None
    assert apart.path != own.path
    assert apart.packages == own.packages
