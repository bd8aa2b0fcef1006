"""What a function says that it needs, wherever it says so."""

import json
from pathlib import Path

import pytest

from funcrt.errors import ManifestError
from funcrt.manifest import load_manifest, needs_of
from funcrt.requirements import allows, read_needs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = Path("f")
    made.mkdir()
    (made / "main.py").write_text("")
    return made


def lines(folder: Path) -> tuple[str, ...]:
    return needs_of(folder, load_manifest(folder)).lines


def refused(folder: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder)
    return str(caught.value).split("\n")


def test_each_of_three_places_is_read(folder: Path) -> None:
    assert lines(folder) == ()
    asked = ("numpy", "pillow>=11")
    (folder / "requirements.txt").write_text("Pillow>=11\nnumpy".replace("P", "p"))
    assert lines(folder) == asked
    (folder / "requirements.txt").unlink()
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["pillow>=11", "numpy"]\n')
    assert lines(folder) == asked
    (folder / "pyproject.toml").write_text(
        '[tool.funcrt]\ndependencies = ["pillow>=11", "numpy"]\n'
    )
    needs = needs_of(folder, load_manifest(folder))
    assert (needs.lines, needs.file) == (asked, "pyproject.toml")
    (folder / "pyproject.toml").unlink()
    (folder / "funcrt.toml").write_text('dependencies = [\n  "pillow>=11",\n  "numpy",\n]\n')
    needs = needs_of(folder, load_manifest(folder))
    assert (needs.lines, needs.file) == (asked, "funcrt.toml")
    assert needs.places == {"pillow": 2, "numpy": 3}


def test_two_places_are_one_too_many(folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n')
    both = "requirements.txt and [project] dependencies of pyproject.toml; keep one of them"
    assert refused(folder) == [f"f/requirements.txt: what it needs is said in {both}"]
    (folder / "requirements.txt").write_text("# nothing\n")
    assert lines(folder) == ("numpy",)
    (folder / "funcrt.toml").write_text('dependencies = ["numpy"]\n')
    assert "said in dependencies of funcrt.toml and [project]" in refused(folder)[0]


def test_what_a_lock_file_holds_is_taken(folder: Path) -> None:
    (folder / "requirements.txt").write_text(
        "\ufeff# made by a tool\n"
        "--require-hashes\n"
        "pillow==11.0.0 ; python_version >= '3.9' \\\r\n"
        "    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "    # via thumbs\n"
        "Typing_Extensions[all] @ https://example.com/t.whl#sha256=cc  # pinned\n"
        "-r more/base.txt\nfuncrt>=0.1\n"
    )
    (folder / "more").mkdir()
    (folder / "more" / "base.txt").write_text("-r ../requirements.txt\n-r deep.txt\n")
    (folder / "more" / "deep.txt").write_text("numpy~=2.0\n")
    found = refused(folder)
    assert found == ["f/more/base.txt:1: ../requirements.txt is not in the function's folder"]
    (folder / "more" / "base.txt").write_text("-r deep.txt\n-r deep.txt\n")
    assert lines(folder) == (
        "Typing_Extensions[all] @ https://example.com/t.whl#sha256=cc",
        "numpy~=2.0",
        "pillow==11.0.0 ; python_version >= '3.9' --hash=sha256:aa --hash=sha256:bb",
    )
    needs = needs_of(folder, load_manifest(folder))
    assert needs.names == ["typing-extensions", "numpy", "pillow"]
    assert needs.places == {"pillow": 3, "typing-extensions": 7, "funcrt": 9}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--index-url https://x", "2: --index-url is not taken here; where packages come from is"),
        ("--extra-index-url=https://x", "2: --extra-index-url is not taken here"),
        ("-e .", "2: -e is not taken here"),
        (
            "./vendored.whl",
            '2: expected a requirement such as "pillow>=11", found "./vendored.whl"',
        ),
        ("x @ file:///etc/passwd", "2: expected a requirement such as"),
        ("x @ git+https://x/y", "2: expected a requirement such as"),
        ("-r nowhere.txt", "2: nowhere.txt cannot be read: No such file or directory"),
        ("-r /etc/hosts", "2: /etc/hosts is not in the function's folder"),
        ("two words", "2: expected a requirement such as"),
        ("x @ https://${UV_INDEX_MINE_PASSWORD}.test/x.whl", "2: variables are not taken here"),
        ("x>=1 \\ ", "2: expected a requirement such as"),
        ("x>=1\0", "2: expected a requirement such as"),
    ],
)
def test_what_is_no_requirement_is_told_with_its_line(folder: Path, text: str, said: str) -> None:
    (folder / "requirements.txt").write_text(f"numpy\n{text}\n")
    (found,) = refused(folder)
    assert found.startswith(f"f/requirements.txt:{said}")


def test_mistakes_in_toml_have_their_lines(folder: Path) -> None:
    (folder / "funcrt.toml").write_text('dependencies = [\n  "numpy",\n  "-r x",\n  3,\n]\n')
    assert refused(folder) == [
        'f/funcrt.toml:3: dependencies[1]: expected a requirement such as "pillow>=11",'
        ' found "-r x"',
        'f/funcrt.toml:4: dependencies[2]: expected a requirement such as "pillow>=11", found 3',
    ]
    (folder / "funcrt.toml").unlink()
    (folder / "pyproject.toml").write_text('[project]\ndependencies = [\n  "a b",\n]\n')
    assert refused(folder) == [
        "f/pyproject.toml:3: project.dependencies[0]: expected a requirement such as"
        ' "pillow>=11", found "a b"'
    ]
    (folder / "pyproject.toml").write_text('[project]\ndependencies = "numpy"\n')
    assert refused(folder)[0].endswith('expected an array of requirements, found "numpy"')


@pytest.mark.parametrize("between", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", " \\\n"])
def test_a_requirement_is_one_line_whatever_ends_one(folder: Path, between: str) -> None:
    """pip and uv read a file of them, where the second line would be an option."""
    listed = json.dumps([f"numpy{between}--index-url=https://x", "x @ https://y/${PIP_INDEX_URL}"])
    for file, head in (("funcrt.toml", ""), ("pyproject.toml", "[project]\n")):
        (folder / file).write_text(f"{head}dependencies = {listed}\n")
        lines = refused(folder)
        assert len(lines) == 2
        assert 'expected a requirement such as "pillow>=11", found "numpy' in lines[0]
        assert "dependencies[1]: variables are not taken here" in lines[1]
        (folder / file).unlink()


def test_what_a_container_has_is_its_image_s(folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy\n")
    assert lines(folder) == ("numpy",)
    (folder / "funcrt.toml").write_text('[sandbox]\nisolation = "container"\n')
    assert lines(folder) == ()
    (folder / "requirements.txt").write_text("-e .\n")
    assert refused(folder)[0].startswith("f/requirements.txt:1: -e is not taken here")


@pytest.mark.parametrize(
    ("asked", "taken", "refused"),
    [
        ("", ["3.11.0"], []),
        (">=3.12", ["3.12.0", "3.12.1", "4.0.0"], ["3.11.9"]),
        (">=3.11, <3.13", ["3.11.0", "3.12.9"], ["3.13.0", "3.10.1"]),
        ("==3.12.*", ["3.12.0", "3.12.30"], ["3.11.0", "3.13.0"]),
        ("==3.12", ["3.12.0"], ["3.12.1"]),
        ("!=3.12.*,>3.11", ["3.11.1", "3.13.0"], ["3.12.4", "3.11.0"]),
        ("~=3.11", ["3.11.0", "3.14.2"], ["4.0.0", "3.10.9"]),
        ("~=3.11.2", ["3.11.2", "3.11.9"], ["3.11.1", "3.12.0"]),
        ("<=3.12.1", ["3.12.1"], ["3.12.2"]),
        ("^3.11, whatever", ["3.10.0"], []),
    ],
)
def test_what_a_project_says_of_python(asked: str, taken: list[str], refused: list[str]) -> None:
    assert [each for each in taken + refused if allows(asked, each)] == taken


def test_a_project_s_python_is_read_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.12"\n')
    (tmp_path / "requirements.txt").write_text("pillow\n")
    needs = read_needs(tmp_path)
    assert (needs.names, needs.python, needs.python_line) == (["pillow"], ">=3.12", 2)
    (tmp_path / "pyproject.toml").write_text("[project]\nrequires-python = 3\n")
    assert read_needs(tmp_path).python == ""
