"""Faults of routes that Envoy would refuse: regular expressions, the Host header, characters of paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from controlplane.api.faults import Fault
from controlplane.api.grpcroute import GRPCRoute, GRPCRouteFilter, GRPCRouteMatch
from controlplane.api.httpfilters import HTTPHeaderFilter, HTTPPathModifier, HTTPRouteFilter
from controlplane.api.httproute import HTTPHeaderMatch, HTTPRoute, HTTPRouteMatch
from controlplane.api.httproutefilter import HTTPRouteFilter as RouteFilter
from controlplane.compile.regex import fault_of, groups_of

# A backslash before a digit is a group, before another backslash that character itself.
_GROUP = re.compile(r"\\(.?)", re.DOTALL)
_VISIBLE = re.compile(r"[!-~]*")


def check_route(route: HTTPRoute | GRPCRoute) -> Iterator[Fault]:
    """Yields what is wrong with a route, by field."""
    for index, rule in enumerate(route.spec.rules):
        field = f"spec.rules[{index}]"
        for position, match in enumerate(rule.matches):
            where = f"{field}.matches[{position}]"
            yield from _call(match, where) if isinstance(match, GRPCRouteMatch) else _match(match, where)
        if rule.filters:
            yield from _filters(rule.filters, f"{field}.filters")
        for position, backend in enumerate(rule.backend_refs):
            if backend.filters:
                yield from _filters(backend.filters, f"{field}.backendRefs[{position}].filters")


def check_route_filter(filter_: RouteFilter) -> Iterator[Fault]:
    """Yields what is wrong with a filter that routes refer to, by field."""
    rewrite = filter_.spec.url_rewrite
    if rewrite is None or rewrite.path is None:
        return
    field, change = "spec.urlRewrite.path.replaceRegexMatch", rewrite.path.replace_regex_match
    faults = tuple(_regex(change.pattern, f"{field}.pattern"))
    yield from faults
    if not faults:
        groups = groups_of(change.pattern)
        for found in _GROUP.findall(change.substitution):
            if found != "\\" and not (found.isdigit() and int(found) <= groups):
                message = f"the pattern has {groups} groups to refer to; got {change.substitution!r}"
                yield Fault(f"{field}.substitution", message)


def _match(match: HTTPRouteMatch, field: str) -> Iterator[Fault]:
    if match.path.type == "RegularExpression":
        yield from _regex(match.path.value, f"{field}.path.value")
    yield from _headers(match.headers, field)
    for index, param in enumerate(match.query_params):
        if param.type == "RegularExpression":
            yield from _regex(param.value, f"{field}.queryParams[{index}].value")


def _call(match: GRPCRouteMatch, field: str) -> Iterator[Fault]:
    if match.method is not None and match.method.type == "RegularExpression":
        for name, pattern in (("service", match.method.service), ("method", match.method.method)):
            if pattern:
                yield from _regex(pattern, f"{field}.method.{name}")
    yield from _headers(match.headers, field)


def _headers(headers: Sequence[HTTPHeaderMatch], field: str) -> Iterator[Fault]:
    for index, header in enumerate(headers):
        if header.type == "RegularExpression":
            yield from _regex(header.value, f"{field}.headers[{index}].value")


def _regex(pattern: str, field: str) -> Iterator[Fault]:
    reason = fault_of(pattern) if pattern else "it is empty"
    if reason is not None:
        yield Fault(field, f"expected a regular expression of RE2's syntax; got {pattern!r}: {reason}")


def _filters(filters: Sequence[HTTPRouteFilter | GRPCRouteFilter], field: str) -> Iterator[Fault]:
    for index, each in enumerate(filters):
        where = f"{field}[{index}]"
        if each.request_header_modifier is not None:
            yield from _host(each.request_header_modifier, f"{where}.requestHeaderModifier")
        if each.response_header_modifier is not None:
            yield from _host(each.response_header_modifier, f"{where}.responseHeaderModifier")
        if isinstance(each, GRPCRouteFilter):
            continue
        if each.url_rewrite is not None:
            yield from _path(each.url_rewrite.path, f"{where}.urlRewrite.path")
        if each.request_redirect is not None:
            yield from _path(each.request_redirect.path, f"{where}.requestRedirect.path")


def _host(edit: HTTPHeaderFilter, field: str) -> Iterator[Fault]:
    message = "Host cannot be changed by this filter; use a filter of type URLRewrite with a hostname"
    for name, headers in (("set", edit.set), ("add", edit.add)):
        for index, header in enumerate(headers):
            if header.name.lower() == "host":
                yield Fault(f"{field}.{name}[{index}].name", message)
    for index, header_name in enumerate(edit.remove):
        if header_name.lower() == "host":
            yield Fault(f"{field}.remove[{index}]", message)


def _path(path: HTTPPathModifier | None, field: str) -> Iterator[Fault]:
    if path is None:
        return
    for name, value in (("replaceFullPath", path.replace_full_path), ("replacePrefixMatch", path.replace_prefix_match)):
        if not value:
            continue
        if not value.startswith("/"):
            yield Fault(f"{field}.{name}", f"expected a path that starts with '/'; got {value!r}")
        elif _VISIBLE.fullmatch(value) is None:
            yield Fault(f"{field}.{name}", f"expected a path of visible characters (others as %XX); got {value!r}")
