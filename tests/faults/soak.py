"""`python -m tests.faults.soak`: many kills of instances and of hosts, in rounds, each judged by a
ledger. Exit 1 where a promise was broken; that round's directory is kept, with the ledger.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kills import Kind, Round, run_round
from tests.soak.summary import summary

INSTANCE_KILLS_A_ROUND = 1000
HOST_KILLS_A_ROUND = 100


@dataclass(frozen=True)
class Told:
    """What became of a round."""

    asked: Round
    seconds: float
    sums: Counter[str]
    broken: list[str] = field(default_factory=list)


def rounds(kind: Kind, kills: int, events: int, most: int, seed: int) -> Iterator[Round]:
    """So many kills over so many events, at most `most` kills a round."""
    count = -(-kills // most)
    for n in range(count):
        yield Round(
            kind,
            kills * (n + 1) // count - kills * n // count,
            events * (n + 1) // count - events * n // count,
            seed + n,
        )


def attempt(asked: Round) -> Told:
    """One round in a directory of its own, which goes where nothing was broken."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix=f"funcrt-soak-{asked.kind}-{asked.seed}-"))
    sums: Counter[str] = Counter()
    try:
        found, seen = asyncio.run(run_round(asked, directory))
        broken = [str(each) for each in found]
        sums["violations"] = len(found)
        stored, calls = seen["published", "ok"], seen["called"]
        sums[f"{asked.kind}s"] = seen["fault", asked.kind]
        sums[f"events, {asked.kind}"] = asked.events
        sums["receipts"] = stored
        sums["published again"] = seen["published", "sent"] - stored
        sums["calls"] = calls
        sums[f"called again, {asked.kind}"] = calls - asked.events
        sums["outputs"] = seen["output"]
        sums["dead letters"] = seen["dead"]
        if seen["output"] + seen["dead"] != asked.events or calls <= asked.events:
            broken.append(f"of {asked.events} events: {dict(sums)}")
    except Exception:
        broken = [traceback.format_exc()]
    if broken:
        sums["violations"] = max(sums["violations"], 1)
        broken.append(f"kept: {directory}; python -m mesh.ledger {directory / 'run.ledger'}")
    else:
        shutil.rmtree(directory)
    return Told(asked, time.monotonic() - began, sums, broken)


def main() -> int:
    """Run the rounds, two beside each other, and tell each as it ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--instance-kills", type=int, default=0)
    parser.add_argument("--events", type=int, default=0, help="while instances are killed; "
                        "default 100 a kill")  # fmt: skip
    parser.add_argument("--host-kills", type=int, default=0)
    parser.add_argument("--host-events", type=int, default=0, help="while hosts are killed; "
                        "default 200 a kill")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of the first round of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="rounds beside each other")
    asked = parser.parse_args()
    began = time.monotonic()
    each = (
        rounds("instance-kill", asked.instance_kills, asked.events or asked.instance_kills * 100,
               INSTANCE_KILLS_A_ROUND, asked.seed),
        rounds("host-kill", asked.host_kills, asked.host_events or asked.host_kills * 200,
               HOST_KILLS_A_ROUND, asked.seed),
    )  # fmt: skip
    # One of each kind beside the other: hosts that start and instances that work.
    mixed = [one for pair in itertools.zip_longest(*each) for one in pair if one is not None]
    sums: Counter[str] = Counter()
    broken = False
    with multiprocessing.get_context("spawn").Pool(asked.jobs, maxtasksperchild=1) as pool:
        for done, told in enumerate(pool.imap_unordered(attempt, mixed), 1):
            sums.update(told.sums)
            print(f"round {done} of {len(mixed)}: seed {told.asked.seed}, "
                  f"{told.sums[f'{told.asked.kind}s']:,} {told.asked.kind}s over "
                  f"{told.asked.events:,} events, {told.seconds:.0f} s, "
                  f"{'BROKEN' if told.broken else 'kept'}", flush=True)  # fmt: skip
            for line in told.broken[:20] + told.broken[20:][-1:]:
                print(f"  {line}", flush=True)
            broken = broken or bool(told.broken)
    sums["violations"] += 0
    last = max(one.seed for one in mixed) if mixed else asked.seed
    print(summary(sums, began, f"{asked.seed} to {last}"))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
