"""The scaler's promises, whatever it is shown."""

from hypothesis import given
from hypothesis import strategies as st

from funcrt.manifest import ScaleSpec
from funcrt.scale import Observed, Scaler


def seen(backlog: int = 0, busy: int = 0, idle: int = 0, **more: object) -> Observed:
    ages = tuple([60.0] * idle)
    base = {"backlog": backlog, "instances": busy + idle, "busy": busy, "idle_s": ages}
    return Observed(**{**base, **more})  # type: ignore[arg-type]


moments = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.integers(0, 5000),
        st.integers(0, 12),
        st.integers(0, 12),
        st.integers(0, 4),
        st.floats(0.0001, 30),
        st.none() | st.integers(1, 20),
    ),
    max_size=30,
)


@given(moments, st.integers(0, 4), st.integers(4, 12))
def test_bounds_hold_whatever_is_seen(history: list[tuple], least: int, most: int) -> None:
    scaler, now = Scaler(ScaleSpec(min=least, max=most)), 0.0
    for wait, backlog, busy, idle, starting, service, limit in history:
        now += wait
        scaler.arrived(now, backlog)
        scaler.finished(now, service)
        observed = seen(backlog, busy, idle, starting=starting, limit=limit)
        decision = scaler.decide(now, observed)
        have, cap = busy + idle + starting, min(most, limit or most)
        assert decision.wanted >= min(least, cap, have + 4)
        assert decision.wanted <= max(cap, have), "never starts beyond its bounds"
        assert decision.wanted <= max(have, 2 * have, have + 4), "a step is bounded"
        assert decision.retire <= idle, "a busy instance is never ended"
        if backlog and not have:
            assert decision.wanted >= 1, "a backlog wakes"


@given(st.integers(0, 12), st.integers(0, 12))
def test_an_unknown_depth_holds_still(busy: int, idle: int) -> None:
    scaler = Scaler(ScaleSpec(max=12))
    decision = scaler.decide(100.0, seen(0, busy, idle, depth_known=False))
    assert (decision.wanted, decision.retire) == (busy + idle, 0)


def test_steady_load_settles_and_stays() -> None:
    scaler, wanted = Scaler(ScaleSpec(max=20)), []
    for step in range(400):
        now = step * 0.25
        scaler.arrived(now, 5)  # 20 a second
        scaler.finished(now, 0.1, 5)
        have = wanted[-1] if wanted else 0
        busy = min(2, have)
        wanted.append(scaler.decide(now, seen(1, busy, have - busy)).wanted)
    assert len(set(wanted[40:])) == 1
    assert 2 <= wanted[-1] <= 4


def test_a_backlog_grows_by_bounded_steps() -> None:
    scaler = Scaler(ScaleSpec(max=100))
    scaler.finished(0.0, 1.0)
    counts = [0]
    for step in range(1, 9):
        now = step * 0.25
        counts.append(scaler.decide(now, seen(10_000, counts[-1])).wanted)
    assert counts == [0, 4, 8, 16, 32, 64, 100, 100, 100]


def test_zero_comes_after_a_quiet_time_that_the_gaps_decide() -> None:
    def quiet(gaps: float, **spec: float) -> float:
        scaler, now = Scaler(ScaleSpec(**spec)), 0.0  # type: ignore[arg-type]
        for _ in range(20):
            now += gaps
            scaler.arrived(now)
            scaler.finished(now, 0.01)
        for wait in range(1, 200):
            if scaler.decide(now + wait, seen(idle=1)).wanted == 0:
                return wait
        return 200

    assert quiet(0.01) == 15
    assert quiet(40) == 60
    assert quiet(500) == 120
    assert quiet(40, idle_s=3.0) == 3


def test_what_was_needed_lately_is_not_ended() -> None:
    scaler = Scaler(ScaleSpec(max=20))
    scaler.finished(0.0, 1.0)
    need = scaler.decide(1.0, seen(80, busy=8)).wanted
    assert need > 8
    scaler.arrived(2.0)
    assert scaler.decide(20.0, seen(0, 1, need - 1)).retire == 0
    scaler.arrived(40.0)
    later = scaler.decide(40.0, seen(0, 1, need - 1))
    assert 0 < later.retire <= -(-(need - 1) // 2), "half of what is over"
    assert scaler.decide(40.5, seen(0, 1, later.wanted - 1)).retire == 0, "every two seconds"
