"""What the judge found."""

from collections import Counter

import msgspec

__all__ = ["TITLES", "Found", "Violation"]

TITLES = {
    "I1": "every stored event ends exactly once in each subscription that matches it",
    "I2": "nothing ends that was not published",
    "I3": "each input has exactly its outputs",
    "I4": "a state counter equals the inputs that were settled",
    "I5": "events of one key are called one at a time and end in the order published",
    "I6": "no event is tried more often than its attempts, but for kills and results lost by them",
    "I7": "the host's memory and open files are bounded",
    "I8": "once the faults stop, the backlog drains",
    "I9": "of a flow's steps, all stand, or all are compensated in reverse",
    "I10": "a replay repeated under the same id has no new effects",
}


class Violation(msgspec.Struct, frozen=True):
    """One broken promise."""

    invariant: str
    subject: str
    """The subscription, flow, process or counter."""
    events: tuple[str, ...]
    """`source id` of each event that it is about."""
    promised: str
    seen: str

    def __str__(self) -> str:
        about = " ".join(part for part in (self.subject, ", ".join(self.events)) if part)
        return f"{self.invariant} {about}: promised {self.promised}; seen {self.seen}"


class Found:
    """Violations as they are found: the first `most` of each invariant, and a count of all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.list: list[Violation] = []
        self.counts: Counter[str] = Counter()

    def add(
        self, invariant: str, subject: str, events: tuple[str, ...], promised: str, seen: str
    ) -> None:
        """One more."""
        self.counts[invariant] += 1
        if self.counts[invariant] <= self.most:
            self.list.append(Violation(invariant, subject, events, promised, seen))

    def sorted(self) -> list[Violation]:
        """By invariant, subject and event; a last one for each invariant says how many more."""
        more = [
            Violation(name, "", (), TITLES[name], f"{count - self.most} violations more")
            for name, count in self.counts.items()
            if count > self.most
        ]
        key = {name: place for place, name in enumerate(TITLES)}
        self.list.sort(key=lambda each: (key[each.invariant], each.subject, each.events))
        return sorted(self.list + more, key=lambda each: key[each.invariant])
