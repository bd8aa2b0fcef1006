"""I5: events of one key are called one at a time, and end in the order in which they came.

Two events have an order where both have a `seq`, or where one was known to be stored before the
other was first sent; publishers that ran side by side have none. The *ends* must keep that order.
The *calls* must too, and must not overlap, but for those that touch a time in which an instance
whose lease was taken may still run: no mesh can call those back, and the fence makes them harmless.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from math import inf

from mesh.ledger.book import Book, Events, Group, Sequence
from mesh.ledger.expectations import Expectations
from mesh.ledger.violation import Found

__all__ = ["judge_order"]

_ORPHANS = ("host-kill", "power-loss", "resume")


def judge_order(group: Group, book: Book, expectations: Expectations, found: Found) -> None:
    """Judge one subscription with `order = "key"`."""
    events = group.events
    for where, sequence in group.ends.items():
        replayed = set(group.replays)
        if not group.replays_of_all:
            place = "ends" if where.startswith("\0") else f"outputs on {where}"
            _ends(sequence, replayed, group, f"{place} in the order published", found)
    windows = sorted(fault.at for fault in book.faults if fault.kind in _ORPHANS)
    grace_s, in_order = expectations.grace_s, not group.out_of_order
    in_order = in_order and not (group.replays or group.replays_of_all)
    for calls in _calls_by_key(group):
        _overlaps(calls, group, windows, grace_s, found)
        if in_order:
            _ends(_last_calls(calls, events, windows, grace_s), set(), group,
                  "last calls in the order published", found)  # fmt: skip


def _last_calls(
    calls: "list[Call]", events: Events, windows: list[float], grace_s: float
) -> Sequence:
    """Each event's last call, in order; of a batch, which does not show it, as published."""
    starts: dict[int, float] = {}
    for start, end, row, _ in calls:
        starts[row] = inf if _touches(windows, grace_s, start, end) else max(
            start, starts.get(row, start)
        )  # fmt: skip
    last = Sequence()
    ordered = ((start, _rank(events, row), row) for row, start in starts.items() if start < inf)
    for start, _, row in sorted(ordered):
        last.add(row, start)
    return last


def _rank(events: Events, row: int) -> float:
    return float(events.seq[row] if events.seq[row] >= 0 else events.first[row])


def _ends(sequence: Sequence, skip: set[int], group: Group, promised: str, found: Found) -> None:
    """Each event where it first appears. `newest` is, by key, what was sent last of those seen."""
    events = group.events
    newest: dict[int, tuple[float, int]] = {}
    newest_seq: dict[int, tuple[int, int]] = {}
    known: set[int] = set()
    for row in sequence.rows():
        key = events.key[row]
        if key < 0 or row in known or row in skip:
            continue
        known.add(row)
        seq = events.seq[row]
        if seq >= 0:
            last, other = newest_seq.get(key, (-1, row))
            late = seq < last
            newest_seq[key] = max((last, other), (seq, row))
        else:
            since, other = newest.get(key, (-inf, row))
            late = events.stored[row] < since
            newest[key] = max((since, other), (events.first[row], row))
        if late and (row, other) not in group.out_of_order:
            group.out_of_order.add((row, other))
            names = tuple(" ".join(events.named(each)) for each in (row, other))
            seen = f"the second before the first, of key {group.events.names.list[key]!r}"
            found.add("I5", group.expected.subscription, names, promised, seen)


Call = tuple[float, float, int, tuple[int, int]]
"""Start, end (its start where it is not known), row, and what tells one call from another."""


def _calls_by_key(group: Group) -> Iterator[list[Call]]:
    """The calls of each key in order of their start, one key at a time to spare memory."""
    key = group.events.key
    begun: dict[int, array[int]] = {}
    over: dict[int, array[int]] = {}
    for places, sequence in ((begun, group.called), (over, group.over)):
        for n, row in enumerate(sequence.row):
            if key[row] >= 0:
                if key[row] not in places:
                    places[key[row]] = array("I")
                places[key[row]].append(n)
    for number, starts in begun.items():
        yield _calls(group, starts, over.get(number, array("I")))


def _calls(group: Group, begun: Iterable[int], over: Iterable[int]) -> list[Call]:
    """Each call with its end: the first that its instance reported of the event from then on, and
    before it was called with it again."""
    called, ended = group.called, group.over
    marks = [(called.row[n], called.who[n], called.place[n], 1, n) for n in begun]
    marks += [(ended.row[n], ended.who[n], ended.place[n], 0, n) for n in over]
    marks.sort(key=lambda mark: (mark[0], mark[1], mark[2], -mark[3]))
    calls: list[Call] = []
    open_call = False
    for row, who, at, starts, n in marks:
        if starts:
            calls.append((at, at, row, (who, called.batch[n] or -1 - n)))
        elif open_call and calls[-1][2] == row and calls[-1][3][0] == who:
            calls[-1] = (calls[-1][0], at, row, calls[-1][3])
        open_call = bool(starts)
    calls.sort()
    return calls


def _touches(windows: list[float], grace_s: float, start: float, end: float) -> bool:
    """Whether the call ran within `grace_s` after one of the times, or across one."""
    place = bisect_right(windows, end)
    return place > 0 and windows[place - 1] + grace_s >= start


def _overlaps(
    calls: list[Call], group: Group, windows: list[float], grace_s: float, found: Found
) -> None:
    events = group.events
    before: Call | None = None
    for call in calls:
        start, end, row, who = call
        if _touches(windows, grace_s, start, end):
            continue
        if before is not None and start < before[1] and who != before[3]:
            names = tuple(" ".join(events.named(each)) for each in (before[2], row))
            found.add(
                "I5", group.expected.subscription, names, "one call at a time of a key",
                f"two of key {events.names.list[events.key[row]]!r}, overlapping by "
                f"{before[1] - start:.6f} s",
            )  # fmt: skip
        if before is None or end >= before[1]:
            before = call
