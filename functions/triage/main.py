"""Propose a label for an issue that was opened or changed."""

import os
import time

from funcrt import Context, Event

WORDS = {
    "bug": ("bug", "error", "crash", "fail", "broken", "spelling"),
    "documentation": ("readme", "docs", "document", "typo"),
    "question": ("how", "why", "?"),
}
# Stands for a call to another service, so that a burst of issues is work for several instances.
LOOKUP_S = float(os.environ.get("LOOKUP_MS", "0")) / 1000


def handler(event: Event, ctx: Context) -> dict[str, object]:
    """One label event an issue."""
    issue = event.json()["issue"]
    text = f"{issue['title']} {issue.get('body') or ''}".lower()
    time.sleep(LOOKUP_S)
    label = next((name for name, words in WORDS.items() if any(w in text for w in words)), "other")
    ctx.log.debug("issue %s: %s", issue["number"], label)
    return {"issue": issue["html_url"], "title": issue["title"], "label": label}
