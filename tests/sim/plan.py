"""What a seed means: how much is published, how functions behave, and which faults strike when."""

import random
from dataclasses import dataclass, replace

from tests.sim.sandbox import Manner

__all__ = ["KINDS", "Fault", "Plan", "plan_of"]

KINDS = ("kill", "power", "cut", "full", "freeze", "jump", "instance", "stop", "deploy")


@dataclass(frozen=True)
class Fault:
    """One fault at a virtual second. `amount`: writes until a cut, tenths of a second that a disk
    is full or an instance stopped, seconds that the process is frozen or the wall clock jumps."""

    at: float
    kind: str
    amount: int = 0


@dataclass(frozen=True)
class Plan:
    """A run."""

    seed: int
    publishers: int
    events: int
    """Of each publisher."""
    gap_s: float
    """Mean time between two of them."""
    manner: Manner
    faults: tuple[Fault, ...]
    synchronous: str = "FULL"

    def without(self, faults: set[int]) -> "Plan":
        """The same but for some faults."""
        kept = [fault for index, fault in enumerate(self.faults) if index not in faults]
        return replace(self, faults=tuple(kept))


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(seed)
    publishers, events = chance.randint(1, 3), chance.randint(10, 40)
    gap = chance.choice((0.002, 0.02, 0.1))
    span = events * gap + 4.0
    rough = chance.choice((0.0, 0.3, 1.0))
    manner = Manner(
        error=0.08 * rough, retry=0.05 * rough, reject=0.02 * rough, hang=0.01 * rough,
        die=0.03 * rough, lie=0.01 * rough, flood=0.02 * rough, item=0.05 * rough,
        service_s=chance.choice((0.001, 0.02, 0.2)),
        long=random.Random(f"{seed} long").choice((0.0, 0.0, 0.03)),
    )  # fmt: skip
    kinds = chance.sample(KINDS, chance.randint(1, 4))
    faults = []
    for _ in range(chance.choice((0, 1, 3, 8, 15))):
        kind = chance.choice(kinds)
        amount = {
            "cut": chance.randint(0, 60), "full": chance.randint(1, 50),
            "freeze": chance.choice((5, 70, 4000)), "stop": chance.randint(1, 300),
            "jump": chance.choice((-3600, -5, 5, 3600)),
        }.get(kind, 0)  # fmt: skip
        faults.append(Fault(round(chance.uniform(0.0, span), 3), kind, amount))
    return Plan(seed, publishers, events, gap, manner, tuple(sorted(faults, key=lambda f: f.at)))
