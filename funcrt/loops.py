"""Whether an event of a given type could pass a trigger's filters: for refusing loops at deploy.

Only the type of an output is known before it is made; every other attribute and the data may
turn out either way. So a condition holds (True), does not (False), or may (None).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import triggers
from mesh.event import Event

__all__ = ["could_match"]


def could_match(
    filters: Sequence[Mapping[str, Any]], pattern: Mapping[str, Any] | None, type: str
) -> bool:
    """False only where no event of this type can match. The filters are ones `parse` accepts."""
    verdicts = [_dialect(item, type) for item in filters]
    if pattern is not None:
        verdicts.append(_pattern(pattern, type))
    return _all(verdicts) is not False


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = set(verdicts)
    return False if False in found else None if None in found else True


def _any(verdicts: Iterable[bool | None]) -> bool | None:
    found = set(verdicts)
    return True if True in found else None if None in found else False


def _dialect(item: Mapping[str, Any], type: str) -> bool | None:
    ((dialect, value),) = item.items()
    match dialect:
        case "all":
            return _all(_dialect(inner, type) for inner in value)
        case "any":
            return _any(_dialect(inner, type) for inner in value)
        case "not":
            verdict = _dialect(value, type)
            return None if verdict is None else not verdict
        case "exact" | "prefix" | "suffix":
            return _all(
                _matches({"filters": [{dialect: {name: wanted}}]}, type) if name == "type" else None
                for name, wanted in value.items()
            )
    return None


def _pattern(pattern: Mapping[str, Any], type: str) -> bool | None:
    return _all(
        _any(_pattern(branch, type) for branch in wanted)
        if name == "$or"
        else _matches({"pattern": {name: wanted}}, type)
        if name == "type"
        else None
        for name, wanted in pattern.items()
    )


def _matches(spec: Mapping[str, Any], type: str) -> bool:
    return triggers.parse(spec).matches(Event(id="1", source="/", type=type))
