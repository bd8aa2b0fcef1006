"""LIKE patterns, without regular expressions: time grows with the value's length, no faster."""

from collections.abc import Callable

__all__ = ["like"]

_ONE = None
"""`_` in a segment: any one character."""

Segment = list[str | None]


def like(pattern: str) -> Callable[[str], bool]:
    r"""Whether a string matches: `%` is any run of characters, `_` any one, `\%` and `\_` these
    themselves (CESQL 1.0.0 §3.4.3)."""
    segments = _segments(pattern)
    finders = [_finder(segment) for segment in segments]
    (first, head), (last, tail) = finders[0], finders[-1]
    if len(finders) == 1:
        return lambda value: len(value) == first and head(value, 0, True) == 0

    def matches(value: str) -> bool:
        end = len(value) - last
        if end < first or head(value, 0, True) != 0 or tail(value, end, True) != end:
            return False
        at = first
        for length, find in finders[1:-1]:
            at = find(value, at, False)
            if at < 0:
                return False
            at += length
        return at <= end

    return matches


def _segments(pattern: str) -> list[Segment]:
    """What stands between the `%`, a character or _ONE an element."""
    segments: list[Segment] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            after = next(characters, "")
            if after not in ("%", "_"):
                segments[-1].append("\\")
            segments[-1].extend(after)
        elif character == "%":
            segments.append([])
        else:
            segments[-1].append(_ONE if character == "_" else character)
    return segments


def _finder(segment: Segment) -> tuple[int, Callable[[str, int, bool], int]]:
    """The segment's length, and what finds it in a value from a place on (or right there): the
    place, or -1."""
    length = len(segment)
    text = "".join(character or "\0" for character in segment)
    if _ONE not in segment:

        def plain(value: str, at: int, there: bool) -> int:
            if there:
                return at if value.startswith(text, at) else -1
            return value.find(text, at)

        return length, plain
    wanted = [(n, character) for n, character in enumerate(segment) if character is not _ONE]

    def spotted(value: str, at: int, there: bool) -> int:
        stop = at + 1 if there else len(value) - length + 1
        for start in range(at, stop):
            if start + length <= len(value) and all(
                value[start + n] == character for n, character in wanted
            ):
                return start
        return -1

    return length, spotted
