"""The deduplication window against a plain set, at every size it grows through."""

import random
import sys

import pytest

from mesh.ids import EACH, IdWindow, digest


def keys(first: int, count: int) -> list[bytes]:
    return [digest("/s", str(number)) for number in range(first, first + count)]


@pytest.mark.parametrize("expected", [0, 5000])
def test_what_was_added_is_there_and_nothing_else(expected: int) -> None:
    chance, window, there = random.Random(expected), IdWindow(3600.0, 1_000_000), 0
    if expected:
        window.add_stored([(0.0, b"".join(keys(0, 100)))], expected)
        there = 100
    while there < 20_000:
        window.add(keys(there, more := chance.randint(1, 300)), 1.0)
        there += more
        for number in chance.sample(range(there), min(there, 20)):
            assert digest("/s", str(number)) in window
        for number in range(there, there + 20):
            assert digest("/s", str(number)) not in window
    assert all(key in window for key in keys(0, there))
    assert not any(key in window for key in keys(there, there))


def test_it_keeps_the_last_and_forgets_those_before_as_a_whole() -> None:
    window = IdWindow(3600.0, 1000)
    for first in range(0, 10_000, 50):
        window.add(keys(first, 50), float(first))
        last = keys(max(first - 950, 0), min(first + 50, 1000))
        assert all(key in window for key in last)
        assert not any(key in window for key in keys(0, first - 1950))
    window = IdWindow(60.0, 1000)
    for now in (0.0, 61.0, 122.0):
        window.add([digest("/s", str(now))], now)
    assert [digest("/s", str(now)) in window for now in (0.0, 61.0, 122.0)] == [False, True, True]
    window.expire(122.0 + 2 * 60.0)
    assert not any(digest("/s", str(now)) in window for now in (0.0, 61.0, 122.0))


def test_it_takes_little_memory_and_no_commit_waits_for_it_to_grow() -> None:
    window, most = IdWindow(3600.0, 1_000_000), 0
    for first in range(0, 100_000, 50):
        before = window._new.ids.split if first else 0
        window.add(keys(first, 50), 1.0)
        most = max(most, window._new.ids.split - before)
    buckets = window._new.ids.buckets
    assert most <= 50 // (3 * EACH) + 1, "buckets split for a commit of 50"
    assert max(map(len, buckets)) < 16 * 16 * EACH
    size = sys.getsizeof(buckets) + sum(map(sys.getsizeof, buckets))
    assert size < 45 * 100_000
