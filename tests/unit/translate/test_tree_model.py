# pyright: standard, reportAttributeAccessIssue=false, reportMissingTypeStubs=false
"""A matcher tree finds what a list of its routes would, by a model of how Envoy goes through matchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import re2
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane import ir
from controlplane.compile.precedence import match_rank
from controlplane.translate import tree
from controlplane.translate.expressions import without
from controlplane.translate.wire import encode


class Request(NamedTuple):
    target: str
    method: str
    headers: dict[str, str]

    def value(self, header: str) -> str | None:
        return {":path": self.target, ":method": self.method}.get(header, self.headers.get(header))


class Seen:
    """How much a matcher did for a request."""

    def __init__(self) -> None:
        self.steps = 0


# -- matchers, as Envoy goes through them --


def found_by_tree(encoded: bytes, request: Request, seen: Seen | None = None) -> str | None:
    host = VirtualHost.FromString(encoded)
    return _matcher(host.matcher, request, seen or Seen())


def _matcher(matcher: Any, request: Request, seen: Seen) -> str | None:
    found = None
    if matcher.WhichOneof("matcher_type") == "matcher_list":
        for each in matcher.matcher_list.matchers:
            if _holds(each.predicate, request, seen):
                found = _on_match(each.on_match, request, seen)
            if found is not None:
                return found
    else:
        value = request.value(_header_of(matcher.matcher_tree.input))
        for key in _keys(matcher.matcher_tree, value):
            seen.steps += 1
            entries = getattr(matcher.matcher_tree, matcher.matcher_tree.WhichOneof("tree_type")).map
            found = _on_match(entries[key], request, seen)
            if found is not None:
                return found
    return _on_match(matcher.on_no_match, request, seen) if matcher.HasField("on_no_match") else None


def _keys(map_: Any, value: str | None) -> list[str]:
    if value is None:
        return []
    if map_.WhichOneof("tree_type") == "exact_match_map":
        return [value] if value in map_.exact_match_map.map else []
    begins = (value[:length] for length in range(len(value), -1, -1))
    return [begin for begin in begins if begin in map_.prefix_match_map.map]


def _on_match(on_match: Any, request: Request, seen: Seen) -> str | None:
    if on_match.HasField("matcher"):
        return _matcher(on_match.matcher, request, seen)
    route = Route()
    assert on_match.action.typed_config.Unpack(route)
    return route.name


def _holds(predicate: Any, request: Request, seen: Seen) -> bool:
    kind = predicate.WhichOneof("match_type")
    if kind == "or_matcher":
        return any(_holds(each, request, seen) for each in predicate.or_matcher.predicate)
    if kind == "and_matcher":
        return all(_holds(each, request, seen) for each in predicate.and_matcher.predicate)
    if kind == "not_matcher":
        return not _holds(predicate.not_matcher, request, seen)
    seen.steps += 1
    value = request.value(_header_of(predicate.single_predicate.input))
    wanted = predicate.single_predicate.value_match
    if value is None:
        return False
    checks: dict[str, Callable[[], bool]] = {
        "exact": lambda: value == wanted.exact,
        "prefix": lambda: value.startswith(wanted.prefix),
        "safe_regex": lambda: re2.fullmatch(wanted.safe_regex.regex, value) is not None,
    }
    return checks[wanted.WhichOneof("match_pattern")]()


def _header_of(source: Any) -> str:
    header = HttpRequestHeaderMatchInput()
    assert source.typed_config.Unpack(header)
    return header.header_name


# -- lists, as Gateway API says --


def found_by_list(stages: list[list[ir.Match]], request: Request) -> str | None:
    for number, stage in enumerate(stages):
        for index, match in enumerate(stage):
            if fits(match, request):
                return f"{number}-{index}"
    return None


def fits(match: ir.Match, request: Request) -> bool:
    path, _, query = request.target.partition("?")
    first: dict[str, str] = {}
    for each in query.split("&") if query else ():
        name, _, value = each.partition("=")
        first.setdefault(name, value)
    return (
        _path_fits(match.path, path)
        and match.method in (None, request.method)
        and all(_value_fits(each, request.headers.get(each.name)) for each in match.headers)
        and all(_value_fits(each, first.get(each.name)) for each in match.query)
    )


def _path_fits(path: ir.PathMatch, asked: str) -> bool:
    if path.kind == "Exact":
        return asked == path.value
    if path.kind == "PathPrefix":
        return path.value == "/" or asked == path.value or asked.startswith(f"{path.value}/")
    return re2.fullmatch(path.value, asked) is not None


def _value_fits(want: ir.ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    return re2.fullmatch(want.value, value) is not None if want.regex else want.value == value


def encoded(stages: list[list[ir.Match]]) -> bytes:
    return tree.matcher(
        [
            [tree.branch(match, encode(Route(name=f"{number}-{index}"))) for index, match in enumerate(stage)]
            for number, stage in enumerate(stages)
        ]
    )


# -- generated --

SEGMENTS = st.sampled_from(["a", "ab", "b", "c.d", "12"])
PATHS = st.lists(SEGMENTS, max_size=3).map(lambda found: "/" + "/".join(found))
ATOMS = st.sampled_from(
    ["a", "b", "/", "/a", ".", r"\.", "[ab]", "[^/]", "[^a]", r"\S", r"\W", r"\D", r"\w", r"[\w.]", "(?i:A)", r"\?"]
)
EXPRESSIONS = st.recursive(
    st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?", "{1,2}"])).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"({'|'.join(some)})"),
    ),
    max_leaves=6,
)
ANCHORED = st.tuples(st.sampled_from(["", "^", "(?i)", "(?s)"]), EXPRESSIONS, st.sampled_from(["", "$"])).map("".join)
VALUES = st.sampled_from([("1", False), ("2", False), ("3", False), ("[12]", True), (".", True), ("^1$", True)])


def value_matches(names: list[str]) -> st.SearchStrategy[tuple[ir.ValueMatch, ...]]:
    one = st.tuples(st.sampled_from(names), VALUES).map(lambda found: ir.ValueMatch(found[0], *found[1]))
    return st.lists(one, max_size=2, unique_by=lambda each: each.name).map(tuple)


def matches(paths: st.SearchStrategy[ir.PathMatch]) -> st.SearchStrategy[ir.Match]:
    return st.builds(
        ir.Match,
        path=paths,
        method=st.sampled_from([None, None, "GET", "POST"]),
        headers=value_matches(["x-one", "x-two"]),
        query=value_matches(["p", "pq"]),
    )


ANY_PATH = st.one_of(
    st.builds(ir.PathMatch, st.just("Exact"), PATHS),
    st.builds(ir.PathMatch, st.just("PathPrefix"), PATHS),
    st.builds(ir.PathMatch, st.just("RegularExpression"), ANCHORED.map(lambda found: f"/{found}".replace("/^", "^/"))),
)
ONE_PATH = st.just(ir.PathMatch("PathPrefix", "/"))
BEGUN_ALIKE = st.builds(
    lambda begin, rest: ir.PathMatch("RegularExpression", begin + rest),
    st.sampled_from(["/", "/a", "/a/", "/a/b"]),
    EXPRESSIONS,
)
QUERIES = st.lists(
    st.sampled_from(["p=1", "p=2", "p", "p=", "pq=1", "pq=2", "x=/a", "", "p==1", "x=?p=1", "p=?"]), max_size=3
).map(lambda found: "?" + "&".join(found) if found else "")
REQUESTS = st.builds(
    Request,
    target=st.builds(
        lambda path, more, query: path + more + query, PATHS, st.sampled_from(["", "/", "x", "/a/b"]), QUERIES
    ),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    headers=st.dictionaries(st.sampled_from(["x-one", "x-two"]), st.sampled_from(["1", "2", "3", "4", "1,2"])),
)


def ranked(stage: list[ir.Match]) -> list[ir.Match]:
    return sorted(stage, key=match_rank)


@pytest.mark.parametrize("least", [0, 25])
@pytest.mark.parametrize("paths", [ANY_PATH, ONE_PATH, BEGUN_ALIKE], ids=["any", "one path", "begun alike"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_tree_finds_what_a_list_would(
    paths: st.SearchStrategy[ir.PathMatch], least: int, data: st.DataObject
) -> None:
    stage = st.lists(matches(paths), min_size=least, max_size=40).map(ranked)
    stages = data.draw(st.lists(stage, min_size=1, max_size=2))
    stages = [[match for match in stage if tree.suits([match])] for stage in stages]
    body = encoded(stages)
    for request in data.draw(st.lists(REQUESTS, min_size=10, max_size=20)):
        assert found_by_tree(body, request) == found_by_list(stages, request), request


@settings(max_examples=300, deadline=None)
@given(pattern=ANCHORED, banned=st.sampled_from("?&"), texts=st.lists(st.text("ab/.?&A1\n", max_size=6), min_size=5))
def test_a_rewritten_expression_matches_what_it_did_but_for_one_character(
    pattern: str, banned: str, texts: list[str]
) -> None:
    rewritten = without(pattern, banned)
    for text in texts if rewritten is not None else ():
        before, after = (re2.fullmatch(each, text) is not None for each in (pattern, rewritten))
        assert after == (before and banned not in text), (pattern, rewritten, text)
