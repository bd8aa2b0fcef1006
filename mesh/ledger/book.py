"""A history folded into columns: some two hundred bytes an event, however often it was tried.

Entries may come in any order: a call before its event was published, an output before its call.
"""

from array import array
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from mesh.ledger.entries import (
    Called,
    Dead,
    Entry,
    Fault,
    FlowEnded,
    Output,
    Published,
    Replayed,
    Returned,
    Sampled,
    Settled,
    StateSeen,
    Step,
)
from mesh.ledger.expectations import Expectations, Expected

__all__ = ["Book", "CauseAmbiguous", "Events", "Group", "Ids", "Sequence"]


class CauseAmbiguous(ValueError):
    """An output names its cause by an id that events of several sources have."""

    def __init__(self, topic: str, id: str) -> None:
        super().__init__(
            f"an output's cause is {id!r} of {topic!r}, which is the id of events of several "
            "sources; give Output.cause_source, or publish ids that differ"
        )


class Names:
    """Strings that recur, as small numbers."""

    def __init__(self) -> None:
        self.list: list[str] = []
        self.number: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        found = self.number.get(name)
        if found is None:
            found = self.number[name] = len(self.list)
            self.list.append(name)
        return found


class Table:
    """Columns that grow together."""

    def __init__(self, **columns: tuple[str, float]) -> None:
        self.rows = 0
        self.fill: dict[str, array[Any]] = {
            name: array(kind, [fill]) for name, (kind, fill) in columns.items()
        }
        self.columns: dict[str, array[Any]] = {
            name: array(kind) for name, (kind, _) in columns.items()
        }

    def __getattr__(self, name: str) -> Any:
        # Columns are few and never replaced, so each becomes an attribute when first asked for.
        try:
            column = self.__dict__["columns"][name]
        except KeyError:
            raise AttributeError(name) from None
        setattr(self, name, column)
        return column

    def grow(self, rows: int) -> None:
        """Have at least `rows` rows."""
        if rows > self.rows:
            more = max(rows, self.rows + self.rows // 8, 64) - self.rows
            for name, column in self.columns.items():
                column.extend(self.fill[name] * more)
            self.rows += more


class Events(Table):
    """What was published on one topic, a row an event."""

    def __init__(self, topic: str, names: Names) -> None:
        super().__init__(
            source=("i", -1), key=("i", -1), ok=("I", 0), sent=("I", 0), refused=("I", 0),
            unknown=("I", 0), first=("d", inf), last=("d", -inf), stored=("d", inf), seq=("q", -1),
        )  # fmt: skip
        self.topic = topic
        self.names = names
        self.ids: list[str] = []
        self.index: dict[str, int | dict[int, int]] = {}
        self.sourceless: set[int] = set()
        """Rows that an output named without a source."""

    def row(self, source: str, id: str) -> int:
        """The event's row, made where it is new. `source` "" stands for the one that has the id;
        CauseAmbiguous where there are two."""
        found = self.index.get(id)
        if found.__class__ is int and self.source[found] == self.names.number.get(source):
            return found
        if found is None:
            self.index[id] = row = self._new(self.names(source) if source else -1, id)
            if not source:
                self.sourceless.add(row)
            return row
        if isinstance(found, int):
            if not source:
                self.sourceless.add(found)
                return found
            number, here = self.names(source), self.source[found]
            if here == number:
                return found
            if here == -1:
                self.source[found] = number
                return found
            if found in self.sourceless:
                raise CauseAmbiguous(self.topic, id)
            found = self.index[id] = {here: found}
        if not source:
            raise CauseAmbiguous(self.topic, id)
        number = self.names(source)
        if number not in found:
            found[number] = self._new(number, id)
        return found[number]

    def _new(self, source: int, id: str) -> int:
        row = len(self.ids)
        self.ids.append(id)
        self.grow(row + 1)
        self.source[row] = source
        return row

    def named(self, row: int) -> tuple[str, str]:
        """The event's source and id."""
        number = self.source[row]
        return (self.names.list[number] if number >= 0 else ""), self.ids[row]

    def publish(self, row: int, outcome: str, at: float, seq: int) -> None:
        """One publish, or a part of one."""
        self.columns[outcome][row] += 1
        if seq >= 0:
            self.seq[row] = seq if self.seq[row] < 0 else min(seq, self.seq[row])
        if at >= 0:
            self.first[row] = min(self.first[row], at)
            self.last[row] = max(self.last[row], at)
            if outcome == "ok" and at < self.stored[row]:
                self.stored[row] = at


class Ids(Table):
    """How many events were seen for each row, and how many ids those had. Ids are kept as 64-bit
    hashes: of a million, two are alike once in forty million runs."""

    def __init__(self) -> None:
        super().__init__(count=("I", 0), first=("q", 0))
        self.more: dict[int, set[int]] = {}

    def add(self, row: int, id: str) -> None:
        """One more, for `row`."""
        if row >= self.rows:
            self.grow(row + 1)
        digest = hash(id)
        if self.count[row] == 0:
            self.first[row] = digest
        elif digest != self.first[row]:
            self.more.setdefault(row, set()).add(digest)
        self.count[row] += 1

    def seen(self, row: int) -> int:
        """How many."""
        return int(self.count[row]) if row < self.rows else 0

    def distinct(self, row: int) -> int:
        """How many ids."""
        return (1 + len(self.more.get(row, ()))) if self.seen(row) else 0


class Sequence:
    """Things in an order: where each stands, and the row it is about."""

    def __init__(self) -> None:
        self.place = array("d")
        self.row = array("I")
        self.who = array("I")
        self.batch = array("I")

    def add(self, row: int, place: float, who: int = 0, batch: int = 0) -> None:
        """One more. A negative `place` stands for its place among what was added."""
        self.place.append(place if place >= 0 else len(self.place))
        self.row.append(row)
        self.who.append(who)
        self.batch.append(batch)

    def rows(self) -> list[int]:
        """The rows in order of place."""
        places = self.place
        return [self.row[n] for n in sorted(range(len(places)), key=places.__getitem__)]


class Group(Table):
    """What one subscription did with the events of its topic, a row an event."""

    def __init__(self, expected: Expected, events: Events) -> None:
        super().__init__(
            calls=("I", 0), attempt=("I", 0), first_call=("d", inf), last_call=("d", -inf),
            returned=("I", 0), done=("I", 0), dropped=("I", 0), filtered=("I", 0),
            dead_attempts=("I", 0), dead_least=("I", 0),
        )  # fmt: skip
        self.expected = expected
        self.events = events
        self.outputs = {topic: Ids() for topic in expected.outputs}
        self.letters = Ids()
        self.replays: dict[int, dict[str, bool]] = {}
        """By row, the replay ids, and whether the replay is known to have been made."""
        self.replays_of_all: dict[str, tuple[bool, float]] = {}
        self.ordered = expected.order == "key"
        self.ends: dict[str, Sequence] = {}
        self.called = Sequence()
        self.over = Sequence()
        self.out_of_order: set[tuple[int, int]] = set()
        """Pairs of rows, as the judge finds."""

    def row(self, source: str, id: str) -> int:
        """The event's row, in `events` and here."""
        row = self.events.row(source, id)
        if row >= self.rows:
            self.grow(row + 1)
        return row

    def ended(self, where: str, row: int, seq: float) -> None:
        """An end was seen, at a place of its own in the order of `where`."""
        if self.ordered:
            if where not in self.ends:
                self.ends[where] = Sequence()
            self.ends[where].add(row, seq)


class Book:
    """A whole history, folded."""

    def __init__(self, expectations: Expectations) -> None:
        self.names = Names()
        self.events: dict[str, Events] = {}
        self.groups: dict[str, Group] = {}
        self.makers: dict[str, list[Group]] = {}
        for expected in expectations.subscriptions:
            if expected.topic not in self.events:
                self.events[expected.topic] = Events(expected.topic, self.names)
            group = Group(expected, self.events[expected.topic])
            self.groups[expected.subscription] = group
            for topic in expected.outputs:
                self.makers.setdefault(topic, []).append(group)
        self.strangers: dict[str, int] = {}
        """Subscriptions and topics that nothing is expected of, and how often they were seen."""
        self.causeless: list[Output] = []
        self.output_ids: dict[str, array[int]] = {topic: array("q") for topic in self.makers}
        self.counters: dict[tuple[str, str], tuple[float, int]] = {}
        self.settled: dict[str, dict[int, tuple[int, int]] | None] = {}
        """By subscription and row, the fewest and the most inputs settled, as the judge finds."""
        self.replayed_at = -inf
        self.faults: list[Fault] = []
        self.samples: list[Sampled] = []
        self.steps: dict[str, list[Step]] = {}
        self.flow_ends: dict[str, list[FlowEnded]] = {}
        self._fold: dict[type, Callable[[Any], None]] = {
            Published: self._published,
            Called: self._called,
            Returned: self._returned,
            Output: self._output,
            Dead: self._dead,
            Settled: self._settled,
            StateSeen: self._state,
            Replayed: self._replayed,
            Fault: self.faults.append,
            Sampled: self.samples.append,
            Step: lambda step: self.steps.setdefault(step.flow, []).append(step),
            FlowEnded: lambda end: self.flow_ends.setdefault(end.flow, []).append(end),
        }

    def add(self, entries: Iterable[Entry]) -> None:
        """Take these in."""
        fold = self._fold
        for entry in entries:
            fold[entry.__class__](entry)

    def _published(self, entry: Published) -> None:
        events = self.events.get(entry.topic)
        if events is None:
            return  # a topic that nobody subscribes to promises nothing
        row = events.row(entry.source, entry.id)
        events.publish(row, entry.outcome, entry.at, entry.seq)
        if entry.key:
            events.key[row] = self.names(entry.key)

    def _group(self, name: str) -> Group | None:
        group = self.groups.get(name)
        if group is None:
            self.strangers[name] = self.strangers.get(name, 0) + 1
        return group

    def _called(self, entry: Called) -> None:
        group = self._group(entry.subscription)
        if group is None:
            return
        row = group.row(entry.source, entry.id)
        group.calls[row] += 1
        group.attempt[row] = max(entry.attempt, group.attempt[row])
        group.first_call[row] = min(entry.at, group.first_call[row])
        group.last_call[row] = max(entry.at, group.last_call[row])
        if entry.key:
            group.events.key[row] = self.names(entry.key)
        if group.ordered:
            batch = self.names(entry.batch) + 1 if entry.batch else 0
            group.called.add(row, entry.at, self.names(entry.instance), batch)

    def _returned(self, entry: Returned) -> None:
        group = self._group(entry.subscription)
        if group is None:
            return
        row = group.row(entry.source, entry.id)
        group.returned[row] += entry.outcome == "ok"
        if group.ordered:
            group.over.add(row, entry.at, self.names(entry.instance))

    def _output(self, entry: Output) -> None:
        if entry.topic in self.events:  # the next function's input
            events = self.events[entry.topic]
            events.publish(events.row(entry.source, entry.id), "ok", entry.at, entry.seq)
        makers = self.makers.get(entry.topic, [])
        if entry.subscription:
            makers = [each for each in makers if each.expected.subscription == entry.subscription]
        if len(makers) != 1:
            name = entry.subscription or entry.topic
            self.strangers[name] = self.strangers.get(name, 0) + 1
            return
        if not entry.cause_id:
            self.causeless.append(entry)
            return
        group = makers[0]
        row = group.row(entry.cause_source, entry.cause_id)
        group.outputs[entry.topic].add(row, entry.id)
        self.output_ids[entry.topic].append(hash(entry.id))
        group.ended(entry.topic, row, entry.seq)

    def _dead(self, entry: Dead) -> None:
        group = self._group(entry.subscription)
        if group is None:
            return
        row = group.row(entry.source, entry.id)
        least = group.dead_least[row]
        group.dead_least[row] = min(entry.attempts, least) if group.letters.seen(row) else (
            entry.attempts
        )  # fmt: skip
        group.letters.add(row, entry.letter)
        group.dead_attempts[row] = max(entry.attempts, group.dead_attempts[row])
        group.ended("\0dead", row, entry.seq)

    def _settled(self, entry: Settled) -> None:
        group = self._group(entry.subscription)
        if group is None:
            return
        row = group.row(entry.source, entry.id)
        group.columns[entry.end][row] += 1
        group.ended("\0settled", row, entry.seq)

    def _state(self, entry: StateSeen) -> None:
        name = entry.scope, entry.key
        if name not in self.counters or entry.at >= self.counters[name][0]:
            self.counters[name] = entry.at, entry.value

    def _replayed(self, entry: Replayed) -> None:
        group = self._group(entry.subscription)
        if group is None:
            return
        made = entry.outcome == "ok"
        self.replayed_at = max(entry.at, self.replayed_at)
        if entry.id:
            of = group.replays.setdefault(group.row(entry.source, entry.id), {})
            of[entry.replay] = made or of.get(entry.replay, False)
        else:
            was, at = group.replays_of_all.get(entry.replay, (False, inf))
            group.replays_of_all[entry.replay] = made or was, min(at, entry.at)
