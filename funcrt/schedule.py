"""When a cron trigger ticks: expressions, time zones, which of missed ticks still count. Pure."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Literal

from cronsim import CronSim, CronSimError

__all__ = ["MOST_MISSED", "NICKNAMES", "Missed", "Schedule", "ScheduleInvalid"]

Missed = Literal["latest", "all", "skip"]
"""Of the ticks while no host was there: the last one, each of them, or none."""
MOST_MISSED = 1000
"""At the most, of `all`; the newest."""
ON_TIME_S = 60.0
"""A tick that is later than this was missed."""
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class ScheduleInvalid(Exception):
    """An expression that is none, or a time zone that is not there; the message says why."""


class Schedule:
    """A cron expression of five fields, or six with seconds first, in a time zone.

    Over a change of the clock it goes as Debian's cron does: a tick in an hour that is left out
    comes right after it, one in an hour that comes twice comes once; expressions with `*` or `*/n`
    for the hour go by the time that passes.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        """Raises ScheduleInvalid."""
        self.expression = expression
        self.timezone = timezone
        self._fields = NICKNAMES.get(expression, expression)
        try:
            self.zone = zoneinfo.ZoneInfo(timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ScheduleInvalid(f"no time zone {timezone!r} on this machine") from None
        try:
            CronSim(
                self._fields, datetime(2000, 1, 1, tzinfo=UTC)
            )  # refuses a 30th of February too
        except CronSimError as error:
            raise ScheduleInvalid(_why(str(error), self._fields)) from None

    def _from(self, at: float, *, reverse: bool = False) -> Iterator[float]:
        moment = datetime.fromtimestamp(at, UTC).astimezone(self.zone)
        for tick in CronSim(self._fields, moment, reverse=reverse):
            yield tick.timestamp()

    def after(self, at: float) -> float:
        """The first tick after a moment; both wall-clock seconds."""
        return next(tick for tick in self._from(at) if tick > at)

    def due(self, last: float, now: float, missed: Missed) -> list[float]:
        """The ticks after `last` and up to `now` that are to be made, oldest first."""
        # From a second later on, for the tick of `now` itself; an hour that comes twice is twice
        # as long as the expression sees it.
        recent = (tick for tick in self._from(now + 1.0, reverse=True) if tick <= now)
        since = takewhile(lambda tick: tick > last, recent)
        most = MOST_MISSED if missed == "all" else 1
        found = [tick for _, tick in zip(range(most), since, strict=False)]
        if missed == "skip":
            found = [tick for tick in found if now - tick <= ON_TIME_S]
        return found[::-1]

    def shown(self, tick: float) -> str:
        """A tick as people of its time zone write it (RFC 3339)."""
        return datetime.fromtimestamp(tick, UTC).astimezone(self.zone).isoformat()


def _why(reason: str, fields: str) -> str:
    if len(fields.split()) not in (5, 6):
        return f"{len(fields.split())} fields, expected five: minute hour day month weekday"
    return reason[:1].lower() + reason[1:]
