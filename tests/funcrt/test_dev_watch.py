"""What of a changed tree counts, and for which function."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcrt.bundle import files, ignored, pack
from funcrt.dev.reload import _differing
from funcrt.dev.watch import folder_of, folders

AMONG = [Path("/f/a"), Path("/f/ab")]


@pytest.mark.parametrize(
    ("path", "counts_for"),
    [
        ("/f/a/main.py", "/f/a"),
        ("/f/a", "/f/a"),
        ("/f/ab/lib/deep/x.py", "/f/ab"),
        ("/f/a/.github/x", "/f/a"),
        ("/f/abc/main.py", None),
        ("/f", None),
        ("/f/a/.git/index.lock", None),
        ("/f/a/__pycache__/main.cpython-311.pyc", None),
        ("/f/a/.venv/lib/x.py", None),
        ("/f/a/.funcrt/mesh.db-wal", None),
        ("/f/a/.main.py.swp", None),
        ("/f/a/.main.py.swx", None),
        ("/f/a/main.py~", None),
        ("/f/a/4913", None),
        ("/f/a/.#main.py", None),
        ("/f/a/#main.py#", None),
        ("/f/a/main.py___jb_tmp___", None),
        ("/f/a/main.py___jb_old___", None),
        ("/f/a/.goutputstream-ABC", None),
    ],
)
def test_a_path_counts_for_its_folder_or_not_at_all(path: str, counts_for: str | None) -> None:
    found = folder_of(Path(path), AMONG)
    assert found == (Path(counts_for) if counts_for else None)


PARTS = st.lists(st.text("abc.~#_", min_size=1, max_size=4).filter(lambda p: p not in ("..", ".")))


@given(PARTS)
def test_what_stays_out_of_bundles_wakes_no_reload(parts: list[str]) -> None:
    path = Path("/f/a").joinpath(*parts)
    assert (folder_of(path, AMONG) is None) == any(ignored(part) for part in parts)


def test_folders_are_roots_that_are_functions_or_what_is_below(tmp_path: Path) -> None:
    for name in ("one", "two", ".hidden", "__pycache__", "root/main.py"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert folders([tmp_path]) == [tmp_path / "one", tmp_path / "root", tmp_path / "two"]
    assert folders([tmp_path / "root", tmp_path / "gone"]) == [tmp_path / "root"]


def test_a_save_by_rename_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("1")
    (tmp_path / "data.txt").write_text("1")
    before = files(pack(tmp_path))
    (tmp_path / "main.py.tmp").write_text("2")
    (tmp_path / "main.py.tmp").rename(tmp_path / "main.py")
    assert _differing(before, files(pack(tmp_path))) == ["main.py"]
    (tmp_path / "data.txt").chmod(0o755)
    assert _differing(before, files(pack(tmp_path))) == ["data.txt", "main.py"]


def test_a_virtual_environment_of_any_name_is_no_part_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("1")
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "env" / "lib" / "x.py").write_text("")
    assert set(files(pack(tmp_path))) == {"main.py"}
