"""`python -m tests.sim SEED [SEED...]` runs seeds of the simulation and prints what happened.

`--seeds N` runs the first N on all cores, tells how far it is, and ends with the sums of what they
went through; `--shrink` looks for the fewest faults that still show a violation.
"""

import argparse
import sys
import time
from collections import Counter

from tests.sim.plan import plan_of
from tests.sim.survey import Seen, look, survey
from tests.sim.world import simulate
from tests.soak.summary import summary

EVERY = 500


def main() -> None:
    """Run seeds, print, exit 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="*")
    parser.add_argument("--seeds", type=int, default=0, help="the first so many")
    parser.add_argument("--shrink", action="store_true")
    asked = parser.parse_args()
    broken = "\n".join(each(seed, shrinking=asked.shrink) for seed in asked.seed).strip()
    if asked.seeds:
        began = time.monotonic()
        more, sums = many(asked.seeds, shrinking=asked.shrink)
        broken += more
        shown = Counter({"violations": 0, **dict(sorted(sums.items()))})
        print(summary(shown, began, f"0 to {asked.seeds - 1}"))
    sys.exit(1 if broken else 0)


def each(seed: int, *, shrinking: bool) -> str:
    """One seed, told; what it broke."""
    history = simulate(plan_of(seed))
    print(f"seed {seed}: {len(history.stored)} events, {len(history.calls)} calls,"
          f" {len(history.falls)} falls, {history.torn} writes lost or torn,"
          f" {history.ended_at:.0f} s, {history.digest()}")  # fmt: skip
    broken, _ = look(seed, shrinking=shrinking)
    print(broken, end="\n" if broken else "")
    return broken


def many(seeds: int, *, shrinking: bool) -> tuple[str, Counter[str]]:
    """The first so many seeds; what broke is told at once."""
    began, done = time.monotonic(), 0

    def after(seen: Seen) -> None:
        nonlocal done
        done += 1
        if seen[0]:
            print(seen[0], flush=True)
        if done % EVERY == 0:
            print(f"{done} of {seeds} seeds, {time.monotonic() - began:.0f} s", flush=True)

    return survey(range(seeds), shrinking=shrinking, after=after)


if __name__ == "__main__":
    main()
