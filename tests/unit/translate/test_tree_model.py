# pyright: standard, reportAttributeAccessIssue=false, reportMissingTypeStubs=false
"""A matcher tree finds what a list of its routes would, by a model of how Envoy goes through matchers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import re2
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput

from controlplane import ir
from controlplane.compile.precedence import match_rank
from controlplane.translate import tree
from controlplane.translate.expressions import without
from controlplane.translate.wire import encode
from tests.support.route_sets import (
    Request,
    any_path,
    exact_or_prefix,
    expression,
    like,
    one_path,
    request,
    stage,
    winner,
)


class Seen:
    """How much a matcher did for a request."""

    def __init__(self) -> None:
        self.steps = 0


def found_by_tree(host: VirtualHost, request: Request, seen: Seen | None = None) -> str | None:
    return _matcher(host.matcher, request, seen or Seen())


def _value(request: Request, header: str) -> str | None:
    return {":path": request.target, ":method": request.method}.get(header, request.headers.get(header))


def _matcher(matcher: Any, request: Request, seen: Seen) -> str | None:
    found = None
    if matcher.WhichOneof("matcher_type") == "matcher_list":
        for each in matcher.matcher_list.matchers:
            if _holds(each.predicate, request, seen):
                found = _on_match(each.on_match, request, seen)
            if found is not None:
                return found
    else:
        value = _value(request, _header_of(matcher.matcher_tree.input))
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
    value = _value(request, _header_of(predicate.single_predicate.input))
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


def encoded(stages: list[list[ir.Match]]) -> bytes:
    return tree.matcher(
        [
            [tree.branch(match, encode(Route(name=f"{number}-{index}"))) for index, match in enumerate(stage)]
            for number, stage in enumerate(stages)
        ]
    )


SETS, REQUESTS = 50, 40


@pytest.mark.parametrize("number", [5, 40])
@pytest.mark.parametrize("paths", [exact_or_prefix, any_path, like, one_path])
def test_a_tree_finds_what_a_list_would(paths: Callable[[random.Random], ir.PathMatch], number: int) -> None:
    random_ = random.Random(f"{paths.__name__} {number}")
    answered = 0
    for _ in range(SETS):
        stages = [stage(random_, number, paths, tree.suits) for _ in range(random_.randint(1, 2))]
        host = VirtualHost.FromString(encoded(stages))
        for asked in (request(random_) for _ in range(REQUESTS)):
            expected = winner(stages, asked)
            assert found_by_tree(host, asked) == expected, (asked, stages)
            answered += expected is not None
    assert answered > SETS * REQUESTS / 5


def test_a_tree_finds_the_call_that_a_list_would() -> None:
    random_ = random.Random("calls")
    services, methods = ["a.S", "a.Sv", "bb"], ["Get", "Set", "G"]
    answered = 0
    for _ in range(SETS):
        stages = [sorted((_call(random_, services, methods) for _ in range(20)), key=match_rank)]
        assert tree.suits(stages[0])
        host = VirtualHost.FromString(encoded(stages))
        for _ in range(REQUESTS):
            target = f"/{random_.choice([*services, 'c'])}/{random_.choice([*methods, 'Other'])}"
            asked = Request(target, "POST", {"x-one": random_.choice("123")})
            assert found_by_tree(host, asked) == winner(stages, asked), (asked, stages)
            answered += winner(stages, asked) is not None
    assert answered > SETS * REQUESTS / 4


def _call(random_: random.Random, services: list[str], methods: list[str]) -> ir.Match:
    """A match of gRPC calls: by service, by method, by both, or by expressions of them."""
    service, method = random_.choice([*services, ""]), random_.choice([*methods, ""])
    if service and random_.random() < 0.3:
        service, path = f"{service}+", ir.PathMatch("RegularExpression", f"/(?:{service}+)/{method or '[^/]+'}")
    elif service:
        path = ir.PathMatch("Exact", f"/{service}/{method}") if method else ir.PathMatch("PathPrefix", f"/{service}")
    else:
        path = ir.PathMatch("RegularExpression", f"/[^/]+/{method}") if method else ir.PathMatch("PathPrefix", "/")
    headers = (ir.ValueMatch("x-one", random_.choice("12")),) if random_.random() < 0.4 else ()
    return ir.Match(path, headers=headers, call=(len(service), len(method)))


@pytest.mark.parametrize("banned", ["?", "&"])
def test_a_rewritten_expression_matches_what_it_did_but_for_one_character(banned: str) -> None:
    random_ = random.Random(banned)
    rewritten, differing = 0, 0
    for _ in range(500):
        pattern = expression(random_)
        new = without(pattern, banned)
        for _ in range(20 if new is not None else 0):
            text = "".join(random_.choice("ab/.?&A1") for _ in range(random_.randint(0, 6)))
            before, after = (re2.fullmatch(each, text) is not None for each in (pattern, new))
            assert after == (before and banned not in text), (pattern, new, text)
            differing += before != after
        rewritten += new is not None
    assert rewritten > 400
    assert differing > 20


def test_of_many_values_of_a_header_a_request_looks_at_few() -> None:
    one_header = [ir.Match(ir.PathMatch("PathPrefix", "/"), headers=(ir.ValueMatch("x", str(i)),)) for i in range(1000)]
    with_method = [ir.Match(match.path, method="GET", headers=match.headers) for match in one_header]
    host = VirtualHost.FromString(encoded([[*with_method, *one_header]]))
    for method, expected in (("GET", "0-999"), ("POST", "0-1999")):
        seen = Seen()
        assert found_by_tree(host, Request("/", method, {"x": "999"}), seen) == expected
        assert seen.steps < 20


def test_of_many_expressions_a_request_looks_at_few() -> None:
    apart = [ir.Match(ir.PathMatch("RegularExpression", f"/service-{i}/[0-9]+/x")) for i in range(1000)]
    alike = [ir.Match(ir.PathMatch("RegularExpression", f"/[a-z]+/[0-9]+/{i}")) for i in range(1000)]
    queries = [ir.Match(ir.PathMatch("PathPrefix", "/"), query=(ir.ValueMatch("p", str(i)),)) for i in range(1000)]
    for matches, target in ((apart, "/service-999/1/x"), (alike, "/a/1/999"), (queries, "/?p=999")):
        seen = Seen()
        host = VirtualHost.FromString(encoded([matches]))
        assert found_by_tree(host, Request(target), seen) == "0-999"
        assert seen.steps < 80
