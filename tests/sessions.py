"""The sessions that pages show: commands, and what they print."""

import re

__all__ = ["alike", "sessions"]


def sessions(text: str) -> list[tuple[str, str]]:
    """(commands, what they print or "") of each `sh` block of a page, and the block below it."""
    found = re.findall(r"^```sh\n(.*?)^```\n(?:```\n(.*?)^```\n)?", text, re.S | re.M)
    return [(commands, shown) for commands, shown in found]


def alike(said: str, shown: str, unknown: str = ".+") -> bool:
    """Whether it is what a page shows, line by line; a `#` there stands for what differs from run
    to run."""
    form = re.escape(shown.rstrip("\n")).replace(re.escape("#"), unknown)
    return re.fullmatch(form, said.rstrip("\n")) is not None
