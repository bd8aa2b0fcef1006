"""Wildcards, without regular expressions: time grows with the value's length, and no faster.

A wildcard is its *segments*, the text between its stars: a string, or, where one has a place for
any character, a list with ONE there.
"""

from collections.abc import Callable, Sequence
from functools import partial

from triggers.access import Key

__all__ = ["ONE", "Segments", "key_of", "matcher"]

ONE = None
"""Any one character."""

Segment = str | Sequence[str | None]
Segments = Sequence[Segment]
_Find = Callable[[str, int, bool], int]


def matcher(segments: Segments) -> Callable[[str], bool]:
    """Whether a string matches: each segment in its order, the first at the start, the last at the
    end. The leftmost place that fits is always one from which the rest can match, if any is."""
    if len(segments) > 1 and all(isinstance(segment, str) for segment in segments):
        head, *middle, tail = [str(segment) for segment in segments]
        return partial(_fits, head, tuple(middle), tail)
    finders = [_finder(segment) for segment in segments]
    (first, begins), (last, ends) = finders[0], finders[-1]
    if len(finders) == 1:
        return lambda value: len(value) == first and begins(value, 0, True) == 0

    def matches(value: str) -> bool:
        end = len(value) - last
        if end < first or begins(value, 0, True) != 0 or ends(value, end, True) != end:
            return False
        at = first
        for length, find in finders[1:-1]:
            at = find(value, at, False)
            if at < 0:
                return False
            at += length
        return at <= end

    return matches


def _fits(head: str, middle: tuple[str, ...], tail: str, value: str) -> bool:
    at, end = len(head), len(value) - len(tail)
    if end < at or not value.startswith(head) or not value.endswith(tail):
        return False
    for text in middle:
        at = value.find(text, at, end)
        if at < 0:
            return False
        at += len(text)
    return True


def _finder(segment: Segment) -> tuple[int, _Find]:
    """The segment's length, and what finds it in a value from a place on (or right there): the
    place, or -1."""
    length = len(segment)
    if isinstance(segment, str) or ONE not in segment:
        text = "".join(character or "" for character in segment)

        def plain(value: str, at: int, there: bool) -> int:
            if there:
                return at if value.startswith(text, at) else -1
            return value.find(text, at)

        return length, plain
    wanted = [(n, character) for n, character in enumerate(segment) if character is not ONE]

    def spotted(value: str, at: int, there: bool) -> int:
        stop = len(value) - length + 1
        for start in range(at, min(at + 1, stop) if there else stop):
            if all(value[start + n] == character for n, character in wanted):
                return start
        return -1

    return length, spotted


def key_of(segments: Segments) -> Key:
    """What an index can find the wildcard by: the text at its start and at its end, and every run
    of text in it."""
    runs = [_runs(segment) for segment in segments]
    if len(segments) == 1 and len(runs[0]) == 1:
        return Key("is", runs[0][0])
    chunks = tuple(run for some in runs for run in some if run)
    return Key("like", (runs[0][0], runs[-1][-1], chunks))


def _runs(segment: Segment) -> list[str]:
    """The text between the ONEs, empty where two meet."""
    runs = [""]
    for character in segment:
        if character is ONE:
            runs.append("")
        else:
            runs[-1] += character
    return runs
