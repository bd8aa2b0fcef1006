"""What triggers say of an event, and of many: plain data, for the API and the command line."""

import msgspec

import triggers
from funcrt.manifest import MeshTrigger
from mesh.event import Event
from triggers import Explained

__all__ = [
    "FunctionVerdict",
    "Plan",
    "TriggerVerdict",
    "brief",
    "conditions",
    "refused_by",
    "refusing",
    "verdict",
]

PARTS = 4
"""Of alternatives, that a line names."""


class Plan(msgspec.Struct, frozen=True):
    """How a host comes to a trigger's filter, for each event of its topic."""

    found: list[str]
    """By what, for each way in which it can match."""
    filters: int
    """Those of the topic's triggers."""
    indexed: bool
    """Where not, they are so few that each is tried; `found` is what an index would do."""


class TriggerVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger's. `why` is a tree of conditions, all of which must hold: None where no event
    was asked about."""

    trigger: str
    topic: str
    holds: bool
    why: Explained | None
    plan: Plan | None = None


class FunctionVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Those of all triggers of a function that read a topic."""

    name: str
    version: str = ""
    triggers: list[TriggerVerdict]


def verdict(
    spec: MeshTrigger,
    parsed: triggers.Filter,
    event: Event | None,
    topic: str = "",
    plan: Plan | None = None,
) -> TriggerVerdict:
    """What a trigger says of an event, which was published to `topic` where one is named."""
    if event is None:
        return TriggerVerdict(trigger=spec.name, topic=spec.topic, holds=False, why=None, plan=plan)
    why = parsed.explain(event)
    if topic:
        wanted = f'topic = "{spec.topic}"'
        right = Explained("topic", wanted, f'"{topic}"', topic == spec.topic)
        holds = right.holds and why.holds
        why = Explained("", "all of", None, holds, (right, *why.children))
    return TriggerVerdict(trigger=spec.name, topic=spec.topic, holds=why.holds, why=why, plan=plan)


def refused_by(parsed: triggers.Filter, event: Event) -> str:
    """The condition that an event fails on, and what was found; empty where it matches."""
    return _said(refusing(parsed.explain(event)), found=True) if not parsed.matches(event) else ""


def refusing(why: Explained) -> Explained:
    """The first condition that an event fails on: one by itself, a negation, or alternatives."""
    while why.children and why.wanted.endswith("all of") and not why.holds:
        why = next(child for child in why.children if not child.holds)
    return why


def conditions(parsed: triggers.Filter) -> list[Explained]:
    """What an event must meet, all of it: the conditions themselves, judged on none."""
    found = [parsed.explain(Event("-", "-", "-"))]
    while any(each.children and each.wanted.endswith("all of") for each in found):
        found = [
            child
            for each in found
            for child in (each.children if each.wanted.endswith("all of") else (each,))
        ]
    return [each for each in found if each.wanted and (each.children or each.path)]


def brief(why: Explained) -> str:
    """A condition in a line."""
    return _said(why, found=False)


def _said(why: Explained, *, found: bool) -> str:
    if why.children:
        parts = " | ".join(_said(child, found=found) for child in why.children[:PARTS])
        more = " | …" if len(why.children) > PARTS else ""
        return f"{why.wanted} ({parts}{more})"
    return why.wanted + (f", found {why.found or 'nothing'}" if found else "")
