# pyright: standard, reportAttributeAccessIssue=false
"""Matches of a rule to Envoy's RouteMatch (Gateway API: HTTPRouteMatch)."""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import HeaderMatcher, QueryParameterMatcher, RouteMatch
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from controlplane.ir import Match, PathMatch, ValueMatch


def route_match(match: Match) -> RouteMatch:
    """Returns the RouteMatch that holds for the same requests."""
    out = _path(match.path)
    if match.method is not None:
        out.headers.append(HeaderMatcher(name=":method", string_match=StringMatcher(exact=match.method)))
    out.headers.extend(HeaderMatcher(name=h.name, string_match=_string(h)) for h in match.headers)
    out.query_parameters.extend(QueryParameterMatcher(name=q.name, string_match=_string(q)) for q in match.query)
    return out


def _path(path: PathMatch) -> RouteMatch:
    if path.kind == "Exact":
        return RouteMatch(path=path.value)
    if path.kind == "RegularExpression":
        return RouteMatch(safe_regex=RegexMatcher(regex=path.value))
    if path.value == "/":
        return RouteMatch(prefix="/")
    return RouteMatch(path_separated_prefix=path.value)


def _string(value: ValueMatch) -> StringMatcher:
    if value.regex:
        return StringMatcher(safe_regex=RegexMatcher(regex=value.value))
    return StringMatcher(exact=value.value)
