"""Many seeds at once: what they went through, and what broke."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from tests.sim.plan import plan_of
from tests.sim.shrink import shrink
from tests.sim.world import simulate
from tests.soak.summary import commit

__all__ = ["Seen", "survey"]

PROCESSES = min(os.cpu_count() or 1, 4)
Seen = tuple[str, Counter[str]]
"""What a seed broke, empty where nothing; and what it went through."""


STUCK_S = 300
"""A seed takes a fraction of a second; one that takes this long would hold up all that follow."""


class Stuck(BaseException):
    """It would be taken for a failure of the host, were it an Exception."""


def _stuck(number: int, frame: object) -> None:
    raise Stuck


def survey(
    seeds: Iterable[int], *, shrinking: bool = False, after: Callable[[Seen], None] = lambda _: None
) -> Seen:
    """Run seeds on all cores; what they broke, and their sums. `after` sees each as it ends."""
    told: list[str] = []
    sums: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for seen in pool.imap_unordered(partial(look, shrinking=shrinking), seeds):
            after(seen)
            sums += seen[1]
            if seen[0]:
                told.append(seen[0])
    return "\n".join(told), sums


def look(seed: int, *, shrinking: bool = False) -> Seen:
    """One seed. What broke is told with all that is needed to see it again."""
    plan = plan_of(seed)
    signal.signal(signal.SIGALRM, _stuck)
    signal.alarm(STUCK_S)
    try:
        history = simulate(plan)
    except Stuck:
        told = f"seed {seed} at commit {commit()} does not end"
        return told, Counter({"seeds": 1, "violations": 1})
    finally:
        signal.alarm(0)
    seen = Counter(
        {
            "seeds": 1,
            "events stored": len(history.stored),
            "calls": sum(starts for _, _, _, starts, _ in history.calls),
            "calls recalled": history.recalled,
            "times the host fell": len(history.falls),
            "writes lost or torn": history.torn,
            "violations": len(history.violations),
            "virtual seconds": round(history.ended_at),
        }
    )
    for fault in history.faults:
        seen[f"faults: {fault.kind}"] += 1
    if not history.violations:
        return "", seen
    if shrinking:
        plan, history = shrink(plan)
    faults = "\n  ".join([*map(str, plan.faults), *history.violations[:10]])
    return f"seed {seed} at commit {commit()}: python -m tests.sim {seed}\n  {faults}", seen
