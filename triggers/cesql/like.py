"""LIKE patterns (CESQL 1.0.0 §3.4.3)."""

from triggers.wildcard import ONE

__all__ = ["segments"]


def segments(pattern: str) -> list[list[str | None]]:
    r"""A pattern's segments: `%` is any run of characters, `_` any one, `\%` and `\_` these
    themselves."""
    found: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            after = next(characters, "")
            if after not in ("%", "_"):
                found[-1].append("\\")
            found[-1].extend(after)
        elif character == "%":
            found.append([])
        else:
            found[-1].append(ONE if character == "_" else character)
    return found
