"""A filter's verdict on an event, as a terminal or a pipe shows it."""

from collections.abc import Iterator
from typing import Any

from funcrt.text import safe
from funcrt.verdict import TriggerVerdict

__all__ = ["as_json", "told"]

BRANCHES = 8
"""Alternatives that are shown, of a filter that none of many meets."""


def told(function: str, trigger: TriggerVerdict) -> Iterator[str]:
    """A trigger's verdict in lines: below it each condition with ✓ or ✗, what is wanted and what
    was found. The trigger alone where no event was judged."""
    named = f" ({trigger.trigger})" if trigger.trigger != trigger.topic else ""
    head = f"{function}  {safe(f'mesh {trigger.topic}{named}')}"
    if trigger.why is None:
        yield head
        return
    yield f"{'✓' if trigger.holds else '✗'} {head}"
    yield from _shown(trigger.why)


def _shown(why: Any, indent: str = "  ") -> Iterator[str]:
    if not why.path and not why.children:
        yield f"{indent}✓ no filter: every event of the topic"
        return
    for each in _flat(why) if _plain(why) else [why]:
        mark = "✓" if each.holds else "✗"
        yield f"{indent}{mark} {safe(_said(each))}"
        if each.children and not _single_not(each):
            below = each.children
            more = len(below) - BRANCHES
            if each.wanted == "any of" and more > 0:
                below = sorted(below, key=lambda child: child.failing)[:BRANCHES]
            for child in below:
                yield from _shown(child, f"{indent}  ")
            if each.wanted == "any of" and more > 0:
                yield f"{indent}  … and {more} more, further from it"


def _plain(why: Any) -> bool:
    """Whether it says nothing that its parts do not."""
    return why.wanted.endswith("all of") and why.found is None and bool(why.children)


def _flat(why: Any) -> Iterator[Any]:
    for child in why.children:
        if _plain(child):
            yield from _flat(child)
        else:
            yield child


def _single_not(why: Any) -> bool:
    return why.wanted == "not" and not why.children[0].children


def _said(why: Any) -> str:
    if _single_not(why):
        return f"not: {_said(why.children[0])}"
    if why.children:
        remark = f" ({why.found})" if why.found is not None else ""
        return f"{why.wanted}{remark}" if why.wanted else remark
    if why.holds and why.found is not None and why.wanted.endswith(f" = {why.found}"):
        return str(why.wanted)
    return f"{why.wanted}  found {why.found if why.found is not None else 'nothing'}"


def as_json(why: Any) -> dict[str, Any]:
    """The tree, for `--json`."""
    row: dict[str, Any] = {
        "path": why.path,
        "wanted": why.wanted,
        "found": why.found,
        "holds": why.holds,
    }
    if why.children:
        row["children"] = [as_json(child) for child in why.children]
    return row
