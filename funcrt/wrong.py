"""A value in one of the author's files that is not what its place takes, and how it is told."""

import datetime
import json

__all__ = ["Wrong", "describe", "wrong"]


class Wrong(Exception):
    """A value that its key does not take; the message says expected and found."""


def describe(value: object) -> str:
    """A TOML value as messages show it, cut short: `"abc"`, `true`, `a table`."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 60 else f'{text[:56]}..."'
        case dict():
            return "a table"
        case list():
            return "an array" if value else "an empty array"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case int() if abs(value) > 10**18:
            return "a number of more than 18 digits"
    return str(value)


def wrong(expected: str, value: object) -> Wrong:
    """The usual message."""
    return Wrong(f"expected {expected}, found {describe(value)}")
