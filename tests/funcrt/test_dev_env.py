"""Environment files: what they say, and what is told of a line that says nothing."""

from pathlib import Path

import pytest

from funcrt.env_file import EnvFileInvalid, read_env


def test_later_files_beat_earlier_ones_and_missing_ones_are_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("# about\n\nexport A=1\nB='x y'\nC=${A}-${B}\n")
    two.write_text('A=2\nD="${A} ${C}"\nE=\n')
    found = read_env([one, tmp_path / "none", two])
    assert found == {"A": "2", "B": "x y", "C": "1-x y", "D": "2 1-x y", "E": ""}


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("A=1\nnonsense\n", 2, "nonsense"),
        ("A=1\n\n\nnonsense\n", 4, "nonsense"),
        ("A 1\n", 1, "A 1"),
        ("A='x\n", 1, "A='x"),
    ],
)
def test_a_line_that_is_none_is_told(tmp_path: Path, text: str, line: int, shown: str) -> None:
    file = tmp_path / ".env"
    file.write_text(text)
    with pytest.raises(EnvFileInvalid) as caught:
        read_env([file])
    assert str(caught.value) == f"{file}:{line}: expected NAME=value, found {shown!r}"
