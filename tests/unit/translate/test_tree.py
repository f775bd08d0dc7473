"""Regular expressions in a matcher tree: what follows the path must not be taken for a part of it."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from controlplane import ir
from controlplane.translate.tree import keeps_to_path, suits

KEEPING = [
    "/a.*",
    "/[ab]/.*",
    "/v[0-9]+/items/\\d{2,}",
    "/foo(/.*)?",
    "^/foo(?:/.*)?$",
    "/x/(a|b)/y",
    "/[a-z.]+",
    "[a-z/]*c[.]d",
    "/a\\.b-\\w*",
]
STRAYING = [
    ".*c[.]d",
    "/ab?/[^/]+",
    "/a/.*/b",
    "/a/.+",
    "/a\\?b",
    "/[0-z]",
    "/a.b",
    "/a(.*)+",
    "/a\\S*b",
    "/\\D+",
    "/[.-z]",
]


@pytest.mark.parametrize("pattern", KEEPING)
def test_an_expression_that_no_question_mark_fits_may_stand_in_a_tree(pattern: str) -> None:
    assert keeps_to_path(pattern)


@pytest.mark.parametrize("pattern", STRAYING)
def test_one_that_might_take_a_question_mark_for_the_path_keeps_its_host_a_list(pattern: str) -> None:
    assert not keeps_to_path(pattern)
    assert not suits([ir.Match(ir.PathMatch("PathPrefix", "/")), ir.Match(ir.PathMatch("RegularExpression", pattern))])


PIECES = st.sampled_from(["/", "a", "b", "c.d", "x", "12", "-", "/foo", "?", "p=1", ".b", "/a", "%20"])


@given(
    pattern=st.sampled_from(KEEPING), path=st.lists(PIECES.filter(lambda each: "?" not in each)), query=st.lists(PIECES)
)
def test_with_a_query_string_behind_it_a_path_is_matched_as_it_is_without(
    pattern: str, path: list[str], query: list[str]
) -> None:
    bare, followed = "/" + "".join(path), "/" + "".join(path) + "?" + "".join(query)
    in_tree = re2.compile(f"(?:{pattern})(?:\\?.*)?")
    assert (in_tree.fullmatch(followed) is not None) == (re2.compile(pattern).fullmatch(bare) is not None)
