"""The second of a chain: tell somebody of the bugs that triage has found."""

from typing import TypedDict


class Label(TypedDict):
    """What triage returns."""

    issue: str
    title: str
    label: str


def handler(found: Label) -> str:
    """One line of text an issue."""
    return f"{found['label']}: {found['title']} ({found['issue']})"
