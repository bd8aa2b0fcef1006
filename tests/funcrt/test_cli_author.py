"""The commands an author begins with: `new` and `test`."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from funcrt.scaffold import TEMPLATES, make, nearest_name, templates
from funcrt.testing.samples import read_samples, sample_files

FUNCRT = [sys.executable, "-m", "funcrt"]


def run(*words: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [*FUNCRT, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


# new


def test_the_templates_are_those_of_the_folder() -> None:
    assert {path.name for path in templates().iterdir() if path.is_dir()} == set(TEMPLATES)


def test_every_template_passes_its_own_test_as_created(tmp_path: Path) -> None:
    for name in TEMPLATES:
        make(f"my-{name}", name, tmp_path)
        for directory in [tmp_path / f"my-{name}", *(tmp_path / f"my-{name}").iterdir()]:
            for file in sample_files(directory) if directory.is_dir() else ():
                assert all(sample.expected for sample in read_samples(file))
        assert not [
            path
            for path in (tmp_path / f"my-{name}").rglob("*")
            if path.is_file() and "NAME" in path.read_text()
        ]
    code, out, err = run("test", *(f"my-{name}" for name in TEMPLATES), "--json", cwd=tmp_path)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0, err
    assert {row["outcome"] for row in rows} == {"passed"}
    for name in TEMPLATES:
        kinds = {row["kind"] for row in rows if row["test"].startswith(f"my-{name}/")}
        assert kinds == {"sample", "test"}, name


def test_new_says_what_it_made_and_what_to_type_next(tmp_path: Path) -> None:
    assert run("new", "hello", cwd=tmp_path) == (
        0,
        "✓ hello: main.py, funcrt.toml, tests/test_main.py, events/large.json, events/other.json\n"
        "  funcrt test hello\n  funcrt invoke hello --sample large\n  funcrt dev hello\n",
        "",
    )
    code, out, _ = run(
        "new", "b c".replace(" ", ""), "--template", "chain", "--directory", "x y", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    row = json.loads(out)
    assert (code, row["template"], row["directory"]) == (0, "chain", "x y/bc")
    assert all((tmp_path / "x y" / "bc" / file).is_file() for file in row["files"])
    assert (tmp_path / "hello").stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "✗ a function needs a name\n  try: funcrt new hello\n"),
        (
            ("My Function!",),
            "✗ 'My Function!' cannot be a function's name, which may have a-z A-Z 0-9 . _ - and"
            " begins with a letter or digit; My-Function would do\n"
            "  try: funcrt new My-Function\n",
        ),
        (
            ("funcrt.x",),
            "✗ 'funcrt.x' cannot be a function's name, which may not begin with funcrt., which is"
            " the host's own; x would do\n  try: funcrt new x\n",
        ),
        (
            ("functions/hello",),
            "✗ functions/hello is a path, expected a name\n"
            "  try: funcrt new hello --directory functions\n",
        ),
        (
            ("there",),
            "✗ there is there already (a directory), and is left as it is\n  try: another name\n",
        ),
        (
            ("x", "--template", "htp"),
            "✗ no template is named 'htp'; did you mean http?\n"
            "  try: funcrt new x --template http\n",
        ),
    ],
)
def test_what_new_refuses(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "there").mkdir()
    assert run("new", *words, cwd=tmp_path) == (2, "", message)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_nearest_name_is_a_name() -> None:
    given = {
        "größe": "große",
        " a  b ": "a-b",
        "--x": "x",
        "é": "e",
        "日本": "",
        "a" * 300: "a" * 188,
    }
    assert {name: nearest_name(name) for name in given} == given | {"größe": "groe"}


def test_nothing_half_made_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        make("x", "event", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_new_asks_on_a_terminal(tmp_path: Path) -> None:
    main, other = pty.openpty()
    process = subprocess.Popen(
        [*FUNCRT, "new"], cwd=tmp_path, stdin=other, stdout=other, stderr=other,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(other)
    os.write(main, b"a b\nok\nbach\nbatch\n")
    said = b""
    while chunk := _read(main):
        said += chunk
    os.close(main)
    assert process.wait(30) == 0, said
    text = said.decode()
    assert "a-b would do" in text
    assert "Please select one of the available options" in text
    assert (tmp_path / "ok" / "main.py").read_text() == (templates() / "batch/main.py").read_text()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


def test_the_wheel_has_the_templates(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(root)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code, _, err = run("new", "x", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "installed")})
    assert code == 0, err
    made = tmp_path / "installed" / "funcrt" / "templates"
    files = {path.relative_to(templates()) for path in templates().rglob("*.*") if path.is_file()}
    files = {path for path in files if path.suffix != ".pyc"}
    assert {path.relative_to(made) for path in made.rglob("*.*") if path.is_file()} == files


def test_the_image_is_built_from_all_that_the_wheel_holds() -> None:
    root = Path(__file__).parent.parent.parent
    target = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = target["targets"]["wheel"]
    dockerfile = (root / "Dockerfile").read_text()
    for name in (*wheel["packages"], *wheel["force-include"]):
        assert f"COPY {name} /src/{name}\n" in dockerfile


# test


def test_a_function_that_does_something_else_fails(tmp_path: Path) -> None:
    make("f", "event", tmp_path)
    main = tmp_path / "f" / "main.py"
    main.write_text(main.read_text().replace('"large"', '"big"'))
    code, out, _ = run("test", "f", cwd=tmp_path)
    assert code == 1
    assert "f: sample large" in out
    assert '-        "size": "large"\n+        "size": "big"' in out
    assert "1 failed, 3 passed" in out
    code, out, err = run("test", "f", "--json", "-k", "large", cwd=tmp_path)
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert (code, row["test"], row["outcome"]) == (1, "f/events/large.json::large", "failed")
    assert row["message"].startswith("--- large.expected.json")
    assert "1 failed" in err
    code, out, _ = run("test", cwd=tmp_path / "f")
    assert (code, "1 failed, 3 passed" in out) == (1, True)
    assert run("test", "f", "--", "-k", "small", cwd=tmp_path)[0] == 0


def test_a_test_imports_its_own_main(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(name, "event", tmp_path)
        more = f"from main import handler, NAME\ndef test_own(): assert NAME == {name!r}\n"
        (tmp_path / name / "tests" / "test_own.py").write_text(more)
        with (tmp_path / name / "main.py").open("a") as main:
            main.write(f"\n\nNAME = {name!r}\n")
    code, out, _ = run("test", ".", cwd=tmp_path)
    assert (code, "10 passed" in out) == (0, True), out


def test_a_sample_that_cannot_be_read_fails_with_its_place(tmp_path: Path) -> None:
    make("f", "event", tmp_path)
    (tmp_path / "f" / "events" / "large.json").write_text("{\n")
    (tmp_path / "f" / "main.py").write_text("def handlr(event): pass\n")
    code, out, _ = run("test", "f", "--json", cwd=tmp_path)
    rows = {json.loads(line)["test"]: json.loads(line) for line in out.splitlines()}
    assert code == 1
    assert rows["f/events/large.json"]["outcome"] == "error"
    assert "events/large.json:2: not JSON" in rows["f/events/large.json"]["message"]
    other = rows["f/events/other.json::other"]
    assert other["message"] == (
        'f/main.py: no function handler; functions found: handlr; did you mean "handlr"?'
    ).replace("f/main.py", str(tmp_path / "f" / "main.py"))


def test_what_test_refuses(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make("f", "event", tmp_path)
    shutil.rmtree(tmp_path / "f" / "tests")
    shutil.rmtree(tmp_path / "f" / "events")
    code, _, err = run("test", "nowhere", cwd=tmp_path)
    assert (code, err.splitlines()[0]) == (
        2,
        "✗ nowhere does not exist, expected a function's directory, or one of functions",
    )
    code, _, err = run("test", "empty", cwd=tmp_path)
    assert (code, err) == (2, "✗ no function in empty; expected empty/NAME/main.py\n")
    make("chain", "chain", tmp_path / "functions")
    assert run("test", cwd=tmp_path) == (
        2,
        "",
        "✗ no function in functions; expected functions/NAME/main.py\n"
        "  try: funcrt test functions/chain\n",
    )
    code, _, err = run("test", "f", cwd=tmp_path)
    assert code == 2
    assert err.splitlines() == [
        "! f has no tests and no sample events",
        "✗ there is nothing to test; write tests/test_main.py, or events/NAME.json with"
        " NAME.expected.json beside it",
    ]


def test_without_pytest_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pytest' else find(name, *a)\n"
        "from funcrt.cli import main\nmain(['test', '.'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "✗ funcrt test needs pytest, which is not installed beside funcrt\n"
        f"  try: {sys.executable} -m pip install 'pytest>=8.3'\n",
    )
