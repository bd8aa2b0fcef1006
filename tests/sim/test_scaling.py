"""Ours beside KEDA's, Knative's and Lambda's policies, as medians over five seeds."""

from statistics import median

from tests.sim.scaling import Outcome, outcomes, table

SEEDS = range(1, 6)


def test_no_trace_is_served_more_nervously_or_much_dearer_than_by_the_others() -> None:
    runs = [outcomes(seed) for seed in SEEDS]
    print(table(runs[0]))
    middle: dict[tuple[str, str], Outcome] = {}
    for same in zip(*runs, strict=True):
        first = same[0]
        middle[first.trace, first.policy] = Outcome(
            first.trace,
            first.policy,
            median(o.p50_s for o in same),
            median(o.p99_s for o in same),
            median(o.cost for o in same),
            int(median(o.reversals for o in same)),
        )
    wrong = []
    for trace in dict.fromkeys(trace for trace, _ in middle):
        ours = middle[trace, "funcrt"]
        others = [o for (t, policy), o in middle.items() if t == trace and policy != "funcrt"]
        if ours.reversals > max(o.reversals for o in others):
            wrong.append(f"{trace}: {ours.reversals} reversals, more than each of the others")
        near = [o.cost for o in others if o.p99_s <= 2 * ours.p99_s]
        if near and ours.cost > 1.25 * min(near):
            wrong.append(f"{trace}: costs {ours.cost:.2f}, the cheapest as quick {min(near):.2f}")
    assert wrong == []
