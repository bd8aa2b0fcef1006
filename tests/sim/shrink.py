"""The fewest faults of a plan that still break a promise."""

from tests.sim.plan import Plan
from tests.sim.verdict import History
from tests.sim.world import simulate

__all__ = ["shrink"]


def shrink(plan: Plan) -> tuple[Plan, History]:
    """Leave out one fault after the other for as long as something is broken."""
    history = simulate(plan)
    index = 0
    while index < len(plan.faults):
        fewer = plan.without({index})
        found = simulate(fewer)
        if found.violations:
            plan, history = fewer, found
        else:
            index += 1
    return plan, history
