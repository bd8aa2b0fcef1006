"""Each how-to goes as it says, by itself."""

from pathlib import Path

import pytest

from tests.walk import Walk, free_port

PAGE = (Path(__file__).parent.parent / "docs" / "howto.md").read_text("utf-8")
SECTIONS = PAGE.split("\n## ")[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=[each.partition("\n")[0] for each in SECTIONS])
def test_a_how_to_goes_as_it_says(section: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    walk = Walk(tmp_path / "work", free_port())
    try:
        walk.page(section)
        assert walk.took
    finally:
        walk.stop()
