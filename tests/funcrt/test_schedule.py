"""When cron triggers tick."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcrt.schedule import MOST_MISSED, Schedule, ScheduleInvalid

DAY = 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ticks(schedule: Schedule, first: str, last: str) -> list[str]:
    found, now = [], at(first)
    while (now := schedule.after(now)) <= at(last):
        found.append(schedule.shown(now)[5:16] + schedule.shown(now)[19:])
    return found


@given(
    st.integers(0, 59), st.integers(0, 23), st.integers(1, 7),
    st.floats(1.7e9, 1.8e9), st.floats(0, 20 * DAY),
)  # fmt: skip
def test_it_ticks_when_the_fields_say(
    minute: int, hour: int, weekday: int, last: float, span: float
) -> None:
    """Against a look at every minute, in UTC."""
    schedule = Schedule(f"{minute} {hour} * * {weekday % 7}")
    wanted, moment = [], datetime.fromtimestamp(last, UTC).replace(second=0, microsecond=0)
    while moment.timestamp() <= last + span:
        if (moment.minute, moment.hour, moment.isoweekday()) == (minute, hour, weekday):
            wanted.append(moment.timestamp())
        moment += timedelta(minutes=1)
    wanted = [tick for tick in wanted if tick > last]
    assert schedule.due(last, last + span, "all") == wanted
    assert schedule.due(last, last + span, "latest") == wanted[-1:]
    recent = [tick for tick in wanted[-1:] if last + span - tick <= 60]
    assert schedule.due(last, last + span, "skip") == recent
    assert schedule.after(last) > last
    if wanted:
        assert schedule.after(last) == wanted[0]


def test_a_tick_of_the_very_moment_is_due_once() -> None:
    schedule = Schedule("*/5 * * * *")
    now = at("2026-11-25T12:00:00+00:00")
    assert schedule.due(now - 1, now, "latest") == [now]
    assert schedule.due(now, now + 1, "latest") == []
    assert schedule.after(now) == now + 300


def test_at_most_a_thousand_missed_ticks_are_made_up_for() -> None:
    now = at("2026-11-25T12:00:00+00:00")
    found = Schedule("* * * * *").due(now - 365 * DAY, now, "all")
    assert len(found) == MOST_MISSED
    assert found[-1] == now


def test_the_clock_of_a_time_zone_changes() -> None:
    """As Debian's cron: an hour that is left out, one that comes twice."""
    daily = Schedule("30 2 * * *", "Europe/Berlin")
    assert ticks(daily, "2026-03-28T00:00+01:00", "2026-03-31T00:00+02:00") == [
        "03-28T02:30+01:00", "03-29T03:00+02:00", "03-30T02:30+02:00",
    ]  # fmt: skip
    assert ticks(daily, "2026-10-24T12:00+02:00", "2026-10-26T12:00+01:00") == [
        "10-25T02:30+02:00", "10-26T02:30+01:00",
    ]  # fmt: skip
    assert daily.due(at("2026-10-24T12:00+02:00"), at("2026-10-26T12:00+01:00"), "all") == [
        at("2026-10-25T02:30+02:00"), at("2026-10-26T02:30+01:00"),
    ]  # fmt: skip
    often = Schedule("*/30 * * * *", "Europe/Berlin")
    first, last = at("2026-10-25T01:45+02:00"), at("2026-10-25T03:15+01:00")
    assert len(often.due(first, last, "all")) == 5, "an hour that comes twice has its ticks twice"


def test_seconds_and_nicknames() -> None:
    now = at("2026-11-25T12:00:00+00:00")
    assert Schedule("*/10 * * * * *").after(now) == now + 10
    assert Schedule("@daily").after(now) == now + DAY / 2


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("* * * *", "4 fields, expected five: minute hour day month weekday"),
        ("61 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("", "0 fields, expected five: minute hour day month weekday"),
    ],
)
def test_what_is_no_schedule(expression: str, why: str) -> None:
    with pytest.raises(ScheduleInvalid) as raised:
        Schedule(expression)
    assert str(raised.value) == why


def test_an_unknown_time_zone() -> None:
    for name in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ScheduleInvalid):
            Schedule("* * * * *", name)
