"""Calls that nobody waits for (`Prefer: respond-async`): a queue of their own for each function.

The queue is a subscription as any trigger's, so retries, dead letters, depth and scaling need
nothing new. Its topic is the host's own: outsiders can neither publish to it nor take its name.
"""

from funcrt.manifest import MeshTrigger
from funcrt.manifest_kinds import OWN_NAMES

__all__ = ["TRIGGER", "call_topic", "call_trigger"]

TRIGGER = f"{OWN_NAMES}call"
"""The trigger's name in every function that has such a queue."""


def call_topic(function: str) -> str:
    """The topic that keeps a function's asynchronous calls."""
    return f"{TRIGGER}.{function}"


def call_trigger(function: str) -> MeshTrigger:
    """The trigger that takes them: each one, in no order."""
    return MeshTrigger(name=TRIGGER, topic=call_topic(function))
