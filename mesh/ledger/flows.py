"""I9: a flow's compensable steps all stand, or are all compensated, in reverse order."""

from mesh.ledger.book import Book
from mesh.ledger.entries import Step
from mesh.ledger.violation import Found

__all__ = ["judge_flows"]


def judge_flows(book: Book, found: Found) -> None:
    """Judge every flow that was seen."""
    for flow in sorted(book.steps.keys() | book.flow_ends.keys()):
        ends = {end.end for end in book.flow_ends.get(flow, [])}
        if len(ends) != 1:
            seen = " and ".join(sorted(ends)) or "none"
            found.add("I9", flow, (), "one end", seen)
            continue
        wrong = _wrong(book.steps.get(flow, []), ends.pop())
        if wrong:
            found.add("I9", flow, (), *wrong)


def _wrong(steps: list[Step], end: str) -> tuple[str, str] | None:
    """What was promised of these steps and what was seen, or None where it was kept."""
    steps = sorted(steps, key=lambda step: step.seq)
    done = [step.step for step in steps if step.what == "completed" and step.compensable]
    undone = [step.step for step in steps if step.what == "compensated"]
    for name in undone:
        if name not in done:
            return (
                "compensation of steps that completed",
                f"compensation of {name!r}, which had not",
            )
    if len(set(done)) < len(done) or len(set(undone)) < len(undone):
        return "each step once", f"completed {done}, compensated {undone}"
    if end == "completed":
        return ("steps that stand", f"compensated {undone}") if undone else None
    if set(undone) != set(done):
        missing = [name for name in done if name not in undone]
        return "every completed step compensated", f"not compensated: {missing}"
    if undone != done[::-1]:
        return f"compensation in reverse, {done[::-1]}", str(undone)
    return None
