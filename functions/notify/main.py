"""The second of a chain: tell somebody of the issues that triage has labelled."""

from typing import TypedDict

from funcrt import Context


class Label(TypedDict):
    """What triage returns; an event whose data does not fit becomes a dead letter."""

    issue: str
    title: str
    label: str


def handler(found: Label, ctx: Context) -> str:
    """One line of text an issue.

    To post it to a chat, hand `ctx.idempotency_key` along: it is the same in every attempt, so the
    other side can tell a repeated call from a new one.
    """
    ctx.log.debug("notification %s", ctx.idempotency_key)
    return f"{found['label']}: {found['title']} ({found['issue']})"
