"""Did a run keep its promises? Pure: a history and what was expected in, violations out."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping

from mesh.ledger.book import Book, Group
from mesh.ledger.bounds import judge_bounds, judge_counters, judge_drain
from mesh.ledger.entries import Entry, Published
from mesh.ledger.expectations import Expectations
from mesh.ledger.flows import judge_flows
from mesh.ledger.order import judge_order
from mesh.ledger.violation import Found, Violation

__all__ = ["Matches", "OutputsOf", "judge"]

Matches = Callable[[str, Published], bool | None]
"""(subscription, event) -> whether it matches; None where it may or may not. For `Published` only
`topic`, `source`, `id` and `key` are given. Without it, `Expected.only` decides."""

OutputsOf = Callable[[str, str, str], Mapping[str, int]]
"""(subscription, source, id) -> outputs by topic, where inputs differ; topics as in
`Expected.outputs`."""


def judge(
    entries: Iterable[Entry],
    expectations: Expectations,
    *,
    matches: Matches | None = None,
    outputs_of: OutputsOf | None = None,
    most: int = 1000,
) -> list[Violation]:
    """Every violation of I1 to I10 (`mesh.ledger.violation.TITLES`), at most `most` of each.

    `entries` is read once, in any order, and not kept. Raises CauseAmbiguous.
    """
    book = Book(expectations)
    book.add(entries)
    found = Found(most)
    for name, times in book.strangers.items():
        found.add("I2", name, (), "nothing: it is not among the expectations", f"{times} entries")
    for output in book.causeless:
        found.add(
            "I2", output.topic, (f"{output.source} {output.id}",),
            "a cause for each output", "an output without one",
        )  # fmt: skip
    for group in book.groups.values():
        ends = _Ends(group, book, expectations, found, matches=matches, outputs_of=outputs_of)
        ends.judge()
        if group.ordered:
            judge_order(group, book, expectations, found)
    _judge_collisions(book, found)
    judge_counters(book, expectations, found)
    judge_bounds(book, expectations, found)
    judge_drain(book, expectations, found)
    judge_flows(book, found)
    return found.sorted()


class _Ends:
    """I1, I2, I3, I6 and I10 for one subscription."""

    def __init__(
        self,
        group: Group,
        book: Book,
        expectations: Expectations,
        found: Found,
        *,
        matches: Matches | None,
        outputs_of: OutputsOf | None,
    ) -> None:
        self.group = group
        self.expected = group.expected
        self.events = group.events
        self.names = book.names
        self.rules = expectations
        self.found = found
        self.matches = matches
        self.outputs_of = outputs_of
        self.breaks = sorted(fault.at for fault in book.faults if fault.kind != "instance-kill")
        self.kills = sorted(
            fault.at for fault in book.faults if fault.kind in ("host-kill", "power-loss")
        )
        counters = [
            c for c in expectations.counters if c.subscription == group.expected.subscription
        ]
        self.counted = book.settled[group.expected.subscription] = {} if counters else None

    def judge(self) -> None:
        """Every event of the topic."""
        self.group.grow(len(self.events.ids))
        for row in range(len(self.events.ids)):
            self._event(row)

    def _add(self, invariant: str, row: int, promised: str, seen: str) -> None:
        name = (" ".join(self.events.named(row)),)
        self.found.add(invariant, self.expected.subscription, name, promised, seen)

    def _owed(self, row: int, match: bool | None) -> tuple[int, int, str]:
        """The fewest and the most ends that the event may have, and why."""
        events = self.events
        ok, sent, unknown = events.ok[row], events.sent[row], events.unknown[row]
        if match is False:
            return 0, 0, "nothing: the subscription does not match it"
        if not (ok or unknown or sent > events.refused[row]):
            why = "its publish was refused" if events.refused[row] else "it was not published"
            return 0, 0, f"nothing: {why}"
        least, most = (1 if ok and match else 0), 1
        tries = max(sent, ok + unknown)
        if self.rules.dedupe_s <= 0:
            most = tries
        elif events.last[row] - events.first[row] >= self.rules.dedupe_s:
            windows = (events.last[row] - events.first[row]) // self.rules.dedupe_s
            most = min(tries, 1 + int(windows))
        made, allowed = self._replays(row)
        why = "one end" if most == 1 else f"1 to {most} ends"
        if made or allowed:
            why += f", and one more for each of {allowed} replays"
        return least + (made if least else 0), most + allowed, why

    def _match(self, row: int) -> bool | None:
        source, id = self.events.named(row)
        if self.matches is not None:
            key = self.events.key[row]
            named = self.names.list[key] if key >= 0 else ""
            event = Published(self.events.topic, source, id, "unknown", key=named)
            return self.matches(self.expected.subscription, event)
        return self.expected.only is None or (source, id) in self.expected.only

    def _replays(self, row: int) -> tuple[int, int]:
        """How many replays are known to have queued the event again, and how many may have."""
        group = self.group
        if not (group.replays or group.replays_of_all):
            return 0, 0
        known = dict(group.replays.get(row, {}))
        for replay, (made, at) in group.replays_of_all.items():
            known[replay] = known.get(replay, False) or (made and self.events.stored[row] < at)
        return sum(known.values()), len(known)

    def _wanted(self, row: int) -> Mapping[str, int]:
        if self.outputs_of is None:
            return self.expected.outputs
        return self.outputs_of(self.expected.subscription, *self.events.named(row))

    def _done(self, row: int, wanted: Mapping[str, int]) -> tuple[int, str, str]:
        """How often its outputs stand for an end; what is wrong with them; what was seen."""
        group, atomic = self.group, self.rules.atomic_settle
        done, least, seen, wrong = 0, None, [], ""
        for topic, ids in group.outputs.items():
            count, distinct, each = ids.seen(row), ids.distinct(row), wanted.get(topic, 0)
            if count:
                seen.append(f"{count} outputs on {topic} with {distinct} ids")
            if atomic and count > distinct:
                wrong = "an output id twice in the log"
            used = count if atomic else distinct
            if each == 0:
                wrong = wrong or (f"outputs on {topic}" if used else "")
                continue
            done = max(done, -(-used // each))
            least = used / each if least is None else min(least, used / each)
        if done and least != done:
            wrong = wrong or "some of the outputs only"
        return done, wrong, ", ".join(seen)

    def _event(self, row: int) -> None:
        group = self.group
        match = self._match(row)
        wanted = self._wanted(row)
        least, most, why = self._owed(row, match)
        done, wrong, outputs = self._done(row, wanted)
        letters = group.letters
        dead = letters.seen(row) if self.rules.atomic_settle else letters.distinct(row)
        dropped = max(group.dropped[row], self._vanished(row, done + dead))
        # Filtered is an end only of what may not match.
        filtered = group.filtered[row] if match is None else 0
        others = dead + dropped + filtered
        by_outputs, done = done, max(done, group.done[row])
        shown = any(wanted.values())
        if not shown:
            done = max(done, min(group.returned[row], max(least - others, 0)))
        ends = done + others
        if self.counted is not None:
            # Without outputs, an event that nobody knows of may have been counted all the same.
            self.counted[row] = (
                max(min(done, most - others), 0),
                done if shown else max(most - others, done),
            )
        if least <= ends <= most and most and not wrong and not self.expected.dies:
            self._attempts(row, most, done)
            return
        seen = self._seen(row, outputs, dead, dropped)
        if most == 0:
            if ends or group.calls[row]:
                self._add("I2", row, why, seen)
        elif ends < least:
            self._add("I1", row, why, seen)
        elif ends > most and not self._torn(row, done, others, most):
            self._add(self._excess(row, by_outputs, most), row, why, seen)
        elif wrong:
            self._add(
                "I3", row, f"outputs {self.expected.outputs} for each end", f"{wrong}: {seen}"
            )
        else:
            self._poison(row, done)
        self._attempts(row, most, done)

    def _vanished(self, row: int, ends: int) -> int:
        """Where dropping is allowed: used up its attempts, and left nothing."""
        expected = self.expected
        spent = self.group.calls[row] >= expected.max_attempts > 0
        return int(expected.drops and spent and not ends and not self.group.returned[row])

    def _excess(self, row: int, by_outputs: int, most: int) -> str:
        """Which promise more ends than allowed break."""
        if self._replays(row)[1]:
            return "I10"
        return "I3" if by_outputs > most else "I1"

    def _torn(self, row: int, done: int, others: int, most: int) -> bool:
        """Where settling is not atomic, a fault between an output and its acknowledgement lets
        the event be tried again, and die. That is one output too many, and no broken promise."""
        alone = not self.rules.atomic_settle and done <= most and others <= most
        return alone and self._within(self.breaks, row) > 0

    def _within(self, times: list[float], row: int) -> int:
        """How many of these times lie between the first and the last call with the event."""
        before = bisect_left(times, self.group.first_call[row])
        return bisect_right(times, self.group.last_call[row]) - before

    def _poison(self, row: int, done: int) -> None:
        expected, group = self.expected, self.group
        if not expected.dies or self.events.named(row) not in expected.dies:
            return
        if done:
            self._add("I1", row, "a dead letter", "it came through")
        elif group.letters.seen(row) and group.dead_least[row] < expected.max_attempts:
            self._add(
                "I6", row, f"a dead letter after {expected.max_attempts} attempts",
                f"one after {group.dead_least[row]}",
            )  # fmt: skip

    def _attempts(self, row: int, most: int, done: int) -> None:
        group, limit = self.group, self.expected.max_attempts
        if limit == 0:
            return
        number = max(group.attempt[row], group.dead_attempts[row])
        if number > limit:
            self._add("I6", row, f"at most {limit} attempts", f"an attempt numbered {number}")
            return
        calls = group.calls[row]
        if calls <= limit:
            return
        kills = self._within(self.kills, row)
        # A call that returned and yet was no end: its result went down with the instance.
        lost = max(group.returned[row] - done, 0)
        if calls > limit * max(most, 1) + kills + lost:
            promised = (
                f"at most {limit} attempts, {kills} kills of the host and {lost} lost results"
            )
            self._add("I6", row, promised, f"{calls} calls")

    def _seen(self, row: int, outputs: str, dead: int, dropped: int) -> str:
        group = self.group
        counts = {
            "calls": group.calls[row],
            "of them ok": group.returned[row],
            "dead letters": dead,
            "dropped": dropped,
            "filtered": group.filtered[row],
            "settled done": group.done[row],
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join([outputs, *parts] if outputs else parts) or "nothing"


def _judge_collisions(book: Book, found: Found) -> None:
    """I3: outputs of unlike inputs under one id."""
    for topic, groups in book.makers.items():
        ids = book.output_ids[topic]
        rows = sum(
            group.outputs[topic].distinct(row)
            for group in groups
            for row in range(group.outputs[topic].rows)
        )
        alike = rows - len(set(ids))
        if alike:
            found.add(
                "I3", topic, (), "an id of its own for the output of each input",
                f"{alike} ids that outputs of unlike inputs share",
            )  # fmt: skip
