"""Paths with parameters: as Starlette matches them, and no request's path meant by two."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from funcrt.paths import MOST_MATCHED, PathInvalid, Paths, PathTemplate, clash, converted

LITERALS = st.sampled_from(["a", "b", "1", "a.b"])
KINDS = ("", ":str", ":int", ":float", ":uuid", ":path")
UUID = "7f1b0f5e-5f0e-4a53-9d0e-0a4a5f0e4a53"
TEXTS = st.sampled_from(["a", "b", "1", "1.5", UUID, "a.b", "x-1", "x-a", "\n", "ä"])
REQUESTS = st.lists(TEXTS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@st.composite
def templates(draw: st.DrawFn) -> str:
    parts, rest = [], False
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS[:5] if rest else KINDS))
        rest = rest or kind == ":path"
        named = f"{{p{index}{kind}}}"
        parts.append(draw(LITERALS | st.sampled_from([named, f"x-{named}", f"{named}.b"])))
    return "/" + "/".join(parts)


@given(templates(), REQUESTS)
def test_a_template_matches_as_starlette_s(template: str, path: str) -> None:
    regex, _, convertors = compile_path(template)
    # Starlette ends its expression with $, which lets a line's end through.
    found = regex.match(path) if not path.endswith("\n") else None
    ours = PathTemplate(template).params(path)
    if "\n" in path:  # and its . is none of a line's end, which a path may hold
        return
    if found is None:
        assert ours is None
    else:
        assert ours is not None
        assert converted(ours) == {
            name: convertors[name].convert(text) for name, text in found.groupdict().items()
        }


@given(st.lists(templates(), min_size=1, max_size=5), REQUESTS)
def test_of_paths_without_a_clash_one_is_meant_in_any_order(given: list[str], path: str) -> None:
    kept: list[str] = []
    for template in given:
        if not any(clash(template, other) for other in kept):
            kept.append(template)
    found = Paths((each, each) for each in kept).find(path)
    assert found == Paths((each, each) for each in reversed(kept)).find(path)
    matching = [each for each in kept if PathTemplate(each).params(path) is not None]
    assert (found is not None) == bool(matching)
    if found is not None and "{" in found[0]:
        assert PathTemplate(found[0]).order == min(PathTemplate(each).order for each in matching)


@given(templates(), templates(), REQUESTS)
def test_what_a_path_is_meant_by_twice_clashes(one: str, other: str, path: str) -> None:
    first, second = PathTemplate(one), PathTemplate(other)
    assert clash(one, other) == clash(other, one)
    both = first.params(path) is not None and second.params(path) is not None
    if both and first.order == second.order and "{" in one and "{" in other:
        assert clash(one, other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/a", "/a", True),
        ("/a/{x}", "/a/{y}", True),
        ("/a/{x}", "/a/b", False),
        ("/a/{x:int}", "/a/{x}", False),
        ("/a/{x:int}", "/a/{x:float}", True),
        ("/a/{x:int}", "/a/{x:uuid}", False),
        ("/a/{x}.png", "/a/{x}.txt", False),
        ("/a/{x:path}", "/a/{y:path}", True),
        ("/a/{x:path}", "/b/{x:path}", False),
        ("/{x:path}", "/a/{x:path}", False),
    ],
)
def test_clashes(one: str, other: str, same: bool) -> None:
    assert clash(one, other) is same


def test_numbers_and_paths_without_end_match_nothing() -> None:
    number = PathTemplate("/{n:int}")
    assert number.params("/" + "1" * 1000)
    assert number.params("/" + "1" * 1001) is None
    rest = PathTemplate("/{rest:path}")
    assert rest.params("/" + "x" * (MOST_MATCHED - 1))
    assert rest.params("/" + "x" * MOST_MATCHED) is None


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(PathInvalid, match=re.escape("expected {name} or {name:convertor}")):
        PathTemplate("/{}")
