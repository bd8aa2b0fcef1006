"""Paths of HTTP triggers with parameters: `/orders/{id}`, `/files/{name:path}`.

The forms and the convertors are Starlette's (starlette.io, Routing, Path Parameters), written here
as reading a manifest must not take the time to import it.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

__all__ = [
    "CONVERTORS",
    "Params",
    "PathInvalid",
    "PathTemplate",
    "Paths",
    "clash",
    "converted",
    "taken",
]

T = TypeVar("T")
Params = list[tuple[str, str, str]]
"""(name, convertor, the text in the path) of each parameter."""

CONVERTORS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "str": ("[^/]+", str),
    "path": (".*", str),
    "int": ("[0-9]+", int),
    "float": (r"[0-9]+(?:\.[0-9]+)?", float),
    "uuid": ("[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", uuid.UUID),
}
"""Name -> (what it matches, what makes the value of it)."""

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_NAMED = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z]+))?", re.ASCII)
LITERAL, MIXED, NARROW, WIDE, REST, END = range(6)
"""A part of a path, the more particular first: plain, plain with a parameter, a parameter of digits
or such, one of any text, one that goes on over slashes."""
MOST_MATCHED = 4096
"""Longer paths match no template: matching takes up to the square of it."""
_NARROW = ("int", "float", "uuid")
_DIGITS = ("int", "float")
_MOST_DIGITS = 1000
"""Longer numbers match no `int` or `float`: Python would refuse to read them."""


class PathInvalid(ValueError):
    """A path whose parameters are not well-formed."""


class PathTemplate:
    """A path with parameters, parsed. Raises PathInvalid."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kinds: dict[str, str] = {}
        regex, at = "", 0
        for found in _PARAMETER.finditer(path):
            name, kind = self._parameter(found[1])
            regex += re.escape(path[at : found.start()]) + f"(?P<{name}>{CONVERTORS[kind][0]})"
            self.kinds[name] = kind
            at = found.end()
        rest = path[at:]
        if re.search(r"[{}]", _PARAMETER.sub("", path)):
            raise PathInvalid("a { without its }, or a } without its {")
        self.match = re.compile(regex + re.escape(rest), re.DOTALL).fullmatch
        if [*self.kinds.values()].count("path") > 1:
            raise PathInvalid("two parameters go on over slashes; one may")
        self.parts = [_part(text) for text in _PARAMETER.sub(_marked, path)[1:].split("/")]
        self.order = (*(rank for rank, _ in self.parts), END)
        """Of two templates that match the same path, the one with the lesser is meant."""

    def _parameter(self, text: str) -> tuple[str, str]:
        found = _NAMED.fullmatch(text)
        if found is None:
            raise PathInvalid(f"expected {{name}} or {{name:convertor}}, found {{{text}}}")
        name, kind = found[1], found[2] or "str"
        if kind not in CONVERTORS:
            raise PathInvalid(f"no convertor {kind!r}; there are {', '.join(CONVERTORS)}")
        if name in self.kinds:
            raise PathInvalid(f"two parameters are named {name!r}")
        return name, kind

    def params(self, path: str) -> Params | None:
        """The parameters of a path; None for one that it does not match."""
        found = self.match(path) if len(path) <= MOST_MATCHED else None
        if found is None:
            return None
        texts = found.groupdict()
        if any(kind in _DIGITS and len(texts[n]) > _MOST_DIGITS for n, kind in self.kinds.items()):
            return None
        return [(name, kind, texts[name]) for name, kind in self.kinds.items()]


def converted(params: Params) -> dict[str, Any]:
    """Parameters as a handler gets them: an int, a float, a UUID or a str each."""
    return {name: CONVERTORS[kind][1](text) for name, kind, text in params}


def _marked(found: "re.Match[str]") -> str:
    return f"{{{found[1].partition(':')[2] or 'str'}}}"


def _part(text: str) -> tuple[int, str]:
    """Its rank, and what two of a rank are compared by: `text` has convertors for parameters."""
    kinds = _PARAMETER.findall(text)
    if not kinds:
        return LITERAL, text
    if len(kinds) > 1:
        raise PathInvalid("two parameters in one part; put a / between them")
    if "path" in kinds:
        return REST, text
    if text != f"{{{kinds[0]}}}":
        return MIXED, text
    return (NARROW if kinds[0] in _NARROW else WIDE), kinds[0]


def clash(one: str, other: str) -> bool:
    """Whether some request's path is meant by both: the same path, or templates that can match the
    same one, neither of which is the more particular."""
    if one == other:
        return True
    if "{" not in one or "{" not in other:
        return False
    first, second = PathTemplate(one), PathTemplate(other)
    if first.order != second.order:
        return False
    return all(map(_overlap, first.parts, second.parts))


def taken(who: str, path: str, other: str, theirs: str) -> str:
    """The message for a path of `who` that clashes with `theirs`, the path of `other`."""
    if path == theirs:
        return f"{who}: {other} has the path {path} too"
    return f"{who}: the path {path} can be the same as {theirs}, which {other} has"


def _overlap(one: tuple[int, str], other: tuple[int, str]) -> bool:
    rank, text = one
    if rank == LITERAL:
        return text == other[1]
    if rank == NARROW:
        return text == other[1] or {text, other[1]} <= {*_DIGITS}
    if rank in (MIXED, REST):
        return _compatible(text, other[1])
    return True


def _compatible(one: str, other: str) -> bool:
    """Whether what both begin and end with can be had at once; more is not looked at."""
    ends = [(text[: text.index("{")], text[text.rindex("}") + 1 :]) for text in (one, other)]
    (start, end), (start2, end2) = ends
    begins = start.startswith(start2) or start2.startswith(start)
    return begins and (end.endswith(end2) or end2.endswith(end))


class Paths(Generic[T]):
    """What is at each path: plain ones first, then the most particular template that matches."""

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        self.plain: dict[str, T] = {}
        self._by_first: dict[str, list[tuple[PathTemplate, T]]] = {}
        """By the first part where that is plain, else by nothing."""
        self.known: list[str] = []
        templates = []
        for path, item in items:
            self.known.append(path)
            if "{" in path:
                templates.append((PathTemplate(path), item))
            else:
                self.plain[path] = item
        templates.sort(key=lambda each: each[0].order)
        for template, item in templates:
            rank, text = template.parts[0]
            self._by_first.setdefault(text if rank == LITERAL else "", []).append((template, item))

    def find(self, path: str) -> tuple[T, Params] | None:
        """What is at a request's path, and the parameters in it."""
        found = self.plain.get(path)
        if found is not None:
            return found, []
        if self._by_first:
            first = path[1:].partition("/")[0]
            for key in dict.fromkeys((first, "")):
                for template, item in self._by_first.get(key, ()):
                    params = template.params(path)
                    if params is not None:
                        return item, params
        return None
