# pyright: standard, reportMissingTypeStubs=false
"""Rules about paths are about the same paths with a query and without, as routes are."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import re2
from hypothesis import given, settings

from controlplane import ir
from controlplane.translate.paths import path_regex

paths = st.text("ab/.-]^", max_size=5).map(lambda rest: f"/{rest}")
queries = st.one_of(st.none(), st.text("ab/?.$]", max_size=5))
atoms = st.sampled_from(
    [
        *("a", "/", ".", "^", "$", "[ab]", "[]a]", "[.$]", "[^a]", "[^]a]", "[^-a]", "[^a-]", "[^[:alpha:]]"),
        *(r"\D", r"\W", r"\S", r"\PL", r"\P{Lu}", r"\.", r"\x2e", r"\z", r"[^\]]", r"[^\d.]"),
        *(r"\Q.$\E", r"\Q.", "(?:a|.$)", "(?i:A)"),
    ]
)
repeated = st.tuples(atoms, st.sampled_from(["", "", "*", "+?", "{1,2}"])).map(
    lambda each: each[0] if each[0].startswith(("^", "$", r"\z", r"\Q")) else "".join(each)
)
patterns = st.lists(repeated, max_size=5).map("".join)


def holds(pattern: str, text: str) -> bool:
    return re2.compile(pattern).fullmatch(text) is not None


@given(patterns, patterns, paths, queries)
@settings(deadline=None, max_examples=500)
def test_an_expression_is_about_the_path_alone(one: str, other: str, path: str, query: str | None) -> None:
    pattern = rf"/{one}|.*{other}" if r"\Q" not in one else rf"/{one}"
    rule = ir.PathRule("RegularExpression", pattern)
    assert holds(path_regex(rule), path if query is None else f"{path}?{query}") is holds(pattern, path)


@pytest.mark.parametrize(
    ("kind", "value", "about", "not_about"),
    [
        ("Exact", "/a.b", ["/a.b", "/a.b?", "/a.b?x"], ["/a.b/", "/axb", "/a.bc"]),
        ("PathPrefix", "/a/", ["/a", "/a/", "/a/b?c", "/a?b"], ["/ab", "/"]),
        ("PathPrefix", "/", ["/", "/?x", "/x"], []),
        ("RegularExpression", "^/search$", ["/search", "/search?page=2"], ["/searches", "/x?/search"]),
        ("RegularExpression", ".*/health", ["/health", "/a/health?x"], ["/orders?/health"]),
    ],
)
def test_kinds_of_paths(kind: str, value: str, about: list[str], not_about: list[str]) -> None:
    pattern = path_regex(ir.PathRule(kind, value))  # pyright: ignore[reportArgumentType]
    assert [each for each in (*about, *not_about) if holds(pattern, each)] == about
