"""I4, I7 and I8: counters, bounds on what a process holds, and the backlog that drains."""

from math import inf

from mesh.ledger.book import Book, Group
from mesh.ledger.expectations import Counter, Expectations
from mesh.ledger.violation import Found

__all__ = ["judge_bounds", "judge_counters", "judge_drain"]


def judge_counters(book: Book, expectations: Expectations, found: Found) -> None:
    """I4: the value last seen lies between the fewest and the most inputs that were settled."""
    for counter in expectations.counters:
        for key, (least, most) in _settled(counter, book).items():
            value = book.counters.get((counter.scope, key), (0.0, None))[1]
            subject = f"{counter.scope}/{key}"
            if not expectations.atomic_settle:
                promised, wrong = f"at least {least}", value is None or value < least
            else:
                promised = str(least) if least == most else f"{least} to {most}"
                wrong = value is None or not least <= value <= most
            if wrong and (value is not None or least):
                seen = "no value" if value is None else str(value)
                found.add("I4", subject, (), f"{promised}, the inputs settled", seen)


def _settled(counter: Counter, book: Book) -> dict[str, tuple[int, int]]:
    """By state key, the fewest and the most inputs settled."""
    group: Group | None = book.groups.get(counter.subscription)
    totals: dict[str, tuple[int, int]] = {counter.key: (0, 0)} if counter.key else {}
    if group is None:
        return totals
    for row, (least, most) in (book.settled.get(counter.subscription) or {}).items():
        number = group.events.key[row]
        key = counter.key or (book.names.list[number] if number >= 0 else "")
        if key:
            low, high = totals.get(key, (0, 0))
            totals[key] = low + least, high + most
    return totals


def judge_bounds(book: Book, expectations: Expectations, found: Found) -> None:
    """I7: the most that each process held."""
    for what, bound in (("rss", expectations.max_rss), ("fds", expectations.max_fds)):
        peaks: dict[str, tuple[int, float]] = {}
        for sample in book.samples:
            held: int = getattr(sample, what)
            if held >= 0:
                peaks[sample.process] = max(peaks.get(sample.process, (-1, 0.0)), (held, sample.at))
        if bound and not peaks:
            found.add("I7", "", (), f"{what} of at most {bound}", "no sample of it")
        for process, (held, at) in peaks.items():
            if 0 < bound < held:
                seen = f"{held} at {at:.3f}"
                found.add("I7", process, (), f"{what} of at most {bound}", seen)


def judge_drain(book: Book, expectations: Expectations, found: Found) -> None:
    """I8: from the last fault, publish or replay, the backlog is empty within twice
    the time that it takes without faults, and 10 s."""
    if expectations.drain_s is None:
        return
    last = max([fault.at for fault in book.faults] + [book.replayed_at])
    for events in book.events.values():
        last = max(last, max(events.last[: len(events.ids)], default=-inf))
    within = 2 * expectations.drain_s + 10
    after = sorted(
        (sample.at, sample.depth)
        for sample in book.samples
        if sample.depth >= 0 and sample.at >= last
    )
    if last == -inf and after:
        last = after[0][0]
    empty = next((at for at, depth in after if depth == 0), inf)
    if empty > last + within:
        if not after:
            seen = "nobody looked at it since"
        elif empty < inf:
            seen = f"empty after {empty - last:.1f} s"
        else:
            seen = f"{after[-1][1]} events after {after[-1][0] - last:.1f} s"
        found.add(
            "I8", "backlog", (), f"empty {within:g} s after the last fault, publish or replay", seen
        )
    elif after[-1][1] > 0:
        seen = f"{after[-1][1]} events at {after[-1][0] - last:.1f} s, having been empty"
        found.add("I8", "backlog", (), "empty, and nothing published since", seen)
