"""The tutorial goes as it says, and its first event comes within a minute."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions import alike, sessions
from tests.walk import Walk, free_port

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    folder = tmp_path / "work"
    folder.mkdir()
    walking = Walk(folder, free_port())
    yield walking
    walking.stop()


def test_the_tutorial_goes_as_it_says(walk: Walk) -> None:
    walk.page(PAGE)
    assert len(walk.took) > 20


def test_the_first_event_comes_within_a_minute(walk: Walk) -> None:
    """The transcript is typed again: the README's commands, and what they print."""
    (transcript,) = re.findall(r"^```text\n(.*?)^```\n", PAGE, re.S | re.M)
    rows = re.findall(r"^ *(\d+\.\d) s  (.*)$", transcript, re.M)
    assert len(rows) == len(transcript.splitlines())
    seconds = [float(each) for each, _ in rows]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 60
    steps = [
        step for step in re.split(r"^\$ ", "\n".join(text for _, text in rows), flags=re.M) if step
    ]
    readme = sessions((ROOT / "README.md").read_text("utf-8").split("in a minute\n")[1])
    assert [step.splitlines()[0] for step in steps] == [
        line for commands, _ in readme[:2] for line in commands.splitlines()
    ]
    for step in steps:
        command, shown = step.replace(":8080", f":{walk.port}").split("\n", 1)
        said = walk.type(command)
        if command.startswith("funcrt dev"):
            walk.until_said(shown)
        else:
            assert alike(said, shown), said
    assert walk.took[-1][0] < 60, walk.took
