# pyright: standard, reportMissingTypeStubs=false
"""Regular expressions in a matcher tree: what follows the path must not be taken for a part of it."""

from __future__ import annotations

import pytest
import re2

from controlplane import ir
from controlplane.translate.expressions import literal_prefix, on_path, on_query
from controlplane.translate.tree import suits

PATHS = ["/foo", "/foo/", "/foo/x", "/a/b", "/a/", "/a", "/ab/c", "/c.d", "/users/12/x", "/Users/12/X", "/x?y", "/"]
PATTERNS = [
    "/foo.*",
    "^/foo$",
    "^/foo(?:/.*)?$",
    "/a/[^/]+",
    "/a/.*",
    "/a/.+",
    "/a\\S*b",
    "/\\D+",
    "/[.-z]+",
    ".*c[.]d",
    "/.*/.*",
    "(?i)^/users/(?P<id>[0-9]+)/x$",
    "/(foo|a/b$|x)",
    "/\\PN+",
    "/[[:graph:]]*",
    "/[^\\d]*",
    "/(?s:.)*",
    "/x\\?y",
    "/\\Qc.d\\E",
    "/foo\\b/?",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("query", ["?", "?p=1", "?x=/foo", "?/a/b", "??", "?c.d"])
def test_with_a_query_string_behind_it_a_path_is_matched_as_it_is_without(pattern: str, query: str) -> None:
    in_tree = on_path(pattern)
    assert in_tree is not None
    for path in (each for each in PATHS if "?" not in each):
        expected = re2.fullmatch(pattern, path) is not None
        assert (re2.fullmatch(str(in_tree), path) is not None) == expected, path
        assert (re2.fullmatch(str(in_tree), path + query) is not None) == expected, path + query
    assert any(re2.fullmatch(pattern, path) for path in PATHS)


@pytest.mark.parametrize("pattern", ["/a$b", "(/a$)b", "/a\\C", "/\\pP", "a^b", "(/a|b$)*"])
def test_an_expression_that_is_not_understood_keeps_its_host_a_list(pattern: str) -> None:
    assert on_path(pattern) is None
    assert not suits([ir.Match(ir.PathMatch("PathPrefix", "/")), ir.Match(ir.PathMatch("RegularExpression", pattern))])


def test_what_follows_the_path_may_be_any_bytes() -> None:
    assert re2.fullmatch(str(on_path("/foo")).encode(), b"/foo?\xff") is not None


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("p=1", "1"),
        ("a&p=1&", "1"),
        ("p=2&p=1", "2"),
        ("pq=1&p=3", "3"),
        ("&&p=a=b?c/d", "a=b?c/d"),
        ("p", ""),
        ("p=", ""),
        ("P=1", None),
        ("q=1", None),
        ("x=p=1", None),
        ("p%3D1", None),
        ("?p=1", None),
    ],
)
def test_the_first_value_of_a_query_parameter_is_read_as_envoy_reads_it(query: str, value: str | None) -> None:
    for wanted in ("1", "2", "3", "", "a=b?c/d"):
        exact = on_query("p", wanted, regex=False)
        alike = on_query("p", f"^{re2.escape(wanted)}$", regex=True)
        assert (re2.fullmatch(str(exact), f"/a?{query}") is not None) == (wanted == value)
        assert (re2.fullmatch(str(alike), f"/a?{query}") is not None) == (wanted == value)
    assert (re2.fullmatch(str(on_query("p", ".*", regex=True)), f"/a?{query}") is not None) == (value is not None)


@pytest.mark.parametrize(
    ("pattern", "begins"),
    [
        ("/users/[0-9]+/x", "/users/"),
        ("^/users/.*$", "/users/"),
        ("(/user/|/users/)x", "/user"),
        ("(?i)/users/a", "/"),
        (".*/x", ""),
        ("/é/[a-z]", "/"),
        ("/a?b", "/"),
    ],
)
def test_an_expression_is_asked_for_below_what_all_that_it_matches_begins_with(pattern: str, begins: str) -> None:
    assert literal_prefix(pattern) == begins
