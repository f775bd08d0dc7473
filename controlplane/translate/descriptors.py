# pyright: standard, reportAttributeAccessIssue=false
"""How a rule's selectors become descriptors: what Envoy says of a request, and what a limit asks for.

`actions` and `levels` go together: entry by entry, the one makes what the other expects. A selector that does not match
makes no entry, and a descriptor that lacks one is not sent, so that the rule does not count the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network

from envoy.config.route.v3.route_components_pb2 import HeaderMatcher, QueryParameterMatcher, RateLimit
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from controlplane import ir

RULE_KEY = "rule"
ROUTE_KEY = "route"
_MATCHED = "matched"
_HEADERS_KEY = "headers"
_QUERY_KEY = "query"
_SOURCE_KEY = "masked_remote_address"
_CLIENT_KEY = "remote_address"


def rate_limit(index: int, rule: ir.LimitRule, *, scope: str | None = None) -> RateLimit:
    """Returns the descriptor of a rule; with `scope`, a limit that is not shared counts for that alone."""
    message = RateLimit(actions=[_generic(RULE_KEY, str(index))])
    if scope is not None and not rule.shared:
        message.actions.append(_generic(ROUTE_KEY, scope))
    message.actions.extend(actions(rule))
    if rule.cost != 1:
        message.hits_addend.number.value = rule.cost
    return message


def actions(rule: ir.LimitRule) -> Iterable[RateLimit.Action]:
    """Yields what tells whether the rule is about a request, and what it counts apart."""
    matchers = [*_header_matchers(rule)]
    if matchers:
        match = RateLimit.Action.HeaderValueMatch(
            descriptor_key=_HEADERS_KEY, descriptor_value=_MATCHED, expect_match={"value": True}, headers=matchers
        )
        yield RateLimit.Action(header_value_match=match)
    for index, each in enumerate(rule.query):
        yield _query(each, index)
    for each in rule.headers:
        if each.kind == "Distinct":
            yield RateLimit.Action(
                request_headers=RateLimit.Action.RequestHeaders(header_name=each.name, descriptor_key=_header_key(each))
            )
    for source in rule.sources:
        network = ip_network(source.cidr, strict=False)
        v4 = isinstance(network, IPv4Network)
        lengths = {"v4_prefix_mask_len" if v4 else "v6_prefix_mask_len": {"value": network.prefixlen}}
        yield RateLimit.Action(masked_remote_address=RateLimit.Action.MaskedRemoteAddress(**lengths))
        if source.distinct:
            yield RateLimit.Action(remote_address=RateLimit.Action.RemoteAddress())


def levels(rule: ir.LimitRule) -> list[tuple[str, str]]:
    """Returns the entries that the limit of a rule expects, without a value where each has a counter of its own."""
    found: list[tuple[str, str]] = []
    if any(True for _ in _header_matchers(rule)):
        found.append((_HEADERS_KEY, _MATCHED))
    found += [(f"{_QUERY_KEY}{i}", "" if each.kind == "Distinct" else _MATCHED) for i, each in enumerate(rule.query)]
    found += [(_header_key(each), "") for each in rule.headers if each.kind == "Distinct"]
    for source in rule.sources:
        found.append((_SOURCE_KEY, str(ip_network(source.cidr, strict=False))))
        if source.distinct:
            found.append((_CLIENT_KEY, ""))
    return found


def _header_key(selector: ir.ValueSelector) -> str:
    return f"header_{selector.name.lower()}"


def _generic(key: str, value: str) -> RateLimit.Action:
    return RateLimit.Action(generic_key=RateLimit.Action.GenericKey(descriptor_key=key, descriptor_value=value))


def _query(selector: ir.ValueSelector, index: int) -> RateLimit.Action:
    key = f"{_QUERY_KEY}{index}"
    if selector.kind == "Distinct":
        found = RateLimit.Action.QueryParameters(query_parameter_name=selector.name, descriptor_key=key)
        return RateLimit.Action(query_parameters=found)
    match = RateLimit.Action.QueryParameterValueMatch(
        descriptor_key=key,
        descriptor_value=_MATCHED,
        expect_match={"value": not selector.invert},
        query_parameters=[QueryParameterMatcher(name=selector.name, string_match=_string(selector))],
    )
    return RateLimit.Action(query_parameter_value_match=match)


def _header_matchers(rule: ir.LimitRule) -> Iterable[HeaderMatcher]:
    for each in rule.headers:
        if each.kind != "Distinct":
            yield HeaderMatcher(name=each.name, string_match=_string(each), invert_match=each.invert)
    for path in rule.paths:
        yield HeaderMatcher(name=":path", string_match=_path(path), invert_match=path.invert)
    method = _method(rule.methods)
    if method is not None:
        yield method


def _method(methods: tuple[tuple[str, bool], ...]) -> HeaderMatcher | None:
    """Returns what matches one of several methods or their opposites; None where every method does."""
    wanted = {method for method, invert in methods if not invert}
    unwanted = {method for method, invert in methods if invert}
    if not methods or len(unwanted) > 1 or unwanted & wanted:
        return None
    if unwanted:
        return HeaderMatcher(name=":method", string_match=StringMatcher(exact=unwanted.pop()), invert_match=True)
    expression = "|".join(sorted(wanted))
    return HeaderMatcher(name=":method", string_match=StringMatcher(safe_regex=RegexMatcher(regex=expression)))


def _path(path: ir.PathRule) -> StringMatcher:
    """Matches `:path`, which carries the query too."""
    if path.kind == "RegularExpression":
        expression = f"({path.value})(\\?.*)?"
    elif path.kind == "Exact":
        expression = f"{re.escape(path.value)}(\\?.*)?"
    else:
        expression = f"{re.escape(path.value.rstrip('/'))}([/?].*)?"
    return StringMatcher(safe_regex=RegexMatcher(regex=expression))


def _string(selector: ir.ValueSelector) -> StringMatcher:
    if selector.kind == "RegularExpression":
        return StringMatcher(safe_regex=RegexMatcher(regex=selector.value))
    return StringMatcher(exact=selector.value)
