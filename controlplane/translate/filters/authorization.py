# pyright: standard, reportAttributeAccessIssue=false
"""Who may do what, by Envoy's rbac filter: rules in order become one expression that tells who is let in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from itertools import groupby

from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.rbac.v3.rbac_pb2 import Permission, Policy, Principal, SourcedMetadata
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC, RBACPerRoute
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from envoy.type.matcher.v3.path_pb2 import PathMatcher
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.matcher.v3.value_pb2 import ListMatcher, OrMatcher, ValueMatcher
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.claims import METADATA
from controlplane.translate.filters import jwt
from controlplane.translate.wire import packed

NAME: str = "envoy.filters.http.rbac"
_EVERYBODY = Principal(any=True)


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(RBAC()), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns who is let in on a route; all others get 403."""
    asked = [each for each in (policies.authorization, policies.own_authorization) if each is not None]
    if not asked:
        return None
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
    parts = [part for part in map(_admitted, asked) if part is not None]
    if len(parts) == len(asked):
        admitted = _all(parts)
        policy = Policy(permissions=[Permission(any=True)], principals=[admitted])
        rules.policies["admitted"].CopyFrom(policy)
    return packed(RBACPerRoute(rbac=RBAC(rules=rules)))


def _admitted(authorization: ir.Authorization) -> Principal | None:
    """Folds the rules from the last to the first: `allow or rest`, `not deny and rest`; None is nobody."""
    rest = _EVERYBODY if authorization.default_allow else None
    runs = [(allow, list(rules)) for allow, rules in groupby(authorization.rules, key=lambda rule: rule.allow)]
    for allow, rules in reversed(runs):
        matches = [_matches(rule) for rule in rules]
        if allow:
            rest = rest if rest is _EVERYBODY else _any([*matches, *([rest] if rest is not None else [])])
        elif rest is not None:
            refused = Principal(not_id=_any(matches))
            rest = refused if rest is _EVERYBODY else _all([refused, rest])
    return rest


def _matches(rule: ir.AuthorizationRule) -> Principal:
    parts: list[Principal] = []
    if rule.cidrs:
        parts.append(_any([Principal(remote_ip=_cidr(each)) for each in rule.cidrs]))
    if rule.methods:
        parts.append(_header(":method", rule.methods))
    parts += [_header(name, values) for name, values in rule.headers]
    if rule.path is not None:
        parts.append(_path(rule.path))
    if rule.provider is not None:
        parts += [_claim(rule.provider, claim.claim.split("."), claim.values, claim.array) for claim in rule.claims]
        parts += [_claim(rule.provider, [jwt.SCOPE_CLAIM], (scope,), True) for scope in rule.scopes]
    return _all(parts) if parts else _EVERYBODY


def _any(parts: list[Principal]) -> Principal:
    return parts[0] if len(parts) == 1 else Principal(or_ids=Principal.Set(ids=parts))


def _all(parts: list[Principal]) -> Principal:
    return parts[0] if len(parts) == 1 else Principal(and_ids=Principal.Set(ids=parts))


def _cidr(text: str) -> CidrRange:
    network = ip_network(text, strict=False)
    return CidrRange(address_prefix=str(network.network_address), prefix_len={"value": network.prefixlen})


def _header(name: str, values: Iterable[str]) -> Principal:
    return _any(
        [Principal(header=HeaderMatcher(name=name, string_match=StringMatcher(exact=value))) for value in values]
    )


def _path(path: ir.PathRule) -> Principal:
    if path.kind == "Exact":
        found = _url(StringMatcher(exact=path.value))
    elif path.kind == "RegularExpression":
        found = _url(StringMatcher(safe_regex=RegexMatcher(regex=path.value)))
    elif path.value == "/":
        found = _EVERYBODY
    else:
        segments = re.escape(path.value.rstrip("/"))
        found = _url(StringMatcher(safe_regex=RegexMatcher(regex=f"{segments}(/.*)?")))
    return Principal(not_id=found) if path.invert else found


def _url(matcher: StringMatcher) -> Principal:
    return Principal(url_path=PathMatcher(path=matcher))


def _claim(provider: str, path: list[str], values: Iterable[str], array: bool) -> Principal:
    """Looks into the claims that jwt_authn has left of a token of this provider."""
    alternatives = [ValueMatcher(string_match=StringMatcher(exact=value)) for value in values]
    one = alternatives[0] if len(alternatives) == 1 else ValueMatcher(or_match=OrMatcher(value_matchers=alternatives))
    matcher = MetadataMatcher(
        filter=METADATA,
        path=[MetadataMatcher.PathSegment(key=key) for key in (provider, *path)],
        value=ValueMatcher(list_match=ListMatcher(one_of=one)) if array else one,
    )
    return Principal(sourced_metadata=SourcedMetadata(metadata_matcher=matcher))
