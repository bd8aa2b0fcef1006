"""Routing by many filters is trying each of them, and costs little more than one."""

import time

from hypothesis import given
from hypothesis import strategies as st

import triggers
from funcrt.router import FEW, Router
from mesh.event import Event

TYPES = [f"t{n}" for n in range(5)]


def filter_of(type: str) -> triggers.Filter:
    return triggers.parse({"filters": [{"exact": {"type": type}}]})


_wanted = st.dictionaries(
    st.sampled_from(["one", "two"]),
    st.dictionaries(st.integers(0, 3 * FEW).map(str), st.sampled_from(TYPES), max_size=2 * FEW),
)


@given(st.lists(_wanted, min_size=1, max_size=6))
def test_it_is_trying_each(steps: list[dict[str, dict[str, str]]]) -> None:
    router = Router(lambda: 0.0)
    kept: dict[tuple[str, str, str], triggers.Filter] = {}  # a version that stays has its filter
    for step in steps:
        wanted = {
            topic: {
                name: kept.setdefault((topic, name, type), filter_of(type))
                for name, type in filters.items()
            }
            for topic, filters in step.items()
        }
        router.update(wanted)
        for topic in ("one", "two", "three"):
            for type in TYPES:
                event = Event("1", "/", type)
                expected = [n for n, one in wanted.get(topic, {}).items() if one.matches(event)]
                assert sorted(router.route(topic, event)) == sorted(expected)


def test_a_thousand_filters_cost_little_more_than_one() -> None:
    data = b'{"kind": "k7", "more": [1, 2, {"three": 4}], "text": "' + b"x" * 900 + b'"}'
    event = Event("1", "/", "t7", data=data)

    def seconds(count: int) -> float:
        router = Router(lambda: 0.0)
        spec = [{"pattern": {"type": [f"t{n}"], "data": {"kind": [f"k{n}"]}}} for n in range(count)]
        router.update({"in": {str(n): triggers.parse(one) for n, one in enumerate(spec)}})
        best = float("inf")
        for _ in range(7):
            began = time.perf_counter()
            for _ in range(300):
                assert len(router.route("in", event)) == (count > 7)
            best = min(best, time.perf_counter() - began)
        return best

    # An event of the common job takes the host some 50 us more than this, so twice is far off.
    assert seconds(1000) < 5 * seconds(8)


def test_the_last_events_that_a_filter_refused_are_remembered() -> None:
    now = iter(range(100))
    router = Router(lambda: float(next(now)))
    all_, a, b = triggers.parse({}), filter_of("a"), filter_of("b")
    router.update({"in": {"all": all_, "a": a, "b": b}})
    for id_, type_ in (("1", "a"), ("2", "b"), ("3", "a")):
        router.route("in", Event(id_, "/s", type_))
    router.route("in", Event("4", "/s", "c", data=b"x" * 20_000))
    assert [(at, e.id) for at, e in router.missed("in", b, 0.0)] == [(2.0, "3"), (0.0, "1")]
    assert [e.id for _, e in router.missed("in", a, 0.0)] == ["2"]
    assert [e.id for _, e in router.missed("in", b, 1.0)] == ["3"]
    assert list(router.missed("in", all_, 0.0)) == []
    for n in range(20):
        router.route("in", Event(str(n), "/s", "c"))
    assert len(list(router.missed("in", a, 0.0))) == 8
    router.update({"in": {"all": all_, "a": a}})
    assert len(list(router.missed("in", a, 0.0))) == 8
    assert list(router.missed("out", a, 0.0)) == []
