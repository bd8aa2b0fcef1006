"""The dead letter: an event that wraps the one that failed for good, and says why."""

import uuid
from datetime import UTC, datetime

import msgspec

from mesh.event import Event

__all__ = ["DEAD_LETTER", "dead_letter"]

DEAD_LETTER = "funcrt.deadletter"
_SPACE = uuid.UUID("6b7f0a0e-6f0b-5a52-9d49-2f4f1a2f3c11")


class _Body(msgspec.Struct):
    subscription: str
    reason: str
    attempts: int
    died_at: str
    error: str
    where: str
    traceback: str
    event: msgspec.Raw


def dead_letter(
    event: Event,
    subscription: str,
    reason: str,
    *,
    attempts: int,
    at: float,
    error: str = "",
    where: str = "",
    traceback: str = "",
    replay: str = "",
) -> Event:
    """The letter for `event` of `subscription` (`function/trigger`), which died at wall-clock
    `at`. Its id is derived (uuid5 of subscription, source, id and replay id), so the same death
    written twice is one letter.
    """
    name = "\0".join((subscription, event.source, event.id, replay))
    moment = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    body = _Body(
        subscription, reason, attempts, moment, error, where, traceback,
        msgspec.Raw(event.to_json()),
    )  # fmt: skip
    return Event(
        id=str(uuid.uuid5(_SPACE, name)),
        source=f"/funcrt/{subscription.split('/', 1)[0]}",
        type=DEAD_LETTER,
        subject=event.subject,
        time=moment,
        datacontenttype="application/json",
        data=msgspec.json.encode(body),
    )
